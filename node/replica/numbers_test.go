package replica

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
)

// partition is that of key.
func (r *rig) partition() uint16 { return r.slot(key).Partition }

func (r *rig) raiseTo(to uint64) {
	r.tb.Helper()
	if err := r.Raise(r.tb.Context(), r.partition(), to); err != nil {
		r.tb.Fatal(err)
	}
}

// staleNumber is the number that a refusal names, zero if err is none.
func staleNumber(err error) uint64 {
	if stale, ok := errors.AsType[*coordinator.StaleReapError](err); ok {
		return stale.Number
	}
	return 0
}

func TestNumbersAreDurable(t *testing.T) {
	r := newRig(t, storage.Options{})
	if n := r.Number(r.partition()); n != 0 {
		t.Fatalf("begins at %d", n)
	}
	for _, to := range []uint64{3, 2, 3, 300} {
		r.raiseTo(to)
	}
	r.disk.Crash(memory.LoseAll)
	r.open(storage.Options{})
	if n := r.Number(r.partition()); n != 300 {
		t.Errorf("%d after a crash", n)
	}
	if n := r.Number(r.partition() + 1); n != 0 {
		t.Errorf("%d of another partition", n)
	}
	if rec, n, err := r.Read(r.slot(key)); !rec.Absent() || n != 300 || err != nil {
		t.Errorf("read %v, %d, %v", rec, n, err)
	}
	if got, err := r.Fetch(coordinator.FetchRequest{Fence: r.fence(), Key: key}); got.Reap != 300 || err != nil {
		t.Errorf("fetched %v, %v", got, err)
	}
}

// Who reads may name the number that must be known before; a node that is not
// registered does not learn it, and the answer shows that.
func TestFetchHeedsTheNumber(t *testing.T) {
	for _, unregistered := range []bool{false, true} {
		r := newRig(t, storage.Options{})
		r.raiseTo(3)
		r.ledger.set(func() { r.ledger.unregistered = unregistered })
		for _, tt := range []struct{ asked, want uint64 }{{0, 3}, {2, 3}, {5, 5}} {
			if unregistered {
				tt.want = 3
			}
			got, err := r.Fetch(coordinator.FetchRequest{Fence: r.fence(), Key: key, Reap: tt.asked})
			if err != nil || got.Reap != tt.want || r.Number(r.partition()) != tt.want {
				t.Errorf("unregistered %v, asked for %d: %d, %v", unregistered, tt.asked, got.Reap, err)
			}
		}
	}
}

func TestDamagedNumber(t *testing.T) {
	r := newRig(t, storage.Options{})
	done := make(chan error, 1)
	damage := func([]byte) ([]byte, error) { return []byte{1, 2}, nil }
	if err := r.store.SubmitMeta(reapFact(r.partition()), damage, true, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := r.Raise(t.Context(), r.partition(), 9); err == nil {
		t.Error("raised what cannot be read")
	}
	if _, err := New(Config{Store: r.store}); err == nil {
		t.Error("opened with a number that cannot be read")
	}
}

// What was read under a lower number is refused, whichever way it comes, and
// nothing is done; under an equal or higher one it is taken.
func TestStaleNumbersAreRefused(t *testing.T) {
	rec, _ := written(kv.Record{}, 1, "v", 3)
	for name, take := range map[string]func(r *rig, reap uint64) error{
		"store": func(r *rig, reap uint64) error { return r.put(coordinator.StoreRequest{Reap: reap}, rec) },
		"hint": func(r *rig, reap uint64) error {
			return r.put(coordinator.StoreRequest{Reap: reap, Target: 2}, rec)
		},
		"parcel": func(r *rig, reap uint64) error {
			return r.MergeParcels(t.Context(), r.view.Digest(), []kv.Parcel{{Key: key, Reap: reap, Record: kv.AppendRecord(nil, rec)}}, nil)[0]
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, storage.Options{})
			r.raiseTo(7)
			if err := take(r, 6); staleNumber(err) != 7 {
				t.Errorf("under 6: %v", err)
			}
			if got := r.fetch(true); !got.Absent() {
				t.Errorf("something was stored: %v", got)
			}
			for _, reap := range []uint64{7, 8} {
				if err := take(r, reap); err != nil {
					t.Errorf("under %d: %v", reap, err)
				}
			}
			if got := r.fetch(true); len(got.Live) != 1 || r.Number(r.partition()) != 7 {
				t.Errorf("holds %v, number %d", got, r.Number(r.partition()))
			}
		})
	}
}

