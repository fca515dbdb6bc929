package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// query is how a read gathers.
type query struct {
	key    kv.Key
	need   int
	sloppy bool
	hedge  Hedge
	floor  vclock.Clock // worth waiting for more than need answers
	reap   uint64       // the reap number that all must know who answer
	each   bool         // hear all that are asked, even if it cannot be enough
}

// gathering is the driver of one read: it asks as many replicas as are needed,
// one more when one is late or fails, and stops when the tally says so.
type gathering struct {
	*Coordinator
	query
	collection

	// What calls that nobody waits for any more still read does not change.
	ctx      context.Context
	inbox    chan reply
	calls    []ask
	order    []kv.NodeID // owners still to be asked
	standIns []kv.NodeID // nodes still to be asked in place of owners
	waiting  []reply     // of stand-ins, not counted yet
}

// ask is a call that was made. No node is asked twice.
type ask struct {
	id    kv.NodeID
	begun time.Time
}

// collect gathers need counted answers in each active layout, and more within
// reason while they do not reach the floor.
func (c *Coordinator) collect(ctx context.Context, p plan, q query) (collection, error) {
	order, suspect := c.readOrder(p, q.need)
	if suspect != 0 && q.hedge == HedgeAuto {
		c.probe(p, q.key, suspect) //nolint:contextcheck // no request waits for a probe
	}
	g := &gathering{
		Coordinator: c, query: q, ctx: ctx, order: order,
		collection: collection{plan: p, tally: NewTally(q.need, p.groups), asked: q.reap},
	}
	if q.sloppy {
		g.standIns = p.standIns()
	}
	most := len(g.order) + len(g.standIns)
	g.inbox, g.calls = make(chan reply, most), make([]ask, 0, most)
	c.hedges.earn(q.need)
	begun := len(g.order)
	if q.hedge != HedgeAll {
		begun = g.enough()
	}
	g.replies = make([]reply, 0, begun)
	wait := g.hedgeDelay(begun)
	g.askFirst(begun)
	err := g.gather(wait)
	g.giveUp()
	return g.collection, err
}

// askFirst asks the first k of the order, this node last: it may answer at once,
// and the others are at it meanwhile.
func (g *gathering) askFirst(k int) {
	first := g.order[:k]
	g.order = g.order[k:]
	for _, id := range slices.Backward(first) {
		g.ask(id, id)
	}
}

// readOrder is self, then the fastest; those that seem dead come last. It also
// returns a node that is to be probed, or zero.
func (c *Coordinator) readOrder(p plan, need int) (order []kv.NodeID, suspect kv.NodeID) {
	order = slices.DeleteFunc(p.owners(p.n), p.down)
	suspect = c.latencies.order(order, need, c.class)
	return order, suspect
}

// class puts this node first, and those that seem dead last.
func (c *Coordinator) class(id kv.NodeID) int {
	switch {
	case id == c.Self:
		return classSelf
	case c.Cluster.Alive(id):
		return classAlive
	}
	return classDead
}

// enough is how many of the order must be asked for every group to have what
// it needs, if all answer.
func (g *gathering) enough() int {
	if len(g.plan.groups) == 1 {
		return min(g.need, len(g.order))
	}
	t := NewTally(g.need, g.plan.groups)
	for k, id := range g.order {
		if t.Reached() {
			return k
		}
		t.Yes(id)
	}
	return len(g.order)
}

func (g *gathering) gather(wait time.Duration) error {
	g.skipDown()
	a := alarms{hedgeEvery: wait, rescueEvery: early(g.ctx)}
	timer := g.timer(a.set(time.Now()))
	defer g.recycle(timer)
	var gone <-chan struct{} // see within
	for {
		if done, err := g.settled(); done {
			return err
		}
		select {
		case r := <-g.inbox:
			if err := g.take(r); err != nil {
				return err
			}
		case <-timer.C:
			now := time.Now()
			switch {
			case !a.rescueDue(now):
				g.hedgeNow()
			case g.tally.Reached():
				return nil
			default:
				g.rescue()
			}
			timer.Reset(a.next(now, g.mayHedge()))
			gone = g.ctx.Done()
		case <-gone:
			if len(g.inbox) == 0 { // what came in time counts
				return g.outOfTime()
			}
		}
	}
}

// skipDown goes without the owners that are not to be tried.
func (g *gathering) skipDown() {
	for _, id := range g.tally.Owners() {
		if g.plan.down(id) {
			g.tally.No(id, errTakenDown)
			g.askStandIn(id)
		}
	}
}

// settled reports whether there is nothing more to wait for, and with what
// result. Beyond the count, only the floor is worth waiting for.
func (g *gathering) settled() (done bool, err error) {
	g.countStandIns()
	switch {
	case g.tally.Reached() && (g.merged.Clock.Dominates(g.floor) || g.allHeard()):
		return true, nil
	case g.tally.Reached():
		g.askAll()
	case g.tally.Lost() && (!g.sloppy && !g.each || g.allHeard()):
		return true, g.unreached()
	}
	return false, nil
}

func (g *gathering) outOfTime() error {
	if g.tally.Reached() {
		return nil
	}
	return g.unreached()
}

// allHeard reports whether nobody is left to be asked or to answer.
func (g *gathering) allHeard() bool { return len(g.order) == 0 && len(g.calls) == len(g.replies) }

