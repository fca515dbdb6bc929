package standing

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Verdict says what becomes of a record in quarantine.
type Verdict uint8

// The verdicts.
const (
	Keep    Verdict = iota // it stays: it may hold what was never seen elsewhere, or what was reaped since
	Drop                   // everything that it holds has been seen: it goes
	Restore                // nothing was reaped since: it is merged into the present record
)

// Judge decides on a record that was put into quarantine when the reap number
// of its partition was then, beside the present record of its key, with the
// number now. Present must hold what all other owners know.
//
// As long as the numbers are equal nothing was reaped, so that merging an old
// record brings nothing back. Otherwise a live dot that the present record has
// not seen may be a write that only this disk had, or one that was deleted and
// reaped; nobody can tell, so it is neither served nor discarded.
func Judge(quarantined, present kv.Record, then, now uint64) Verdict {
	seen := func(v kv.Version) bool { return present.Clock.Covers(v.Dot) }
	switch {
	case !slices.ContainsFunc(quarantined.Live, func(v kv.Version) bool { return !seen(v) }):
		return Drop
	case then == now:
		return Restore
	}
	return Keep
}

// Shelves are the records of a node, for [Setback].
type Shelves interface {
	// Held calls fn with every record of the node and every hint that it holds
	// for another, damaged ones too, none in quarantine. fn may put them away.
	Held(fn func(kv.Slot) error) error
	// PutAway moves what the slots hold into the quarantine slots of their keys,
	// in one step, synced, merging it with what is there. A slot that is empty is
	// left out; one that is damaged is removed: the other owners have the record.
	PutAway(ctx context.Context, slots []kv.Slot) error
	// Quarantined calls fn with the key of every record in quarantine of a
	// partition. fn may settle it.
	Quarantined(partition uint16, fn func(kv.Key) error) error
	// Settle carries out, in one step, what judge decides on the record in
	// quarantine of a key, given the node's own record and the reap number of
	// the partition.
	Settle(ctx context.Context, partition uint16, key kv.Key, judge func(quarantined, present kv.Record, number uint64) Verdict) error
	// Number returns the reap number of a partition.
	Number(partition uint16) (uint64, error)
}

// Setback is what a node does with the records of a disk that was set back. It
// is used by one goroutine at a time.
type Setback struct {
	Self    kv.NodeID
	Shelves Shelves
	Facts   Facts
	View    func() ring.View
	Now     func() time.Time
}

// Quarantine is what is known of the records in quarantine of a partition.
type Quarantine struct {
	// Number is the reap number that the partition had when records were put
	// away, the lowest if that was at several times.
	Number uint64
	// Since is when the first of them were; zero: unknown.
	Since time.Time
}

// batchLen is how many records are put away in one step.
const batchLen = 256

// PutAway moves all that the disk holds into quarantine and returns how many
// records and hints that were. The reap number that a partition has then is
// kept as a fact, and was so before the first of its records was moved. If it
// fails or is interrupted, call it again.
func (s Setback) PutAway(ctx context.Context) (moved int, err error) {
	noted := make(map[uint16]bool)
	batch := make([]kv.Slot, 0, batchLen)
	move := func() error {
		if len(batch) == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.Shelves.PutAway(ctx, batch); err != nil {
			return err
		}
		moved += len(batch)
		batch = batch[:0]
		return nil
	}
	err = s.Shelves.Held(func(slot kv.Slot) error {
		if !noted[slot.Partition] {
			if err := s.note(slot.Partition); err != nil {
				return err
			}
			noted[slot.Partition] = true
		}
		if batch = append(batch, slot); len(batch) < batchLen {
			return nil
		}
		return move()
	})
	if err == nil {
		err = move()
	}
	if err != nil {
		return moved, fmt.Errorf("put the records of a disk that was set back into quarantine: %w", err)
	}
	return moved, nil
}

// note keeps the reap number of a partition, and the time, for what is put away.
// Of two numbers the lower one holds for both: more is kept then, never less.
func (s Setback) note(partition uint16) error {
	number, err := s.Shelves.Number(partition)
	if err != nil {
		return err
	}
	name, now := partitionFact(prefixQuarantine, partition), Quarantine{Number: number, Since: s.Now()}
	return s.Facts.Update(name, func(old []byte) ([]byte, error) {
		if old != nil {
			before, err := parse(name, old, decodeQuarantine)
			if err != nil {
				return nil, err
			}
			now.Number, now.Since = min(number, before.Number), before.Since
		}
		return encodeQuarantine(now), nil
	})
}

// Quarantine returns what is known of the records in quarantine of a partition,
// the zero Quarantine if there are none.
func (s Setback) Quarantine(partition uint16) (Quarantine, error) {
	return get(s.Facts, partitionFact(prefixQuarantine, partition), decodeQuarantine)
}

// Released is what became of the records in quarantine of a partition.
type Released struct{ Dropped, Restored, Kept int }

// Release judges the records in quarantine of a partition that the node has
// merged from every other owner since. What it keeps stays for good, or until
// it is called again.
func (s Setback) Release(ctx context.Context, partition uint16) (Released, error) {
	var out Released
	name := partitionFact(prefixQuarantine, partition)
	b, err := s.Facts.Get(name)
	if err != nil || b == nil {
		return out, err
	}
	then, err := parse(name, b, decodeQuarantine)
	if err != nil {
		return out, err
	}
	err = s.Shelves.Quarantined(partition, func(key kv.Key) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.settle(ctx, partition, key, then.Number, &out)
	})
	if err == nil && out.Kept == 0 {
		err = s.Facts.Update(name, func([]byte) ([]byte, error) { return nil, nil })
	}
	if err != nil {
		return out, fmt.Errorf("release partition %d from quarantine: %w", partition, err)
	}
	return out, nil
}

func (s Setback) settle(ctx context.Context, partition uint16, key kv.Key, then uint64, out *Released) error {
	var verdict Verdict
	err := s.Shelves.Settle(ctx, partition, key, func(quarantined, present kv.Record, now uint64) Verdict {
		verdict = s.Judge(partition, quarantined, present, then, now)
		return verdict
	})
	switch {
	case err != nil:
	case verdict == Drop:
		out.Dropped++
	case verdict == Restore:
		out.Restored++
	default:
		out.Kept++
	}
	return err
}

// Judge is the function [Judge], but that it keeps what was held for another
// node: restored here, it would be served by nobody.
func (s Setback) Judge(partition uint16, quarantined, present kv.Record, then, now uint64) Verdict {
	verdict := Judge(quarantined, present, then, now)
	if verdict == Restore && !s.owns(partition, max(quarantined.NMax, present.NMax)) {
		return Keep
	}
	return verdict
}

// owns reports whether this node is one of the first n owners of a partition in
// some active layout.
func (s Setback) owns(partition uint16, n uint8) bool {
	return slices.ContainsFunc(s.View().Active(), func(l *ring.Layout) bool {
		owners := l.Owners(ring.Partition(partition))
		return slices.Contains(owners[:min(int(n), len(owners))], s.Self)
	})
}

// Partitions returns the partitions of which something is in quarantine, by
// ascending number.
func (s Setback) Partitions() ([]uint16, error) {
	var out []uint16
	err := s.Facts.Scan(prefixQuarantine, func(name string, _ []byte) error {
		p, err := partitionOf(prefixQuarantine, name)
		out = append(out, p)
		return err
	})
	return out, err
}
