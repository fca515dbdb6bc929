package merkle

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func drawDelta(t *rapid.T) Delta {
	return Delta{
		Tree: ID{Partition: rapid.Uint16().Draw(t, "partition"), NMax: rapid.Byte().Draw(t, "n")},
		Leaf: rapid.Byte().Draw(t, "leaf"), Sum: rapid.Uint64().Draw(t, "sum"), Count: rapid.Int32().Draw(t, "count"),
	}
}

func drawTree(t *rapid.T) *Tree {
	var tree Tree
	for range rapid.IntRange(0, 40).Draw(t, "changes") {
		tree.Apply(drawDelta(t))
	}
	return &tree
}

func TestEmptyNodesAreZero(t *testing.T) {
	var tree Tree
	if tree.Root() != 0 || tree.Inner() != (Summary{}) || tree.Count() != 0 {
		t.Errorf("an empty tree has root %x", tree.Root())
	}
	rapid.Check(t, func(t *rapid.T) {
		tree := drawTree(t)
		if (tree.Root() == 0) != (*tree == Tree{}) {
			t.Fatalf("root %x of %v", tree.Root(), tree)
		}
	})
}

// What came and left again leaves nothing, whatever the order.
func TestDeltasCommute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := drawTree(t)
		before := *tree
		records := rapid.IntRange(0, 10).Draw(t, "records")
		deltas := make([]Delta, 0, 3*records)
		for range records {
			d := drawDelta(t)
			other := rapid.Uint64().Draw(t, "digest")
			deltas = append(deltas, Added(d.Tree, d.Leaf, d.Sum), Replaced(d.Tree, d.Leaf, d.Sum, other), Removed(d.Tree, d.Leaf, other))
		}
		for _, d := range rapid.Permutation(deltas).Draw(t, "order") {
			tree.Apply(d)
		}
		if *tree != before {
			t.Fatalf("%v became %v", before, tree)
		}
	})
}

func TestBetween(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := Leaf{Sum: rapid.Uint64().Draw(t, "sum"), Count: rapid.Uint32().Draw(t, "count")}
		b := Leaf{Sum: rapid.Uint64().Draw(t, "sum after"), Count: rapid.Uint32().Draw(t, "count after")}
		if got := a.Apply(Between(ID{}, 7, a, b)); got != b {
			t.Fatalf("from %+v to %+v leads to %+v", a, b, got)
		}
	})
}

// The sum of two trees is the tree of the records of both.
func TestAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all, a, b Tree
		for range rapid.IntRange(0, 40).Draw(t, "changes") {
			d := drawDelta(t)
			all.Apply(d)
			if rapid.Bool().Draw(t, "first") {
				a.Apply(d)
			} else {
				b.Apply(d)
			}
		}
		a.Add(&b)
		if a != all {
			t.Fatal("trees added up to another than that of all records")
		}
	})
}

// Going down from the root along what differs finds exactly the leaves that a
// comparison of all leaves finds.
func TestDiffTopDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawTree(t)
		b := *a
		for range rapid.IntRange(0, 5).Draw(t, "differences") {
			b.Apply(drawDelta(t))
		}
		var found []uint8
		if a.Root() != b.Root() {
			for _, inner := range a.Inner().Diff(b.Inner()) {
				for _, i := range a.Children(inner).Diff(b.Children(inner)) {
					found = append(found, inner*Fanout+i)
				}
			}
		}
		if want := a.Diff(&b); !slices.Equal(found, want) {
			t.Fatalf("top-down finds the leaves %v, all compared are %v", found, want)
		}
	})
}

// Nodes depend on every leaf, on its place, and on sum and count apart.
func TestNodesTellApart(t *testing.T) {
	seen := map[Node]Tree{}
	note := func(tree Tree) {
		t.Helper()
		if other, ok := seen[tree.Root()]; ok {
			t.Fatalf("%v and %v have one root", tree, other)
		}
		seen[tree.Root()] = tree
	}
	for leaf := range Leaves {
		for _, l := range []Leaf{{Sum: 1}, {Count: 1}, {Sum: 1, Count: 1}, {Sum: 2}, {Count: 2}, {Sum: 1 << 63}} {
			note(one(leaf, l))
		}
	}
	note(Tree{0: {Sum: 1}, 1: {Sum: 1}})
	note(Tree{0: {Sum: 1}, 16: {Sum: 1}})
}

func one(leaf int, l Leaf) Tree {
	var tree Tree
	tree[leaf] = l
	return tree
}

// Trees of one version must have the same hashes for ever.
func TestHashesAreFixed(t *testing.T) {
	tree := Tree{0: {Sum: 1, Count: 1}, 255: {Sum: 0xfedcba9876543210, Count: 7}}
	if got := tree[255].Node(); got != goldenLeaf {
		t.Errorf("leaf %#x, want %#x", got, goldenLeaf)
	}
	if got := tree.Root(); got != goldenRoot {
		t.Errorf("root %#x, want %#x", got, goldenRoot)
	}
}

const (
	goldenLeaf Node = 0xa02233930f030748
	goldenRoot Node = 0x5e45764e72e23193
)

func BenchmarkRoot(b *testing.B) {
	var tree Tree
	random := rand.New(rand.NewPCG(1, 2))
	for i := range tree {
		tree[i] = Leaf{Sum: random.Uint64(), Count: 4}
	}
	for b.Loop() {
		tree.Root()
	}
}
