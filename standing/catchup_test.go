package standing

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
)

// TestCatchup merges a partition with the owners 1 to 5 of one layout for node
// 1, step by step, and looks for which n it counts.
func TestCatchup(t *testing.T) {
	owners := upTo(5)
	heard := map[kv.NodeID]uint64{}
	starts := func(id kv.NodeID) uint64 { return heard[id] }
	c := catchup{epoch: 1}
	counts := func(want ...int) {
		t.Helper()
		var got []int
		for n := 1; n <= 5; n++ {
			if c.missing(1, owners[:n], starts) == nil {
				got = append(got, n)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("counts for n in %v, want %v", got, want)
		}
	}
	merge := func(id kv.NodeID, at uint64) { c = c.add(id, at).settle(1, [][]kv.NodeID{owners}, starts) }

	counts(1) // there is no other owner
	merge(3, 1)
	counts(1)
	heard[3] = 2 // before it was of use
	merge(2, 1)
	counts(1, 2)
	merge(3, 1)
	counts(1, 2) // it was read before it started again
	merge(3, 2)
	counts(1, 2, 3)
	heard[2], heard[3] = 5, 5 // too late to matter
	counts(1, 2, 3)
	merge(5, 0)
	counts(1, 2, 3)
	merge(4, 0)
	counts(1, 2, 3, 4, 5)
	if !c.whole || c.missing(1, []kv.NodeID{1, 8, 9}, starts) != nil {
		t.Error("later owners are asked for, though it was merged from all there were")
	}
}

// TestCatchupNeedsAllLayouts: the first n owners of each active layout.
func TestCatchupNeedsAllLayouts(t *testing.T) {
	none := func(kv.NodeID) uint64 { return 0 }
	layouts := [][]kv.NodeID{{1, 2, 3}, {4, 1, 2}}
	c := catchup{epoch: 1}.add(2, 1).settle(1, layouts, none)
	if slices.ContainsFunc(c.merged, func(s source) bool { return s.final }) {
		t.Errorf("final without an owner of the other layout: %+v", c)
	}
	c = c.add(4, 1).settle(1, layouts, none)
	if want := []source{{2, 1, true}, {4, 1, true}}; !slices.Equal(c.merged, want) || c.whole {
		t.Errorf("%+v, want %v final", c, want)
	}
	if c = c.add(3, 1).settle(1, layouts, none); !c.whole {
		t.Errorf("%+v, want all of it", c)
	}
}

// TestCatchupIsLatched compares catchup with the dumb way: a source is good if
// it was merged since it started, and for ever once all that some n asks for
// were good together.
func TestCatchupIsLatched(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		owners := rapid.Permutation(upTo(rapid.IntRange(1, 5).Draw(t, "owners"))).Draw(t, "order")
		heard, good, final := map[kv.NodeID]uint64{}, map[kv.NodeID]bool{1: true}, map[kv.NodeID]bool{}
		starts := func(id kv.NodeID) uint64 { return heard[id] }
		bad := func(id kv.NodeID) bool { return !good[id] && !final[id] }
		c := catchup{epoch: 1}
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			switch id := rapid.SampledFrom(owners).Draw(t, "node"); {
			case id == 1:
			case rapid.Bool().Draw(t, "starts again"):
				heard[id]++
				good[id] = false
			default:
				late := min(heard[id], rapid.Uint64Range(0, 1).Draw(t, "late"))
				good[id] = good[id] || late == 0
				c = c.union(c.add(id, heard[id]-late).settle(1, [][]kv.NodeID{owners}, starts))
			}
			for n := range owners {
				all := !slices.ContainsFunc(owners[:n+1], bad)
				for _, id := range owners[:n+1] {
					final[id] = final[id] || all
				}
				if got := c.missing(1, owners[:n+1], starts) == nil; got != all {
					t.Fatalf("counts for n = %d: %v, want %v: %+v", n+1, got, all, c)
				}
			}
		}
	})
}

func TestUnion(t *testing.T) {
	old, whole := catchup{epoch: 1}.add(2, 1), catchup{epoch: 2, whole: true}
	for _, c := range []struct {
		name       string
		a, b, want catchup
	}{
		{"of two epochs the later", old, catchup{epoch: 2}.add(3, 1), catchup{epoch: 2}.add(3, 1)},
		{"whole stays", whole, catchup{epoch: 2}.add(3, 1), whole},
		{"sources", old, catchup{epoch: 1}.add(3, 4), catchup{epoch: 1}.add(2, 1).add(3, 4)},
		{"the later starts", old, catchup{epoch: 1}.add(2, 7), catchup{epoch: 1}.add(2, 7)},
		{"final", old, catchup{epoch: 1, merged: []source{{2, 1, true}}}, catchup{epoch: 1, merged: []source{{2, 1, true}}}},
	} {
		for _, got := range []catchup{c.a.union(c.b), c.b.union(c.a)} {
			if got.epoch != c.want.epoch || got.whole != c.want.whole || !slices.Equal(got.merged, c.want.merged) {
				t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			}
		}
	}
}
