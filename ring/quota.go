package ring

import (
	"math/bits"
	"slices"
)

// population is who there is to place: members by their index in the layout,
// grouped into zones. Members of weight 0 are in no zone.
type population struct {
	partitions int
	weights    []uint32
	zoneOf     []int      // zone of each member, -1 for weight 0
	zones      [][]uint16 // members of each zone; zones ordered by name
}

func newPopulation(members []Member, partitions int) *population {
	pop := &population{
		partitions: partitions,
		weights:    make([]uint32, len(members)),
		zoneOf:     make([]int, len(members)),
	}
	var names []string
	for _, m := range members {
		if m.Weight > 0 {
			names = append(names, m.Zone)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	pop.zones = make([][]uint16, len(names))
	for i, m := range members {
		pop.weights[i], pop.zoneOf[i] = m.Weight, -1
		if m.Weight > 0 {
			z, _ := slices.BinarySearch(names, m.Zone)
			pop.zoneOf[i] = z
			pop.zones[z] = append(pop.zones[z], uint16(i))
		}
	}
	return pop
}

// spread is the rule for the zones of the first n owners: they are dealt in
// rounds, each of which takes one owner from every zone that has one left. So
// every zone gives at least least and at most most of the n, and all zones
// together give extra above their least. With n up to the number of zones,
// least is 0 and most is 1: distinct zones.
type spread struct {
	least, most []int
	extra       int
}

func (pop *population) spread(n int) spread {
	s := spread{least: make([]int, len(pop.zones)), most: make([]int, len(pop.zones))}
	for left := n; ; {
		s.extra = left
		for z, members := range pop.zones {
			s.least[z] = s.most[z]
			if s.most[z] < len(members) {
				s.most[z]++
				left--
			}
		}
		if left <= 0 {
			return s
		}
	}
}

// quotas returns, for each member, in how many partitions it should be among
// the first n owners: proportional to weight as far as a member can be there
// at most once and its zone no less and no more often than s allows, that is,
// water-filling between those bounds. What integers leave over goes first to
// those whose present load shows that they already carry it.
func (pop *population) quotas(n int, s spread, load []int) []int {
	zoneQuota := pop.zoneQuotas(n, s, load)
	quota := make([]int, len(pop.weights))
	for z, members := range pop.zones {
		pop.fill(quota, members, zoneQuota[z], load)
	}
	return quota
}

// zoneQuotas shares n owners in every partition among the zones.
func (pop *population) zoneQuotas(n int, s spread, load []int) []int {
	at := func(level uint64, z int) int {
		sum := 0
		for _, m := range pop.zones[z] {
			sum += pop.at(level, m)
		}
		return min(max(sum, s.least[z]*pop.partitions), s.most[z]*pop.partitions)
	}
	total := func(level uint64) int {
		sum := 0
		for z := range pop.zones {
			sum += at(level, z)
		}
		return sum
	}
	level := pop.highest(n*pop.partitions, total)
	quota, room, carried := make([]int, len(pop.zones)), make([]int, len(pop.zones)), make([]int, len(pop.zones))
	for z, members := range pop.zones {
		quota[z] = at(level, z)
		room[z] = at(level+1, z) - quota[z]
		for _, m := range members {
			carried[z] += load[m]
		}
	}
	share(n*pop.partitions, quota, room, carried)
	return quota
}

// fill shares total among the members of one zone.
func (pop *population) fill(quota []int, members []uint16, total int, load []int) {
	level := pop.highest(total, func(level uint64) int {
		sum := 0
		for _, m := range members {
			sum += pop.at(level, m)
		}
		return sum
	})
	q, room, carried := make([]int, len(members)), make([]int, len(members)), make([]int, len(members))
	for i, m := range members {
		q[i] = pop.at(level, m)
		room[i] = pop.at(level+1, m) - q[i]
		carried[i] = load[m]
	}
	share(total, q, room, carried)
	for i, m := range members {
		quota[m] = q[i]
	}
}

// at returns the load of member m when the water stands at level, in units of
// 2^-32 slots per weight: a step of the level adds at most one slot.
func (pop *population) at(level uint64, m uint16) int {
	hi, lo := bits.Mul64(uint64(pop.weights[m]), level)
	return int(min(hi<<32|lo>>32, uint64(pop.partitions)))
}

// highest returns the highest level at which total, which grows with the
// level, does not exceed limit. At the top level every member is everywhere.
func (pop *population) highest(limit int, total func(level uint64) int) uint64 {
	low, top := uint64(0), uint64(pop.partitions)<<32
	for low < top {
		mid := low + (top-low+1)/2
		if total(mid) <= limit {
			low = mid
		} else {
			top = mid - 1
		}
	}
	return low
}

// share raises quota by at most room until it sums to total, first where more
// is carried already, so that little moves.
func share(total int, quota, room, carried []int) {
	left := total
	for _, q := range quota {
		left -= q
	}
	give := func(i, most int) {
		g := max(0, min(left, most, room[i]))
		quota[i] += g
		room[i] -= g
		left -= g
	}
	for i := range quota {
		give(i, carried[i]-quota[i])
	}
	for i := range quota {
		give(i, room[i])
	}
}