// take counts an answer, or asks the next after an error.
func (g *gathering) take(r reply) error {
	g.replies = append(g.replies, r)
	g.observe(r)
	if r.err != nil {
		if stale := g.plan.newer(r.err); stale != nil {
			return stale
		}
		g.lack(r.owner, r.err)
		return nil
	}
	g.merge(r)
	switch {
	case r.Reap < g.asked:
		g.lack(r.owner, errNotLearnt)
	case r.from != r.owner:
		g.takeStandIn(r)
	case r.Standing:
		g.tally.Yes(r.owner)
	default:
		// Its state is as true as any, but what it lacks proves nothing.
		g.lack(r.owner, errNotStanding)
	}
	return nil
}

// merge takes an answer into what is known. One that is in good standing was
// there when rounds of reaping were confirmed, so that nothing of what it tells
// was reaped, even if it has not heard of the last. One that is not may be of a
// disk that was set back, and bring back deletes.
func (g *gathering) merge(r reply) {
	if r.Standing && r.Reap > g.highest {
		g.highest = r.Reap
		g.merged = kv.Record{}
		for _, earlier := range g.replies {
			g.add(earlier)
		}
		return
	}
	g.add(r)
}

func (g *gathering) add(r reply) {
	if g.merges(r) && !g.merged.Covers(r.Record) {
		g.merged = g.merged.Merge(r.Record)
	}
}

// takeStandIn takes the answer of a stand-in. That it holds nothing does not
// prove that there is nothing, so while nothing is known of the key, it does not
// count, and what other stand-ins hold is asked for.
func (g *gathering) takeStandIn(r reply) {
	g.waiting = append(g.waiting, r)
	if g.merged.Absent() {
		g.askStandIn(r.owner)
	}
}

// countStandIns counts what takeStandIn took, once something is known.
func (g *gathering) countStandIns() {
	if g.merged.Absent() {
		return
	}
	for _, r := range g.waiting {
		g.tally.StandIn(r.owner, r.from)
	}
	g.waiting = nil
}

// lack goes on without the owner.
func (g *gathering) lack(owner kv.NodeID, reason error) {
	g.tally.No(owner, reason)
	g.askNext()
	g.askStandIn(owner)
}

var (
	errTakenDown   = errors.New("taken down by the operator")
	errNotStanding = errors.New("not in good standing: it has just started, or is still catching up")
	errNotLearnt   = errors.New("it has not learnt of the last round of reaping")
)

// askNext asks the next owner in the order, if one is left.
func (g *gathering) askNext() {
	if len(g.order) == 0 {
		return
	}
	id := g.order[0]
	g.order = g.order[1:]
	g.ask(id, id)
}

func (g *gathering) askAll() {
	for len(g.order) > 0 {
		g.askNext()
	}
}

// askStandIn asks another node in place of owner, if the request allows it and
// one is left.
func (g *gathering) askStandIn(owner kv.NodeID) {
	if len(g.standIns) == 0 {
		return
	}
	id := g.standIns[0]
	g.standIns = g.standIns[1:]
	g.ask(id, owner)
}

func (g *gathering) ask(id, owner kv.NodeID) {
	begun := time.Now()
	g.calls = append(g.calls, ask{id, begun})
	g.Replicas.Fetch(g.ctx, id, g.request(g.plan.fence(), id != owner), func(got FetchReply, err error) {
		full, again := g.plan.fuller(err)
		if !again {
			g.inbox <- reply{from: id, owner: owner, FetchReply: got, took: time.Since(begun), err: err}
			return
		}
		g.Replicas.Fetch(g.ctx, id, g.request(full, id != owner), func(got FetchReply, err error) {
			g.inbox <- reply{from: id, owner: owner, FetchReply: got, took: time.Since(begun), err: err}
		})
	})
}

func (g *gathering) request(f Fence, standIn bool) FetchRequest {
	return FetchRequest{Fence: f, Key: g.key, StandIn: standIn, Reap: g.query.reap}
}

// observe learns from an answer how fast the node is.
func (g *gathering) observe(r reply) {
	if r.err != nil && g.ctx.Err() == nil {
		r.took = max(r.took, hedgeCap) // to fail fast is not to be fast
	}
	g.latencies.observe(r.from, r.took, r.err == nil)
}

// giveUp learns from the nodes that are not waited for any more that they have
// not answered by now. Whatever they answer yet, nobody looks at it.
func (g *gathering) giveUp() {
	for _, a := range g.calls {
		if !slices.ContainsFunc(g.replies, func(r reply) bool { return r.from == a.id }) {
			g.latencies.observe(a.id, time.Since(a.begun), false)
		}
	}
}

func (g *gathering) unreached() error {
	acked, hinted := g.plan.counted(g.tally)
	failed := g.plan.failures(g.tally)
	return &kv.Error{
		Code: unreachedCode(g.ctx), N: g.plan.n, R: g.need, Acked: acked, Hinted: hinted, Failed: failed, RetryAfter: time.Second,
		Message: fmt.Sprintf("too few owners answered: %d of %d needed, missing %s", len(acked)+len(hinted), g.need, names(failed)),
	}
}

// unreachedCode tells a count that ran out of owners from one that ran out of
// time: at the deadline the calls still under way fail, too.
func unreachedCode(ctx context.Context) kv.Code {
	if deadline, ok := ctx.Deadline(); ctx.Err() != nil || ok && time.Until(deadline) <= 0 {
		return kv.CodeTimeout
	}
	return kv.CodeQuorumUnreached
}
