package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// The world of this file is a whole cluster in memory: a coordinator and a
// replica on every node, and between them a network that encodes all messages
// and has the faults that a test asks for. It runs in virtual time.
type world struct {
	t      *testing.T
	nodes  []*node
	flight sync.WaitGroup // requests on their way, also those that nobody waits for

	mu     sync.Mutex
	random *rand.Rand
	skew   time.Duration // of every clock that the world hands out
}

// node is one of its nodes.
type node struct {
	*Coordinator
	world *world
	id    kv.NodeID

	mu    sync.Mutex
	view  ring.View
	boot  uint64
	slots map[kv.Slot]kv.Record
	blobs map[blobAt][]byte
	reap  map[uint16]uint64 // reap numbers, by partition
	fault trouble
	got   map[string]int // messages that arrived, by kind
	told  []string       // of replicas that are behind
}

type blobAt struct {
	slot kv.Slot
	dot  vclock.Dot
}

// trouble is what is wrong with a node. The zero trouble is health.
type trouble struct {
	refused    bool          // nobody listens there
	silent     bool          // what is sent there vanishes
	unknown    bool          // as silent, and no connection stands
	slow       time.Duration // every request waits so long before it is served
	slowValue  time.Duration // the same for external values alone
	loseReply  bool          // requests are served, and the connection is lost
	recovering bool          // not in good standing
	suspected  bool          // gossip believes that it is dead
	unlearning bool          // it cannot make a view durable

	queue  time.Duration // before the store gets to an update
	disk   time.Duration // before a commit is done
	commit error         // of every commit
	door   error         // with which the store refuses updates

	badValue bool // external values are delivered damaged
	noValue  bool // external values are gone
}

var (
	errConnRefused = errors.New("connection refused")
	errConnLost    = errors.New("connection lost")
)

// lives runs fn on a cluster of so many nodes in a bubble of virtual time, and
// then checks that closing it leaves nothing behind.
func lives(t *testing.T, size int, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, size, 1)
		defer w.close()
		fn(w)
	})
}

func newWorld(t *testing.T, size int, seed uint64) *world {
	t.Helper()
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, seed))}
	members := make([]ring.Member, size)
	for i := range members {
		members[i] = member(i)
	}
	view := viewOf(t, layoutOf(t, 1, nil, members...))
	for i := range members {
		w.add(members[i].ID, view)
	}
	return w
}

// add starts a node.
func (w *world) add(id kv.NodeID, view ring.View) *node {
	n := &node{
		world: w, id: id, view: view, boot: w.draw(),
		slots: make(map[kv.Slot]kv.Record), blobs: make(map[blobAt][]byte), reap: make(map[uint16]uint64), got: make(map[string]int),
	}
	n.Coordinator = New(Config{
		Self: id, Cluster: n, Replicas: n, Local: n, Repairs: n, Now: w.now, Random: w.draw, Log: zap.NewNop(),
		Defaults: Defaults{N: 3, Timeout: 2 * time.Second},
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, n)
	return n
}

// close ends all nodes, and fails if one takes its time over it.
func (w *world) close() {
	w.t.Helper()
	begun := time.Now()
	for _, n := range w.nodes {
		n.Close()
	}
	if took := time.Since(begun); took > 0 {
		w.t.Errorf("Close took %v", took)
	}
	w.flight.Wait()
	synctest.Wait()
}

func member(i int) ring.Member {
	return ring.Member{
		ID: kv.NodeID(i + 1), Name: fmt.Sprintf("n%d", i+1), Address: fmt.Sprintf("n%d:7000", i+1), Weight: 100,
	}
}

func layoutOf(tb testing.TB, version uint64, prev *ring.Layout, members ...ring.Member) *ring.Layout {
	tb.Helper()
	l, err := ring.Compute(ring.ClusterID{7}, version, members, 16, prev)
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

// sleep lets virtual time pass.
func (w *world) sleep(d time.Duration) { time.Sleep(d) }

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.skew)
}

func (w *world) draw() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.Uint64()
}

