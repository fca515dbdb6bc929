package membership_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/membership/membershiptest"
	"github.com/starling-kv/starling/ring"
)

func TestMain(m *testing.M) {
	// memberlist's Shutdown does not wait for the probe under way.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

var secret = []byte("thirty-two bytes, known to every node")

// world is a set of nodes in virtual time.
type world struct {
	t   *testing.T
	net *membershiptest.Network
	rng *rand.Rand
	mu  sync.Mutex

	nodes []*node
}

// inWorld runs a test in a bubble, over a network with a latency of 1 to 3 ms.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: new(membershiptest.Network), rng: rand.New(rand.NewPCG(1, 2))}
		w.net.Latency = func(_, _ string) time.Duration { return time.Millisecond + time.Duration(w.random()%2e6) }
		t.Cleanup(func() { time.Sleep(time.Minute) }) // after all shutdowns: what memberlist has begun ends
		f(w)
	})
}

func (w *world) random() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Uint64()
}

// node is a directory, an address, and the process that uses them, if any.
type node struct {
	*membership.Gossip
	w     *world
	cfg   membership.Config
	addr  string
	disk  *membershiptest.Disk
	views *membership.Views
	end   *membershiptest.Transport
	logs  *observer.ObservedLogs
}

// add makes a node with an empty disk. It is not started.
func (w *world) add(i int, seeds ...int) *node {
	n := &node{w: w, addr: addr(i), disk: new(membershiptest.Disk)}
	n.cfg = membership.Config{
		Name:        fmt.Sprintf("n%d", i),
		ID:          kv.NodeID(0xa0 + uint64(i)),
		PeerAddress: fmt.Sprintf("10.0.0.%d:7947", i),
		ClientURL:   fmt.Sprintf("http://10.0.0.%d:8700", i),
		Weight:      1,
		Secret:      secret,
		Random:      w.random,
		Peers:       n.disk,
	}
	for _, s := range seeds {
		n.cfg.Seeds = append(n.cfg.Seeds, addr(s))
	}
	w.nodes = append(w.nodes, n)
	return n
}

func addr(i int) string { return fmt.Sprintf("10.0.0.%d:7946", i) }

// tryStart starts a process on the node's directory.
func (n *node) tryStart() error {
	core, logs := observer.New(zapcore.InfoLevel)
	n.logs = logs
	n.cfg.Log = zap.New(core)
	n.cfg.Incarnation++
	var err error
	if n.views, err = membership.OpenViews(n.disk, n.disk); err != nil {
		return err
	}
	if n.end, err = n.w.net.Listen(n.addr); err != nil {
		return err
	}
	n.cfg.Transport = n.end
	n.Gossip, err = membership.Start(n.cfg, n.views)
	return err
}

func (n *node) start() *node {
	n.w.t.Helper()
	if err := n.tryStart(); err != nil {
		n.w.t.Fatalf("start %s: %v", n.cfg.Name, err)
	}
	g := n.Gossip
	n.w.t.Cleanup(func() { g.Close() })
	return n
}

// kill ends the process without a word.
func (n *node) kill() {
	n.end.Shutdown()
	n.Close()
}

func (n *node) logged(text string) bool {
	for _, e := range n.logs.All() {
		for _, f := range append(e.Context, zap.String("message", e.Message)) {
			if strings.Contains(f.String, text) || f.Interface != nil && strings.Contains(fmt.Sprint(f.Interface), text) {
				return true
			}
		}
	}
	return false
}

// cluster starts count nodes, of which the first bootstraps, each with seeds
// that lead to the first, and waits until all have the layout.
func (w *world) cluster(count int) []*node {
	w.t.Helper()
	nodes := make([]*node, count)
	for i := range nodes {
		nodes[i] = w.add(i+1, 1, 2)
	}
	nodes[0].cfg.Bootstrap, nodes[0].cfg.Expect, nodes[0].cfg.Partitions = true, count, 64
	for _, n := range nodes {
		n.start()
	}
	w.within(10*time.Second, "all know one layout", func() bool { return agree(nodes...) })
	w.within(5*time.Second, "all see all alive", func() bool { return allAlive(nodes...) })
	return nodes
}

// agree reports whether all nodes are ready and have the same view.
func agree(nodes ...*node) bool {
	for _, n := range nodes {
		if ready, _ := n.Ready(); !ready || n.views.Durable().Digest() != nodes[0].views.Durable().Digest() {
			return false
		}
	}
	return true
}

// allAlive reports whether each node sees each alive.
func allAlive(nodes ...*node) bool {
	for _, n := range nodes {
		for _, m := range nodes {
			if !n.Alive(m.cfg.ID) {
				return false
			}
		}
	}
	return true
}

// nobodySees reports whether none of the nodes sees n alive.
func nobodySees(n *node, others ...*node) bool {
	for _, o := range others {
		if o.Alive(n.cfg.ID) {
			return false
		}
	}
	return true
}

// pass lets virtual time pass.
func (w *world) pass(d time.Duration) { time.Sleep(d) }

// within waits in virtual time until cond holds.
func (w *world) within(d time.Duration, what string, cond func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for !cond() {
		if time.Since(began) > d {
			w.dump()
			w.t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// dump logs what each node believes.
func (w *world) dump() {
	for _, n := range w.nodes {
		ready, why := n.Ready()
		w.t.Logf("%s: ready %t %s", n.cfg.Name, ready, why)
		for _, p := range n.Peers() {
			w.t.Logf("   %s id %s life %d %s at %s view %x", p.Name, p.ID, p.Incarnation, p.State, p.Address, p.ViewDigest)
		}
	}
}

// peerOf returns what n knows of another node.
func peerOf(n, other *node) membership.Peer {
	n.w.t.Helper()
	for _, p := range n.Peers() {
		if p.Name == other.cfg.Name {
			return p
		}
	}
	n.w.t.Fatalf("%s has never seen %s", n.cfg.Name, other.cfg.Name)
	return membership.Peer{}
}

// knowLife reports whether all know n by its present incarnation.
func knowLife(n *node, others ...*node) bool {
	for _, o := range others {
		if peerOf(o, n).Incarnation != n.cfg.Incarnation {
			return false
		}
	}
	return true
}

func addrs(nodes ...*node) []string {
	as := make([]string, 0, len(nodes))
	for _, n := range nodes {
		as = append(as, n.addr)
	}
	return as
}

func fatalOf(n *node) *membership.IdentityError {
	select {
	case err := <-n.Fatal():
		var id *membership.IdentityError
		errors.As(err, &id)
		return id
	default:
		return nil
	}
}

func nextLayout(t *testing.T, v ring.View, change func([]ring.Member) []ring.Member) ring.View {
	t.Helper()
	prev := v.Active()[0]
	l, err := ring.Compute(prev.Cluster(), prev.Version()+1, change(append([]ring.Member(nil), prev.Members()...)), prev.Partitions(), prev)
	if err != nil {
		t.Fatal(err)
	}
	next, err := v.With(l)
	if err != nil {
		t.Fatal(err)
	}
	return next
}
