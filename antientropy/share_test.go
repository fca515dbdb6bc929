package antientropy

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// views draws one or two active layouts of up to eight nodes.
func views(t *rapid.T) ring.View {
	var v ring.View
	var prev *ring.Layout
	for version := range rapid.Uint64Range(1, 2).Draw(t, "layouts") {
		members := make([]ring.Member, rapid.IntRange(1, 8).Draw(t, "members"))
		for i := range members {
			name := string(rune('a' + i))
			members[i] = ring.Member{ID: kv.NodeID(i + 1), Name: name, Address: name + ":1", Weight: rapid.Uint32Range(0, 3).Draw(t, "weight")}
		}
		members[0].Weight++
		l, err := ring.Compute(ring.ClusterID{1}, version+1, members, 8, prev)
		if err != nil {
			t.Fatal(err)
		}
		if v, err = v.With(l); err != nil {
			t.Fatal(err)
		}
		prev = l
	}
	return v
}

// ownsPartition is the definition: among the first nmax owners of a layout.
func ownsPartition(v ring.View, p ring.Partition, nmax int, id kv.NodeID) bool {
	return slices.ContainsFunc(v.Active(), func(l *ring.Layout) bool {
		owners := l.Owners(p)
		return slices.Contains(owners[:min(nmax, len(owners))], id)
	})
}

// TestSharesAreWhatBothOwn compares a territory with the definition, for every
// partition, pair of nodes and n_max.
func TestSharesAreWhatBothOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := views(t)
		self := kv.NodeID(rapid.Uint64Range(1, 8).Draw(t, "self"))
		land := newTerritory(v, self)
		for p := range ring.Partition(8) {
			if owns := ownsPartition(v, p, kv.MaxN, self); owns != (len(land.owners(uint16(p))) > 0) {
				t.Fatalf("node %v owns partition %d: %v, but its owners are %v", self, p, owns, land.owners(uint16(p)))
			}
			for id := kv.NodeID(1); id <= 8; id++ {
				least, shared := land.least(id, uint16(p))
				for nmax := 1; nmax <= kv.MaxN; nmax++ {
					want := id != self && ownsPartition(v, p, nmax, self) && ownsPartition(v, p, nmax, id)
					if got := shared && nmax >= int(least); got != want {
						t.Fatalf("nodes %v and %v share n_max %d of partition %d: %v, not %v", self, id, nmax, p, got, want)
					}
				}
			}
		}
	})
}

// TestSharesAreMutual holds that both sides of an exchange see the same shares.
func TestSharesAreMutual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := views(t)
		for a := kv.NodeID(1); a <= 8; a++ {
			for _, n := range newTerritory(v, a).peers {
				if back := newTerritory(v, n.id).shares(a); !slices.Equal(back, n.shares) {
					t.Fatalf("%v shares %v with %v, which shares %v with it", a, n.shares, n.id, back)
				}
			}
		}
	})
}

func TestNobodyOwnsAnythingWithoutLayouts(t *testing.T) {
	land := newTerritory(ring.View{}, 1)
	if len(land.holdings) > 0 || len(land.peers) > 0 || land.shares(2) != nil || land.owners(0) != nil {
		t.Errorf("%+v", land)
	}
}
