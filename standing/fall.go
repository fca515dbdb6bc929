package standing

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// ErrFallen is matched by the error of [Ledger.Merged] for a merge that began
// before the last fall: what it brought may be in quarantine now.
var ErrFallen = errors.New("the node fell since the merge began: merge again")

// Fall records durably that the disk may have forgotten what the node had
// acknowledged: from now on it counts in no partition until it has merged it
// anew. Merges that are under way will not count.
func (l *Ledger) Fall(cause Cause) error { return l.fallFor(cause, false) }

func (l *Ledger) fallFor(cause Cause, pending bool) error {
	l.mu.Lock()
	next := fall{epoch: l.fall.epoch + 1, cause: cause, since: l.config.Now(), pending: pending || l.fall.pending}
	l.fall, l.catchup = next, make(map[uint16]catchup)
	l.mu.Unlock()
	l.fallen.Store(true)
	return l.storeFall(next)
}

func (l *Ledger) storeFall(next fall) error {
	err := l.config.Facts.Update(factFall, func(old []byte) ([]byte, error) {
		stored, err := parse(factFall, old, decodeFall)
		if stored.epoch > next.epoch {
			return old, err // a later fall was faster
		}
		return encodeFall(next), err
	})
	if err != nil {
		return fmt.Errorf("store the fall of the node: %w", err)
	}
	return nil
}

// Standing reports whether what this node holds of a partition counts for reads
// that ask these owners: the first n of each active layout. It has nothing to do
// with [Ledger.Registered], which a read asks beside it.
func (l *Ledger) Standing(partition uint16, owners []kv.NodeID) bool {
	if !l.fallen.Load() {
		return true
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.stands(partition, owners)
}

// stands is Standing for a node that fell. The caller holds mu.
func (l *Ledger) stands(partition uint16, owners []kv.NodeID) bool {
	c := l.catchup[partition]
	return !slices.ContainsFunc(owners, func(id kv.NodeID) bool { return id != l.config.Self && !c.has(id, l.starts) })
}

// Sources returns which of owners are still to be merged before the partition
// counts for reads that ask them, in their order, and the number of the fall
// that this makes up for, which [Ledger.Merged] wants to know.
func (l *Ledger) Sources(partition uint16, owners []kv.NodeID) (missing []kv.NodeID, epoch uint64) {
	if !l.fallen.Load() {
		return nil, 0
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.catchup[partition].missing(l.config.Self, owners, l.starts), l.fall.epoch
}

// Merged records durably that everything which a source held of a partition was
// merged, by a merge that began when Sources returned epoch and the source had
// started so often. Once the node has merged what suffices for some n, it counts
// for that n for good, whatever becomes of its sources. The error matches
// [ErrFallen] if the merge does not count.
func (l *Ledger) Merged(partition uint16, from kv.NodeID, starts, epoch uint64) error {
	if epoch == 0 {
		return nil // it had not fallen
	}
	name := partitionFact(prefixMerged, partition)
	owners := l.owners(partition)
	var next catchup
	err := l.config.Facts.Update(name, func(old []byte) ([]byte, error) {
		c, err := parse(name, old, decodeCatchup)
		if err != nil {
			return nil, err
		}
		l.mu.RLock()
		defer l.mu.RUnlock()
		if l.fall.epoch != epoch {
			return nil, ErrFallen
		}
		if c.epoch != epoch {
			c = catchup{epoch: epoch}
		}
		next = c.add(from, starts).settle(l.config.Self, owners, l.starts)
		return encodeCatchup(next), nil
	})
	if err != nil {
		return fmt.Errorf("record that partition %d was merged from node %v: %w", partition, from, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fall.epoch != epoch {
		return fmt.Errorf("partition %d from node %v: %w", partition, from, ErrFallen)
	}
	l.catchup[partition] = l.catchup[partition].union(next)
	return nil
}

// owners returns the owners of a partition in each active layout.
func (l *Ledger) owners(partition uint16) [][]kv.NodeID {
	active := l.config.View().Active()
	out := make([][]kv.NodeID, 0, len(active))
	for _, layout := range active {
		if int(partition) < layout.Partitions() {
			out = append(out, layout.Owners(ring.Partition(partition)))
		}
	}
	return out
}

// setBack lets the node fall because its disk was set back. It is registered no
// longer, and will be pending until resume.
func (l *Ledger) setBack() error {
	l.registered.Store(false)
	return l.fallFor(CauseSetBack, true)
}

// pending reports whether the disk was set back and not all that it holds is in
// quarantine yet.
func (l *Ledger) pending() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.fall.pending
}

// resume goes on with a disk that was set back once all that it held is in
// quarantine: as one that was emptied, in a life with more starts than lost.
func (l *Ledger) resume(lost Position, starts uint64) error {
	life := Life{Starts: starts, Nonce: l.config.Life.Nonce}
	err := l.updateHistory(func(h History) (History, error) {
		if starts <= h.Tip().Starts || starts <= lost.Starts {
			return h, fmt.Errorf("the starts of a disk that was set back must be raised beyond %d, they are %d",
				max(h.Tip().Starts, lost.Starts), starts)
		}
		return h.atone(lost, life), nil
	})
	if err != nil {
		return err
	}
	l.mu.RLock()
	next := l.fall
	l.mu.RUnlock()
	next.pending = false
	if err := l.storeFall(next); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fall.epoch == next.epoch {
		l.fall = next
	}
	return nil
}

// Doubt says that a leaf of a partition may lack records that the node had: its
// reads count no longer where they find nothing, until [Ledger.Trust]. Doubts
// are kept in memory: until the damage is hidden it is found again after a
// restart, and whoever hides it keeps that durable.
func (l *Ledger) Doubt(partition uint16, number uint8) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubts[leaf{partition, number}] = struct{}{}
	l.doubted.Store(int64(len(l.doubts)))
}

// Trust ends a doubt, once the leaf was compared with all other owners.
func (l *Ledger) Trust(partition uint16, number uint8) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.doubts, leaf{partition, number})
	l.doubted.Store(int64(len(l.doubts)))
}

