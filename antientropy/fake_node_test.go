package antientropy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// node is one of the nodes.
type node struct {
	*Responder

	c      *cluster
	id     kv.NodeID
	x      *Exchanger
	random *rand.Rand // of the test's goroutine

	mu         sync.Mutex
	view       ring.View
	cut        bool // nobody reaches it, and it reaches nobody
	absent     bool // not registered
	starts     uint64
	boot       uint64
	records    map[kv.Key]kv.Record
	leaves     map[leafID][]kv.Key // sorted
	trees      map[merkle.ID]*merkle.Tree
	damaged    map[kv.Key]bool
	valueless  map[kv.Key]bool // the values of these are lost
	doubted    map[leafID]bool
	sources    map[uint16][]kv.NodeID             // still to be merged
	promised   map[kv.NodeID]map[kv.Key]kv.Record // what the others held when this node fell
	rebuilt    int
	room       func() (room int, pause time.Duration) // for nudges
	pulledKeys int
	streamed   int
}

func newNode(c *cluster, id kv.NodeID, view ring.View) *node {
	n := &node{c: c, id: id, view: view, starts: 1, random: rand.New(rand.NewPCG(c.seed, uint64(id)))}
	n.doubted = make(map[leafID]bool)
	n.sources = make(map[uint16][]kv.NodeID)
	n.room = func() (int, time.Duration) { return 64, 0 }
	n.empty()
	n.x = New(Config{
		Self: id, View: n.View, Local: n, Leaves: n, Values: n, Doubts: n, Ledger: n, Peers: peers{n}, Mover: n,
		Now: time.Now, Random: n.random.Uint64, Log: zap.NewNop(), Scrub: time.Hour,
	})
	n.Responder = NewResponder(ResponderConfig{
		Self: id, View: n.View, Local: n, Ledger: n, Starts: n.Starts, Suspect: n.x.Suspect,
	})
	return n
}

// View is what the node knows of the layouts.
func (n *node) View() ring.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view
}

func (n *node) setView(v ring.View) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.view = v
}

func (n *node) partition(k kv.Key) uint16 { return uint16(n.view.Active()[0].Partition(k.Hash())) }

// owns reports whether a node is to hold a record of the key with that n_max.
func owns(v ring.View, k kv.Key, nmax uint8, id kv.NodeID) bool {
	return slices.ContainsFunc(v.Active(), func(l *ring.Layout) bool {
		owners := l.Owners(l.Partition(k.Hash()))
		return slices.Contains(owners[:min(int(nmax), len(owners))], id)
	})
}

// What the node holds.

func (n *node) empty() {
	n.records = make(map[kv.Key]kv.Record)
	n.leaves = make(map[leafID][]kv.Key)
	n.trees = make(map[merkle.ID]*merkle.Tree)
	n.damaged = make(map[kv.Key]bool)
	n.valueless = make(map[kv.Key]bool)
	n.boot++
}

// set replaces a record; the caller holds the lock.
func (n *node) set(k kv.Key, r kv.Record) {
	before, held := n.records[k]
	if held && !n.damaged[k] {
		n.tree(k, before.NMax).Apply(merkle.Removed(merkle.ID{}, k.Leaf(), digestOf(k, before)))
	}
	if !held {
		id := leafID{n.partition(k), k.Leaf()}
		i, _ := slices.BinarySearchFunc(n.leaves[id], k, compareKeys)
		n.leaves[id] = slices.Insert(n.leaves[id], i, k)
	}
	delete(n.damaged, k)
	n.records[k] = r
	n.tree(k, r.NMax).Apply(merkle.Added(merkle.ID{}, k.Leaf(), digestOf(k, r)))
}

func (n *node) tree(k kv.Key, nmax uint8) *merkle.Tree {
	id := merkle.ID{Partition: n.partition(k), NMax: nmax}
	if n.trees[id] == nil {
		n.trees[id] = new(merkle.Tree)
	}
	return n.trees[id]
}

func digestOf(k kv.Key, r kv.Record) uint64 { return kv.Digest(k, kv.AppendRecord(nil, r)) }

