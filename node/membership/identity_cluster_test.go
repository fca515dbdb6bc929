package membership_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/membership/membershiptest"
	"github.com/starling-kv/starling/ring"
)

// impostor makes a node with an empty directory and another one's name.
func (w *world) impostor(i int, name string, seeds ...int) *node {
	n := w.add(i, seeds...)
	n.cfg.Name = name
	return n
}

func requireFatal(w *world, n *node, name string, holder kv.NodeID) {
	w.t.Helper()
	w.within(10*time.Second, "the node stops", func() bool { return n.logged("must stop") })
	id := fatalOf(n)
	if id == nil || id.Name != name || id.HeldBy != holder || !strings.Contains(id.Error(), "choose another name") {
		w.t.Fatalf("fatal error %v, want one that says that %s belongs to %s", id, name, holder)
	}
	requireUnready(w.t, n, id.Error())
	if _, bound := n.disk.Cluster(); bound {
		w.t.Error("it is bound to the cluster")
	}
}

// requireUntouched fails unless the nodes never lost sight of each other.
func requireUntouched(t *testing.T, nodes ...*node) {
	t.Helper()
	if !agree(nodes...) || !allAlive(nodes...) {
		t.Error("the cluster has suffered")
	}
	for _, n := range nodes {
		if n.logged("node is gone") {
			t.Errorf("%s took a node for gone", n.cfg.Name)
		}
	}
}

func TestNameOfALiveMember(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		// By a third node, and by the owner of the name itself.
		for i, seed := range []int{1, 2} {
			n := w.impostor(20+i, "n2", seed).start()
			requireFatal(w, n, "n2", 0xa2)
			n.Close()
		}
		w.pass(time.Minute)
		requireUntouched(t, nodes...)
		if nodes[0].Stats().Refused[membership.TakenName] == 0 || !nodes[0].logged("name n2 belongs to node") {
			t.Error("n1 does not say that it refused the newcomer")
		}
	})
}

func TestNameOfADeadMember(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		nodes[1].kill()
		w.pass(5 * time.Minute)
		n := w.impostor(20, "n2", 1).start()
		requireFatal(w, n, "n2", 0xa2)
		n.Close()
		nodes[1].start()
		w.within(10*time.Second, "its owner is back", func() bool { return allAlive(nodes...) })
	})
}

// Two newcomers of one name find different nodes of a cluster that binds the
// name to nobody.
func TestNameOfALiveSpare(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		spare := w.add(9, 1).start()
		w.within(5*time.Second, "it is in", func() bool { return allAlive(append(nodes, spare)...) })
		n := w.impostor(20, "n9", 2).start()
		requireFatal(w, n, "n9", 0xa9)
		n.Close()
		w.pass(time.Minute)
		requireUntouched(t, append(nodes, spare)...)
	})
}

func TestTwoNewcomersOfOneName(t *testing.T) {
	inWorld(t, func(w *world) {
		hub := w.add(1).start()
		a, b := w.impostor(20, "n9", 1).start(), w.impostor(21, "n9", 1).start()
		w.within(15*time.Second, "one of them stops", func() bool { return a.logged("must stop") != b.logged("must stop") })
		w.pass(time.Minute)
		if a.logged("must stop") && b.logged("must stop") {
			t.Error("both have stopped")
		}
		winner := a
		if a.logged("must stop") {
			winner = b
		}
		if peerOf(hub, winner).ID != winner.cfg.ID || !hub.Alive(winner.cfg.ID) {
			t.Error("the one that goes on is not the one that is known")
		}
	})
}

// Two nodes of one name meet with nobody to judge between them.
func TestTwoNodesOfOneNameAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.impostor(20, "n9"), w.impostor(21, "n9", 20)
		a.start()
		b.start()
		requireFatal(w, b, "n9", a.cfg.ID) // of two equal claims the smaller id stands
		w.pass(time.Minute)
		if a.logged("must stop") {
			t.Error("both have stopped")
		}
	})
}

