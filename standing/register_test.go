package standing

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

func TestMost(t *testing.T) {
	for _, c := range []struct {
		name    string
		layouts [][]kv.NodeID
		stored  []kv.NodeID
		want    bool
	}{
		{"no layout", nil, nil, false},
		{"alone", [][]kv.NodeID{{1}}, nil, true},
		{"one of two", [][]kv.NodeID{{1, 2}}, nil, false},
		{"two of three, whoever it is", [][]kv.NodeID{{1, 2, 3}}, []kv.NodeID{3}, true},
		{"half of four", [][]kv.NodeID{upTo(4)}, []kv.NodeID{3}, false},
		{"three of five", [][]kv.NodeID{upTo(5)}, []kv.NodeID{4, 5}, true},
		{"strangers do not count", [][]kv.NodeID{{1, 2}}, []kv.NodeID{7, 8}, false},
		{"in one layout of two", [][]kv.NodeID{{1, 2, 3}, {1, 4, 5}}, []kv.NodeID{2}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v ring.View
			if c.layouts != nil {
				v = viewOf(t, c.layouts...)
			}
			if got := Most(v, 1, func(id kv.NodeID) bool { return slices.Contains(c.stored, id) }); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRegistered(t *testing.T) {
	// The witness of 1 is 2, that of 2 is 3, and that of the largest is 1.
	for _, c := range []struct {
		name    string
		layouts [][]kv.NodeID
		self    kv.NodeID
		stored  []kv.NodeID
		want    bool
	}{
		{"no layout", nil, 1, nil, false},
		{"alone", [][]kv.NodeID{{1}}, 1, nil, true},
		{"one of two, nobody", [][]kv.NodeID{{1, 2}}, 1, nil, false},
		{"one of two, the other", [][]kv.NodeID{{1, 2}}, 1, []kv.NodeID{2}, true},
		{"one of three, its witness", [][]kv.NodeID{{1, 2, 3}}, 1, []kv.NodeID{2}, true},
		{"one of three, the other one", [][]kv.NodeID{{1, 2, 3}}, 1, []kv.NodeID{3}, false},
		{"one of three, both", [][]kv.NodeID{{1, 2, 3}}, 1, []kv.NodeID{2, 3}, true},
		{"the last of three, its witness", [][]kv.NodeID{{1, 2, 3}}, 3, []kv.NodeID{1}, true},
		{"one of four, one", [][]kv.NodeID{upTo(4)}, 1, []kv.NodeID{2}, false},
		{"one of four, two", [][]kv.NodeID{upTo(4)}, 1, []kv.NodeID{3, 4}, true},
		{"one of five, half with the witness", [][]kv.NodeID{upTo(5)}, 2, []kv.NodeID{3, 5}, true},
		{"one of five, half without", [][]kv.NodeID{upTo(5)}, 2, []kv.NodeID{1, 5}, false},
		{"one of five, itself does not count", [][]kv.NodeID{upTo(5)}, 2, []kv.NodeID{1, 2, 5}, false},
		{"strangers do not count", [][]kv.NodeID{{1, 2}}, 1, []kv.NodeID{7, 8, 9}, false},
		{"enough in one layout of two", [][]kv.NodeID{{1, 2}, {1, 3, 4}}, 1, []kv.NodeID{2, 4}, false},
		{"enough in both", [][]kv.NodeID{{1, 2}, {1, 3, 4}}, 1, []kv.NodeID{2, 3}, true},
		{"no member, half", [][]kv.NodeID{{2, 3}}, 1, []kv.NodeID{3}, false},
		{"no member, its witness", [][]kv.NodeID{{2, 3}}, 1, []kv.NodeID{2}, true},
		{"no member, the last, its witness", [][]kv.NodeID{{2, 3}}, 9, []kv.NodeID{2}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v ring.View
			if c.layouts != nil {
				v = viewOf(t, c.layouts...)
			}
			if got := Registered(v, c.self, func(id kv.NodeID) bool { return slices.Contains(c.stored, id) }); got != c.want {
				t.Errorf("registered: %v", got)
			}
		})
	}
}

// TestEnoughMeetsEnough: of any two sets of members that are enough, there is
// one in both, and it is not the node itself. And all of the others are enough.
func TestEnoughMeetsEnough(t *testing.T) {
	for size := 1; size <= 8; size++ {
		members := upTo(size)
		for _, self := range members {
			enough := func(set int) bool {
				return registered(members, self, func(id kv.NodeID) bool { return set>>(id-1)&1 == 1 })
			}
			others := 1<<size - 1 - 1<<(self-1)
			if !enough(others) {
				t.Fatalf("%d members: all others of %d are not enough", size, self)
			}
			for a := range 1 << size {
				for b := range 1 << size {
					if enough(a) && enough(b) && a&b&others == 0 && size > 1 {
						t.Fatalf("%d members: %b and %b are enough for %d and have nobody in common", size, a, b, self)
					}
				}
			}
			if most := bits.OnesCount(uint(others)); size > 2 && !enough(others&^(1<<(witness(members, self)-1))) && most > 2 {
				t.Fatalf("%d members: %d needs its witness", size, self)
			}
		}
	}
}

func TestEveryone(t *testing.T) {
	v := viewOf(t, []kv.NodeID{5, 1, 3}, []kv.NodeID{3, 4, 1})
	if got, want := everyone(v, 3), []kv.NodeID{1, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := everyone(ring.View{}, 3); len(got) != 0 {
		t.Errorf("%v in no layout", got)
	}
}
