package merkle

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// The shape of every tree: Leaves = Fanout * Fanout.
const (
	Leaves = 256
	Fanout = 16
)

// HashVersion names how digests and nodes are made. Nodes of different versions
// say nothing about one another.
const HashVersion = 1

// Leaf stands for a set of records.
type Leaf struct {
	Sum   uint64 // the XOR of their digests
	Count uint32 // how many there are
}

// Node returns the hash of the leaf, zero for an empty one.
func (l Leaf) Node() Node {
	if l == (Leaf{}) {
		return 0
	}
	return occupied(mix(mix(l.Sum) + uint64(l.Count)))
}

// mix is the finalizer of splitmix64 (Steele and others, 2014), a permutation.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Node is the hash of a leaf, of an inner node or of a whole tree. It is zero
// if and only if there is nothing beneath.
type Node uint64

func occupied(hash uint64) Node { return Node(max(1, hash)) }

// Summary holds the nodes of the children of one node, in their order.
type Summary [Fanout]Node

// Node returns the hash of the node whose children these are.
func (s Summary) Node() Node {
	if s == (Summary{}) {
		return 0
	}
	var b [8 * Fanout]byte
	for i, n := range s {
		binary.BigEndian.PutUint64(b[8*i:], uint64(n))
	}
	return occupied(xxhash.Sum64(b[:]))
}

// Diff returns the places, ascending, at which the summaries differ.
func (s Summary) Diff(o Summary) []uint8 {
	var places []uint8
	for i := range s {
		if s[i] != o[i] {
			places = append(places, uint8(i))
		}
	}
	return places
}

// Tree is the leaves of a tree. The zero Tree is empty. It is 4 KiB large.
type Tree [Leaves]Leaf

// Root returns the hash of the whole tree.
func (t *Tree) Root() Node { return t.Inner().Node() }

// Inner returns the nodes beneath the root.
func (t *Tree) Inner() Summary {
	var s Summary
	for i := range s {
		s[i] = t.Children(uint8(i)).Node()
	}
	return s
}

// Children returns the nodes of the leaves beneath an inner node, which are
// those from inner*[Fanout] on. The inner node is one below Fanout.
func (t *Tree) Children(inner uint8) Summary {
	var s Summary
	for i := range s {
		s[i] = t[int(inner)*Fanout+i].Node()
	}
	return s
}

// Count returns the number of records in the tree.
func (t *Tree) Count() uint64 {
	var n uint64
	for _, l := range t {
		n += uint64(l.Count)
	}
	return n
}

// Add makes the tree that of its own records and of those of o, of which it has
// none.
func (t *Tree) Add(o *Tree) {
	for i, l := range o {
		t[i] = Leaf{Sum: t[i].Sum ^ l.Sum, Count: t[i].Count + l.Count}
	}
}

// Diff returns the leaves, ascending, that differ between the trees.
func (t *Tree) Diff(o *Tree) []uint8 {
	var leaves []uint8
	for i := range t {
		if t[i] != o[i] {
			leaves = append(leaves, uint8(i))
		}
	}
	return leaves
}

// Apply makes the change d, whose Tree is not looked at.
func (t *Tree) Apply(d Delta) { t[d.Leaf] = t[d.Leaf].Apply(d) }

// Apply returns the leaf after the change d.
func (l Leaf) Apply(d Delta) Leaf {
	return Leaf{Sum: l.Sum ^ d.Sum, Count: l.Count + uint32(d.Count)}
}
