package membership

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// settleTime is how long the same nodes must have been alive before a cluster
// is made of them, so that news of another node that was told to make one has
// arrived.
const settleTime = time.Second

// founders decides of which nodes to make a cluster, at a node that was told to
// and knows no layout, from the nodes that are alive, itself included. Without
// an answer it says what it waits for.
//
// To all others the cluster exists from when its first layout is durable here:
// nobody is told of a layout sooner. So a node that crashed before that goes
// on, under the id that it was bound to, and there is no second layout 1 of one
// cluster. A node whose layout was lost with its disk must not go on; it sees
// by the others, which are bound, that the layout was out.
func founders(self identity, expect int, live []Peer) (members []Peer, waits string) {
	ids := make(map[kv.NodeID]bool)
	for _, p := range live {
		ids[p.ID] = true
		switch {
		case p.ID == self.id:
		case p.Cluster != (ring.ClusterID{}):
			return nil, fmt.Sprintf("node %s is of cluster %s already, so no other is made; waiting to learn its layout "+
				"(if that cluster was never finished: start the node that began it with bootstrap again, and this one without)", p.Name, p.Cluster)
		case p.bootstraps:
			return nil, fmt.Sprintf("nodes %s and %s were both told to bootstrap, so neither does: restart one of them without it",
				self.name, p.Name)
		}
	}
	if len(ids) < expect {
		return nil, fmt.Sprintf("bootstrap expects %d nodes, %d are alive", expect, len(ids))
	}
	return live, ""
}

// makeCluster runs until this node knows a layout, of its own making or not.
func (g *Gossip) makeCluster() {
	tick := time.NewTicker(settleTime / 4)
	defer tick.Stop()
	alone := g.cfg.Expect == 1 && len(g.cfg.Seeds) == 0 // nobody to hear from
	var seen []binding
	var since time.Time
	for g.views.Durable().Digest() == 0 {
		members, waits := founders(g.identity(), g.cfg.Expect, g.table.roster().live())
		if now := bindings(members); !slices.Equal(now, seen) || len(now) == 0 {
			seen, since = now, time.Now()
		}
		if len(members) > 0 && (alone || time.Since(since) >= settleTime) {
			if err := g.makeLayout(members); err != nil {
				waits, since = fmt.Sprintf("bootstrap: %v", err), time.Now()
			}
		}
		g.setWaiting(waits)
		select {
		case <-g.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// setWaiting keeps what bootstrap waits for, and logs it when it changes.
func (g *Gossip) setWaiting(waits string) {
	if before := g.waiting.Swap(&waits); waits != "" && (before == nil || *before != waits) {
		g.log.Warn("no cluster yet", zap.String("why", waits))
	}
}

// makeLayout makes the first layout. The cluster's id is durable before the
// layout that bears it, and the layout before anybody is told of it.
func (g *Gossip) makeLayout(peers []Peer) error {
	cluster, bound := g.views.Cluster()
	if !bound {
		cluster = drawClusterID(g.cfg.Random)
	}
	members := make([]ring.Member, 0, len(peers))
	for _, p := range peers {
		members = append(members, ring.Member{ID: p.ID, Name: p.Name, Address: p.PeerAddress, Zone: p.Zone, Weight: p.Weight})
	}
	layout, err := ring.Compute(cluster, 1, members, g.cfg.Partitions, nil)
	if err != nil {
		return err
	}
	view, err := ring.View{}.With(layout)
	if err != nil {
		return err
	}
	if err := g.views.Learn(view); err != nil {
		return err
	}
	g.log.Info("made a cluster", zap.Stringer("cluster", cluster), zap.Int("members", len(members)), zap.Stringer("layout", layout.Hash()))
	return nil
}

func drawClusterID(random func() uint64) (id ring.ClusterID) {
	for id == (ring.ClusterID{}) {
		binary.BigEndian.PutUint64(id[:8], random())
		binary.BigEndian.PutUint64(id[8:], random())
	}
	return id
}