func (w *world) node(id kv.NodeID) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.id == id })
	if i < 0 {
		return nil
	}
	return w.nodes[i]
}

// owners are the nodes on the key's preference list in the view of the first
// node: the owners for any n, then those that can stand in.
func (w *world) owners(key kv.Key) []*node {
	l := w.nodes[0].View().Active()[0]
	ids := l.Owners(l.Partition(key.Hash()))
	list := make([]*node, len(ids))
	for i, id := range ids {
		list[i] = w.node(id)
	}
	return list
}

// messages is how many messages of a kind have arrived at all nodes.
func (w *world) messages(kind string) int {
	total := 0
	for _, n := range w.nodes {
		total += n.received(kind)
	}
	return total
}

func (n *node) received(kind string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.got[kind]
}

// set changes what is wrong with the node.
func (n *node) set(f trouble) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = f
}

func (n *node) faults() trouble {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fault
}

// restart ends one boot of the node's store and begins another.
func (n *node) restart() {
	boot := n.world.draw()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.boot = boot
}

func (n *node) name() string { return fmt.Sprintf("n%d", n.id) }

func (n *node) slot(key kv.Key, target kv.NodeID) kv.Slot {
	l := n.View().Active()[0]
	return kv.Slot{Target: target, Partition: uint16(l.Partition(key.Hash())), Key: key}
}

// holds is the node's own record of the key; hint is what it keeps for target.
func (n *node) holds(key kv.Key) kv.Record { return n.hint(key, 0) }

func (n *node) hint(key kv.Key, target kv.NodeID) kv.Record {
	slot := n.slot(key, target)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.slots[slot]
}

// What follows is the node as its coordinator knows it: the cluster, its own
// store, and the way to the others.

func (n *node) View() ring.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view
}

func (n *node) Learn(v ring.View) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fault.unlearning {
		return errors.New("no space left on device")
	}
	merged, err := n.view.Merge(v)
	if err == nil {
		n.view = merged
	}
	return err
}

func (n *node) Alive(id kv.NodeID) bool { return !n.world.node(id).faults().suspected }

func (n *node) Connected(id kv.NodeID) bool {
	f := n.world.node(id).faults()
	return !f.refused && !f.unknown
}

func (n *node) Reachable(ctx context.Context, to kv.NodeID) error {
	f := n.world.node(to).faults()
	switch {
	case f.refused:
		return errConnRefused
	case f.silent || f.unknown:
		<-ctx.Done()
		return ctx.Err()
	}
	return wait(ctx, f.slow)
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *node) Assign(req AssignRequest) error {
	f := n.faults()
	if f.door != nil {
		return f.door
	}
	n.update(req.Slot, func(old kv.Record, boot uint64) (kv.Record, []kv.Blob, error) {
		if n.view.Digest() != req.Fence {
			return kv.Record{}, nil, &StaleViewError{View: n.view}
		}
		return req.Decide(Held{Record: old, Boot: boot, Reap: n.reap[req.Slot.Partition], Standing: !n.fault.recovering})
	}, req.Done)
	return nil
}

func (n *node) Read(slot kv.Slot) (kv.Record, uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.slots[slot], n.reap[slot.Partition], nil
}

func (n *node) Raise(_ context.Context, partition uint16, to uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reap[partition] = max(n.reap[partition], to)
	return nil
}

func (n *node) Missed(target kv.NodeID, partition uint16, key kv.Key) {
	n.hears(fmt.Sprintf("n%d missed %v of %d", target, key, partition))
}

func (n *node) Behind(key kv.Key, width int) { n.hears(fmt.Sprintf("%v differs of %d", key, width)) }

func (n *node) hears(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, what)
}

// heard is what the coordinator has said of replicas that are behind, sorted,
// since it was asked last.
func (n *node) heard() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	told := n.told
	n.told = nil
	slices.Sort(told)
	return told
}

