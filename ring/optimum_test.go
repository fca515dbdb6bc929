package ring

import (
	"math"
	"slices"

	"github.com/starling-kv/starling/kv"
)

// optimum returns the least number of places that any table can move from that
// of from, if it has the loads of quota among the first n owners and keeps the
// rule for zones: the deliberately dumb and slow twin of Compute, by minimum
// cost flow from partitions over zones to members. It returns -1 if there is no
// such table.
func optimum(from, to *Layout, n int, quota map[kv.NodeID]int) int {
	n = min(n, to.width)
	pop := newPopulation(to.members, to.partitions)
	rule := pop.spread(n)
	zones := len(pop.zones)
	var g flow
	source, sink := g.vertex(1), g.vertex(1)
	partition, zone, owner := g.vertex(to.partitions), g.vertex(to.partitions*zones), g.vertex(len(to.members))
	forced := 0
	for p := range to.partitions {
		g.arc(source, partition+p, n, 0)
		for z, ms := range pop.zones {
			pz := zone + p*zones + z
			// Owners that the rule demands come before any price.
			g.arc(partition+p, pz, rule.least[z], -demand)
			g.arc(partition+p, pz, rule.most[z]-rule.least[z], 0)
			forced += rule.least[z]
			for _, m := range ms {
				cost := 1
				if slices.Contains(first(from, p, n), to.members[m].ID) {
					cost = 0
				}
				g.arc(pz, owner+int(m), 1, cost)
			}
		}
	}
	for i, m := range to.members {
		g.arc(owner+i, sink, quota[m.ID], 0)
	}
	total, cost := g.solve(source, sink)
	if total != n*to.partitions || cost+demand*forced < 0 || cost+demand*forced >= demand {
		return -1
	}
	return cost + demand*forced
}

const demand = 1 << 20

// flow is a network of arcs with capacity and cost.
type flow struct {
	arcs []arc
	from [][]int // of each vertex: its arcs
}

type arc struct{ to, room, cost int }

// vertex adds count vertices and returns the first.
func (g *flow) vertex(count int) int {
	g.from = append(g.from, make([][]int, count)...)
	return len(g.from) - count
}

// arc adds an arc and, at the next index, its residual.
func (g *flow) arc(from, to, room, cost int) {
	g.from[from] = append(g.from[from], len(g.arcs))
	g.from[to] = append(g.from[to], len(g.arcs)+1)
	g.arcs = append(g.arcs, arc{to, room, cost}, arc{from, 0, -cost})
}

// solve sends units along cheapest paths until none is left.
func (g *flow) solve(source, sink int) (total, cost int) {
	for {
		price, via := g.cheapest(source)
		if price[sink] == math.MaxInt {
			return total, cost
		}
		for v := sink; v != source; v = g.arcs[via[v]^1].to {
			g.arcs[via[v]].room--
			g.arcs[via[v]^1].room++
		}
		total++
		cost += price[sink]
	}
}

// cheapest is Bellman and Ford's algorithm with a queue.
func (g *flow) cheapest(source int) (price, via []int) {
	price, via = make([]int, len(g.from)), make([]int, len(g.from))
	queued := make([]bool, len(g.from))
	for v := range price {
		price[v] = math.MaxInt
	}
	price[source] = 0
	for queue := []int{source}; len(queue) > 0; {
		u := queue[0]
		queue = queue[1:]
		queued[u] = false
		for _, i := range g.from[u] {
			a := g.arcs[i]
			if a.room == 0 || price[u]+a.cost >= price[a.to] {
				continue
			}
			price[a.to], via[a.to] = price[u]+a.cost, i
			if !queued[a.to] {
				queued[a.to] = true
				queue = append(queue, a.to)
			}
		}
	}
	return price, via
}
