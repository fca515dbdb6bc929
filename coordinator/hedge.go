package coordinator

import "time"

// hedgeDelay is the longest that any of the first k is worth waiting for.
func (g *gathering) hedgeDelay(k int) time.Duration {
	longest := hedgeFloor
	for _, id := range g.order[:k] {
		if id != g.Self {
			longest = max(longest, g.latencies.hedgeDelay(id))
		}
	}
	return longest
}

// alarms are the moments at which a read that waits does something about it. One
// timer serves both, so that which of the two comes first is never left to it.
type alarms struct {
	hedgeEvery, rescueEvery time.Duration
	hedge, rescue           time.Time
}

// set starts both, and returns how long it is to the first.
func (a *alarms) set(now time.Time) time.Duration {
	a.rescue = now.Add(a.rescueEvery)
	a.hedge = now.Add(a.hedgeEvery)
	return min(a.hedgeEvery, a.rescueEvery)
}

func (a *alarms) rescueDue(now time.Time) bool { return !now.Before(a.rescue) }

// next sets anew what was due, and returns how long it is to the next.
func (a *alarms) next(now time.Time, hedges bool) time.Duration {
	if a.rescueDue(now) {
		a.rescue = now.Add(a.rescueEvery)
	}
	if !hedges {
		return a.rescue.Sub(now)
	}
	if !now.Before(a.hedge) {
		a.hedge = now.Add(a.hedgeEvery)
	}
	return min(a.hedge.Sub(now), a.rescue.Sub(now))
}

// mayHedge reports whether one owner more could be asked because another is late.
func (g *gathering) mayHedge() bool { return g.query.hedge == HedgeAuto && len(g.order) > 0 }

// hedgeNow asks one owner more, if the budget has room.
func (g *gathering) hedgeNow() {
	if g.mayHedge() && len(g.inbox) == 0 && g.hedges.spend() {
		g.stats.hedges.Add(1)
		g.askNext()
	}
}

// rescue gives up waiting for those asked alone: it brings in all other owners,
// and stand-ins for the silent ones.
func (g *gathering) rescue() {
	before := len(g.calls)
	g.askAll()
	for _, id := range g.tally.Owners() {
		if !g.tally.Answered(id) {
			g.askStandIn(id)
		}
	}
	g.stats.rescues.Add(uint64(len(g.calls) - before))
}
