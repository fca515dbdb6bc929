package membership_test

import (
	"testing"
	"time"

	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/ring"
)

func TestPartitionHeals(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(5)
		few, many := nodes[:2], nodes[2:]
		w.net.Partition(addrs(few...), addrs(many...))
		noticed := w.within(30*time.Second, "each side takes the other for dead", func() bool {
			return nobodySees(nodes[0], many...) && nobodySees(nodes[4], few...)
		})
		w.pass(10 * time.Minute)
		w.net.Heal()
		healed := w.within(5*time.Second, "all see all alive again", func() bool { return allAlive(nodes...) })
		t.Logf("cut noticed after %v, healed after %v", noticed, healed)
	})
}

func TestOneWayCutHeals(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		for _, n := range nodes[1:] {
			w.net.Cut(nodes[0].addr, n.addr) // it hears all, and is not heard
		}
		w.within(30*time.Second, "it is taken for dead", func() bool { return nobodySees(nodes[0], nodes[1:]...) })
		w.pass(3 * time.Minute)
		w.net.Heal()
		w.within(5*time.Second, "all see all alive again", func() bool { return allAlive(nodes...) })
	})
}

func TestKilledNodeIsNoticed(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(5)
		w.pass(time.Minute)
		victim, rest := nodes[4], nodes[:4]
		began := time.Now()
		victim.kill()
		w.within(10*time.Second, "all notice", func() bool { return nobodySees(victim, rest...) })
		t.Logf("noticed after %v", time.Since(began))
		for _, n := range rest {
			if got := peerOf(n, victim).State; got != membership.Dead {
				t.Errorf("%s takes it for %s, want dead", n.cfg.Name, got)
			}
		}
	})
}

func TestNodeThatLeavesIsNoticedAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(5)
		leaver, rest := nodes[4], nodes[:4]
		began := time.Now()
		for range 2 { // the second time does nothing
			if err := leaver.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("Close took %v", took)
		}
		w.within(2*time.Second, "all notice", func() bool { return nobodySees(leaver, rest...) })
		for _, n := range rest {
			if got := peerOf(n, leaver).State; got != membership.Left {
				t.Errorf("%s takes it for %s, want left", n.cfg.Name, got)
			}
			if at, ok := n.Resolve(leaver.cfg.ID); !ok || at != leaver.cfg.PeerAddress {
				t.Errorf("%s resolves it to %q: it is an owner still", n.cfg.Name, at)
			}
		}
	})
}

func TestCloseIsBoundedUnderACut(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		w.net.Partition(addrs(nodes[0]), addrs(nodes[1:]...))
		began := time.Now()
		if err := nodes[0].Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("Close took %v", took)
		}
	})
}

func TestKilledNodeReturns(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave bool // without being killed
		away  time.Duration
		move  bool
	}{
		{name: "at once after it left", leave: true},
		{name: "when it is forgotten after it left", leave: true, away: 5 * time.Minute},
		{name: "at once"},
		{name: "when it is taken for dead", away: 15 * time.Second},
		{name: "when it is forgotten", away: 5 * time.Minute},
		{name: "at once, to another address", move: true},
		{name: "when it is taken for dead, to another address", away: 15 * time.Second, move: true},
		{name: "when it is forgotten, to another address", away: 5 * time.Minute, move: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				nodes := w.cluster(5)
				back := nodes[4]
				if c.leave {
					back.Close()
				} else {
					back.kill()
				}
				w.pass(c.away)
				if c.move {
					back.addr, back.cfg.PeerAddress = addr(50), "10.0.0.50:7947"
				}
				back.cfg.Seeds = nil // it remembers the others
				back.start()
				took := w.within(15*time.Second, "all see this life of it", func() bool {
					return allAlive(nodes...) && knowLife(back, nodes...)
				})
				t.Logf("back after %v", took)
				for _, n := range nodes {
					if at, ok := n.Resolve(back.cfg.ID); !ok || at != back.cfg.PeerAddress {
						t.Errorf("%s resolves it to %q, want %s", n.cfg.Name, at, back.cfg.PeerAddress)
					}
				}
			})
		})
	}
}

