package ring

import (
	"fmt"
	"slices"
	"testing"

	"github.com/starling-kv/starling/kv"
)

var testCluster = ClusterID{0: 0xc1, 15: 0x05}

// member returns the i-th of a series of members with random-looking ids.
func member(i int, zone string, weight uint32) Member {
	return Member{
		ID:      kv.NodeID(mix(uint64(i))),
		Name:    fmt.Sprintf("node-%d", i),
		Address: fmt.Sprintf("10.0.0.1:%d", i+1),
		Zone:    zone,
		Weight:  weight,
	}
}

// members returns n members of equal weight, dealt to zones of which the i-th
// has shares[i] parts of them; no shares mean no zones.
func members(n int, shares ...int) []Member {
	zones := make([]string, 0, 20)
	for z, share := range shares {
		zones = append(zones, slices.Repeat([]string{fmt.Sprintf("zone-%d", z)}, share)...)
	}
	if len(zones) == 0 {
		zones = []string{""}
	}
	ms := make([]Member, n)
	for i := range ms {
		ms[i] = member(i, zones[i*7%len(zones)], 100)
	}
	return ms
}

func compute(tb testing.TB, ms []Member, partitions int, prev *Layout) *Layout {
	tb.Helper()
	version := uint64(1)
	if prev != nil {
		version = prev.Version() + 1
	}
	l, err := Compute(testCluster, version, ms, partitions, prev)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// first returns the first n owners of p, fewer if there are fewer.
func first(l *Layout, p, n int) []kv.NodeID {
	return l.Owners(Partition(p))[:min(n, l.Width())]
}

// loads returns in how many partitions each member is among the first n.
func loads(l *Layout, n int) map[kv.NodeID]int {
	count := make([]int, len(l.members))
	for row := range slices.Chunk(l.slots, l.width) {
		for _, m := range row[:min(n, l.width)] {
			count[m]++
		}
	}
	sum := make(map[kv.NodeID]int)
	for i, m := range l.members {
		if m.Weight > 0 {
			sum[m.ID] = count[i]
		}
	}
	return sum
}

// quotasOf returns the load that each member of l should have among the first
// n, rounded towards the load that it has in was.
func quotasOf(l, was *Layout, n int) map[kv.NodeID]int {
	load := make([]int, len(l.members))
	carried := loads(was, n)
	for i, m := range l.members {
		load[i] = carried[m.ID]
	}
	n = min(n, l.width)
	pop := newPopulation(l.members, l.partitions)
	quota := make(map[kv.NodeID]int)
	for i, q := range pop.quotas(n, pop.spread(n), load) {
		quota[l.members[i].ID] = q
	}
	return quota
}

// peak returns the largest load over the mean.
func peak(l *Layout, n int) float64 {
	most, sum := 0, 0
	for _, load := range loads(l, n) {
		most, sum = max(most, load), sum+load
	}
	return float64(most) * float64(ownersOf(l.members)) / float64(sum)
}

// peakOverQuota returns the largest load over the member's own quota: over the
// fair share that weights and zones allow it.
func peakOverQuota(l *Layout, n int) float64 {
	worst := 0.0
	quota := quotasOf(l, l, n)
	for id, load := range loads(l, n) {
		worst = max(worst, float64(load)/float64(quota[id]))
	}
	return worst
}

// moved counts the places among the first n that go to members which were not
// among the first n of that partition before: n=3 replicas times keys that
// travel, in units of a partition.
func moved(from, to *Layout, n int) int {
	sum := 0
	for p := range to.Partitions() {
		for _, id := range first(to, p, n) {
			if !slices.Contains(first(from, p, n), id) {
				sum++
			}
		}
	}
	return sum
}

// leastMoved returns a bound below which no table with fair loads can stay: a
// member whose quota is above its load has to receive the difference, so the
// sum over members of max(0, quota - load before). The zones may force more.
func leastMoved(from, to *Layout, n int) int {
	sum := 0
	before := loads(from, n)
	for id, quota := range quotasOf(to, from, n) {
		sum += max(0, quota-before[id])
	}
	return sum
}

// zoneViolations counts the prefixes of owner lists that neglect a zone: that
// hold two more of one zone than of another which has a member left to give.
// For n up to the number of zones that is: two owners in one zone.
func zoneViolations(l *Layout) int {
	number, zone := make(map[string]int), make(map[kv.NodeID]int)
	var size []int // of each zone
	for _, m := range l.Members() {
		if m.Weight == 0 {
			continue
		}
		if _, ok := number[m.Zone]; !ok {
			number[m.Zone] = len(size)
			size = append(size, 0)
		}
		zone[m.ID] = number[m.Zone]
		size[zone[m.ID]]++
	}
	bad := 0
	for p := range l.Partitions() {
		seen, most := make([]int, len(size)), 0
		for _, id := range l.Owners(Partition(p)) {
			seen[zone[id]]++
			most = max(most, seen[zone[id]])
			for z := range seen {
				if seen[z] < size[z] && seen[z] < most-1 {
					bad++
				}
			}
		}
	}
	return bad
}