// blocked makes the store wait within an update, until the returned function is
// called; what is submitted meanwhile goes into one round after it.
func (r *rig) blocked() (release func()) {
	begun, end := make(chan bool), make(chan bool)
	ended := make(chan error, 1)
	go func() {
		ended <- r.assign(func(old coordinator.Held) (kv.Record, []kv.Blob, error) {
			close(begun)
			<-end
			return old.Record, nil, nil
		})
	}()
	<-begun
	return func() {
		close(end)
		if err := <-ended; err != nil {
			r.tb.Error(err)
		}
	}
}

// A number holds from its place in the serial order, and leaves the node once it
// is on the disk: within one round, a record that comes behind it is refused, and
// a dot is given under it in the next.
func TestNumbersInOneRound(t *testing.T) {
	r := newRig(t, storage.Options{})
	rec, _ := written(kv.Record{}, 1, "v", 3)
	release := r.blocked()
	raised, stored, assigned, looked := make(chan error, 1), make(chan error, 1), make(chan error, 1), make(chan error, 1)
	var seen []uint64
	if err := r.raise(r.partition(), 5, func(err error) { raised <- err }); err != nil {
		t.Fatal(err)
	}
	late := coordinator.StoreRequest{Fence: r.fence(), Key: key, Reap: 4, Record: kv.AppendRecord(nil, rec)}
	r.Store(late, func(err error) { stored <- err })
	look := func(*storage.Tx) error {
		_, leaves, err := r.Read(r.slot(key))
		seen = append(seen, r.Number(r.partition()), leaves)
		return err
	}
	if err := r.store.SubmitStep(storage.Step{Run: look, Done: func(err error) { looked <- err }}); err != nil {
		t.Fatal(err)
	}
	err := r.Assign(coordinator.AssignRequest{
		Slot: r.slot(key), Fence: r.view.Digest(), Done: func(err error) { assigned <- err },
		Decide: func(old coordinator.Held) (kv.Record, []kv.Blob, error) {
			seen = append(seen, old.Reap, r.Number(r.partition()))
			return old.Record, nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := errors.Join(<-raised, <-looked, <-assigned); err != nil {
		t.Error(err)
	}
	if err := <-stored; staleNumber(err) != 5 {
		t.Errorf("a record that comes behind the number: %v", err)
	}
	if !slices.Equal(seen, []uint64{5, 0, 5, 5}) {
		t.Errorf("known and going out in the same round, then decided under and known: %v", seen)
	}
}

// A number that could not be stored is not kept in memory either.
func TestNumberThatIsNotStored(t *testing.T) {
	r := newRig(t, storage.Options{})
	r.raiseTo(3)
	r.disk.SetCapacity(1)
	if err := r.Raise(t.Context(), r.partition(), 4); err == nil {
		t.Fatal("stored on a full disk")
	}
	r.disk.SetCapacity(0)
	if n, settled := r.numbers.settled(r.partition()); n != 3 || !settled {
		t.Errorf("%d, settled %v", n, settled)
	}
	r.raiseTo(4)
}

// Whatever order changes are learnt and settled in, the known number is never
// under the stored one, and equal once nothing is pending.
func TestNumbersSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := numbers{of: make(map[uint16]number)}
		var pending []uint64
		var highest uint64
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			if len(pending) == 0 || rapid.Bool().Draw(t, "learn") {
				to := n.get(1).known + rapid.Uint64Range(1, 3).Draw(t, "more")
				n.learn(1, to)
				pending = append(pending, to)
			} else {
				var err error
				if rapid.Bool().Draw(t, "fails") {
					err = errors.New("input/output error")
				} else {
					highest = max(highest, pending[0])
				}
				n.settle(1, pending[0], err)
				pending = pending[1:]
			}
			known, settled := n.settled(1)
			stored := n.stored(1)
			if stored != highest || known < stored || len(pending) == 0 && !settled {
				t.Fatalf("known %d, stored %d, highest %d, pending %v", known, stored, highest, pending)
			}
			if err := n.check(1, known); err != nil || known > 0 && staleNumber(n.check(1, known-1)) != known {
				t.Fatalf("check under %d: %v", known, err)
			}
		}
	})
}
