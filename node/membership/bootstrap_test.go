package membership_test

import (
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/membership/membershiptest"
	"github.com/starling-kv/starling/ring"
)

func TestBootstrapMakesOneLayout(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(5)
		layout := nodes[0].views.Current().Active()[0]
		if layout.Version() != 1 || len(layout.Members()) != 5 || layout.Partitions() != 64 {
			t.Errorf("version %d, %d members, %d partitions; want 1, 5, 64", layout.Version(), len(layout.Members()), layout.Partitions())
		}
		for _, n := range nodes {
			if cluster, bound := n.views.Cluster(); !bound || cluster != layout.Cluster() {
				t.Errorf("%s is bound to %s, want %s", n.cfg.Name, cluster, layout.Cluster())
			}
			m, ok := layout.MemberByName(n.cfg.Name)
			if !ok || m.ID != n.cfg.ID || m.Address != n.cfg.PeerAddress {
				t.Errorf("%s is member %+v", n.cfg.Name, m)
			}
		}
	})
}

func TestBootstrapOfOne(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.add(1)
		n.cfg.Bootstrap, n.cfg.Expect, n.cfg.Partitions = true, 1, 8
		n.start()
		w.within(100*time.Millisecond, "it is ready", func() bool { return agree(n) })
	})
}

func TestBootstrapWaitsForAll(t *testing.T) {
	inWorld(t, func(w *world) {
		first, second := w.add(1), w.add(2, 1)
		first.cfg.Bootstrap, first.cfg.Expect, first.cfg.Partitions = true, 3, 8
		first.start()
		second.start()
		w.pass(time.Minute)
		requireUnready(t, first, "expects 3 nodes, 2 are alive")
		requireUnready(t, second, "no cluster yet")
		third := w.add(3, 2).start()
		w.within(10*time.Second, "there is a cluster", func() bool { return agree(first, second, third) })
	})
}

func TestNobodyElseMakesACluster(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.add(1, 2).start(), w.add(2, 1).start()
		w.pass(5 * time.Minute)
		if !allAlive(a, b) {
			t.Error("they have not met")
		}
		requireUnready(t, a, "exactly one node must be started with bootstrap")
		requireUnready(t, b, "exactly one node must be started with bootstrap")
	})
}

func TestTwoBootstrapsRefuseEachOther(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.add(1, 3), w.add(2, 3), w.add(3)
		for _, n := range []*node{a, b} {
			n.cfg.Bootstrap, n.cfg.Expect, n.cfg.Partitions = true, 3, 8
		}
		for _, n := range []*node{a, b, c} {
			n.start()
		}
		w.pass(time.Minute)
		requireUnready(t, a, "nodes n1 and n2 were both told to bootstrap")
		requireUnready(t, b, "nodes n2 and n1 were both told to bootstrap")
		if _, bound := c.views.Cluster(); bound {
			t.Error("a cluster was made")
		}
		// The remedy.
		b.kill()
		b.cfg.Bootstrap = false
		b.start()
		w.within(15*time.Second, "there is a cluster", func() bool { return agree(a, b, c) })
	})
}

func TestLateBootstrapJoins(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		late := w.add(9, 1)
		late.cfg.Bootstrap, late.cfg.Expect, late.cfg.Partitions = true, 1, 8
		late.start()
		w.within(10*time.Second, "it has joined the cluster that there is", func() bool { return agree(append(nodes, late)...) })
	})
}

// A bootstrap that fails at any of its steps, by a fault that leaves each thing
// that is kept in either state, goes on after a restart, and all nodes end in
// one cluster with one layout.
func TestBootstrapGoesOnAfterACrash(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault membershiptest.Fault
		bound bool // after the crash
	}{
		{name: "before the cluster is bound", fault: membershiptest.BeforeBind},
		{name: "before the layout is committed", fault: membershiptest.BeforeView, bound: true},
		{name: "while the layout is committed", fault: membershiptest.DuringView, bound: true},
		{name: "after the layout is committed", fault: membershiptest.AfterView, bound: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				nodes := []*node{w.add(1), w.add(2, 1), w.add(3, 1)}
				first := nodes[0]
				first.cfg.Bootstrap, first.cfg.Expect, first.cfg.Partitions = true, 3, 8
				first.disk.Fail(c.fault)
				for _, n := range nodes {
					n.start()
				}
				w.pass(30 * time.Second)
				requireUnready(t, first, "")
				cluster, bound := first.disk.Cluster()
				if bound != c.bound {
					t.Fatalf("bound: %t, want %t", bound, c.bound)
				}
				for _, n := range nodes[1:] {
					if n.views.Current().Digest() != 0 {
						t.Fatalf("%s was told of a layout that is not durable", n.cfg.Name)
					}
				}

				first.kill()
				first.disk.Fail(membershiptest.None)
				first.start()
				w.within(20*time.Second, "there is a cluster", func() bool { return agree(nodes...) })
				if now, _ := first.views.Cluster(); bound && now != cluster {
					t.Errorf("a second cluster was made: %s after %s", now, cluster)
				}
				if active := first.views.Current().Active(); len(active) != 1 || active[0].Version() != 1 {
					t.Errorf("%d active layouts", len(active))
				}
			})
		})
	}
}

