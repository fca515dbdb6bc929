package replica

import (
	"context"
	"errors"
	"slices"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/vclock"
)

// Value returns one external value. One that the disk has lost, or of which it
// returns something else, is fetched anew soon: see [Config.Suspect].
func (r *Replica) Value(req coordinator.ValueRequest) ([]byte, error) {
	v, err := r.fenced(req.Fence.Digest)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots(v, req.Key, req.StandIn) {
		var b []byte
		if b, err = r.store.Value(slot, req.Dot, req.Length, req.Checksum); err == nil {
			return b, nil
		}
		r.noticeValue(slot, req.Dot, err)
	}
	return nil, told(err)
}

// noticeValue makes a leaf suspect if the record that is there refers to a value
// that cannot be read: others may be asked for one that this node never had, or
// that was replaced.
func (r *Replica) noticeValue(slot kv.Slot, dot vclock.Dot, err error) {
	if slot.Target != 0 || !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, storage.ErrNotFound) {
		return
	}
	if rec, err := r.store.Get(slot); err == nil && rec.Holds(dot) {
		r.suspect(slot.Partition, slot.Key.Leaf())
	}
}

// MendValue stores the external value that v states in place of what the disk
// has of it, and returns once it is durable. There is nothing to do if the
// record does not hold v any more.
func (r *Replica) MendValue(ctx context.Context, key kv.Key, v kv.Version, data []byte) error {
	done := make(chan error, 1)
	err := r.store.Submit(storage.Update{
		Slot: slotOf(r.view(), key, 0), Sync: true, Size: len(data), Done: func(err error) { done <- err },
		Apply: func(old kv.Record, _ uint64) (storage.Change, error) {
			held := slices.ContainsFunc(old.Live, func(o kv.Version) bool { return o.Dot == v.Dot && o.Value.External })
			return storage.Change{Same: !held, Record: old, Blobs: []kv.Blob{{Dot: v.Dot, Data: data}}}, nil
		},
	})
	if err != nil {
		return told(err)
	}
	select {
	case err := <-done:
		return told(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}
