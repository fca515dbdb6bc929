package coordinator

import (
	"context"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Holding is what one node of a preference list has of a key.
type Holding struct {
	Node     kv.NodeID
	Name     string
	Owner    bool // among the first n; the others could stand in
	Alive    bool
	Standing bool
	Record   kv.Record
	Behind   bool // lacks what other nodes of the list hold
	Err      error
}

// Explanation says where a key lives and what is there.
type Explanation struct {
	Partition ring.Partition
	N         int // the owners asked about: the request's n, or the record's if it is larger
	Holdings  []Holding
}

// Explain asks every node of the key's preference list what it holds; without
// an n, the owners are those that the record asks for. It repairs nothing and counts nothing; nodes that do not answer within timeout
// are reported so.
func (c *Coordinator) Explain(ctx context.Context, key kv.Key, n int, timeout time.Duration) (Explanation, error) {
	o, err := c.resolve(key, Options{N: n, Timeout: timeout})
	if err != nil {
		return Explanation{}, err
	}
	ctx, cancel := c.within(ctx, o.Timeout)
	defer cancel()
	var ex Explanation
	err = c.restarting(ctx, key, o.N, func(p plan) error {
		ex = c.explain(ctx, p, key, n)
		return nil
	})
	return ex, err
}

func (c *Coordinator) explain(ctx context.Context, p plan, key kv.Key, asked int) Explanation {
	list := p.owners(kv.MaxN)
	ex := Explanation{Partition: p.partition, N: p.n, Holdings: make([]Holding, len(list))}
	type answer struct {
		FetchReply
		at  int
		err error
	}
	inbox := make(chan answer, len(list))
	for i, id := range list {
		ex.Holdings[i] = Holding{Node: id, Name: p.name(id), Alive: id == c.Self || c.Cluster.Alive(id)}
		// Those beyond the owners are asked for what they keep for others, too.
		req := FetchRequest{Fence: p.fence(), Key: key, StandIn: !p.owns(id)}
		c.Replicas.Fetch(ctx, id, req, func(got FetchReply, err error) { inbox <- answer{got, i, err} })
	}
	var merged kv.Record
	for range list {
		a := <-inbox
		h := &ex.Holdings[a.at]
		h.Record, h.Standing, h.Err = a.Record, a.Standing, a.err
		merged = merged.Merge(a.Record)
	}
	ex.N = max(asked, int(merged.NMax))
	if ex.N == 0 {
		ex.N = p.n
	}
	owners := p.owners(ex.N)
	for i := range ex.Holdings {
		h := &ex.Holdings[i]
		h.Owner = slices.Contains(owners, h.Node)
		h.Behind = h.Owner && h.Err == nil && !h.Record.Covers(merged)
	}
	return ex
}
