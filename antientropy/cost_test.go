package antientropy

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// What an exchange costs by itself: nodes whose records are numbers in memory,
// joined by calls that encode and decode every message. The records moved are
// counted as the 200 bytes or so that one of 100 bytes takes on its way.

const (
	costPartitions = 1024
	costKeys       = 1_000_000
	costRecord     = 200
)

// ledgerOfNone is that of a node in good standing.
type ledgerOfNone struct{}

func (ledgerOfNone) Registered() bool { return true }

func (ledgerOfNone) Sources(uint16, []kv.NodeID) ([]kv.NodeID, uint64)     { return nil, 0 }
func (ledgerOfNone) Merged(uint16, kv.NodeID, uint64, uint64) error        { return nil }
func (ledgerOfNone) CheckLeaf(uint16, uint8) error                         { return nil }
func (ledgerOfNone) RebuildLeaf(_ uint16, _ uint8, done func(error)) error { done(nil); return nil }

func (ledgerOfNone) CheckValues(uint16, uint8, func(kv.Key, kv.Version)) (int, error) { return 0, nil }
func (ledgerOfNone) PullValue(context.Context, kv.NodeID, kv.Key, kv.Version) error   { return nil }
func (ledgerOfNone) Doubt(uint16, uint8)                                              {}
func (ledgerOfNone) Trust(uint16, uint8)                                              {}
func (ledgerOfNone) Doubted(uint16, uint8) bool                                       { return false }

// numbers is a node that holds the same keys as all others, and of each a
// digest.
type numbers struct {
	ledgerOfNone

	id        kv.NodeID
	view      ring.View
	keys      [][]kv.Key // by partition and leaf
	others    map[kv.NodeID]*numbers
	responder *Responder
	x         *Exchanger

	mu      sync.Mutex
	digests map[kv.Key]uint64 // those that are not the usual
	trees   []merkle.Tree
	moved   int // bytes
}

func usual(k kv.Key) uint64 { return k.Hash() * 0x9e3779b97f4a7c15 }

func (n *numbers) digest(k kv.Key) uint64 {
	if d, ok := n.digests[k]; ok {
		return d
	}
	return usual(k)
}

func (n *numbers) at(k kv.Key) (partition uint16, leaf uint8) {
	return uint16(n.view.Active()[0].Partition(k.Hash())), k.Leaf()
}

func (n *numbers) set(k kv.Key, digest uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, leaf := n.at(k)
	n.trees[p].Apply(merkle.Replaced(merkle.ID{}, leaf, n.digest(k), digest))
	n.digests[k] = digest
}

func (n *numbers) Tree(partition uint16, _ uint8) merkle.Tree {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.trees[partition]
}

func (n *numbers) ScanLeaf(partition uint16, leaf uint8, fn func(kv.Key, kv.Record, uint64) error) error {
	for _, k := range n.keys[int(partition)*merkle.Leaves+int(leaf)] {
		n.mu.Lock()
		d := n.digest(k)
		n.mu.Unlock()
		r := kv.Record{NMax: 3}
		r.Clock = vclock.Clock{{Actor: 1, Counter: 1 + d - usual(k)}}
		if err := fn(k, r, d); err != nil {
			return err
		}
	}
	return nil
}

func direct[Q, A message](
	from kv.NodeID, req Q, decodeQ func([]byte) (Q, error), serve func(kv.NodeID, Q) (A, error), decodeA func([]byte) (A, error),
) (A, error) {
	got, err := decodeQ(req.Append(nil))
	if err != nil {
		panic(err)
	}
	reply, err := serve(from, got)
	if err != nil {
		return reply, err
	}
	return decodeA(reply.Append(nil))
}

func (n *numbers) Compare(_ context.Context, to kv.NodeID, req CompareRequest) (CompareReply, error) {
	return direct(n.id, req, DecodeCompareRequest, n.others[to].responder.Compare, DecodeCompareReply)
}

func (n *numbers) Children(_ context.Context, to kv.NodeID, req ChildrenRequest) (ChildrenReply, error) {
	return direct(n.id, req, DecodeChildrenRequest, n.others[to].responder.Children, DecodeChildrenReply)
}

func (n *numbers) Keys(_ context.Context, to kv.NodeID, req KeysRequest) (KeysReply, error) {
	return direct(n.id, req, DecodeKeysRequest, n.others[to].responder.Keys, DecodeKeysReply)
}

