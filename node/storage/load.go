package storage

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/starling-kv/starling/merkle"
)

// loadTrees makes the trees from their pages and the journal; from the records
// only what these cannot tell, see [journal]: the leaves that a crash made
// doubtful, or everything if a page or an entry is damaged or of another
// version of hashes. The committing goroutine does not run yet.
func (s *Store) loadTrees() error {
	l := loader{s: s, upto: make(map[merkle.ID]uint64), doubtful: make(map[leafID]struct{})}
	if err := l.read(); err != nil {
		return err
	}
	switch {
	case l.damage != nil:
		if err := l.rebuildAll(); err != nil {
			return err
		}
	case l.gap:
		if err := l.rebuildDoubtful(); err != nil {
			return err
		}
	default:
		return nil
	}
	// Otherwise the next start would do it again, and for more leaves. Without
	// room it has to.
	err := s.checkpointAll()
	if err == nil {
		r := round{s: s}
		r.flush(true)
		err = r.err
	}
	if errors.Is(err, ErrDiskFull) {
		return nil
	}
	return err
}

// loader is what a store that is being opened finds of its trees.
type loader struct {
	s    *Store
	mark uint64               // no page lacks an entry up to here
	upto map[merkle.ID]uint64 // the last entry that each page contains

	expected uint64 // the number of the next entry after the mark
	damage   error  // why pages and journal do not make the trees
	gap      bool   // an entry is missing
	doubtful map[leafID]struct{}
}

type leafID struct {
	partition uint16
	leaf      uint8
}

func (id leafID) compare(o leafID) int {
	return cmp.Or(cmp.Compare(id.partition, o.partition), cmp.Compare(id.leaf, o.leaf))
}

func (l *loader) read() error {
	if err := l.readMark(); err != nil {
		return err
	}
	if err := l.scan(spacePage, l.page); err != nil {
		return err
	}
	j := &l.s.journal
	j.next = l.mark + 1
	for _, upto := range l.upto {
		j.next = max(j.next, upto+1)
	}
	j.first, l.expected = j.next, l.mark+1
	return l.scan(spaceJournal, l.entry)
}

func (l *loader) readMark() error {
	payload, _, err := l.s.load(markAddress, markAddress.bytes())
	if err == nil && payload != nil {
		l.mark, err = decodeMark(payload)
	}
	switch {
	case errors.Is(err, ErrCorrupt):
		l.damage = err
		return nil
	case err != nil:
		return fmt.Errorf("%v: %w", markAddress, err)
	}
	return nil
}

// scan calls fn with every entry of a space. What cannot be read, and what fn
// returns an error for, is damage.
func (l *loader) scan(space space, fn func(address, []byte) error) error {
	from, to := prefixRange([]byte{byte(space)})
	return l.s.engine.Scan(from, to, func(key, envelope []byte) error {
		_, payload, err := unseal(key, envelope)
		if err != nil {
			l.s.counts.corrupt.Add(1)
			l.damaged(key, err)
			return nil
		}
		at, err := parseAddress(key)
		if err == nil {
			err = fn(at, payload)
		}
		if err != nil {
			l.damage = cmp.Or(l.damage, err)
		}
		return nil
	})
}

// damaged notes a value that is not what was written under key. It goes once
// all pages are written anew: a page by being overwritten, anything else as
// junk. Nothing in the key is relied on.
func (l *loader) damaged(key []byte, err error) {
	l.damage = cmp.Or(l.damage, err)
	if at, err := parseAddress(key); err == nil && at.space == spacePage {
		l.s.trees.reach(at.tree())
		return
	}
	l.s.journal.junk = append(l.s.journal.junk, key)
}

func (l *loader) page(at address, payload []byte) error {
	upto, leaves, err := decodePage(payload)
	*l.s.trees.reach(at.tree()).leaves, l.upto[at.tree()] = leaves, upto
	return err
}

// entry replays one journal entry. They come in the order of their numbers.
func (l *loader) entry(at address, payload []byte) error {
	j := &l.s.journal
	j.first, j.next = min(j.first, at.id), max(j.next, at.id+1)
	j.entries++
	j.bytes += len(payload)
	if at.id > l.mark {
		l.gap = l.gap || at.id != l.expected
		l.expected = at.id + 1
	}
	deltas, err := merkle.DecodeDeltas(payload)
	for _, d := range deltas {
		if l.gap {
			l.doubtful[leafID{d.Tree.Partition, d.Leaf}] = struct{}{}
		}
		if at.id > l.upto[d.Tree] {
			l.s.trees.apply([]merkle.Delta{d})
		}
	}
	return err
}

// rebuildAll makes all trees from the records that can be read.
func (l *loader) rebuildAll() error {
	ts := &l.s.trees
	ts.clear()
	from, to := prefixRange([]byte{byte(spaceRecord)})
	_, err := scanReadable(l.s, from, to, decodeDigested, func(at address, r digested) error {
		id := merkle.ID{Partition: at.slot.Partition, NMax: r.record.NMax}
		ts.apply([]merkle.Delta{merkle.Added(id, at.slot.Key.Leaf(), r.digest(at.slot.Key))})
		return nil
	})
	for _, list := range ts.partitions {
		l.s.counts.rebuilt.Add(uint64(len(list) * merkle.Leaves))
	}
	return err
}

// rebuildDoubtful makes the leaves from the records about which the journal may
// be wrong.
func (l *loader) rebuildDoubtful() error {
	ids := slices.SortedFunc(maps.Keys(l.doubtful), leafID.compare)
	for len(ids) > 0 {
		n := l.together(ids)
		if err := l.rebuild(ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// seekRecords is how many records can be read about as fast as the first of a
// range is found.
const seekRecords = 32

// together returns how many of the leaves, from the first on, are best read by
// one scan, with all that lies between them.
func (l *loader) together(ids []leafID) int {
	n := 1
	for n < len(ids) && ids[n].partition == ids[0].partition {
		between := uint64(0)
		for leaf := int(ids[n-1].leaf) + 1; leaf < int(ids[n].leaf); leaf++ {
			for _, t := range l.s.trees.of(ids[0].partition) {
				between += uint64(t.leaves[leaf].Count)
			}
		}
		if between > seekRecords {
			break
		}
		n++
	}
	return n
}

// rebuild makes leaves of one partition, in their order, by one scan.
func (l *loader) rebuild(ids []leafID) error {
	partition := ids[0].partition
	from, _ := leafRange(partition, ids[0].leaf)
	_, to := leafRange(partition, ids[len(ids)-1].leaf)
	found, _, err := l.s.readLeaves(from, to)
	if err != nil {
		return err
	}
	for _, id := range ids {
		l.s.trees.apply(corrections(partition, id.leaf, l.s.trees.leaf(partition, id.leaf), found[id.leaf]))
		l.s.counts.rebuilt.Add(1)
	}
	return nil
}
