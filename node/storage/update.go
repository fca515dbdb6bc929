package storage

import (
	"fmt"

	"github.com/starling-kv/starling/kv"
)

// Update is a read-modify-write of one record.
type Update struct {
	Slot kv.Slot

	// Sync asks that Done means: on disk. Otherwise it means: handed to the
	// operating system, which a crash of the process survives and a power cut
	// may not.
	Sync bool

	// Size is about how many bytes the update brings along, for the bounds of
	// the queue.
	Size int

	// Mend asks that a damaged record counts as absent, so that it can be
	// replaced by what other replicas hold. What it held on this disk alone is
	// lost. The trees of its leaf are made anew in the same commit.
	Mend bool

	// Apply decides what becomes of the record. It is called at most once, by
	// the one goroutine that commits, with the record as it is at that moment,
	// after all updates submitted before this one, and with the boot under
	// which new actors are minted. It must return at once: it may send to a
	// channel that has room, it must not wait. If it returns an error, nothing
	// changes and the error goes to Done. It is not called if the store failed,
	// or the record is damaged and not to be mended.
	Apply func(old kv.Record, boot uint64) (Change, error)

	// Done is called exactly once if Submit returned nil: with nil once the
	// change is stored, or with the error. If Apply returned a change, an error
	// leaves open whether it is stored, [ErrMissingBlob], [ErrBadBlob] and
	// [ErrTooLarge] apart, after which it is not. Done is called by the
	// committing goroutine and must return at once; it may call Submit.
	Done func(error)
}

// Submit queues an update and returns at once. Updates are applied in the order
// of their submission. An error says that nothing will happen: [ErrBusy],
// [ErrDiskFull], [ErrFailed], [ErrClosed] or [ErrBadKey].
func (s *Store) Submit(u Update) error {
	if err := checkKey(u.Slot.Key); err != nil {
		return err
	}
	if err := s.space.admit(false); err != nil {
		return err
	}
	return s.queue.put(task{
		size: u.Size, sync: u.Sync, done: u.Done,
		run: func(r *round) (bool, error) { return r.applyUpdate(u) },
	})
}

// SubmitMeta queues a read-modify-write of the fact stored under name, in one
// order with the updates of records. Of apply, sync and done the same holds as
// of the fields of [Update]; apply is given nil if there is no such fact, and
// removes the fact by returning nil. Facts are few and small: they may use half
// of the space that the low watermark keeps free.
func (s *Store) SubmitMeta(name string, apply func(old []byte) ([]byte, error), sync bool, done func(error)) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := s.space.admit(true); err != nil {
		return err
	}
	return s.queue.put(task{
		sync: sync, done: done,
		run: func(r *round) (bool, error) { return r.applyFact(name, apply) },
	})
}

func checkName(name string) error {
	if name == "" || len(name) > maxMetaName {
		return fmt.Errorf("%w: the name of a fact has 1 to %d bytes, not %d", ErrBadKey, maxMetaName, len(name))
	}
	return nil
}
