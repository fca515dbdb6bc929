package coordinator

import (
	"context"
	"time"

	"github.com/starling-kv/starling/kv"
)

// probe asks a node that reads avoid because it is slow, so that it is seen when
// it has recovered. No request waits for it: only how long it takes counts.
func (c *Coordinator) probe(p plan, key kv.Key, id kv.NodeID) {
	if !c.begin() {
		return
	}
	if !c.hedges.spend() {
		c.running.Done()
		return
	}
	c.stats.probes.Add(1)
	ctx, cancel := context.WithTimeout(c.base, lateAfter)
	begun := time.Now()
	c.Replicas.Fetch(ctx, id, FetchRequest{Fence: p.fence(), Key: key}, func(_ FetchReply, err error) {
		c.latencies.observe(id, time.Since(begun), err == nil)
		cancel()
		c.running.Done()
	})
}

// PeerLatencies returns the 98th percentile of the time that each node takes to
// answer a read, as this node believes it to be: at least 10 microseconds and at
// most 100 milliseconds.
func (c *Coordinator) PeerLatencies() map[kv.NodeID]time.Duration { return c.latencies.believed() }
