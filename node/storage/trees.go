package storage

import (
	"maps"
	"slices"
	"sync"

	"github.com/starling-kv/starling/merkle"
)

// trees are the hash trees over the records that are the node's own, one for
// each partition and n_max. They follow each commit of the engine once it is
// done. Any goroutine may read them; the committing one writes.
type trees struct {
	mu         sync.RWMutex
	partitions map[uint16][]*tree // by n_max
}

type tree struct {
	nmax   uint8
	dirty  bool // it has changed since it was frozen; of the committing goroutine
	leaves merkle.Tree
}

// TreeRoot says what a tree of a partition holds.
type TreeRoot struct {
	NMax  uint8
	Root  merkle.Node
	Count uint64 // of records
}

// Trees returns the trees of a partition that are not empty, by n_max, all as
// of one moment. It reads memory only.
func (s *Store) Trees(partition uint16) []TreeRoot {
	s.trees.mu.RLock()
	defer s.trees.mu.RUnlock()
	var roots []TreeRoot
	for _, t := range s.trees.partitions[partition] {
		if root := t.leaves.Root(); root != 0 {
			roots = append(roots, TreeRoot{NMax: t.nmax, Root: root, Count: t.leaves.Count()})
		}
	}
	return roots
}

// Tree returns a copy of a tree, the zero one if it is empty. It reads memory
// only.
func (s *Store) Tree(partition uint16, nmax uint8) merkle.Tree {
	s.trees.mu.RLock()
	defer s.trees.mu.RUnlock()
	if t := s.trees.find(merkle.ID{Partition: partition, NMax: nmax}); t != nil {
		return t.leaves
	}
	return merkle.Tree{}
}

// find returns a tree, nil if there is none.
func (ts *trees) find(id merkle.ID) *tree {
	for _, t := range ts.partitions[id.Partition] {
		if t.nmax == id.NMax {
			return t
		}
	}
	return nil
}

// apply makes changes of which the engine has made the like.
func (ts *trees) apply(deltas []merkle.Delta) {
	if len(deltas) == 0 {
		return
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, d := range deltas {
		if d.Sum != 0 || d.Count != 0 {
			t := ts.reach(d.Tree)
			t.leaves.Apply(d)
			t.dirty = true
		}
	}
}

// reach returns a tree, a new one if there is none.
func (ts *trees) reach(id merkle.ID) *tree {
	if t := ts.find(id); t != nil {
		return t
	}
	if ts.partitions == nil {
		ts.partitions = make(map[uint16][]*tree)
	}
	list := ts.partitions[id.Partition]
	at, _ := slices.BinarySearchFunc(list, id.NMax, func(t *tree, nmax uint8) int { return int(t.nmax) - int(nmax) })
	t := &tree{nmax: id.NMax}
	ts.partitions[id.Partition] = slices.Insert(list, at, t)
	return t
}

// leaf returns one leaf of all trees of a partition.
func (ts *trees) leaf(partition uint16, leaf uint8) leafSet {
	ts.mu.RLock()
	defer ts.mu.RUnlock()
	set := make(leafSet)
	for _, t := range ts.partitions[partition] {
		if l := t.leaves[leaf]; l != (merkle.Leaf{}) {
			set[t.nmax] = l
		}
	}
	return set
}

// dirty reports whether there is anything to freeze.
func (ts *trees) dirty() bool {
	for _, list := range ts.partitions {
		if slices.ContainsFunc(list, func(t *tree) bool { return t.dirty }) {
			return true
		}
	}
	return false
}

// freeze calls fn with every tree that has changed since it was called last, in
// their order, and forgets those that have become empty.
func (ts *trees) freeze(fn func(merkle.ID, *merkle.Tree)) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, partition := range slices.Sorted(maps.Keys(ts.partitions)) {
		for _, t := range ts.partitions[partition] {
			if t.dirty {
				fn(merkle.ID{Partition: partition, NMax: t.nmax}, &t.leaves)
				t.dirty = false
			}
		}
		left := slices.DeleteFunc(ts.partitions[partition], func(t *tree) bool { return t.leaves == merkle.Tree{} })
		if ts.partitions[partition] = left; len(left) == 0 {
			delete(ts.partitions, partition)
		}
	}
}
