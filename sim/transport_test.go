package sim

import (
	"testing"
	"testing/synctest"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/node/transport/transporttest"
)

// The simulated transport meets the demands on every transport.
func TestTransportConforms(t *testing.T) {
	for _, c := range transporttest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { conform(t, c) })
		})
	}
}

func conform(t *testing.T, c transporttest.Case) {
	t.Helper()
	g := newGate()
	n := newNetwork(g, 1)
	over := false
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.run(func() bool { return over })
	}()
	t.Cleanup(func() { // after those of the case, which closes its nodes
		g.post("the end", func(uint64) { over = true })
		<-ended
	})
	incarnations := make(map[kv.NodeID]uint64)
	c.Run(t, func(id kv.NodeID, h transport.Handler) transport.Transport {
		incarnations[id]++
		var e *endpoint
		joined := make(chan struct{})
		g.post("join", func(uint64) {
			e = n.join(id, id.String(), incarnations[id], h)
			close(joined)
		})
		<-joined
		t.Cleanup(func() { _ = e.Close() })
		return e
	})
}
