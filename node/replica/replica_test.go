package replica

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const self = kv.NodeID(1)

var key = kv.Key{Bucket: "b", Name: "k"}

// rig is a replica over a store in memory.
type rig struct {
	*Replica
	tb     testing.TB
	disk   *memory.Disk
	engine storage.Engine
	view   ring.View
	ledger *ledger
	// suspects are the partitions and leaves that were to be checked.
	suspects [][2]int
	// asked is told of each look at the view, the first being 1, and may change it.
	asked func(nth int)
	looks int
}

func newRig(tb testing.TB, options storage.Options) *rig {
	tb.Helper()
	r := &rig{tb: tb, disk: memory.New(), view: viewOf(tb, 3, 1), ledger: newLedger()}
	r.open(options)
	return r
}

func (r *rig) open(o storage.Options) {
	r.tb.Helper()
	random := rand.New(rand.NewPCG(1, uint64(r.looks)))
	clock := time.Unix(1, 0)
	o.Random, o.Now = random.Uint64, func() time.Time {
		clock = clock.Add(time.Second)
		return clock
	}
	r.engine = r.disk.Open()
	store, err := storage.Open(r.engine, o)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { _ = store.Close() })
	r.Replica, err = New(Config{
		Self: self, Store: store, View: r.current, Sync: true, Standing: r.ledger, Log: zap.NewNop(),
		Suspect: func(partition uint16, leaf uint8) { r.suspects = append(r.suspects, [2]int{int(partition), int(leaf)}) },
	})
	if err != nil {
		r.tb.Fatal(err)
	}
}

func (r *rig) current() ring.View {
	if r.looks++; r.asked != nil {
		r.asked(r.looks)
	}
	return r.view
}

