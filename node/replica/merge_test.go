package replica

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
	"github.com/starling-kv/starling/reap"
	"github.com/starling-kv/starling/vclock"
)

// mergeOf merges records of key, as they come from a node that knows blobs.
func (r *rig) mergeOf(blobs []kv.Blob, records ...kv.Record) []error {
	parcels := make([]kv.Parcel, len(records))
	for i, rec := range records {
		parcels[i] = kv.Parcel{Key: key, Record: kv.AppendRecord(nil, rec)}
	}
	return r.MergeParcels(r.tb.Context(), r.view.Digest(), parcels, valuesOf(blobs))
}

var errGone = errors.New("the value is gone")

func valuesOf(blobs []kv.Blob) Values {
	return func(_ context.Context, _ kv.Key, v kv.Version) ([]byte, error) {
		i := slices.IndexFunc(blobs, func(b kv.Blob) bool { return b.Dot == v.Dot })
		if i < 0 {
			return nil, errGone
		}
		return blobs[i].Data, nil
	}
}

func TestMergeParcels(t *testing.T) {
	r := newRig(t, storage.Options{})
	a, _ := written(kv.Record{}, 1, "a", 3)
	b, _ := written(kv.Record{}, 2, "b", 3)
	if err := errors.Join(r.mergeOf(nil, a, b, a)...); err != nil {
		t.Fatal(err)
	}
	if got := texts(r.fetch(false)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("holds %q", got)
	}
	errs := r.MergeParcels(t.Context(), r.view.Digest(), []kv.Parcel{{Key: key, Record: []byte{9}}, {Key: key}}, nil)
	if errs[0] == nil || errs[1] != nil {
		t.Errorf("a parcel that does not decode, and an empty one: %v", errs)
	}
	stale := r.MergeParcels(t.Context(), 1, []kv.Parcel{{Key: key}}, nil)
	if _, ok := errors.AsType[*coordinator.StaleViewError](stale[0]); !ok {
		t.Errorf("under another view: %v", stale)
	}
}