func (n *numbers) Connected(kv.NodeID) bool { return true }

func (n *numbers) Pull(_ context.Context, from kv.NodeID, keys []kv.Key, _ bool) ([]bool, error) {
	for _, k := range keys {
		other := n.others[from]
		other.mu.Lock()
		d := other.digest(k)
		other.mu.Unlock()
		n.set(k, max(d, n.digest(k)))
		n.moved += costRecord + 2*len(k.Name)
	}
	return slices.Repeat([]bool{true}, len(keys)), nil
}

func (n *numbers) PullLeaves(context.Context, kv.NodeID, uint16, []uint8) (int, int, error) {
	return 0, 0, nil
}

func (n *numbers) Nudge(ctx context.Context, to, from kv.NodeID, keys []kv.Key, _ bool) ([]bool, int, time.Duration, error) {
	held, err := n.others[to].Pull(ctx, from, keys, false)
	return held, 256, 0, err
}

func numbered(b *testing.B) []*numbers {
	b.Helper()
	view := viewOf(b, layoutOf(b, 1, nil, costPartitions, 3))
	keys := make([][]kv.Key, costPartitions*merkle.Leaves)
	for i := range costKeys {
		k := keyAt(i)
		at := int(view.Active()[0].Partition(k.Hash()))*merkle.Leaves + int(k.Leaf())
		keys[at] = append(keys[at], k)
	}
	others := make(map[kv.NodeID]*numbers)
	var list []*numbers
	for id := kv.NodeID(1); id <= 3; id++ {
		n := &numbers{id: id, view: view, keys: keys, others: others, digests: make(map[kv.Key]uint64)}
		n.trees = make([]merkle.Tree, costPartitions)
		for at, leaf := range keys {
			for _, k := range leaf {
				n.trees[at/merkle.Leaves].Apply(merkle.Added(merkle.ID{}, uint8(at%merkle.Leaves), usual(k)))
			}
		}
		viewNow := func() ring.View { return view }
		n.responder = NewResponder(ResponderConfig{
			Self: id, View: viewNow, Local: n, Ledger: n, Starts: func() uint64 { return 1 }, Suspect: func(uint16, uint8) {},
		})
		n.x = New(Config{
			Self: id, View: viewNow, Local: n, Leaves: n, Values: n, Doubts: n, Ledger: n, Peers: n, Mover: n,
			Now: time.Now, Random: func() uint64 { return 1 }, Log: zap.NewNop(), SecondLook: time.Nanosecond,
		})
		others[id] = n
		list = append(list, n)
	}
	return list
}

// cycle has every node exchange once with every other, and returns the bytes of
// messages and of records moved.
func cycle(b *testing.B, nodes []*numbers) (compared, moved int) {
	b.Helper()
	for _, n := range nodes {
		before := n.x.Stats().ComparedBytes
		for _, peer := range n.x.surveyor.territory(n.view).peers {
			e := &exchange{Exchanger: n.x, peer: peer.id, land: n.x.surveyor.territory(n.view), shares: peer.shares, window: 1}
			if err := n.x.converse(b.Context(), e); err != nil {
				b.Fatal(err)
			}
		}
		compared += int(n.x.Stats().ComparedBytes - before)
	}
	for _, n := range nodes {
		moved += n.moved
		n.moved = 0
	}
	return compared, moved
}

// BenchmarkCycle measures one exchange of all 1024 partitions among all pairs of
// three nodes that hold 1,000,000 keys each, both ways. ns/op is CPU time: no
// call waits.
func BenchmarkCycle(b *testing.B) {
	nodes := numbered(b)
	for _, differ := range []int{0, 100, 10_000} {
		b.Run(map[int]string{0: "identical", 100: "100 keys differ", 10_000: "10000 keys differ"}[differ], func(b *testing.B) {
			var compared, moved int
			for i := range b.N {
				b.StopTimer()
				for j := range differ {
					k := keyAt(j * (costKeys / max(1, differ)))
					nodes[(i+j)%3].set(k, max(nodes[0].digest(k), usual(k))+1)
				}
				b.StartTimer()
				compared, moved = cycle(b, nodes)
			}
			b.ReportMetric(float64(compared), "compared-B")
			b.ReportMetric(float64(moved), "moved-B")
		})
	}
}