// viewOf is the view of a cluster of so many members, in its version.
func viewOf(tb testing.TB, size int, version uint64) ring.View {
	tb.Helper()
	v, err := ring.View{}.With(layoutOf(tb, size, version, nil))
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func layoutOf(tb testing.TB, size int, version uint64, prev *ring.Layout) *ring.Layout {
	tb.Helper()
	members := make([]ring.Member, size)
	for i := range members {
		name := string(rune('a' + i))
		members[i] = ring.Member{ID: kv.NodeID(i + 1), Name: name, Address: name + ":1", Weight: 1}
	}
	l, err := ring.Compute(ring.ClusterID{7}, version, members, 16, prev)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// keyOwned returns a key of which this node is the nth owner, from 0.
func (r *rig) keyOwned(nth int) kv.Key {
	l := r.view.Active()[0]
	for i := range 1000 {
		k := kv.Key{Bucket: "b", Name: string(rune('a' + i))}
		if l.Owners(l.Partition(k.Hash()))[nth] == self {
			return k
		}
	}
	r.tb.Fatal("no such key")
	return kv.Key{}
}

func (r *rig) fence() coordinator.Fence { return coordinator.Fence{Digest: r.view.Digest()} }

func (r *rig) put(req coordinator.StoreRequest, rec kv.Record) error {
	if req.Fence.Digest == 0 {
		req.Fence = r.fence()
	}
	if req.Key == (kv.Key{}) {
		req.Key = key
	}
	req.Record = kv.AppendRecord(nil, rec)
	done := make(chan error, 2)
	r.Store(req, func(err error) { done <- err })
	return <-done
}

func (r *rig) fetch(standIn bool) kv.Record {
	r.tb.Helper()
	got, err := r.Fetch(coordinator.FetchRequest{Fence: r.fence(), Key: key, StandIn: standIn})
	if err != nil || !got.Standing {
		r.tb.Fatal(got, err)
	}
	return got.Record
}

// assign makes one update with decide and returns what Assign and its done say.
func (r *rig) assign(decide func(old coordinator.Held) (kv.Record, []kv.Blob, error)) error {
	done := make(chan error, 2)
	err := r.Assign(coordinator.AssignRequest{
		Slot: slotOf(r.view, key, 0), Fence: r.view.Digest(), Decide: decide, Done: func(err error) { done <- err },
	})
	if err != nil {
		return err
	}
	return <-done
}

// written is base after a write of s by actor, beside what is there.
func written(base kv.Record, actor vclock.Actor, s string, n uint8) (kv.Record, kv.Blob) {
	v := kv.Sibling{Kind: kv.KindValue, N: n, Length: uint64(len(s)), Checksum: kv.Checksum([]byte(s)), Inline: []byte(s)}
	if len(s) > kv.InlineLimit {
		v.External, v.Inline = true, nil
	}
	base.Mine = kv.Mine{}
	next, dot := base.Put(v, nil, 1, func() vclock.Actor { return actor }, time.Time{})
	next.Mine = kv.Mine{}
	return next, kv.Blob{Dot: dot, Data: []byte(s)}
}

func texts(r kv.Record) []string {
	list := make([]string, 0, len(r.Live))
	for _, v := range r.Live {
		list = append(list, string(v.Value.Inline))
	}
	slices.Sort(list)
	return list
}

func TestStoreMerges(t *testing.T) {
	r := newRig(t, storage.Options{})
	a, _ := written(kv.Record{}, 1, "a", 3)
	b, _ := written(kv.Record{}, 2, "b", 3)
	for range 2 {
		for _, rec := range []kv.Record{a, b} {
			if err := r.put(coordinator.StoreRequest{}, rec); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := texts(r.fetch(false)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("holds %q", got)
	}
	if rec := r.fetch(false); rec.Mine != (kv.Mine{}) || rec.NMax != 3 {
		t.Errorf("answers %+v", rec)
	}
	if err := r.put(coordinator.StoreRequest{}, kv.Record{NMax: 3}); err != nil {
		t.Error(err)
	}
	done := make(chan error, 1)
	r.Store(coordinator.StoreRequest{Fence: r.fence(), Key: key, Record: []byte{9}}, func(err error) { done <- err })
	if err := <-done; err == nil {
		t.Error("took a record that does not decode")
	}
}

// Whatever arrives in whatever order, a replica holds the merge of it, and keeps
// its own actor.
func TestStoreIsTheMerge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, storage.Options{})
		sent := []kv.Record{{}}
		var want kv.Record
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			rec := rapid.SampledFrom(sent).Draw(rt, "of")
			switch rapid.IntRange(0, 2).Draw(rt, "step") {
			case 0: // somebody writes
				actor := vclock.Actor(rapid.Uint64Range(1, 4).Draw(rt, "actor"))
				next, _ := written(want.Merge(rec), actor, "v", uint8(rapid.IntRange(3, 5).Draw(rt, "n")))
				sent = append(sent, next)
			case 1: // it arrives
				if err := r.put(coordinator.StoreRequest{}, rec); err != nil && rec.NMax > 0 {
					rt.Fatal(err)
				}
				if rec.NMax > 0 {
					want = want.Merge(rec)
				}
			case 2: // this replica writes
				err := r.assign(func(old coordinator.Held) (kv.Record, []kv.Blob, error) {
					mint := func() vclock.Actor { return 9 }
					next, _ := old.Record.Put(kv.Sibling{Kind: kv.KindTombstone, N: 3}, old.Record.Clock, old.Boot, mint, time.Time{})
					want = want.Merge(next)
					return next, nil, nil
				})
				if err != nil {
					rt.Fatal(err)
				}
			}
			if got := r.fetch(false); !bytes.Equal(kv.AppendRecord(nil, got), kv.AppendRecord(nil, want)) {
				rt.Fatalf("holds\n%+v\nwant\n%+v", got, want)
			}
		}
		if r.ReusedDots() > 0 {
			rt.Fatal("an alarm without a reason")
		}
	})
}

