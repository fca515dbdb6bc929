package storage

import (
	"slices"
	"sync"

	"github.com/starling-kv/starling/merkle"
)

// trees are the hash trees over the records that are the node's own, one for
// each partition and n_max. They follow each commit of the engine once it is
// done. Any goroutine may read them; the committing one writes.
type trees struct {
	mu         sync.RWMutex
	partitions [][]tree // by partition, which are numbered from 0, then by n_max
}

// tree is small and its leaves are elsewhere, so that a change of a leaf touches
// little memory: it costs what it misses in the processor's caches.
type tree struct {
	nmax   uint8
	dirty  bool // it has changed since it was frozen; of the committing goroutine
	leaves *merkle.Tree
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
	for _, t := range s.trees.of(partition) {
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
	for _, t := range s.trees.of(partition) {
		if t.nmax == nmax {
			return *t.leaves
		}
	}
	return merkle.Tree{}
}

// TreeFrom returns the tree of all records of a partition with at least that
// n_max, as of one moment: a record whose n_max grows is never missed between
// two trees. It reads memory only.
func (s *Store) TreeFrom(partition uint16, least uint8) merkle.Tree {
	s.trees.mu.RLock()
	defer s.trees.mu.RUnlock()
	var all merkle.Tree
	for _, t := range s.trees.of(partition) {
		if t.nmax >= least {
			all.Add(t.leaves)
		}
	}
	return all
}

// of returns the trees of a partition.
func (ts *trees) of(partition uint16) []tree {
	if int(partition) >= len(ts.partitions) {
		return nil
	}
	return ts.partitions[partition]
}

// leaf returns one leaf of all trees of a partition.
func (ts *trees) leaf(partition uint16, leaf uint8) leafSet {
	ts.mu.RLock()
	defer ts.mu.RUnlock()
	set := make(leafSet)
	for _, t := range ts.of(partition) {
		if l := t.leaves[leaf]; l != (merkle.Leaf{}) {
			set[t.nmax] = l
		}
	}
	return set
}

// apply makes changes of which the engine has made the like.
func (ts *trees) apply(deltas []merkle.Delta) {
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

// reach returns a tree, a new one if there is none, until it is called again.
func (ts *trees) reach(id merkle.ID) *tree {
	if missing := int(id.Partition) + 1 - len(ts.partitions); missing > 0 {
		ts.partitions = append(ts.partitions, make([][]tree, missing)...)
	}
	list := &ts.partitions[id.Partition]
	i := 0
	for i < len(*list) && (*list)[i].nmax < id.NMax {
		i++
	}
	if i == len(*list) || (*list)[i].nmax != id.NMax {
		*list = slices.Insert(*list, i, tree{nmax: id.NMax, leaves: new(merkle.Tree)})
	}
	return &(*list)[i]
}

// dirty reports whether there is anything to freeze.
func (ts *trees) dirty() bool {
	return slices.ContainsFunc(ts.partitions, func(list []tree) bool {
		return slices.ContainsFunc(list, func(t tree) bool { return t.dirty })
	})
}

// freeze calls fn with every tree that has changed since it was called last, in
// their order, and forgets those that have become empty.
func (ts *trees) freeze(fn func(merkle.ID, *merkle.Tree)) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for partition, list := range ts.partitions {
		for i, t := range list {
			if t.dirty {
				fn(merkle.ID{Partition: uint16(partition), NMax: t.nmax}, t.leaves)
				list[i].dirty = false
			}
		}
		ts.partitions[partition] = slices.DeleteFunc(list, func(t tree) bool { return *t.leaves == merkle.Tree{} })
	}
}

// clear empties all trees.
func (ts *trees) clear() {
	for _, list := range ts.partitions {
		for i := range list {
			list[i].leaves, list[i].dirty = new(merkle.Tree), true
		}
	}
}