func TestCopiedDirectory(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		disk := new(membershiptest.Disk)
		c := w.add(20, 1)
		c.cfg.ID, c.disk, c.cfg.Peers = nodes[1].cfg.ID, disk, disk
		c.start()
		w.within(10*time.Second, "the node stops", func() bool { return c.logged("must stop") })
		id := fatalOf(c)
		if id == nil || id.Holder != "n2" || !strings.Contains(id.Error(), "empty data directory") {
			t.Errorf("fatal error %v, want one that says that the id belongs to n2", id)
		}
		c.Close()
		requireUntouched(t, nodes...)
	})
}

func TestLayoutGivesTheNameAway(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		next := nextLayout(t, nodes[0].views.Current(), func(members []ring.Member) []ring.Member {
			for i := range members {
				if members[i].Name == "n2" {
					members[i].ID, members[i].Address = 0xb2, "10.0.0.99:7947"
				}
			}
			return members
		})
		if err := nodes[0].views.Learn(next); err != nil {
			t.Fatal(err)
		}
		w.within(10*time.Second, "the replaced node stops", func() bool { return nodes[1].logged("must stop") })
		if id := fatalOf(nodes[1]); id == nil || id.HeldBy != 0xb2 {
			t.Errorf("fatal error %v, want one that says that n2 belongs to b2", id)
		}
		// It stays out, from the start if it has learnt the layout itself.
		nodes[1].kill()
		if err := nodes[1].views.Learn(next); err != nil {
			t.Fatal(err)
		}
		var id *membership.IdentityError
		if err := nodes[1].tryStart(); !errors.As(err, &id) {
			t.Errorf("it starts again: %v", err)
		}
	})
}

func TestWrongSecret(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		n := w.add(9, 1)
		n.cfg.Secret = []byte(strings.Repeat("another secret ", 3))
		n.start()
		w.pass(time.Minute)
		requireUnready(t, n, "another cluster secret")
		if !nobodySees(n, nodes...) || !nobodySees(nodes[0], n) {
			t.Error("they have met")
		}
		if !agree(nodes...) || !allAlive(nodes...) {
			t.Error("the cluster has suffered")
		}
	})
}

func TestNobodyInReach(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.add(9, 1).start()
		w.pass(10 * time.Second)
		requireUnready(t, n, "no member could be reached or the cluster secret differs")
		requireUnready(t, n, addr(1))
	})
}

// What cannot be read of the peers costs no more than the peers.
func TestPeersThatCannotBeRead(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		nodes[2].kill()
		if err := nodes[2].disk.SavePeers([]byte("\x01\x09damage")); err != nil {
			t.Fatal(err)
		}
		nodes[2].start()
		if !nodes[2].logged("going by the seeds") {
			t.Error("it does not say that it could not read them")
		}
		w.within(10*time.Second, "it is back", func() bool { return allAlive(nodes...) })
	})
}

func TestRestartWithoutSeeds(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		w.pass(2 * time.Second) // peers are saved once a second
		for _, n := range nodes {
			n.kill()
			n.cfg.Seeds = nil
		}
		for _, n := range nodes {
			n.start()
		}
		w.within(10*time.Second, "all see all alive", func() bool { return allAlive(nodes...) })
	})
}

func TestViewThatCannotBeStored(t *testing.T) {
	inWorld(t, func(w *world) {
		nodes := w.cluster(3)
		nodes[1].disk.Fail(membershiptest.DuringView)
		next := nextLayout(t, nodes[0].views.Current(), func(members []ring.Member) []ring.Member {
			members[0].Weight = 2
			return members
		})
		if err := nodes[0].views.Learn(next); err != nil {
			t.Fatal(err)
		}
		w.within(10*time.Second, "it knows the layout and says that it is not stored", func() bool {
			ready, why := nodes[1].Ready()
			return !ready && strings.Contains(why, "could not be stored") && nodes[1].views.Current().Digest() == next.Digest()
		})
		if nodes[1].views.Durable().Digest() == next.Digest() {
			t.Error("it says of itself that it knows the layout durably")
		}
	})
}
