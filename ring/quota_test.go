package ring

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestSpread(t *testing.T) {
	for _, tc := range []struct {
		name  string
		zones []int // members of each
		n     int
		least []int
		most  []int
		extra int
	}{
		{"one zone gives all", []int{5}, 3, []int{2}, []int{3}, 1},
		{"as many zones as owners", []int{2, 2, 2}, 3, []int{0, 0, 0}, []int{1, 1, 1}, 3},
		{"more zones than owners", []int{2, 2, 2, 1}, 3, []int{0, 0, 0, 0}, []int{1, 1, 1, 1}, 3},
		{"second round", []int{2, 2, 2}, 4, []int{1, 1, 1}, []int{2, 2, 2}, 1},
		{"two zones, three owners", []int{9, 9}, 3, []int{1, 1}, []int{2, 2}, 1},
		{"a zone runs out", []int{4, 1}, 4, []int{2, 1}, []int{3, 1}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pop := &population{zones: make([][]uint16, len(tc.zones))}
			for z, size := range tc.zones {
				pop.zones[z] = make([]uint16, size)
			}
			got := pop.spread(tc.n)
			if !equal(got.least, tc.least) || !equal(got.most, tc.most) || got.extra != tc.extra {
				t.Errorf("got %+v, want least %v, most %v, extra %d", got, tc.least, tc.most, tc.extra)
			}
		})
	}
}

func equal(a, b []int) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestQuotas(t *testing.T) {
	for _, tc := range []struct {
		name    string
		weights []uint32
		zones   []string
		n       int
		load    []int
		want    []int
	}{
		{"equal", []uint32{1, 1, 1, 1}, nil, 3, nil, []int{48, 48, 48, 48}},
		{"by weight", []uint32{2, 1, 1}, nil, 1, nil, []int{32, 16, 16}},
		{"once a partition at most", []uint32{8, 1, 1}, nil, 2, nil, []int{64, 32, 32}},
		{"nothing for weight 0", []uint32{1, 0, 1}, nil, 1, nil, []int{32, 0, 32}},
		{"the remainder stays where it is", []uint32{1, 1, 1}, nil, 1, []int{21, 21, 22}, []int{21, 21, 22}},
		{"a zone once a partition at most", []uint32{1, 1, 1, 1}, []string{"a", "a", "b", "c"}, 3, nil, []int{32, 32, 64, 64}},
		{"a light zone once a partition at least", []uint32{9, 9, 1}, []string{"a", "a", "b"}, 2, nil, []int{32, 32, 64}},
		{"huge weights", []uint32{1<<32 - 1, 1<<32 - 1}, nil, 1, nil, []int{32, 32}},
		{"one far heavier", []uint32{1<<32 - 1, 1}, nil, 1, nil, []int{64, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ms := make([]Member, len(tc.weights))
			for i, w := range tc.weights {
				ms[i].Weight = w
				if tc.zones != nil {
					ms[i].Zone = tc.zones[i]
				}
			}
			if tc.load == nil {
				tc.load = make([]int, len(ms))
			}
			pop := newPopulation(ms, 64)
			if got := pop.quotas(tc.n, pop.spread(tc.n), tc.load); !equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// Quotas add up, stay within bounds, and no two members could be brought closer
// to their weights by one giving the other two places or more.
func TestQuotasAreFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := drawMembers(t, 20)
		pop := newPopulation(ms, 1<<rapid.IntRange(0, 10).Draw(t, "log partitions"))
		n := rapid.IntRange(1, min(MaxOwners, ownersOf(ms))).Draw(t, "n")
		rule := pop.spread(n)
		load := make([]int, len(ms))
		for i := range load {
			load[i] = rapid.IntRange(0, pop.partitions).Draw(t, "load")
		}
		quota := pop.quotas(n, rule, load)
		zone, sum := make([]int, len(pop.zones)), 0
		for i, q := range quota {
			sum += q
			if z := pop.zoneOf[i]; z >= 0 {
				zone[z] += q
			}
			if q < 0 || q > pop.partitions || ms[i].Weight == 0 && q > 0 {
				t.Fatalf("quota %d of member %d", q, i)
			}
		}
		if sum != n*pop.partitions {
			t.Fatalf("quotas sum to %d, want %d", sum, n*pop.partitions)
		}
		for i := range quota {
			for j := range quota {
				y, z := pop.zoneOf[i], pop.zoneOf[j]
				if y < 0 || z < 0 || y != z && (zone[y]-2 < rule.least[y]*pop.partitions || zone[z]+2 > rule.most[z]*pop.partitions) {
					continue
				}
				if quota[j]+2 <= pop.partitions && perWeight(quota[i]-2, ms[i]).Cmp(perWeight(quota[j]+2, ms[j])) > 0 {
					t.Fatalf("member %d has %d of weight %d, member %d has %d of weight %d",
						i, quota[i], ms[i].Weight, j, quota[j], ms[j].Weight)
				}
			}
		}
	})
}

func perWeight(places int, m Member) *big.Rat { return big.NewRat(int64(places), int64(m.Weight)) }