// Doubted reports whether a leaf is in doubt.
func (l *Ledger) Doubted(partition uint16, number uint8) bool {
	if l.doubted.Load() == 0 {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, found := l.doubts[leaf{partition, number}]
	return found
}

// Stats is the standing of a node, for metrics.
type Stats struct {
	Registered bool
	Life       Life
	Falls      uint64    // ever
	Cause      Cause     // of the last fall
	Since      time.Time // of the last fall; zero if there was none
	Pending    bool      // the disk was set back and is being put into quarantine
	// Partitions counts those that the node owns in some active layout, and
	// Fallen those of them that do not count for reads which ask all owners.
	Partitions, Fallen int
	Doubted            int // leaves
}

// Stats returns the standing of the node. It walks over all partitions.
func (l *Ledger) Stats() Stats {
	owned, fallen := l.countPartitions()
	l.mu.RLock()
	defer l.mu.RUnlock()
	return Stats{
		Registered: l.Registered(), Life: l.history.Tip().Life,
		Falls: l.fall.epoch, Cause: l.fall.cause, Since: l.fall.since, Pending: l.fall.pending,
		Partitions: owned, Fallen: fallen, Doubted: len(l.doubts),
	}
}

func (l *Ledger) countPartitions() (owned, fallen int) {
	active := l.config.View().Active()
	if len(active) == 0 {
		return 0, 0
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for p := range active[0].Partitions() {
		mine := slices.ContainsFunc(active, func(layout *ring.Layout) bool {
			return slices.Contains(layout.Owners(ring.Partition(p)), l.config.Self)
		})
		if !mine {
			continue
		}
		if owned++; l.fallen.Load() && !l.stands(uint16(p), slices.Concat(l.owners(uint16(p))...)) {
			fallen++
		}
	}
	return owned, fallen
}