// What was merged is on the disk after Sync.
func TestSync(t *testing.T) {
	a, _ := written(kv.Record{}, 1, "a", 3)
	for _, synced := range []bool{false, true} {
		r := newRig(t, storage.Options{})
		if err := errors.Join(r.mergeOf(nil, a)...); err != nil {
			t.Fatal(err)
		}
		if synced {
			if err := r.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		r.disk.Crash(memory.LoseAll)
		r.open(storage.Options{})
		if kept := !r.fetch(false).Absent(); kept != synced {
			t.Errorf("synced %v, kept %v", synced, kept)
		}
	}
}

// A node takes what it owns, and more of what it holds; the view may change on
// the way to the serial order.
func TestMergeOfAStranger(t *testing.T) {
	r := newRig(t, storage.Options{})
	r.view = viewOf(t, 4, 1)
	k := r.keyOwned(3)
	narrow, _ := written(kv.Record{}, 1, "v", 3)
	wide, _ := written(kv.Record{}, 2, "w", 4)
	take := func(rec kv.Record) error {
		return r.MergeParcels(t.Context(), r.view.Digest(), []kv.Parcel{{Key: k, Record: kv.AppendRecord(nil, rec)}}, nil)[0]
	}
	if err := take(narrow); !errors.Is(err, coordinator.ErrNotOwner) {
		t.Errorf("not owned: %v", err)
	}
	for _, rec := range []kv.Record{wide, narrow} {
		if err := take(rec); err != nil {
			t.Errorf("owned or held: %v", err)
		}
	}
	old, next := r.view, viewOf(t, 4, 2)
	r.looks, r.asked = 0, func(nth int) {
		if nth >= 2 {
			r.view = next
		}
	}
	errs := r.MergeParcels(t.Context(), old.Digest(), []kv.Parcel{{Key: k, Record: kv.AppendRecord(nil, narrow)}}, nil)
	if _, ok := errors.AsType[*coordinator.StaleViewError](errs[0]); !ok {
		t.Errorf("a layout was learnt meanwhile: %v", errs)
	}
}

// Values that are missing are fetched, and only those; a record whose values
// cannot be had is not taken, and holds up no other.
func TestMergeFetchesValues(t *testing.T) {
	r := newRig(t, storage.Options{})
	big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
	a, blobA := written(kv.Record{}, 1, big+"a", 3)
	b, blobB := written(a, 2, big+"b", 3)
	c, _ := written(kv.Record{}, 3, big+"c", 3)
	small, _ := written(kv.Record{}, 4, "small", 3)
	errs := r.mergeOf([]kv.Blob{blobA}, a, c, small)
	if errs[0] != nil || !errors.Is(errs[1], errGone) || errs[2] != nil {
		t.Fatal(errs)
	}
	if err := errors.Join(r.mergeOf([]kv.Blob{blobB}, b)...); err != nil { // that of a is held
		t.Fatal(err)
	}
	other, _ := written(kv.Record{}, 5, big+"d", 3)
	if err := r.mergeOf([]kv.Blob{{Dot: other.Live[0].Dot, Data: []byte("other")}}, other)[0]; !errors.Is(err, storage.ErrBadBlob) {
		t.Errorf("took another value in its place: %v", err)
	}
	held := r.fetch(false)
	for _, blob := range []kv.Blob{blobA, blobB} {
		i := slices.IndexFunc(held.Live, func(v kv.Version) bool { return v.Dot == blob.Dot })
		if got, err := r.ValueOf(key, 0, held.Live[i]); err != nil || !bytes.Equal(got, blob.Data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if len(held.Live) != 3 {
		t.Errorf("%d siblings", len(held.Live))
	}
}

// Not more than a few values are fetched at once.
func TestFetchesAreBounded(t *testing.T) {
	r := newRig(t, storage.Options{})
	big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
	parcels, blobs := make([]kv.Parcel, 20), make([]kv.Blob, 20)
	for i := range parcels {
		var rec kv.Record
		rec, blobs[i] = written(kv.Record{}, vclock.Actor(i+1), big, 3)
		parcels[i] = kv.Parcel{Key: key, Record: kv.AppendRecord(nil, rec)}
	}
	var mu sync.Mutex
	now, most := 0, 0
	count := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		now += by
		most = max(most, now)
	}
	errs := r.MergeParcels(t.Context(), r.view.Digest(), parcels, func(ctx context.Context, k kv.Key, v kv.Version) ([]byte, error) {
		count(1)
		defer count(-1)
		return valuesOf(blobs)(ctx, k, v)
	})
	if err := errors.Join(errs...); err != nil || most > fetchesAtOnce {
		t.Errorf("%d at once, %v", most, err)
	}
}

// A damaged record gives way once its leaf is known to be damaged, which the
// first attempt finds out. Until the leaf is trusted again it does not count.
func TestDamagedRecordIsReplaced(t *testing.T) {
	r := newRig(t, storage.Options{})
	rec, _ := written(kv.Record{}, 1, "v", 3)
	if err := r.put(coordinator.StoreRequest{}, rec); err != nil {
		t.Fatal(err)
	}
	r.rot(key, false)
	if err := r.mergeOf(nil, rec)[0]; !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("replaced what nobody knew to be damaged: %v", err)
	}
	if err := r.mergeOf(nil, rec)[0]; err != nil {
		t.Fatal(err)
	}
	got, err := r.Fetch(coordinator.FetchRequest{Fence: r.fence(), Key: key})
	if err != nil || !slices.Equal(texts(got.Record), []string{"v"}) || got.Standing {
		t.Errorf("%+v, %v", got, err)
	}
	if err := r.store.CheckLeaf(r.partition(), key.Leaf()); err != nil {
		t.Error(err)
	}
}

// While the store is busy, a merge waits for its own updates, and gives up if it
// has none.
func TestMergeIntoABusyStore(t *testing.T) {
	records := make([]kv.Record, 40)
	for i := range records {
		records[i], _ = written(kv.Record{}, vclock.Actor(i+1), "v", 3)
	}
	r := newRig(t, storage.Options{QueueLen: 4})
	if err := errors.Join(r.mergeOf(nil, records...)...); err != nil {
		t.Fatal(err)
	}
	release := r.blocked()
	for range 4 {
		if err := r.raise(1, 1, func(error) {}); err != nil {
			t.Fatal(err)
		}
	}
	err := r.mergeOf(nil, records[0])[0]
	if e, ok := errors.AsType[*kv.Error](err); !ok || e.Code != kv.CodeOverloaded || e.RetryAfter == 0 {
		t.Errorf("%v", err)
	}
	if room := r.Room(); room != roomKeys-1 {
		t.Errorf("room for %d keys beside 4 updates", room)
	}
	release()
}

// A merge ends with its context, whatever the store does.
func TestMergeEndsInTime(t *testing.T) {
	r := newRig(t, storage.Options{})
	rec, _ := written(kv.Record{}, 1, "v", 3)
	release := r.blocked()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	errs := r.MergeParcels(ctx, r.view.Digest(), []kv.Parcel{{Key: key, Record: kv.AppendRecord(nil, rec)}}, nil)
	if err := errors.Join(errs[0], r.Sync(ctx)); !errors.Is(errs[0], errOutcomeOpen) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	release()
}

func TestUnsynced(t *testing.T) {
	rec, _ := written(kv.Record{}, 1, "v", 3)
	keep := func(old coordinator.Held) (kv.Record, []kv.Blob, error) { return old.Record, nil, nil }
	for _, tt := range []struct {
		sync   bool
		choice coordinator.Durability
		noted  bool
	}{
		{true, coordinator.DurabilityDefault, false},
		{true, coordinator.DurabilityAsync, true},
		{false, coordinator.DurabilityDefault, true},
		{false, coordinator.DurabilitySync, false},
	} {
		r := newRig(t, storage.Options{})
		r.sync = tt.sync
		assign := func() error {
			done := make(chan error, 1)
			req := coordinator.AssignRequest{
				Slot: r.slot(key), Fence: r.view.Digest(), Durability: tt.choice, Decide: keep, Done: func(err error) { done <- err },
			}
			if err := r.Assign(req); err != nil {
				return err
			}
			return <-done
		}
		for _, refusal := range []error{nil, errors.New("input/output error")} {
			r.ledger.set(func() { r.ledger.unsynced, r.ledger.refusal = 0, refusal })
			for name, err := range map[string]error{"store": r.put(coordinator.StoreRequest{Durability: tt.choice}, rec), "assign": assign()} {
				if refused := err != nil; refused != (tt.noted && refusal != nil) || refused && !errors.Is(err, refusal) {
					t.Errorf("sync %v, asked %v: %s: %v", tt.sync, tt.choice, name, err)
				}
			}
			if noted := r.ledger.unsynced == 2; noted != tt.noted {
				t.Errorf("sync %v, asked %v: noted %d times", tt.sync, tt.choice, r.ledger.unsynced)
			}
		}
	}
}

// A step of reaping sees and changes records and the number at once, and the
// number holds from there on.
func TestStep(t *testing.T) {
	r := newRig(t, storage.Options{})
	rec, _ := written(kv.Record{}, 1, "v", 3)
	if err := r.put(coordinator.StoreRequest{}, rec); err != nil {
		t.Fatal(err)
	}
	err := r.Step(t.Context(), true, func(tx reap.Tx) error {
		got, err := tx.Get(r.slot(key))
		number, numberErr := tx.Number(r.partition())
		if err != nil || numberErr != nil || got.Absent() || number != 0 {
			t.Errorf("%v, %d, %v, %v", got, number, err, numberErr)
		}
		tx.Put(r.slot(key), kv.Record{})
		tx.Raise(r.partition(), 5)
		number, err = tx.Number(r.partition())
		if number != 5 || err != nil {
			t.Errorf("raised to %d, %v", number, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !r.fetch(false).Absent() || r.Number(r.partition()) != 5 {
		t.Errorf("holds %v, number %d", r.fetch(false), r.Number(r.partition()))
	}
	if err := r.put(coordinator.StoreRequest{Reap: 4}, rec); staleNumber(err) != 5 {
		t.Error(err)
	}
	refusal := errors.New("no")
	err = r.Step(t.Context(), true, func(tx reap.Tx) error {
		tx.Raise(r.partition(), 6)
		return refusal
	})
	if n, settled := r.numbers.settled(r.partition()); !errors.Is(err, refusal) || n != 5 || !settled {
		t.Errorf("%v, number %d, settled %v", err, n, settled)
	}
}

// Whatever comes in parcels, in whatever order and however often, the node holds
// the merge of it.
func TestMergeParcelsIsTheMerge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, storage.Options{})
		var want kv.Record
		var sent []kv.Record //nolint:prealloc // the number is drawn
		for i := range rapid.IntRange(1, 8).Draw(rt, "writes") {
			base := kv.Record{}
			if len(sent) > 0 && rapid.Bool().Draw(rt, "on top") {
				base = rapid.SampledFrom(sent).Draw(rt, "of")
			}
			rec, _ := written(base, vclock.Actor(i+1), "v", 3)
			sent = append(sent, rec)
		}
		order := rapid.SliceOfN(rapid.SampledFrom(sent), 1, 20).Draw(rt, "order")
		for _, rec := range order {
			want = want.Merge(rec)
		}
		if err := errors.Join(r.mergeOf(nil, order...)...); err != nil {
			rt.Fatal(err)
		}
		if got := r.fetch(false); !bytes.Equal(kv.AppendRecord(nil, got), kv.AppendRecord(nil, want)) {
			rt.Fatalf("holds\n%+v\nwant\n%+v", got, want)
		}
	})
}
