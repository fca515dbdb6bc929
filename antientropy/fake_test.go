package antientropy

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// The cluster of this file lives in memory and in virtual time: every node has
// an Exchanger and a Responder of its own, and messages between them are
// encoded, take a few milliseconds, and have the faults that a test asks for.
// What happens to a message follows from the seed and from the message, so that
// a run replays.
type cluster struct {
	t     *testing.T
	seed  uint64
	began time.Time
	nodes []*node // by id
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu    sync.Mutex
	fault trouble
	seen  map[string]uint64 // messages so far, by what they are
	trace []string
	calls map[string]int // by kind
	hooks map[string]func()
}

// trouble is what is wrong with the network, each as one of so many messages;
// zero: never.
type trouble struct {
	refused, lostRequest, lostReply, busy uint64
	partial                               uint64 // of some keys nothing can be had
}

var (
	errRefused = errors.New("connection refused")
	errLost    = errors.New("connection lost")
)

func busyError(pause time.Duration) error {
	return &kv.Error{Code: kv.CodeOverloaded, Message: "busy", RetryAfter: pause}
}

// lives runs fn on a cluster of so many nodes in a bubble of virtual time.
func lives(t *testing.T, seed uint64, size, partitions int, fn func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, seed, size, partitions)
		defer c.ended.Wait()
		defer c.stop()
		fn(c)
	})
}

func newCluster(t *testing.T, seed uint64, size, partitions int) *cluster {
	t.Helper()
	c := &cluster{t: t, seed: seed, began: time.Now(), seen: make(map[string]uint64), calls: make(map[string]int)}
	ctx, stop := context.WithCancel(t.Context())
	c.stop = stop
	view := viewOf(t, layoutOf(t, 1, nil, partitions, size))
	for i := range size {
		c.nodes = append(c.nodes, newNode(c, kv.NodeID(i+1), view))
	}
	for _, n := range c.nodes {
		c.ended.Go(func() { n.x.Run(ctx) })
	}
	synctest.Wait() // what they do at first does not race with the test
	return c
}

// layoutOf has the nodes 1 to size.
func layoutOf(tb testing.TB, version uint64, prev *ring.Layout, partitions, size int) *ring.Layout {
	tb.Helper()
	members := make([]ring.Member, size)
	for i := range members {
		name := fmt.Sprintf("n%d", i+1)
		members[i] = ring.Member{ID: kv.NodeID(i + 1), Name: name, Address: name + ":1", Weight: 1}
	}
	l, err := ring.Compute(ring.ClusterID{1}, version, members, partitions, prev)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func viewOf(tb testing.TB, layouts ...*ring.Layout) ring.View {
	tb.Helper()
	var v ring.View
	for _, l := range layouts {
		var err error
		if v, err = v.With(l); err != nil {
			tb.Fatal(err)
		}
	}
	return v
}

// The network.

func (c *cluster) node(id kv.NodeID) *node { return c.nodes[id-1] }

// hook has fn called once, before the next message of that kind is served.
func (c *cluster) hook(kind string, fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hooks = map[string]func(){kind: fn}
}

func (c *cluster) unhook(kind string) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fn := c.hooks[kind]; fn != nil {
		c.hooks = nil
		return fn
	}
	return func() {}
}

func (c *cluster) setFaults(f trouble) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

func (n *node) setCut(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
}

func (n *node) isCut() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut
}

// Connected implements [Peers].
func (n *node) Connected(id kv.NodeID) bool { return !n.isCut() && !n.c.node(id).isCut() }

// fate is what becomes of one message.
type fate struct {
	trouble

	delay, back time.Duration
}

