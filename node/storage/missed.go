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
// unsynced. What is added gets an Edition of its own and replaces what is there,
// unread: a search for each would cost client writes more than the entry. An
// entry of another Edition than the one to be removed stays. done is told of
// each of remove whether it was there and is no longer. An error given to done
// leaves that open; otherwise of done and of the error the same holds as of
// [Store.Submit].
func (s *Store) SubmitMissed(add, remove []Missed, done func(removed []bool, err error)) error {
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
	var removed []bool // of the committing goroutine
	return s.queue.put(task{
		size: missedBytes * (len(add) + len(remove)), done: func(err error) { done(removed, err) },
		run: func(r *round) (wrote bool, err error) {
			wrote, removed, err = r.applyMissed(add, remove)
			return wrote, err
		},
	})
}

// missedBytes is about what an entry takes in the queue.
const missedBytes = 128

// applyMissed says also which entries it removed.
func (r *round) applyMissed(add, remove []Missed) (wrote bool, removed []bool, err error) {
	for _, m := range add {
		m.Edition = r.s.opts.Random()
		if err := r.putEntry(missedAddress(m).bytes(), missedPayload(m), reference{}); err != nil {
			return wrote, nil, err
		}
		wrote = true
	}
	removed = make([]bool, len(remove))
	for i, m := range remove {
		if removed[i], err = r.removeMissed(m); err != nil {
			return wrote, removed, err
		}
		wrote = wrote || removed[i]
	}
	return wrote, removed, nil
}

// removeMissed removes an entry that is as m was found. A damaged one, which
// nobody can replay, goes too.
func (r *round) removeMissed(m Missed) (removed bool, err error) {
	at := missedAddress(m)
	key := at.bytes()
	switch now, err := r.missed(at, key); {
	case errors.Is(err, ErrCorrupt):
	case err != nil || now.Edition != m.Edition:
		return false, err
	}
	return true, r.putEntry(key, nil, reference{})
}

// missed returns the entry at an address, the zero Missed if there is none.
func (r *round) missed(at address, key []byte) (Missed, error) {
	found, err := r.entry(at, key)
	if err != nil || found.fact == nil {
		return Missed{}, err
	}
	return decodeMissed(found.fact)
}

func missedPayload(m Missed) []byte {
	b := make([]byte, 0, 8+binary.MaxVarintLen64)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Since.UnixMilli()))
	return binary.AppendUvarint(b, m.Edition)
}

func decodeMissed(payload []byte) (Missed, error) {
	r := wire.NewReader(payload)
	m := Missed{Since: time.UnixMilli(int64(r.Uint64())), Edition: r.Uvarint()}
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
