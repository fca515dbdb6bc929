package merkle

import "cmp"

// ID names a tree: that of the records of a partition whose largest n ever
// asked for is NMax.
type ID struct {
	Partition uint16
	NMax      uint8
}

// Compare orders trees by partition, then by n.
func (id ID) Compare(o ID) int {
	return cmp.Or(cmp.Compare(id.Partition, o.Partition), cmp.Compare(id.NMax, o.NMax))
}

// Delta is the change of one leaf of one tree. Deltas commute: the same ones
// applied in any order give the same trees. One without Sum and Count changes
// nothing; it says that records of the leaf were touched.
type Delta struct {
	Tree  ID
	Leaf  uint8
	Sum   uint64 // XOR of the digests of what left and what came
	Count int32  // how many records more
}

// Added is the delta of a record that came into a leaf.
func Added(id ID, leaf uint8, digest uint64) Delta {
	return Delta{Tree: id, Leaf: leaf, Sum: digest, Count: 1}
}

// Removed is the delta of a record that left a leaf.
func Removed(id ID, leaf uint8, digest uint64) Delta {
	return Delta{Tree: id, Leaf: leaf, Sum: digest, Count: -1}
}

// Replaced is the delta of a record that took the place of another.
func Replaced(id ID, leaf uint8, before, after uint64) Delta {
	return Delta{Tree: id, Leaf: leaf, Sum: before ^ after}
}

// Between is the delta that turns the leaf before into the leaf after.
func Between(id ID, leaf uint8, before, after Leaf) Delta {
	return Delta{Tree: id, Leaf: leaf, Sum: before.Sum ^ after.Sum, Count: int32(after.Count - before.Count)}
}
