package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/ring"
)

// Bounds of what one merge of parcels keeps under way.
const (
	mergesAtOnce  = 1024 // updates in the store's queue
	fetchesAtOnce = 4    // records whose external values are being fetched
)

// Values fetches an external value of a record that came in a parcel.
type Values = func(ctx context.Context, key kv.Key, v kv.Version) ([]byte, error)

// MergeParcels merges what another node told under the view with the digest
// fence, each parcel in the store's serial order, and returns what became of
// each: nil if this node now holds all of it, or if there was nothing to hold.
// values fetches what the records hold outside and this node lacks. What was
// merged is sure to be on the disk after [Replica.Sync].
//
// A damaged record gives way to its parcel if its leaf is doubted; otherwise the
// error is [storage.ErrCorrupt], and the leaf is doubted from then on.
//
// A parcel whose reap number is lower than this node's is refused with a
// [coordinator.StaleReapError], one of a key that this node neither owns nor
// holds with [coordinator.ErrNotOwner].
func (r *Replica) MergeParcels(ctx context.Context, fence uint64, parcels []kv.Parcel, values Values) []error {
	m := &merging{r: r, fence: fence, parcels: parcels, results: make(chan merged, len(parcels)), errs: make([]error, len(parcels))}
	v, err := r.admitted(fence)
	if err != nil {
		for i := range m.errs {
			m.errs[i] = err
		}
		return m.errs
	}
	m.view = v
	m.mergeAll(ctx)
	m.fetchAll(ctx, values)
	return m.errs
}

// merging is one call of MergeParcels.
type merging struct {
	r       *Replica
	fence   uint64
	view    ring.View
	parcels []kv.Parcel
	errs    []error // of each parcel

	open    int // updates under way
	results chan merged
}

// merged is what became of one parcel.
type merged struct {
	at  int
	err error
}

// mergeAll merges what needs nothing fetched.
func (m *merging) mergeAll(ctx context.Context) {
	for i, p := range m.parcels {
		if len(p.Record) == 0 {
			continue
		}
		m.awaitUntil(ctx, mergesAtOnce-1)
		m.errs[i] = m.submit(ctx, i)
	}
	m.awaitUntil(ctx, 0)
}

// submit merges one parcel. While the store is busy with others of them, it
// waits for those.
func (m *merging) submit(ctx context.Context, i int) error {
	for ctx.Err() == nil {
		err := m.r.mergeParcel(m.view, m.fence, m.parcels[i], nil, func(err error) { m.results <- merged{i, err} })
		switch {
		case err == nil:
			m.open++
			return errOutcomeOpen
		case !errors.Is(err, storage.ErrBusy) || m.open == 0:
			return told(err)
		}
		m.awaitUntil(ctx, m.open-1)
	}
	return ctx.Err()
}

// errOutcomeOpen is what is known of an update until its result comes.
var errOutcomeOpen = errors.New("the record was not merged in time")

// awaitUntil takes results until at most open updates are under way, or ctx ends.
func (m *merging) awaitUntil(ctx context.Context, open int) {
	for m.open > open {
		select {
		case got := <-m.results:
			m.open--
			m.errs[got.at] = told(got.err)
		case <-ctx.Done():
			return
		}
	}
}

// fetchAll merges what lacked external values, some at a time.
func (m *merging) fetchAll(ctx context.Context, values Values) {
	var group errgroup.Group
	group.SetLimit(fetchesAtOnce)
	for i, err := range m.errs {
		if missing, ok := errors.AsType[*coordinator.MissingBlobsError](err); ok {
			group.Go(func() error {
				m.errs[i] = m.fetch(ctx, m.parcels[i], missing, values)
				return nil
			})
		}
	}
	_ = group.Wait() // each has its own error
}

func (m *merging) fetch(ctx context.Context, p kv.Parcel, missing *coordinator.MissingBlobsError, values Values) error {
	rec, err := kv.DecodeRecord(p.Record)
	if err != nil {
		return err
	}
	blobs := make([]kv.Blob, 0, len(missing.Dots))
	for _, v := range rec.Live {
		if !slices.Contains(missing.Dots, v.Dot) {
			continue
		}
		data, err := values(ctx, p.Key, v)
		if err != nil {
			return fmt.Errorf("fetch value %v of %v: %w", v.Dot, p.Key, err)
		}
		blobs = append(blobs, kv.Blob{Dot: v.Dot, Data: data})
	}
	done := make(chan error, 1)
	if err := m.r.mergeParcel(m.view, m.fence, p, blobs, func(err error) { done <- err }); err != nil {
		return told(err)
	}
	select {
	case err := <-done:
		return told(err)
	case <-ctx.Done():
		return errOutcomeOpen
	}
}

// mergeParcel submits the merge of one parcel.
func (r *Replica) mergeParcel(v ring.View, fence uint64, p kv.Parcel, blobs []kv.Blob, done func(error)) error {
	incoming, err := kv.DecodeRecord(p.Record)
	if err != nil {
		return fmt.Errorf("record of %v: %w", p.Key, err)
	}
	slot := slotOf(v, p.Key, 0)
	return r.store.Submit(storage.Update{
		Slot: slot,
		Size: parcelSize(p) + blobBytes(blobs),
		// What is damaged gives way only once it is known that the leaf lost it.
		Mend: r.standing.Doubted(slot.Partition, p.Key.Leaf()),
		Apply: func(old kv.Record, boot uint64) (storage.Change, error) {
			if _, err := r.fenced(fence); err != nil {
				return storage.Change{}, err
			}
			if err := r.numbers.check(slot.Partition, p.Reap); err != nil {
				return storage.Change{}, err
			}
			if old.Absent() && !owns(v, p.Key, incoming.NMax, r.self) {
				return storage.Change{}, coordinator.ErrNotOwner
			}
			return r.merge(p.Key, old, incoming, blobs, r.boot(boot))
		},
		Done: func(err error) {
			r.stored(slot, err)
			done(err)
		},
	})
}

func blobBytes(blobs []kv.Blob) int {
	var n int
	for _, b := range blobs {
		n += len(b.Data)
	}
	return n
}

// Sync returns once all that was merged before is on the disk.
func (r *Replica) Sync(ctx context.Context) error {
	done := make(chan error, 1)
	nothing := func(*storage.Tx) error { return nil }
	if err := r.store.SubmitStep(storage.Step{Sync: true, Run: nothing, Done: func(err error) { done <- err }}); err != nil {
		return told(err)
	}
	select {
	case err := <-done:
		return told(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// What a node grants to those who would have it pull. It falls to nothing as
// the queue of its store fills.
const (
	roomKeys  = 384 // of an idle node: some milliseconds of its store, for which writes wait
	roomQueue = 4   // updates that wait, for each key less
)

// Room is how many keys this node would take at once, as idle as it is now. It
// takes none before it is registered, or while its disk is full or failed.
func (r *Replica) Room() int {
	st := r.store.Stats()
	if st.State != storage.StateOK || !r.standing.Registered() {
		return 0
	}
	return max(0, roomKeys-st.QueueLen/roomQueue)
}