// fateOf depends on nothing but the seed, the message, and how often it was sent.
func (c *cluster) fateOf(from, to kv.NodeID, kind string, body []byte) fate {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := fmt.Sprintf("%v>%v %s %016x", from, to, kind, xxhash.Sum64(body))
	c.seen[name]++
	c.calls[kind]++
	c.trace = append(c.trace, fmt.Sprintf("%015d %s", time.Since(c.began), name))
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], c.seed)
	binary.BigEndian.PutUint64(b[8:], c.seen[name])
	h := xxhash.Sum64(append(b[:], name...))
	r := rand.New(rand.NewPCG(h, h))
	happens := func(odds uint64) uint64 {
		if draw := r.Uint64(); odds > 0 && draw%odds == 0 {
			return 1
		}
		return 0
	}
	return fate{
		trouble: trouble{
			refused: happens(c.fault.refused), lostRequest: happens(c.fault.lostRequest),
			lostReply: happens(c.fault.lostReply), busy: happens(c.fault.busy), partial: happens(c.fault.partial),
		},
		delay: time.Millisecond + time.Duration(r.Uint64()%4e6),
		back:  time.Millisecond + time.Duration(r.Uint64()%4e6),
	}
}

// call has serve run on the other node, if the message gets there.
func (n *node) call(ctx context.Context, to kv.NodeID, kind string, body []byte, serve func(*node) error) error {
	return n.callWith(ctx, to, kind, body, new(fate), serve)
}

