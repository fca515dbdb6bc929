package storage

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
)

// leafSet is one leaf of the trees of a partition, by n_max, without those that
// are empty.
type leafSet map[uint8]merkle.Leaf

// digested is a record with what its digest is made of.
type digested struct {
	record    kv.Record
	canonical []byte
}

func decodeDigested(payload []byte) (digested, error) {
	r, err := decodeRecord(payload)
	return digested{record: r, canonical: kv.Canonical(payload)}, err
}

func (d digested) digest(key kv.Key) uint64 { return kv.Digest(key, d.canonical) }

// ScanLeaf calls fn with every record of a leaf and with its digest, with the
// same promises as [Store.ScanPartition].
func (s *Store) ScanLeaf(partition uint16, leaf uint8, fn func(key kv.Key, r kv.Record, digest uint64) error) error {
	return s.ScanLeaves(partition, leaf, leaf, kv.Key{}, fn)
}

// ScanLeaves does so with the leaves from first to last, whose records are
// contiguous, from the record that comes after a key of theirs; from their first
// one if that is zero. If damaged records were left out before fn failed, the
// error matches [ErrCorrupt] as well as fn's.
func (s *Store) ScanLeaves(
	partition uint16, first, last uint8, after kv.Key, fn func(key kv.Key, r kv.Record, digest uint64) error,
) error {
	from, _ := leafRange(partition, first)
	_, to := leafRange(partition, last)
	if after != (kv.Key{}) {
		if err := checkKey(after); err != nil {
			return err
		}
		from = append(slotAddress(kv.Slot{Partition: partition, Key: after}).bytes(), 0)
	}
	d, err := scanReadable(s, from, to, decodeDigested, func(at address, r digested) error {
		return fn(at.slot.Key, r.record, r.digest(at.slot.Key))
	})
	if d.entries == 0 {
		return err
	}
	return errors.Join(err, d.err())
}

// LeafEmpty reports whether the trees have no record in a leaf, without a look
// at the disk.
func (s *Store) LeafEmpty(partition uint16, leaf uint8) bool {
	return len(s.trees.leaf(partition, leaf)) == 0
}

// CheckLeaf compares the records of a leaf with the trees. It returns nil if
// they agree, [ErrLeaf] if they do not or if a record is damaged, and any other
// error if that could not be found out. It is safe beside writes: only where
// they interfere it waits for its turn among them, so that it must not be
// called by the committing goroutine.
func (s *Store) CheckLeaf(partition uint16, leaf uint8) error {
	err := s.checkLeaf(partition, leaf)
	if !errors.Is(err, ErrLeaf) {
		return err
	}
	// The trees follow a commit a moment after the engine shows it. Between two
	// rounds there is no such moment.
	return s.wait(task{run: func(*round) (bool, error) { return false, s.checkLeaf(partition, leaf) }})
}

func (s *Store) checkLeaf(partition uint16, leaf uint8) error {
	want := s.trees.leaf(partition, leaf)
	got, d, err := s.readLeaf(partition, leaf)
	name := fmt.Sprintf("leaf %d of partition %d", leaf, partition)
	switch {
	case errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFormat):
		return fmt.Errorf("%s: %w: %w", name, ErrLeaf, err)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case d.entries > 0:
		return fmt.Errorf("%s: %w: %w", name, ErrLeaf, d.err())
	case !maps.Equal(got, want):
		return fmt.Errorf("%s: %w: the tree has %v by n_max, the records make %v", name, ErrLeaf, want, got)
	}
	return nil
}

// readLeaf makes a leaf of all trees of a partition from the records that can
// be read.
func (s *Store) readLeaf(partition uint16, leaf uint8) (leafSet, damage, error) {
	from, to := leafRange(partition, leaf)
	sets, d, err := s.readLeaves(from, to)
	return sets[leaf], d, err
}

// readLeaves does so for all leaves in a range of storage keys that does not
// leave a partition.
func (s *Store) readLeaves(from, to []byte) (map[uint8]leafSet, damage, error) {
	sets := make(map[uint8]leafSet)
	d, err := scanReadable(s, from, to, decodeDigested, func(at address, r digested) error {
		leaf, nmax := at.slot.Key.Leaf(), r.record.NMax
		if sets[leaf] == nil {
			sets[leaf] = make(leafSet)
		}
		sets[leaf][nmax] = sets[leaf][nmax].Apply(merkle.Delta{Sum: r.digest(at.slot.Key), Count: 1})
		return nil
	})
	return sets, d, err
}

// RebuildLeaf makes a leaf of all trees of a partition anew from the records
// that can be read. An error says that nothing will happen; done is called once
// otherwise, as that of an [Update] is.
func (s *Store) RebuildLeaf(partition uint16, leaf uint8, done func(error)) error {
	run := func(r *round) (bool, error) { return true, r.rebuild(partition, leaf) }
	return s.queue.put(task{run: run, done: done})
}

// rebuild adds to the round what is wrong with a leaf of the trees.
func (r *round) rebuild(partition uint16, leaf uint8) error {
	r.flush(false) // so that trees and engine are of one moment
	if r.err != nil {
		return r.err
	}
	// What was read from the cache may be what the disk has lost.
	r.made.forget()
	r.s.cache.reset()
	found, _, err := r.s.readLeaf(partition, leaf)
	if err != nil {
		return err
	}
	r.s.counts.rebuilt.Add(1)
	r.noteDamaged(partition, leaf)
	r.deltas = append(r.deltas, corrections(partition, leaf, r.s.trees.leaf(partition, leaf), found)...)
	return nil
}

// corrections returns the deltas that turn what the trees have of a leaf into
// what was found.
func corrections(partition uint16, leaf uint8, have, found leafSet) []merkle.Delta {
	all := make(leafSet)
	maps.Copy(all, have)
	maps.Copy(all, found)
	var out []merkle.Delta
	for _, nmax := range slices.Sorted(maps.Keys(all)) {
		if have[nmax] != found[nmax] {
			out = append(out, merkle.Between(merkle.ID{Partition: partition, NMax: nmax}, leaf, have[nmax], found[nmax]))
		}
	}
	return out
}