func TestAllKilledReturn(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(5)
		layout := nodes[0].views.Durable().Digest()
		for _, n := range nodes {
			n.kill()
		}
		for _, n := range nodes {
			n.start() // the first one with Bootstrap again
		}
		w.within(10*time.Second, "all see all alive", func() bool { return allAlive(nodes...) })
		if !agree(nodes...) || nodes[0].views.Durable().Digest() != layout {
			t.Error("the layout has changed")
		}
	})
}

func TestViewSpreads(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(5)
		next := nextLayout(t, nodes[3].views.Current(), func(members []ring.Member) []ring.Member {
			members[0].Weight = 2
			return members
		})
		if err := nodes[3].views.Learn(next); err != nil {
			t.Fatal(err)
		}
		took := w.within(3*time.Second, "all know it", func() bool {
			return agree(nodes...) && nodes[0].views.Durable().Digest() == next.Digest()
		})
		t.Logf("spread after %v", took)
		w.within(2*time.Second, "all say so", func() bool {
			for _, n := range nodes {
				for _, p := range n.Peers() {
					if p.ViewDigest != next.Digest() {
						return false
					}
				}
			}
			return true
		})
	})
}

func TestViewReachesWhoWasAway(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(5)
		w.net.Partition(addrs(nodes[0]), addrs(nodes[1:]...))
		w.pass(5 * time.Minute)
		next := nextLayout(t, nodes[3].views.Current(), func(members []ring.Member) []ring.Member {
			members[0].Weight = 2
			return members
		})
		if err := nodes[3].views.Learn(next); err != nil {
			t.Fatal(err)
		}
		w.net.Heal()
		w.within(7*time.Second, "all know it", func() bool {
			return agree(nodes...) && nodes[0].views.Durable().Digest() == next.Digest()
		})
	})
}

func TestSpareAdoptsTheCluster(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		spare := w.add(9, 2).start()
		w.within(5*time.Second, "it knows the layout", func() bool { return agree(append(nodes, spare)...) })
		if _, member := spare.views.Current().Active()[0].Member(spare.cfg.ID); member {
			t.Error("it is in the layout, which nobody changed")
		}
	})
}

func TestResolve(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		n := nodes[0]
		if at, ok := n.Resolve(0xdead); ok {
			t.Errorf("a node that nobody knows is resolved to %s", at)
		}
		// The layout has a member that gossip has never met.
		next := nextLayout(t, n.views.Current(), func(members []ring.Member) []ring.Member {
			return append(members, ring.Member{ID: 0xb1, Name: "stranger", Address: "10.0.0.77:7947", Weight: 1})
		})
		if err := n.views.Learn(next); err != nil {
			t.Fatal(err)
		}
		if at, ok := n.Resolve(0xb1); !ok || at != "10.0.0.77:7947" {
			t.Errorf("Resolve = %q, %t; want the address in the layout", at, ok)
		}
		if n.Alive(0xb1) {
			t.Error("a node that was never met seems alive")
		}
	})
}

func TestPeers(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		w.pass(time.Second)
		cluster, _ := nodes[0].views.Cluster()
		peers := nodes[1].Peers()
		if len(peers) != 3 {
			t.Fatalf("%d peers, want 3", len(peers))
		}
		for i, p := range peers {
			n := nodes[i]
			want := membership.Peer{
				Name: n.cfg.Name, ID: n.cfg.ID, Incarnation: 1, State: membership.Alive,
				Address: n.addr, PeerAddress: n.cfg.PeerAddress, ClientURL: n.cfg.ClientURL, Weight: 1,
				Cluster: cluster, ViewDigest: n.views.Durable().Digest(),
			}
			if p != want {
				t.Errorf("peer %d is %+v, want %+v", i, p, want)
			}
		}
	})
}