// write puts a value here alone and returns the record.
func (n *node) write(k kv.Key, nmax uint8, seen vclock.Clock) kv.Record {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !owns(n.view, k, nmax, n.id) {
		n.c.t.Fatalf("the test writes %v with n=%d to node %v, which does not own it", k, nmax, n.id)
	}
	mint := func() vclock.Actor { return vclock.Actor(n.random.Uint64() | 1) }
	r, _ := n.records[k].Put(kv.Sibling{Kind: kv.KindValue, N: nmax}, seen, n.boot, mint, time.Time{})
	n.set(k, r)
	return r
}

// merge takes a record that came from elsewhere.
func (n *node) merge(k kv.Key, r kv.Record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !owns(n.view, k, r.NMax, n.id) {
		n.c.t.Errorf("%v with n_max %d was moved to node %v, which does not own it", k, r.NMax, n.id)
		return
	}
	if n.damaged[k] {
		n.set(k, kv.Record{}.Merge(r)) // without the actor of another node
	} else if now := n.records[k]; !now.Covers(r) {
		n.set(k, now.Merge(r))
	}
}

func (n *node) get(k kv.Key) kv.Record {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.damaged[k] {
		return kv.Record{}
	}
	return n.records[k]
}

func (n *node) isDamaged(k kv.Key) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.damaged[k]
}

func (n *node) holds() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.records) - len(n.damaged)
}

// snapshot returns all that can be read.
func (n *node) snapshot() map[kv.Key]kv.Record {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[kv.Key]kv.Record)
	for k, r := range n.records {
		if !n.damaged[k] {
			all[k] = r
		}
	}
	return all
}

// Tree implements [Local].
func (n *node) Tree(partition uint16, least uint8) merkle.Tree {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all merkle.Tree
	for nmax := least; nmax <= kv.MaxN; nmax++ {
		if t := n.trees[merkle.ID{Partition: partition, NMax: nmax}]; t != nil {
			all.Add(t)
		}
	}
	return all
}

// ScanLeaf implements [Local].
func (n *node) ScanLeaf(partition uint16, leaf uint8, fn func(kv.Key, kv.Record, uint64) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var damage error
	for _, k := range n.leaves[leafID{partition, leaf}] {
		if n.damaged[k] {
			damage = fmt.Errorf("%v: %w", k, ErrDamaged)
			continue
		}
		if err := fn(k, n.records[k], digestOf(k, n.records[k])); err != nil {
			return err
		}
	}
	return damage
}

// rot damages a record, or loses it without a trace in the trees.
func (n *node) rot(k kv.Key, lost bool) {
	for _, o := range n.c.nodes { // nobody can get it from here any more
		o.mu.Lock()
		delete(o.promised[n.id], k)
		o.mu.Unlock()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !lost {
		n.damaged[k] = true
		return
	}
	id := leafID{n.partition(k), k.Leaf()}
	n.leaves[id] = slices.DeleteFunc(n.leaves[id], func(o kv.Key) bool { return o == k })
	delete(n.records, k)
}

// leaf returns what the records that can be read make of a leaf; the caller
// holds the lock.
func (n *node) leaf(id leafID, nmax uint8) merkle.Leaf {
	var l merkle.Leaf
	for _, k := range n.leaves[id] {
		if r := n.records[k]; r.NMax == nmax && !n.damaged[k] {
			l = l.Apply(merkle.Added(merkle.ID{}, id.leaf, digestOf(k, r)))
		}
	}
	return l
}

// CheckLeaf implements [Leaves].
func (n *node) CheckLeaf(partition uint16, leaf uint8) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := leafID{partition, leaf}
	if slices.ContainsFunc(n.leaves[id], func(k kv.Key) bool { return n.damaged[k] }) {
		return ErrDamaged
	}
	for tree, t := range n.trees { // any difference will do
		if tree.Partition == partition && t[leaf] != n.leaf(id, tree.NMax) {
			return ErrDamaged
		}
	}
	return nil
}

