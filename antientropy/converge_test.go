package antientropy

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

var (
	seedFlag = flag.Uint64("seed", 0, "replay the random run of this seed alone")
	runs     = flag.Int("runs", 150, "how many random runs to make")
)

// TestReplicasConverge runs random clusters through random histories: writes
// with any n that reach any of their owners at any time, some never; lost,
// refused and slow calls, busy nodes, nodes cut off and emptied, two layouts at
// a time. The fakes check at every step that nothing is moved to a node that
// does not own it and that no merge from a source is claimed that was not one.
func TestReplicasConverge(t *testing.T) {
	first, last := uint64(1), uint64(*runs)
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { randomRun(t, seed) })
		if t.Failed() {
			t.Fatalf("replay with -run TestReplicasConverge -seed %d", seed)
		}
	}
}

func TestRunsReplay(t *testing.T) {
	for seed := range uint64(20) {
		if a, b := randomRun(t, seed+1), randomRun(t, seed+1); a != b {
			t.Fatalf("seed %d gave two histories:\n%s", seed+1, firstDifference(a, b))
		}
	}
}

func firstDifference(a, b string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			from := max(0, i-200)
			return a[from:min(len(a), i+200)] + "\n---\n" + b[from:min(len(b), i+200)]
		}
	}
	return "one goes on after the other ends"
}

// randomRun returns what was sent.
func randomRun(t *testing.T, seed uint64) (trace string) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	size := 2 + r.IntN(5)
	lives(t, seed, size, 1<<(1+r.IntN(5)), func(c *cluster) {
		h := history{cluster: c, Rand: r}
		if r.IntN(2) == 0 {
			h.addLayout()
		}
		c.setFaults(trouble{
			refused: 20 * r.Uint64N(2), lostRequest: 40 * r.Uint64N(2), lostReply: 40 * r.Uint64N(2), busy: 15 * r.Uint64N(2),
			partial: 10 * r.Uint64N(2),
		})
		for range 100 + r.IntN(200) {
			h.step()
			c.wait(time.Duration(r.IntN(1e9))) // hardly ever to the tick of a node
		}
		h.heal()
		c.wait(2*(30+8)*time.Second + 10*time.Second) // two cycles, and what was put off before
		c.mustAgree("two cycles after the faults ended")
		for _, n := range c.nodes {
			if n.owing() > 0 || n.doubts() > 0 {
				t.Errorf("node %v has not merged %d partitions, and doubts %d leaves", n.id, n.owing(), n.doubts())
			}
		}
		trace = c.traced()
	})
	return trace
}

// history is a random one.
type history struct {
	*cluster
	*rand.Rand

	late []func() // copies that are still on their way
}

func (h *history) addLayout() {
	old := h.nodes[0].View().Active()[0]
	members := make([]ring.Member, 0, len(h.nodes))
	for i, m := range old.Members() {
		m.Weight = 1 + uint32(h.IntN(5))
		if i == 0 && len(h.nodes) > 2 {
			m.Weight = 0 // it leaves
		}
		members = append(members, m)
	}
	l, err := ring.Compute(old.Cluster(), 2, members, old.Partitions(), old)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, n := range h.nodes {
		n.setView(viewOf(h.t, old, l))
	}
}

func (h *history) any() *node { return h.nodes[h.IntN(len(h.nodes))] }

func (h *history) step() {
	switch h.IntN(40) {
	case 0:
		n := h.any()
		n.setCut(!n.isCut())
	case 1:
		h.fall()
	case 2:
		h.any().x.Mark(h.any().id, uint16(h.IntN(40)))
	case 3:
		h.rot()
	default:
		h.write()
	}
	if len(h.late) > 0 && h.IntN(2) == 0 {
		h.late[0]()
		h.late = h.late[1:]
	}
}

// fall empties a node, if all others are whole: what only it held is lost then
// to the whole cluster, which is no divergence.
func (h *history) fall() {
	for _, n := range h.nodes {
		if n.owing() > 0 {
			return
		}
	}
	h.any().fall()
}

// rot takes a record away behind the back of the node.
func (h *history) rot() {
	n, k := h.any(), keyAt(h.IntN(100))
	if !n.get(k).Absent() && n.owing() == 0 {
		n.rot(k, h.IntN(2) == 0)
		n.x.Suspect(n.partition(k), k.Leaf())
	}
}

// write puts a value at one owner and gives it to others, now, later or never.
func (h *history) write() {
	k, n := keyAt(h.IntN(100)), uint8(1+h.IntN(5))
	owners := h.ownersOf(k, n)
	first := owners[h.IntN(len(owners))]
	r := first.write(k, n, first.get(k).Clock)
	for _, o := range owners {
		switch lives := o.starts; h.IntN(4) {
		case 0, 1:
			o.take(k, r)
		case 2:
			h.late = append(h.late, func() {
				if o.Starts() == lives {
					o.take(k, r)
				}
			})
		}
	}
}

// take merges what a coordinator sends, unless the record there is damaged: a
// store takes no update of that but by repair.
func (n *node) take(k kv.Key, r kv.Record) {
	if !n.isDamaged(k) {
		n.merge(k, r)
	}
}

func (h *history) heal() {
	h.setFaults(trouble{})
	for _, n := range h.nodes {
		n.setCut(false)
	}
}