// callWith does so, and tells serve what else is to happen.
func (n *node) callWith(
	ctx context.Context, to kv.NodeID, kind string, body []byte, f *fate, serve func(*node) error,
) error {
	if _, ok := ctx.Deadline(); !ok {
		n.c.t.Errorf("%s without a deadline", kind)
	}
	other := n.c.node(to)
	*f = n.c.fateOf(n.id, to, kind, body)
	if f.refused == 1 || !n.Connected(to) {
		return errRefused
	}
	if err := sleep(ctx, f.delay); err != nil {
		return err
	}
	if f.lostRequest == 1 || !n.Connected(to) {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.busy == 1 {
		return busyError(30 * time.Millisecond)
	}
	n.c.unhook(kind)()
	if err := serve(other); err != nil {
		return err
	}
	if err := sleep(ctx, f.back); err != nil {
		return err
	}
	if f.lostReply == 1 || !n.Connected(to) {
		return errLost
	}
	return nil
}

// exchangeOf carries a message that compares, encoded both ways.
func exchangeOf[Q, A message](
	ctx context.Context, n *node, to kv.NodeID, kind string, req Q,
	decodeQ func([]byte) (Q, error), serve func(*Responder, kv.NodeID, Q) (A, error), decodeA func([]byte) (A, error),
) (A, error) {
	var reply A
	body := req.Append(nil)
	err := n.call(ctx, to, kind, body, func(other *node) error {
		got, err := decodeQ(body)
		if err != nil {
			return err
		}
		answer, err := serve(other.Responder, n.id, got)
		if err != nil {
			return err
		}
		reply, err = decodeA(answer.Append(nil))
		return err
	})
	return reply, err
}

// peers are the calls of a node, apart from what the Responder answers to them.
type peers struct{ *node }

func (n peers) Compare(ctx context.Context, to kv.NodeID, req CompareRequest) (CompareReply, error) {
	return exchangeOf(ctx, n.node, to, "compare", req, DecodeCompareRequest, (*Responder).Compare, DecodeCompareReply)
}

func (n peers) Children(ctx context.Context, to kv.NodeID, req ChildrenRequest) (ChildrenReply, error) {
	return exchangeOf(ctx, n.node, to, "children", req, DecodeChildrenRequest, (*Responder).Children, DecodeChildrenReply)
}

func (n peers) Keys(ctx context.Context, to kv.NodeID, req KeysRequest) (KeysReply, error) {
	return exchangeOf(ctx, n.node, to, "keys", req, DecodeKeysRequest, (*Responder).Keys, DecodeKeysReply)
}

// Pull implements [Mover].
func (n *node) Pull(ctx context.Context, from kv.NodeID, keys []kv.Key, _ bool) ([]bool, error) {
	got := make([]kv.Record, len(keys))
	held := make([]bool, len(keys))
	var f fate
	err := n.callWith(ctx, from, "pull", fmt.Append(nil, keys), &f, func(other *node) error {
		for i, k := range keys {
			if got[i], held[i] = other.get(k), f.partial == 0 || i%2 == 0; other.isDamaged(k) {
				held[i] = false
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, k := range keys {
		if held[i] && !got[i].Absent() {
			n.merge(k, got[i])
		}
	}
	n.mu.Lock()
	n.pulledKeys += len(keys)
	n.mu.Unlock()
	return held, nil
}

// PullLeaves implements [Mover].
func (n *node) PullLeaves(ctx context.Context, from kv.NodeID, partition uint16, leaves []uint8) (int, int, error) {
	var keys []kv.Key
	var records []kv.Record
	var damage error
	view := n.View()
	err := n.call(ctx, from, "stream", append(binary.BigEndian.AppendUint16(nil, partition), leaves...), func(other *node) error {
		for _, leaf := range leaves {
			err := other.ScanLeaf(partition, leaf, func(k kv.Key, r kv.Record, _ uint64) error {
				if owns(view, k, r.NMax, n.id) {
					keys, records = append(keys, k), append(records, r)
				}
				return nil
			})
			damage = cmp.Or(damage, err)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	for i, k := range keys {
		n.merge(k, records[i])
	}
	n.mu.Lock()
	n.streamed += len(keys)
	n.mu.Unlock()
	return len(keys), 100 * len(keys), damage
}

// Nudge implements [Mover].
func (n *node) Nudge(ctx context.Context, to, from kv.NodeID, keys []kv.Key, _ bool) ([]bool, int, time.Duration, error) {
	held := make([]bool, len(keys))
	var room int
	var pause time.Duration
	err := n.call(ctx, to, "nudge", fmt.Append(nil, keys), func(other *node) error {
		if room, pause = other.roomNow(); room == 0 {
			return nil
		}
		var err error
		if pulled, err := other.Pull(ctx, from, keys, false); err == nil {
			copy(held, pulled)
		}
		return err
	})
	return held, room, pause, err
}

// What a test asks of the whole.

func (c *cluster) count(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[kind]
}

// traced returns what was sent, in the order of time and then of names.
func (c *cluster) traced() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.trace)
	return strings.Join(c.trace, "\n")
}

// divergent returns the keys that an owner lacks or holds otherwise than
// another.
func (c *cluster) divergent() []string {
	whole := make(map[kv.Key]kv.Record)
	for _, n := range c.nodes {
		for k, r := range n.snapshot() {
			whole[k] = whole[k].Merge(r)
		}
	}
	var out []string
	for k, r := range whole { // sorted below
		for _, n := range c.nodes {
			got := n.get(k)
			switch {
			case owns(n.View(), k, r.NMax, n.id) && digestOf(k, got) != digestOf(k, r):
				out = append(out, fmt.Sprintf("%v at %v: %v of n_max %d", k, n.id, got.Clock, r.NMax))
			case !owns(n.View(), k, r.NMax, n.id) && !got.Absent():
				out = append(out, fmt.Sprintf("%v at %v, which does not own it", k, n.id))
			}
		}
	}
	slices.Sort(out)
	return out
}

func (c *cluster) mustAgree(when string) {
	c.t.Helper()
	if d := c.divergent(); len(d) > 0 {
		c.t.Errorf("%s %d replicas differ: %s", when, len(d), strings.Join(d[:min(len(d), 10)], "; "))
	}
}

// wait lets virtual time pass.
func (c *cluster) wait(d time.Duration) { time.Sleep(d) }

func keyAt(i int) kv.Key { return kv.Key{Bucket: "b", Name: fmt.Sprint("key", i)} }

// load writes so many keys to n owners each.
func (c *cluster) load(keys, n int) []kv.Key {
	list := make([]kv.Key, 0, keys)
	for i := range keys {
		k := keyAt(i)
		list = append(list, k)
		c.spread(k, uint8(n))
	}
	return list
}

// spread writes the key at its first owner and gives it to all the others.
func (c *cluster) spread(k kv.Key, n uint8) {
	owners := c.ownersOf(k, n)
	r := owners[0].write(k, n, nil)
	for _, o := range owners[1:] {
		o.merge(k, r)
	}
}

// ownersOf returns the owners of a key, the first of the newest layout first.
func (c *cluster) ownersOf(k kv.Key, n uint8) []*node {
	var out []*node
	v := c.nodes[0].View()
	for _, id := range ownersOf(v, v.Active()[0].Partition(k.Hash())) {
		if owns(v, k, n, id) {
			out = append(out, c.node(id))
		}
	}
	return out
}