// RebuildLeaf implements [Leaves].
func (n *node) RebuildLeaf(partition uint16, leaf uint8, done func(error)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for tree, t := range n.trees { // each by itself
		if tree.Partition == partition {
			t[leaf] = n.leaf(leafID{partition, leaf}, tree.NMax)
		}
	}
	n.rebuilt++
	done(nil)
	return nil
}

// CheckValues implements [Values]. Every record has one value outside.
func (n *node) CheckValues(partition uint16, leaf uint8, lost func(kv.Key, kv.Version)) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	keys := n.leaves[leafID{partition, leaf}]
	for _, k := range keys {
		if n.valueless[k] {
			lost(k, kv.Version{})
		}
	}
	return len(keys), nil
}

// PullValue implements [Values].
func (n *node) PullValue(ctx context.Context, from kv.NodeID, key kv.Key, _ kv.Version) error {
	err := n.call(ctx, from, "value", []byte(key.Name), func(other *node) error {
		if other.lacksValue(key) {
			return errNoValue
		}
		return nil
	})
	if err == nil {
		n.setLost(key, false)
	}
	return err
}

var errNoValue = errors.New("the value is lost here, too")

func (n *node) setLost(k kv.Key, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.valueless[k] = lost
}

func (n *node) lacksValue(k kv.Key) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.valueless[k] || n.records[k].Absent()
}

// Doubt implements [Doubts].
func (n *node) Doubt(partition uint16, leaf uint8) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doubted[leafID{partition, leaf}] = true
}

// Doubted implements [Doubts].
func (n *node) Doubted(partition uint16, leaf uint8) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.doubted[leafID{partition, leaf}]
}

// Trust implements [Doubts].
func (n *node) Trust(partition uint16, leaf uint8) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.doubted, leafID{partition, leaf})
}

func (n *node) doubts() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.doubted)
}

// Starts implements the count of starts.
func (n *node) Starts() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.starts
}

// Registered implements [Ledger].
func (n *node) Registered() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.absent
}

// Sources implements [Ledger].
func (n *node) Sources(partition uint16, owners []kv.NodeID) ([]kv.NodeID, uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(owners), func(id kv.NodeID) bool { return !slices.Contains(n.sources[partition], id) })
	return left, n.starts
}

// Merged implements [Ledger]. It checks that it is true.
func (n *node) Merged(partition uint16, source kv.NodeID, starts, epoch uint64) error {
	if starts != n.c.node(source).Starts() {
		return errors.New("another life of the source")
	}
	if epoch != n.Starts() {
		return errors.New("another fall")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, r := range n.promised[source] {
		if n.partition(k) == partition && owns(n.view, k, r.NMax, n.id) && !n.records[k].Covers(r) {
			n.c.t.Errorf("node %v merged partition %d from %v, but not %v", n.id, partition, source, k)
		}
	}
	n.sources[partition] = slices.DeleteFunc(slices.Clone(n.sources[partition]), func(id kv.NodeID) bool { return id == source })
	return nil
}

// promise remembers what all nodes hold now: of each source the node will have
// to hold as much when it says that it merged from it.
func (n *node) promise() {
	promised := make(map[kv.NodeID]map[kv.Key]kv.Record)
	for _, o := range n.c.nodes {
		promised[o.id] = o.snapshot()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.promised = promised
}

// setRoom says how a node answers to nudges.
func (n *node) setRoom(room func() (keys int, pause time.Duration)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.room = room
}

func (n *node) roomNow() (keys int, pause time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.room()
}

// fall empties the node, which knows that and has to merge all again.
func (n *node) fall() {
	n.promise()
	for _, o := range n.c.nodes { // nobody can get it from here any more
		o.mu.Lock()
		delete(o.promised, n.id)
		o.mu.Unlock()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.empty()
	n.starts++
	for p := range partitions(n.view) {
		owners := ownersOf(n.view, ring.Partition(p))
		if slices.Contains(owners, n.id) {
			n.sources[uint16(p)] = slices.DeleteFunc(owners, func(id kv.NodeID) bool { return id == n.id })
		}
	}
}

func (n *node) owing() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	open := 0
	for _, left := range n.sources { // a count, in whatever order
		if len(left) > 0 {
			open++
		}
	}
	return open
}
