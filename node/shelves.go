package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/replica"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/standing"
)

// stepBytes is about how many bytes of records and values are put away in one
// step.
const stepBytes = 1 << 20

// shelves are the records of the store, for a disk that was set back. It
// implements [standing.Shelves].
type shelves struct {
	store   *storage.Store
	replica *replica.Replica
}

// Held implements [standing.Shelves].
func (s shelves) Held(fn func(kv.Slot) error) error { return s.store.ScanSlots(fn) }

// PutAway implements [standing.Shelves].
func (s shelves) PutAway(ctx context.Context, slots []kv.Slot) error {
	for len(slots) > 0 {
		n, err := s.putAway(ctx, slots)
		if errors.Is(err, storage.ErrCorrupt) {
			n, err = 1, s.remove(ctx, slots[0])
		}
		if err != nil {
			return err
		}
		slots = slots[n:]
	}
	return nil
}

// putAway moves as many of the slots as go into one step, at least one. If the
// first one is damaged, it moves none and says so.
func (s shelves) putAway(ctx context.Context, slots []kv.Slot) (moved int, err error) {
	err = s.step(ctx, func(tx *storage.Tx) error {
		for size := 0; moved < len(slots) && size < stepBytes; moved++ {
			bytes, err := s.move(tx, slots[moved])
			if err != nil && moved > 0 {
				return nil // it will be the first of the next step
			}
			if err != nil {
				return err
			}
			size += bytes
		}
		return nil
	})
	if err != nil {
		return 0, err // the step may still run
	}
	return moved, nil
}

// move moves one record, with its external values, and returns its size.
func (s shelves) move(tx *storage.Tx, slot kv.Slot) (size int, err error) {
	old, err := tx.Get(slot)
	if err != nil || old.Absent() {
		return 0, err
	}
	away := kv.Slot{Target: kv.Quarantine, Partition: slot.Partition, Key: slot.Key}
	there, err := tx.Get(away)
	if err != nil {
		return 0, err
	}
	blobs, size, err := s.blobs(slot, old, there)
	if err != nil {
		return 0, err
	}
	tx.Put(away, storage.Change{Record: there.Merge(old), Blobs: blobs})
	tx.Put(slot, storage.Change{})
	return size, nil
}

// blobs reads the external values of r that there does not hold.
func (s shelves) blobs(slot kv.Slot, r, there kv.Record) (blobs []kv.Blob, size int, err error) {
	size = len(kv.AppendRecord(nil, r))
	for _, v := range r.Live {
		if !v.Value.External || there.Holds(v.Dot) {
			continue
		}
		data, err := s.store.Value(slot, v.Dot, v.Value.Length, v.Value.Checksum)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
		blobs = append(blobs, kv.Blob{Dot: v.Dot, Data: data})
		size += len(data)
	}
	return blobs, size, nil
}

// remove takes out a record that is damaged: the other owners have it.
func (s shelves) remove(ctx context.Context, slot kv.Slot) error {
	return wait(ctx, func(done func(error)) error {
		return s.store.Submit(storage.Update{
			Slot: slot, Sync: true, Mend: true, Done: done,
			Apply: func(kv.Record, uint64) (storage.Change, error) { return storage.Change{}, nil },
		})
	})
}

// Quarantined implements [standing.Shelves].
func (s shelves) Quarantined(partition uint16, fn func(kv.Key) error) error {
	return s.store.ScanQuarantine(partition, func(key kv.Key, _ kv.Record) error { return fn(key) })
}

// Settle implements [standing.Shelves].
func (s shelves) Settle(
	ctx context.Context, partition uint16, key kv.Key, judge func(quarantined, present kv.Record, number uint64) standing.Verdict,
) error {
	own, away := kv.Slot{Partition: partition, Key: key}, kv.Slot{Target: kv.Quarantine, Partition: partition, Key: key}
	return s.step(ctx, func(tx *storage.Tx) error {
		quarantined, err := tx.Get(away)
		if err != nil || quarantined.Absent() {
			return err
		}
		present, err := tx.Get(own)
		if err != nil {
			return err
		}
		switch judge(quarantined, present, s.replica.Number(partition)) {
		case standing.Drop:
			tx.Put(away, storage.Change{})
		case standing.Restore:
			blobs, _, err := s.blobs(away, quarantined, present)
			if err != nil {
				return err
			}
			tx.Put(own, storage.Change{Record: present.Merge(quarantined), Blobs: blobs})
			tx.Put(away, storage.Change{})
		case standing.Keep:
		}
		return nil
	})
}

// discard removes a record from quarantine if it still has that digest. Otherwise
// the error is errNotThatRecord.
func (s shelves) discard(ctx context.Context, away kv.Slot, digest uint64) error {
	return s.step(ctx, func(tx *storage.Tx) error {
		old, err := tx.Get(away)
		if err != nil {
			return err
		}
		if kv.Digest(away.Key, kv.AppendRecord(nil, old)) != digest {
			return errNotThatRecord
		}
		tx.Put(away, storage.Change{})
		return nil
	})
}

// Number implements [standing.Shelves].
func (s shelves) Number(partition uint16) (uint64, error) { return s.replica.Number(partition), nil }

// step runs fn in one step of the store, synced.
func (s shelves) step(ctx context.Context, fn func(*storage.Tx) error) error {
	return wait(ctx, func(done func(error)) error {
		return s.store.SubmitStep(storage.Step{Sync: true, Run: fn, Done: done})
	})
}

// wait submits to the store and waits for the outcome.
func wait(ctx context.Context, submit func(done func(error)) error) error {
	done := make(chan error, 1)
	if err := submit(func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
