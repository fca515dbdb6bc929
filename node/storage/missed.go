package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
)

// Missed notes that a node, an owner of a key, missed a write of it: a hint
// without the record, which this node owns too.
type Missed struct {
	Target    kv.NodeID
	Partition uint16
	Key       kv.Key
	Since     time.Time // of the first write missed, to the millisecond
	// Times counts the writes noted since the entry was made. [Store.ScanMissed]
	// sets it; adding ignores it. Removing an entry that was added to since, and
	// so has another Times, does nothing; 0 removes in any case.
	Times uint64
}

// SubmitMissed adds and then removes entries in the serial order of the store,
// unsynced. Of an entry that is there already the older Since stays. An error
// given to done leaves open which entries were edited; otherwise of done and of
// the error the same holds as of [Store.Submit].
func (s *Store) SubmitMissed(add, remove []Missed, done func(error)) error {
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
	return s.queue.put(task{
		size: missedBytes * (len(add) + len(remove)), done: done,
		run: func(r *round) (bool, error) { return r.applyMissed(add, remove) },
	})
}

// missedBytes is about what an entry takes in the queue.
const missedBytes = 128

func (r *round) applyMissed(add, remove []Missed) (wrote bool, err error) {
	for _, m := range add {
		if wrote, err = r.editMissed(m, m.added); err != nil {
			return wrote, err
		}
	}
	for _, m := range remove {
		if wrote, err = r.editMissed(m, m.removed); err != nil {
			return wrote, err
		}
	}
	return wrote, nil
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
	r.results[string(key)] = p.next
	return true, nil
}

// added returns the entry after another write was missed.
func (m Missed) added(old []byte) ([]byte, error) {
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
	return now.payload(), nil
}

// removed returns the entry after the removal of what m saw of it.
func (m Missed) removed(old []byte) ([]byte, error) {
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

func (m Missed) payload() []byte {
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