// update is the one read-modify-write of the node's store: apply is called
// under its lock. A failed commit ends the boot, as the contract asks.
func (n *node) update(slot kv.Slot, apply func(old kv.Record, boot uint64) (kv.Record, []kv.Blob, error), done func(error)) {
	f := n.faults()
	decide := func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		next, blobs, err := apply(n.slots[slot], n.boot)
		if err != nil {
			return err
		}
		if f.commit != nil {
			n.boot++
			return f.commit
		}
		n.slots[slot] = next
		for _, b := range blobs {
			n.blobs[blobAt{slot, b.Dot}] = slices.Clone(b.Data)
		}
		return nil
	}
	after(f.queue, func() {
		err := decide()
		after(f.disk, func() { done(err) })
	})
}

func after(d time.Duration, fn func()) {
	if d == 0 {
		fn()
		return
	}
	time.AfterFunc(d, fn)
}

// transfer carries a request to a node, has it served there and carries the
// answer back. A request whose sender has given up still arrives.
func transfer[R any](ctx context.Context, n *node, to kv.NodeID, kind string, serve func(context.Context, *node) (R, error)) (R, error) {
	var none R
	if _, ok := ctx.Deadline(); !ok {
		return none, MarkNotRun(errors.New("a call without a deadline"))
	}
	if ctx.Err() != nil {
		return none, MarkNotRun(ctx.Err())
	}
	peer := n.world.node(to)
	f := peer.faults()
	delay := f.slow
	if kind == "value" {
		delay = max(delay, f.slowValue)
	}
	switch {
	case to == n.id:
		peer.count(kind)
		return serve(ctx, peer)
	case f.refused:
		return none, MarkNotRun(errConnRefused)
	case f.silent || f.unknown:
		<-ctx.Done()
		return none, ctx.Err()
	}
	type answer struct {
		reply R
		err   error
	}
	answers := make(chan answer, 1)
	n.world.flight.Go(func() {
		time.Sleep(delay)
		peer.count(kind)
		reply, err := serve(ctx, peer)
		answers <- answer{reply, err}
	})
	select {
	case a := <-answers:
		if f.loseReply {
			return none, errConnLost
		}
		if a.err != nil {
			return none, DecodeError(AppendError(nil, a.err))
		}
		return a.reply, nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func (n *node) count(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got[kind]++
}

func (n *node) Fetch(ctx context.Context, to kv.NodeID, req FetchRequest, done func(FetchReply, error)) {
	req = recode(n.world.t, req, DecodeFetchRequest)
	n.beside(to, func() {
		done(transfer(ctx, n, to, "fetch", func(_ context.Context, peer *node) (FetchReply, error) {
			got, err := peer.fetch(req)
			if err != nil {
				return FetchReply{}, err
			}
			return recode(n.world.t, got, DecodeFetchReply), nil
		}))
	})
}

func (n *node) Store(ctx context.Context, to kv.NodeID, req StoreRequest, done func(error)) {
	req = recode(n.world.t, req, DecodeStoreRequest)
	n.beside(to, func() {
		_, err := transfer(ctx, n, to, "store", func(ctx context.Context, peer *node) (struct{}, error) {
			return struct{}{}, peer.store(ctx, req)
		})
		done(err)
	})
}

// beside makes a call that its caller does not wait for.
func (n *node) beside(to kv.NodeID, call func()) {
	if to == n.id {
		call()
		return
	}
	n.world.flight.Go(call)
}

func (n *node) Value(ctx context.Context, to kv.NodeID, req ValueRequest) ([]byte, error) {
	req = recode(n.world.t, req, DecodeValueRequest)
	return transfer(ctx, n, to, "value", func(_ context.Context, peer *node) ([]byte, error) { return peer.value(req) })
}

func (n *node) Forward(ctx context.Context, to kv.NodeID, req ForwardRequest) (PutDone, error) {
	req = recode(n.world.t, req, DecodeForwardRequest)
	return transfer(ctx, n, to, "forward", func(ctx context.Context, peer *node) (PutDone, error) {
		if err := peer.taught(req.Fence); err != nil {
			return PutDone{}, err
		}
		done, err := peer.Forwarded(ctx, req)
		if err != nil {
			return PutDone{}, err
		}
		return recode(n.world.t, done, DecodePutDone), nil
	})
}

// recode sends a message through its encoding.
func recode[M message](t *testing.T, m M, decode func([]byte) (M, error)) M {
	t.Helper()
	got, err := decode(m.Append(nil))
	if err != nil {
		t.Errorf("%T does not decode: %v", m, err)
	}
	return got
}

// taught learns the view that came along, and refuses any other than its own.
func (n *node) taught(f Fence) error {
	if len(f.Full) > 0 {
		v, err := ring.DecodeView(f.Full)
		if err != nil {
			return err
		}
		if err := n.Learn(v); err != nil {
			return err
		}
	}
	if v := n.View(); v.Digest() != f.Digest {
		return &StaleViewError{View: v}
	}
	return nil
}

func (n *node) fetch(req FetchRequest) (FetchReply, error) {
	if err := n.taught(req.Fence); err != nil {
		return FetchReply{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var merged kv.Record
	slots := n.slotsOf(req.Key, req.StandIn)
	partition := slots[0].Partition
	if !n.fault.recovering {
		n.reap[partition] = max(n.reap[partition], req.Reap)
	}
	for _, slot := range slots {
		merged = merged.Merge(n.slots[slot])
	}
	merged.Mine = kv.Mine{}
	return FetchReply{Record: merged, Standing: !n.fault.recovering, Reap: n.reap[partition]}, nil
}

func (n *node) slotsOf(key kv.Key, standIn bool) []kv.Slot {
	l := n.view.Active()[0]
	own := kv.Slot{Partition: uint16(l.Partition(key.Hash())), Key: key}
	list := []kv.Slot{own}
	if standIn {
		for _, target := range l.Owners(l.Partition(key.Hash())) {
			list = append(list, kv.Slot{Target: target, Partition: own.Partition, Key: key})
		}
	}
	return list
}

func (n *node) value(req ValueRequest) ([]byte, error) {
	if err := n.taught(req.Fence); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, slot := range n.slotsOf(req.Key, req.StandIn) {
		data, ok := n.blobs[blobAt{slot, req.Dot}]
		if !ok || n.fault.noValue || !n.slots[slot].Holds(req.Dot) {
			continue
		}
		data = slices.Clone(data)
		if n.fault.badValue {
			data[0]++
		}
		return data, nil
	}
	return nil, errors.New("no such value")
}

func (n *node) store(ctx context.Context, req StoreRequest) error {
	if err := n.taught(req.Fence); err != nil {
		return err
	}
	incoming, err := kv.DecodeRecord(req.Record)
	if err != nil {
		return err
	}
	owner := n.id
	if req.Target != 0 {
		owner = req.Target
	}
	if !n.mayHold(req.Key, owner, int(incoming.NMax)) {
		return ErrNotOwner
	}
	if f := n.faults(); f.door != nil {
		return f.door
	}
	stored := make(chan error, 1)
	n.update(n.slot(req.Key, req.Target), func(old kv.Record, _ uint64) (kv.Record, []kv.Blob, error) {
		if n.view.Digest() != req.Fence.Digest {
			return kv.Record{}, nil, &StaleViewError{View: n.view}
		}
		if known := n.reap[n.slotsOf(req.Key, false)[0].Partition]; req.Reap < known {
			return kv.Record{}, nil, &StaleReapError{Number: known}
		}
		next := old.Merge(incoming)
		missing := new(MissingBlobsError)
		for _, v := range next.Live {
			if v.Value.External && !old.Holds(v.Dot) && !slices.ContainsFunc(req.Blobs, func(b kv.Blob) bool { return b.Dot == v.Dot }) {
				missing.Dots = append(missing.Dots, v.Dot)
			}
		}
		if len(missing.Dots) > 0 {
			return kv.Record{}, nil, missing
		}
		return next, req.Blobs, nil
	}, func(err error) { stored <- err })
	select {
	case err := <-stored:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *node) mayHold(key kv.Key, owner kv.NodeID, width int) bool {
	return slices.ContainsFunc(n.View().Active(), func(l *ring.Layout) bool {
		return slices.Contains(first(l.Owners(l.Partition(key.Hash())), width), owner)
	})
}
