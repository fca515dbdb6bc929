package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/hints"
	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
)

// Missed notes that a node, an owner of a key, missed a write of it.
type Missed = hints.Missed

var (
	_ hints.Store  = (*Store)(nil)
	_ hints.Copies = (*Store)(nil)
)

// SubmitMissed adds and then removes entries in the serial order of the store,
// unsynced. Of an entry that is there already the older Since stays, and its
// Times grows by one. One with another Times than the entry to be removed stays;
// 0 stands for any. done is told which entries were made or removed: changed has
// an element for each of add, and then for each of remove. An error given to
// done leaves that open; otherwise of done and of the error the same holds as of
// [Store.Submit].
func (s *Store) SubmitMissed(add, remove []Missed, done func(changed []bool, err error)) error {
	for _, m := range slices.Concat(add, remove) {
		if err := checkKey(m.Key); err != nil {
			return err
		}
		if m.Target == 0 || m.Target == kv.Quarantine {
			return fmt.Errorf("%w: node %v misses no writes", ErrBadKey, m.Target)
		}
	}
	if err := s.space.admit(false); err != nil {
		return err
	}
	var changed []bool // of the committing goroutine
	return s.queue.put(task{
		size: missedBytes * (len(add) + len(remove)), done: func(err error) { done(changed, err) },
		run: func(r *round) (wrote bool, err error) {
			wrote, changed, err = r.applyMissed(add, remove)
			return wrote, err
		},
	})
}

// missedBytes is about what an entry takes in the queue.
const missedBytes = 128

// applyMissed says also which edits made an entry or removed one.
func (r *round) applyMissed(add, remove []Missed) (wrote bool, changed []bool, err error) {
	changed = make([]bool, len(add)+len(remove))
	for i, m := range slices.Concat(add, remove) {
		edit := added
		if i >= len(add) {
			edit = removed
		}
		wroteOne, err := r.editMissed(m, func(old []byte) ([]byte, error) {
			entry, err := edit(m, old)
			changed[i] = (old == nil) != (entry == nil)
			return entry, err
		})
		if wrote = wrote || wroteOne; err != nil {
			return wrote, changed, err
		}
	}
	return wrote, changed, nil
}

// editMissed changes one entry. A damaged one counts as absent.
func (r *round) editMissed(m Missed, edit func(old []byte) ([]byte, error)) (wrote bool, err error) {
	at := missedAddress(m)
	wrote, err = r.applyEntry(at, edit)
	if !errors.Is(err, ErrCorrupt) {
		return wrote, err
	}
	value, err := edit(nil)
	if err != nil {
		return false, err
	}
	key := at.bytes()
	p := planFact(key, value, reference{}, r.s.opts.Random)
	if err := r.add(p); err != nil {
		return false, err
	}
	r.made.keep(key, p.next)
	return true, nil
}

// added returns the entry after another write was missed.
func added(m Missed, old []byte) ([]byte, error) {
	now := Missed{Since: m.Since, Times: 1}
	if old != nil {
		before, err := decodeMissed(old)
		if err != nil {
			return nil, err
		}
		now.Times = before.Times + 1
		if before.Since.Before(m.Since) {
			now.Since = before.Since
		}
	}
	return missedPayload(now), nil
}

// removed returns the entry after the removal of what m saw of it.
func removed(m Missed, old []byte) ([]byte, error) {
	if m.Times == 0 || old == nil {
		return nil, nil
	}
	switch before, err := decodeMissed(old); {
	case err != nil:
		return nil, err
	case before.Times != m.Times:
		return old, nil
	}
	return nil, nil
}

func missedPayload(m Missed) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(m.Since.UnixMilli()))
	return binary.AppendUvarint(b, m.Times)
}

func decodeMissed(payload []byte) (Missed, error) {
	r := wire.NewReader(payload)
	m := Missed{Since: time.UnixMilli(int64(r.Uint64())), Times: r.Uvarint()}
	if err := r.Close(); err != nil {
		return Missed{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return m, nil
}

// ScanMissed calls fn with every entry for a node, ordered by partition, leaf
// and key, with the same promises as [Store.ScanPartition].
func (s *Store) ScanMissed(target kv.NodeID, fn func(Missed) error) error {
	from, to := targetRange(spaceMissed, target)
	return scan(s, from, to, decodeMissed, func(at address, m Missed) error {
		m.Target, m.Partition, m.Key = at.slot.Target, at.slot.Partition, at.slot.Key
		return fn(m)
	})
}

// MissedTargets returns, sorted, the nodes that missed a write. It seeks from
// one to the next, whatever the number of entries.
func (s *Store) MissedTargets() ([]kv.NodeID, error) { return s.seekTargets(spaceMissed) }

// HintTargets returns, sorted, the nodes for which there are hints, and leaves
// out [kv.Quarantine]. It seeks from one to the next, whatever the number of
// hints.
func (s *Store) HintTargets() ([]kv.NodeID, error) { return s.seekTargets(spaceHint) }

// DropHint removes the hint in slot if its record still has that digest, and
// else leaves it, unsynced. Of done and of the error the same holds as of
// [Store.Submit].
func (s *Store) DropHint(slot kv.Slot, digest uint64, done func(error)) error {
	return s.Submit(Update{Slot: slot, Done: done, Apply: func(old kv.Record, _ uint64) (Change, error) {
		differs := kv.Digest(slot.Key, kv.AppendRecord(nil, old)) != digest
		return Change{Same: differs || old.Absent()}, nil
	}})
}

// loadTargets notes for whom there are hints.
func (s *Store) loadTargets() error {
	targets, err := s.seekTargets(spaceHint)
	s.targets = make(map[kv.NodeID]struct{}, len(targets))
	for _, id := range targets {
		s.targets[id] = struct{}{}
	}
	return err
}

var errFirst = errors.New("the first was enough")

func (s *Store) seekTargets(space space) ([]kv.NodeID, error) {
	var targets []kv.NodeID
	for next := kv.NodeID(1); next != kv.Quarantine; {
		from, _ := targetRange(space, next)
		to, _ := targetRange(space, kv.Quarantine)
		var found kv.NodeID
		err := s.engine.Scan(from, to, func(key, _ []byte) error {
			if found = targetOf(key); found < next {
				return fmt.Errorf("%w: storage key %q", ErrCorrupt, key)
			}
			return errFirst
		})
		switch {
		case err == nil:
			return targets, nil
		case !errors.Is(err, errFirst):
			return nil, err
		}
		targets = append(targets, found)
		next = found + 1
	}
	return targets, nil
}

// targetOf reads the target of a key in a space that is ordered by targets, also
// if the rest of the key is damaged.
func targetOf(key []byte) kv.NodeID {
	r := wire.NewReader(key[1:])
	return kv.NodeID(r.Uint64())
}