func TestStoreAsksForValues(t *testing.T) {
	r := newRig(t, storage.Options{})
	big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
	a, blob := written(kv.Record{}, 1, big, 3)
	err := r.put(coordinator.StoreRequest{}, a)
	var missing *coordinator.MissingBlobsError
	if !errors.As(err, &missing) || !slices.Equal(missing.Dots, []vclock.Dot{blob.Dot}) {
		t.Fatalf("without the value: %v", err)
	}
	if !r.fetch(false).Absent() {
		t.Error("something was stored")
	}
	if err := r.put(coordinator.StoreRequest{Blobs: []kv.Blob{{Dot: blob.Dot, Data: []byte("other")}}}, a); err == nil {
		t.Error("took another value in its place")
	}
	if err := r.put(coordinator.StoreRequest{Blobs: []kv.Blob{blob}}, a); err != nil {
		t.Fatal(err)
	}
	// It is held now, and not asked for again.
	b, _ := written(a, 2, "small", 3)
	if err := r.put(coordinator.StoreRequest{}, b); err != nil {
		t.Error(err)
	}
	req := coordinator.ValueRequest{Fence: r.fence(), Key: key, Dot: blob.Dot, Length: uint64(len(big)), Checksum: kv.Checksum([]byte(big))}
	got, err := r.Value(req)
	if err != nil || string(got) != big {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := r.ValueOf(key, 0, b.Live[0]); err != nil || string(got) != big {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := r.ValueOf(key, 0, b.Live[1]); err != nil || string(got) != "small" {
		t.Errorf("%q, %v", got, err)
	}
	// Nor for what the record has seen replaced.
	c, _ := a.Put(kv.Sibling{Kind: kv.KindTombstone, N: 3}, a.Clock, 1, func() vclock.Actor { return 3 }, time.Time{})
	if err := r.put(coordinator.StoreRequest{}, c); err != nil {
		t.Error(err)
	}
	if _, err := r.Value(req); err == nil {
		t.Error("the value is still there")
	}
	if err := r.put(coordinator.StoreRequest{}, a); err != nil {
		t.Errorf("a late copy of the old record: %v", err)
	}
}

// A node holds what it owns, and hints for owners: the rest nobody would look
// for.
func TestStoreOfAStranger(t *testing.T) {
	r := newRig(t, storage.Options{})
	r.view = viewOf(t, 4, 1)
	k := r.keyOwned(3)
	rec, _ := written(kv.Record{}, 1, "v", 3)
	owner := r.view.Active()[0].Owners(r.view.Active()[0].Partition(k.Hash()))[0]
	for _, tt := range []struct {
		name   string
		target kv.NodeID
		n      uint8
		taken  bool
	}{
		{"not owned", 0, 3, false},
		{"owned by a wide record", 0, 4, true},
		{"for an owner", owner, 3, true},
		{"for a node that owns nothing of it", self, 3, false},
		{"for a node that nobody knows", 99, 3, false},
	} {
		rec.NMax = tt.n
		err := r.put(coordinator.StoreRequest{Key: k, Target: tt.target}, rec)
		if (err == nil) != tt.taken || err != nil && !errors.Is(err, coordinator.ErrNotOwner) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestHints(t *testing.T) {
	r := newRig(t, storage.Options{})
	own, _ := written(kv.Record{}, 1, "own", 3)
	for2, _ := written(kv.Record{}, 2, "for 2", 3)
	big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
	for3, blob := written(for2, 3, big, 3)
	for target, rec := range map[kv.NodeID]kv.Record{0: own, 2: for2, 3: for3} {
		if err := r.put(coordinator.StoreRequest{Target: target, Blobs: []kv.Blob{blob}}, rec); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(r.fetch(false)); !slices.Equal(got, []string{"own"}) {
		t.Errorf("as an owner it holds %q", got)
	}
	if got := texts(r.fetch(true)); !slices.Equal(got, []string{"", "for 2", "own"}) {
		t.Errorf("as a stand-in it holds %q", got)
	}
	req := coordinator.ValueRequest{Fence: r.fence(), Key: key, Dot: blob.Dot, Length: uint64(len(big)), Checksum: kv.Checksum([]byte(big))}
	if _, err := r.Value(req); err == nil {
		t.Error("gave the value of a hint as an owner")
	}
	req.StandIn = true
	if got, err := r.Value(req); err != nil || string(got) != big {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	held, hints, err := r.Holds(key)
	if err != nil || !slices.Equal(texts(held), []string{"own"}) || len(hints) != 2 || len(hints[3].Live) != 2 {
		t.Errorf("%v, %v, %v", held, hints, err)
	}
	if got, err := r.ValueOf(key, 3, for3.Live[1]); err != nil || string(got) != big {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A request under another view is refused: at the door, and again in the order
// of the store, between which the view may have changed.
func TestFence(t *testing.T) {
	old, next := viewOf(t, 3, 1), viewOf(t, 3, 2)
	rec, blob := written(kv.Record{}, 1, "v", 3)
	for _, learnt := range []int{1, 2} { // at which look at the view it is new
		r := newRig(t, storage.Options{})
		fence := coordinator.Fence{Digest: old.Digest()}
		calls := map[string]func() error{
			"store": func() error { return r.put(coordinator.StoreRequest{Fence: fence}, rec) },
		}
		if learnt == 1 {
			calls["fetch"] = func() error {
				_, err := r.Fetch(coordinator.FetchRequest{Fence: fence, Key: key})
				return err
			}
			calls["value"] = func() error {
				_, err := r.Value(coordinator.ValueRequest{Fence: fence, Key: key, Dot: blob.Dot})
				return err
			}
			calls["assign"] = func() error {
				done := make(chan error, 2)
				err := r.Assign(coordinator.AssignRequest{
					Slot: slotOf(old, key, 0), Fence: old.Digest(), Done: func(err error) { done <- err },
					Decide: func(coordinator.Held) (kv.Record, []kv.Blob, error) {
						t.Error("decided under another view")
						return rec, nil, nil
					},
				})
				if err != nil {
					return err
				}
				return <-done
			}
		}
		for name, call := range calls {
			r.view, r.looks = old, 0
			r.asked = func(nth int) {
				if nth >= learnt {
					r.view = next
				}
			}
			var stale *coordinator.StaleViewError
			if err := call(); !errors.As(err, &stale) || stale.View.Digest() != next.Digest() {
				t.Errorf("%s, learnt at look %d: %v", name, learnt, err)
			}
		}
		r.asked = nil
		if !r.fetch(false).Absent() {
			t.Error("something was stored under another view")
		}
	}
}

func TestAssign(t *testing.T) {
	r := newRig(t, storage.Options{})
	decide := func(s string) func(old coordinator.Held) (kv.Record, []kv.Blob, error) {
		return func(old coordinator.Held) (kv.Record, []kv.Blob, error) {
			next, _ := old.Record.Put(kv.Sibling{Kind: kv.KindValue, N: 3, Length: 1, Checksum: kv.Checksum([]byte(s)), Inline: []byte(s)},
				nil, old.Boot, func() vclock.Actor { return 7 }, time.Time{})
			return next, nil, nil
		}
	}
	for _, s := range []string{"a", "b"} {
		if err := r.assign(decide(s)); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.fetch(false); !slices.Equal(texts(got), []string{"a", "b"}) || got.Clock.Counter(7) != 2 {
		t.Errorf("holds %+v", got)
	}
	refusal := errors.New("no")
	err := r.assign(func(old coordinator.Held) (kv.Record, []kv.Blob, error) { return old.Record, nil, refusal })
	if !errors.Is(err, refusal) {
		t.Errorf("a refusal: %v", err)
	}
	err = r.assign(func(old coordinator.Held) (kv.Record, []kv.Blob, error) { return old.Record, nil, nil })
	if err != nil {
		t.Errorf("nothing to change: %v", err)
	}
}

// A dot that was given may have been sent, whether its commit succeeded or not.
// It must not be given again.
func TestDotsAreNotGivenTwice(t *testing.T) {
	for name, fail := range map[string]struct {
		blobs []kv.Blob
		plan  func(*memory.Disk)
	}{
		"the commit fails":       {nil, func(d *memory.Disk) { d.FailCommit(1, errors.New("input/output error")) }},
		"the disk is full":       {nil, func(d *memory.Disk) { d.SetCapacity(1) }},
		"the value is not right": {[]kv.Blob{{Dot: vclock.Dot{Actor: 1, Counter: 1}, Data: []byte("other")}}, func(*memory.Disk) {}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, storage.Options{})
			minted := vclock.Actor(0)
			var boots []uint64
			write := func(blobs []kv.Blob) error {
				return r.assign(func(old coordinator.Held) (kv.Record, []kv.Blob, error) {
					boots = append(boots, old.Boot)
					s := kv.Sibling{Kind: kv.KindValue, N: 3, Inline: []byte{}}
					if blobs != nil {
						s = kv.Sibling{Kind: kv.KindValue, N: 3, Length: 1, External: true}
					}
					next, _ := old.Record.Put(s, nil, old.Boot, func() vclock.Actor { minted++; return minted }, time.Time{})
					return next, blobs, nil
				})
			}
			fail.plan(r.disk)
			if err := write(fail.blobs); err == nil {
				t.Fatal("it succeeded")
			}
			r.disk.SetCapacity(0)
			if err := write(nil); err == nil && boots[0] == boots[1] {
				t.Error("the next write goes on under the same boot")
			}
		})
	}
}

// That others know of events which this node alone could have made, and did not,
// means that its disk runs twice.
func TestReusedDots(t *testing.T) {
	r := newRig(t, storage.Options{})
	var mine kv.Mine
	write := func() {
		err := r.assign(func(old coordinator.Held) (kv.Record, []kv.Blob, error) {
			next, _ := old.Record.Put(kv.Sibling{Kind: kv.KindTombstone, N: 3}, nil, old.Boot, func() vclock.Actor { return 7 }, time.Time{})
			mine = next.Mine
			return next, nil, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	write()
	twin, _ := written(r.fetch(false), mine.Actor, "from the copy", 3)
	if err := r.put(coordinator.StoreRequest{}, twin); err != nil {
		t.Fatal(err)
	}
	if n := r.ReusedDots(); n != 1 {
		t.Errorf("%d alarms", n)
	}
	own, _, err := r.Holds(key)
	if err != nil || own.Mine != (kv.Mine{}) || len(own.Live) != 2 {
		t.Errorf("holds %+v, %v", own, err)
	}
}

func TestDurability(t *testing.T) {
	rec, _ := written(kv.Record{}, 1, "v", 3)
	for _, tt := range []struct {
		sync   bool
		choice coordinator.Durability
		kept   bool
	}{
		{true, coordinator.DurabilityDefault, true},
		{true, coordinator.DurabilityAsync, false},
		{false, coordinator.DurabilityDefault, false},
		{false, coordinator.DurabilitySync, true},
	} {
		r := newRig(t, storage.Options{})
		r.sync = tt.sync
		if err := r.put(coordinator.StoreRequest{Durability: tt.choice}, rec); err != nil {
			t.Fatal(err)
		}
		r.disk.Crash(memory.LoseAll)
		r.open(storage.Options{})
		if kept := !r.fetch(false).Absent(); kept != tt.kept {
			t.Errorf("sync %v, asked %v: kept %v", tt.sync, tt.choice, kept)
		}
	}
}

func TestRefusalsOfTheStore(t *testing.T) {
	rec, _ := written(kv.Record{}, 1, "v", 3)
	refused := func(err error, code kv.Code) {
		t.Helper()
		var e *kv.Error
		if !errors.As(err, &e) || e.Code != code || e.Outcome != kv.NotApplied || e.RetryAfter == 0 {
			t.Errorf("%v, want %s", err, code)
		}
	}
	free := uint64(1 << 30)
	full := newRig(t, storage.Options{Free: func() (uint64, error) { return free, nil }, LowWater: 1 << 20})
	free = 1
	refused(full.put(coordinator.StoreRequest{}, rec), kv.CodeDiskFull)
	refused(full.assign(nil), kv.CodeDiskFull)

	// The queue is bounded in bytes as well as in updates.
	busy := newRig(t, storage.Options{QueueBytes: 1000})
	begun, release := make(chan bool), make(chan bool)
	go func() {
		_ = busy.assign(func(old coordinator.Held) (kv.Record, []kv.Blob, error) {
			close(begun)
			<-release
			return old.Record, nil, nil
		})
	}()
	<-begun
	queued := make(chan error, 2)
	blobs := []kv.Blob{{Dot: vclock.Dot{Actor: 1, Counter: 1}, Data: make([]byte, 600)}}
	for range 2 {
		busy.Store(coordinator.StoreRequest{Fence: busy.fence(), Key: key, Record: kv.AppendRecord(nil, rec), Blobs: blobs},
			func(err error) { queued <- err })
	}
	refused(<-queued, kv.CodeOverloaded)
	refused(busy.Assign(coordinator.AssignRequest{Slot: slotOf(busy.view, key, 0), Fence: busy.view.Digest(), Size: 600}), kv.CodeOverloaded)
	close(release)
	if err := <-queued; err != nil {
		t.Error(err)
	}
}