// A node that made the cluster and lost its disk makes no second layout: the
// others are bound.
func TestBootstrapWithALostDisk(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		first := nodes[0]
		first.kill()
		first.disk = new(membershiptest.Disk)
		first.cfg.Peers = first.disk
		first.cfg.ID = 0xff // an empty directory has a new id
		first.start()
		w.within(10*time.Second, "it stops", func() bool { ready, _ := first.Ready(); return !ready && first.logged("must stop") })
		if id := fatalOf(first); id == nil || id.Name != "n1" || id.HeldBy != 0xa1 {
			t.Errorf("fatal error %v, want one that says that n1 belongs to a1", id)
		}
		w.pass(time.Minute)
		if _, bound := first.disk.Cluster(); bound {
			t.Error("it is bound to a cluster")
		}
		if !agree(nodes[1:]...) {
			t.Error("the others have changed their layout")
		}
	})
}

func TestTwoClustersNeverMerge(t *testing.T) {
	inWorld(t, func(w *world) {
		var sides [2][]*node
		for s := range sides {
			for i := range 3 {
				n := w.add(10*s+i+1, 10*s+1)
				n.cfg.Bootstrap, n.cfg.Expect, n.cfg.Partitions = i == 0, 3, 8
				sides[s] = append(sides[s], n.start())
			}
			w.within(10*time.Second, "there is a cluster", func() bool { return agree(sides[s]...) })
		}
		x, y := sides[0], sides[1]
		// A node of each comes back with a seed of the other.
		for _, n := range []*node{x[2], y[2]} {
			n.kill()
		}
		x[2].cfg.Seeds = append(x[2].cfg.Seeds, y[0].addr)
		y[2].cfg.Seeds = append(y[2].cfg.Seeds, x[0].addr)
		x[2].start()
		y[2].start()
		w.pass(5 * time.Minute)

		if !agree(x...) || !agree(y...) || !allAlive(x...) || !allAlive(y...) {
			t.Error("a cluster is no longer whole")
		}
		cx, _ := x[0].views.Cluster()
		cy, _ := y[0].views.Cluster()
		for _, n := range append(x, y...) {
			own := cx
			if n.cfg.ID > 0xaa {
				own = cy
			}
			if c, _ := n.views.Cluster(); c != own || n.views.Current().Cluster() != own {
				t.Errorf("%s is of cluster %s, want %s", n.cfg.Name, c, own)
			}
			for _, p := range n.Peers() {
				if p.Cluster != own {
					t.Errorf("%s has let in %s of cluster %s", n.cfg.Name, p.Name, p.Cluster)
				}
			}
		}
		for _, n := range []*node{x[0], x[2], y[0], y[2]} {
			if n.Stats().Refused[membership.ForeignCluster] == 0 || !n.logged("two clusters never merge") {
				t.Errorf("%s does not say that it refuses the other cluster", n.cfg.Name)
			}
		}
	})
}

// A node that is in no cluster yet, and finds two, joins one of them and does
// not join them to each other.
func TestUnboundNodeBetweenTwoClusters(t *testing.T) {
	inWorld(t, func(w *world) {
		var sides [2]*node
		for s := range sides {
			n := w.add(s + 1)
			n.cfg.Bootstrap, n.cfg.Expect, n.cfg.Partitions = true, 1, 8
			sides[s] = n.start()
		}
		between := w.add(3, 1, 2).start()
		w.within(10*time.Second, "it is ready", func() bool { return agree(between) })
		w.pass(time.Minute)
		if sides[0].Alive(sides[1].cfg.ID) || sides[1].Alive(sides[0].cfg.ID) {
			t.Error("the clusters have met through it")
		}
		if sides[0].Alive(between.cfg.ID) == sides[1].Alive(between.cfg.ID) {
			t.Error("it is alive in both clusters or in none")
		}
	})
}

func TestForeignViewIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		foreign, err := ring.Compute(ring.ClusterID{9}, 1, []ring.Member{{ID: 1, Name: "x", Address: "h:1", Weight: 1}}, 8, nil)
		if err != nil {
			t.Fatal(err)
		}
		view, err := ring.View{}.With(foreign)
		if err != nil {
			t.Fatal(err)
		}
		if err := nodes[0].views.Learn(view); err == nil || !strings.Contains(err.Error(), "never merge") {
			t.Errorf("Learn returned %v", err)
		}
	})
}

func requireUnready(t *testing.T, n *node, reason string) {
	t.Helper()
	if ready, why := n.Ready(); ready || !strings.Contains(why, reason) {
		t.Errorf("%s: ready %t, %q; want not ready, %q", n.cfg.Name, ready, why, reason)
	}
}
