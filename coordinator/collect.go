package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

// reply is what one node answered to a fetch.
type reply struct {
	from  kv.NodeID
	owner kv.NodeID // for whom it counts: from itself, or the one it stands in for
	FetchReply
	err error
}

// collection is what a read gathered: the merge of full states, which
// dominates every clock that was counted.
type collection struct {
	plan    plan
	tally   *Tally
	merged  kv.Record
	replies []reply // those that came, in order of arrival
}

// query is how a read gathers.
type query struct {
	key    kv.Key
	need   int
	sloppy bool
	hedge  Hedge
}

// gathering is the driver of one read: it asks as many replicas as are needed,
// one more when one is late or fails, and stops when the tally says so.
type gathering struct {
	*Coordinator
	query
	collection

	ctx      context.Context
	inbox    chan reply
	order    []kv.NodeID // owners still to be asked
	standIns []kv.NodeID // nodes still to be asked in place of owners
}

// errAnswered is the cause with which calls are cancelled that nobody waits for.
var errAnswered = errors.New("enough others answered")

// collect gathers need counted answers in each active layout.
func (c *Coordinator) collect(ctx context.Context, p plan, q query) (collection, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errAnswered)
	g := &gathering{
		Coordinator: c, query: q, ctx: ctx, order: c.readOrder(p, q.need), standIns: p.standIns(),
		collection: collection{plan: p, tally: NewTally(q.need, p.groups())},
	}
	g.inbox = make(chan reply, len(g.order)+len(g.standIns))
	c.hedges.earn(q.need)
	begun := len(g.order)
	if q.hedge != HedgeAll {
		begun = g.enough()
	}
	wait := g.hedgeDelay(begun)
	for range begun {
		g.askNext()
	}
	err := g.gather(wait)
	return g.collection, err
}

// readOrder is self, then the fastest; those that seem dead come last.
func (c *Coordinator) readOrder(p plan, need int) []kv.NodeID {
	order := slices.DeleteFunc(p.owners(p.n), p.down)
	c.latencies.order(order, need, func(id kv.NodeID) int {
		switch {
		case id == c.Self:
			return 0
		case c.Cluster.Alive(id):
			return 1
		}
		return 2
	})
	return order
}

// enough is how many of the order must be asked for every group to have what
// it needs, if all answer.
func (g *gathering) enough() int {
	for k := range g.order {
		if !slices.ContainsFunc(g.tally.groups, func(group []kv.NodeID) bool {
			asked := 0
			for _, id := range g.order[:k] {
				if slices.Contains(group, id) {
					asked++
				}
			}
			return asked < g.need
		}) {
			return k
		}
	}
	return len(g.order)
}

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

func (g *gathering) gather(wait time.Duration) error {
	for _, id := range g.plan.owners(g.plan.n) {
		if g.plan.down(id) {
			g.tally.No(id, errTakenDown)
			g.askStandIn(id)
		}
	}
	hedge, rescue := time.NewTimer(wait), time.NewTimer(late(g.ctx, g.Now()))
	defer hedge.Stop()
	defer rescue.Stop()
	for !g.tally.Reached() {
		if g.tally.Lost() && !g.pending() {
			return g.unreached(kv.CodeQuorumUnreached, "too few owners answered")
		}
		select {
		case r := <-g.inbox:
			if err := g.take(r); err != nil {
				return err
			}
		case <-hedge.C:
			if g.query.hedge == HedgeAuto && len(g.order) > 0 && g.hedges.spend() {
				g.stats.hedges.Add(1)
				g.askNext()
				hedge.Reset(wait)
			}
		case <-rescue.C:
			g.stats.rescues.Add(1)
			for len(g.order) > 0 {
				g.askNext()
			}
		case <-g.ctx.Done():
			return g.unreached(kv.CodeTimeout, "too few owners answered in time")
		}
	}
	return nil
}

// pending reports whether a stand-in may still turn a lost count.
func (g *gathering) pending() bool { return g.sloppy && g.asked() > len(g.replies) }

func (g *gathering) asked() int { return cap(g.inbox) - len(g.order) - len(g.standIns) }

// take counts an answer, or asks the next after an error.
func (g *gathering) take(r reply) error {
	g.replies = append(g.replies, r)
	var stale *StaleView
	switch {
	case errors.As(r.err, &stale):
		return stale
	case r.err != nil:
		g.tally.No(r.owner, r.err)
		g.askNext()
		g.askStandIn(r.owner)
		return nil
	}
	g.merged = g.merged.Merge(r.Record)
	switch {
	case r.from != r.owner:
		g.tally.StandIn(r.owner, r.from)
	case r.Standing:
		g.tally.Yes(r.owner)
	default:
		// Its state is as true as any, but what it lacks proves nothing.
		g.tally.No(r.owner, errNotStanding)
		g.askNext()
	}
	return nil
}

var (
	errTakenDown   = errors.New("taken down by the operator")
	errNotStanding = errors.New("not in good standing: it is still catching up")
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

// askStandIn asks another node in place of owner, if the request allows it.
func (g *gathering) askStandIn(owner kv.NodeID) {
	if !g.sloppy || len(g.standIns) == 0 {
		return
	}
	id := g.standIns[0]
	g.standIns = g.standIns[1:]
	g.ask(id, owner)
}

func (g *gathering) ask(id, owner kv.NodeID) {
	req := FetchRequest{Fence: g.plan.fence(), Key: g.key, StandIn: id != owner}
	ok := g.spawn(func() {
		start := g.Now()
		got, err := g.Replicas.Fetch(g.ctx, id, req)
		lost := errors.Is(context.Cause(g.ctx), errAnswered)
		g.latencies.observe(id, g.Now().Sub(start), !lost)
		g.inbox <- reply{from: id, owner: owner, FetchReply: got, err: err}
	})
	if !ok {
		g.inbox <- reply{from: id, owner: owner, err: errClosed}
	}
}

func (g *gathering) unreached(code kv.Code, why string) error {
	g.stats.unreached.Add(1)
	acked, hinted, failed := g.plan.failures(g.tally)
	return &kv.Error{
		Code: code, N: g.plan.n, R: g.need, Acked: acked, Hinted: hinted, Failed: failed, RetryAfter: time.Second,
		Message: fmt.Sprintf("%s: %d of %d needed, missing %s", why, len(acked)+len(hinted), g.need, names(failed)),
	}
}

// behind lists the nodes whose answers lack what others hold.
func (col collection) behind() []kv.NodeID {
	var ids []kv.NodeID
	for _, r := range col.replies {
		if r.err == nil && r.from == r.owner && !r.Record.Covers(col.merged) {
			ids = append(ids, r.from)
		}
	}
	return ids
}

// holders are the nodes that answered with v live, this node first.
func (col collection) holders(v kv.Version, self kv.NodeID) []reply {
	var list []reply
	for _, r := range col.replies {
		if r.err == nil && r.Record.Holds(v.Dot) {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b reply) int {
		switch {
		case a.from == self && b.from != self:
			return -1
		case b.from == self && a.from != self:
			return 1
		}
		return 0
	})
	return list
}
