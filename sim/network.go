package sim

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

// deafAfter is how long a link may be cut before its ends notice: the time after
// which the real transport gives up a silent connection.
const deafAfter = 5 * time.Second

// network decides what becomes of messages. That is done by the gate's
// goroutine; nodes only read, whenever they like, who listens and what is cut.
type network struct {
	weather

	gate *gate
	seed uint64

	endpoints sync.Map               // of *endpoint, by kv.NodeID: the last of each node
	cuts      atomic.Pointer[[]*cut] // never changed, but replaced
	held      map[kv.NodeID]time.Duration
	open      []*exchange // in the order of their admission
}

// weather is what faults make of the links at the moment.
type weather struct {
	loss  []*float64
	twice []*float64
	slow  []*time.Duration
	lags  []*lag
}

// longestLag is how late a message may come that is held up by a link.
const longestLag = 3 * time.Second

// lag holds up all that goes over a link, for up to a time.
type lag struct {
	link

	longest time.Duration
}

// cut keeps everything that one node sends from arriving at another.
type cut struct {
	from, to kv.NodeID
	since    time.Duration
}

func newNetwork(g *gate, seed uint64) *network {
	n := &network{gate: g, seed: seed, held: make(map[kv.NodeID]time.Duration)}
	n.cuts.Store(new([]*cut))
	return n
}

// remove takes p out of list.
func remove[T any](list []*T, p *T) []*T {
	return slices.DeleteFunc(slices.Clone(list), func(q *T) bool { return q == p })
}

func (n *network) isCut(from, to kv.NodeID) bool {
	return slices.ContainsFunc(*n.cuts.Load(), func(c *cut) bool { return c.from == from && c.to == to })
}

// deaf reports whether the link has been cut for so long that it is known.
func (n *network) deaf(a, b kv.NodeID) bool {
	now := n.gate.now()
	return slices.ContainsFunc(*n.cuts.Load(), func(c *cut) bool {
		return (c.from == a && c.to == b || c.from == b && c.to == a) && now-c.since > deafAfter
	})
}

// up reports whether a process listens at the node's address.
func (n *network) up(id kv.NodeID) bool {
	e := n.endpoint(id)
	return e != nil && !e.dead.Load()
}

// endpoint returns that of the last life of a node, nil before the first.
func (n *network) endpoint(id kv.NodeID) *endpoint {
	e, ok := n.endpoints.Load(id)
	if !ok {
		return nil
	}
	return e.(*endpoint) //nolint:forcetypeassert,errcheck // the map holds nothing else
}

// lost reports whether the message is lost although no link is cut.
func (n *network) lost(id uint64) bool { return n.chance(n.loss, id, saltLoss) }

// doubled reports whether the message arrives twice.
func (n *network) doubled(id uint64) bool { return n.chance(n.twice, id, saltCopy) }

func (n *network) chance(list []*float64, id, salt uint64) bool {
	p := 0.0
	for _, q := range list {
		p = max(p, *q)
	}
	return p > 0 && unit(mix(n.seed, salt, id)) < p
}

// delay is how long a message takes: mostly under two milliseconds, sometimes
// far longer, so that messages overtake one another.
func (n *network) delay(from, to kv.NodeID, id uint64) time.Duration {
	x := mix(n.seed, saltDelay, id)
	longest := 2 * time.Millisecond
	if x%16 == 0 {
		longest = 40 * time.Millisecond
	}
	for _, d := range n.slow {
		longest += *d
	}
	for _, l := range n.lags {
		if l.link == (link{from, to}) {
			longest += l.longest
		}
	}
	return 100*time.Microsecond + time.Duration(unit(x)*float64(longest))
}

// leaving is when a message that the node sends now goes out: once it is not
// paused.
func (n *network) leaving(from kv.NodeID, id uint64) time.Duration {
	if until, ok := n.paused(from); ok {
		return until + n.jitter(id)
	}
	return n.gate.now()
}

// jitter keeps what waited for one moment from happening at one moment: what a
// node begins at the same time, it may end in any order.
func (n *network) jitter(id uint64) time.Duration {
	return time.Duration(mix(n.seed, saltDelay, id) % uint64(time.Millisecond))
}

// paused reports until when the node does nothing, if it does.
func (n *network) paused(id kv.NodeID) (time.Duration, bool) {
	until := n.held[id]
	return until, until > n.gate.now()
}

// drop ends all that a dead node took part in. Who called it learns of its end
// by a reset connection, or not at all where the power went.
func (n *network) drop(e *endpoint, reset bool) {
	for _, x := range slices.Clone(n.open) {
		switch {
		case x.from == e:
			x.finish(x.failed(true, transport.ErrLost))
		case x.serving == e && reset && !n.isCut(e.id, x.from.id):
			n.gate.schedule(n.gate.now()+n.delay(e.id, x.from.id, mix(x.id, saltReset)), "reset "+x.name, func() {
				if !n.isCut(e.id, x.from.id) {
					x.finish(x.failed(true, transport.ErrLost))
				}
			})
		}
	}
}

// link is one direction between two nodes.
type link struct{ from, to kv.NodeID }

// cutting cuts links and returns what heals them.
func (n *network) cutting(links ...link) (heal func()) {
	made := make([]*cut, len(links))
	for i, l := range links {
		made[i] = &cut{from: l.from, to: l.to, since: n.gate.now()}
	}
	cuts := slices.Concat(*n.cuts.Load(), made)
	n.cuts.Store(&cuts)
	return func() {
		for _, c := range made {
			left := remove(*n.cuts.Load(), c)
			n.cuts.Store(&left)
		}
	}
}

// clear makes the weather fair.
func (n *network) clear() {
	clear(n.held)
	n.weather = weather{}
	n.cuts.Store(new([]*cut))
}
