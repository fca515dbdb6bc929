package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/peer"
	"github.com/starling-kv/starling/node/replica"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// mender is one node as far as repairs go: store, replica and the protocol.
type mender struct {
	*replica.Replica

	store  *storage.Store
	engine storage.Engine
	client *peer.Client
	doubts *doubts
}

// doubts is the standing of a node that is well, leaves apart, or that is not
// registered.
type doubts struct {
	mu           sync.Mutex
	unregistered bool
	of           map[[2]int]bool
}

func (d *doubts) Registered() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.unregistered
}

func (d *doubts) Standing(uint16, []kv.NodeID) bool { return true }

func (d *doubts) BeforeUnsynced() error { return nil }

func (d *doubts) Doubted(partition uint16, leaf uint8) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of[[2]int{int(partition), int(leaf)}]
}

func (d *doubts) Doubt(partition uint16, leaf uint8) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of[[2]int{int(partition), int(leaf)}] = true
}

// menders are the nodes of a cluster, which know its one layout.
type menders struct {
	t     testing.TB
	view  ring.View
	nodes []*mender
	ctx   context.Context //nolint:containedctx // of all calls of a test
}

// View and Learn implement [peer.Views].
func (m *menders) View() ring.View       { return m.view }
func (m *menders) Learn(ring.View) error { return errors.New("there is no other view") }

// newMenders starts a cluster in which all nodes own the one partition.
func newMenders(tb testing.TB, size int) *menders {
	tb.Helper()
	members := make([]ring.Member, size)
	for i := range members {
		name := string(rune('a' + i))
		members[i] = ring.Member{ID: kv.NodeID(i + 1), Name: name, Address: name + ":1", Weight: 1}
	}
	l, err := ring.Compute(ring.ClusterID{7}, 1, members, 1, nil)
	if err != nil {
		tb.Fatal(err)
	}
	m := &menders{t: tb, nodes: make([]*mender, size)}
	if m.view, err = (ring.View{}).With(l); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	tb.Cleanup(cancel)
	m.ctx = ctx
	net := transport.NewNetwork()
	for i := range m.nodes {
		m.nodes[i] = m.start(net, kv.NodeID(i+1))
	}
	return m
}

func (m *menders) start(net *transport.Network, id kv.NodeID) *mender {
	m.t.Helper()
	random := rand.New(rand.NewPCG(1, uint64(id)))
	n := &mender{engine: memory.New().Open(), doubts: &doubts{of: make(map[[2]int]bool)}}
	var err error
	if n.store, err = storage.Open(n.engine, storage.Options{Random: random.Uint64, Now: time.Now}); err != nil {
		m.t.Fatal(err)
	}
	n.Replica, err = replica.New(replica.Config{
		Self: id, Store: n.store, View: m.View, Sync: true, Standing: n.doubts, Suspect: func(uint16, uint8) {}, Log: zap.NewNop(),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	var early handler
	end := net.Join(id, &early)
	n.client = peer.NewClient(peer.Config{Self: id, Local: n.Replica, Merger: n.Replica, Views: m, Transport: end})
	server := peer.NewServer(peer.Handlers{Replica: n.Replica, Learn: m.Learn, Source: n.Replica, Nudges: n.client})
	early.to.Store(server)
	m.t.Cleanup(func() {
		err := end.Close()
		server.Wait()
		if err := errors.Join(err, n.store.Close()); err != nil {
			m.t.Error(err)
		}
	})
	return n
}

// put stores a record of key with one value of a size at one node, as a
// coordinator would, and returns it.
func (m *menders) put(at *mender, key kv.Key, actor, size int, reap uint64) kv.Record {
	m.t.Helper()
	value := bytes.Repeat([]byte{byte(actor)}, size)
	s := kv.Sibling{Kind: kv.KindValue, N: 3, Length: uint64(size), Checksum: kv.Checksum(value), Inline: value}
	if size > kv.InlineLimit {
		s.External, s.Inline = true, nil
	}
	rec, dot := kv.Record{NMax: 3}.Put(s, nil, 1, func() vclock.Actor { return vclock.Actor(actor) }, time.Time{})
	req := coordinator.StoreRequest{Fence: coordinator.Fence{Digest: m.view.Digest()}, Key: key, Reap: reap, Record: kv.AppendRecord(nil, rec)}
	if s.External {
		req.Blobs = []kv.Blob{{Dot: dot, Data: value}}
	}
	done := make(chan error, 1)
	at.Store(req, func(err error) { done <- err })
	if err := <-done; err != nil {
		m.t.Fatal(err)
	}
	return rec
}

// holds returns what a node holds of a key, values included, in canonical form.
func (m *menders) holds(at *mender, key kv.Key) string {
	m.t.Helper()
	rec, _, err := at.Holds(key)
	if err != nil {
		m.t.Fatal(err)
	}
	rec.Mine = kv.Mine{}
	all := kv.AppendRecord(nil, rec)
	for _, v := range rec.Live {
		b, err := at.ValueOf(key, 0, v)
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, b...)
	}
	return string(all)
}

func (m *menders) same(a, b *mender, keys ...kv.Key) {
	m.t.Helper()
	for _, k := range keys {
		if m.holds(a, k) != m.holds(b, k) {
			m.t.Errorf("the nodes differ in %v", k)
		}
	}
}

func numberedKeys(n int) []kv.Key {
	keys := make([]kv.Key, n)
	for i := range keys {
		keys[i] = kv.Key{Bucket: "b", Name: fmt.Sprint("k", i)}
	}
	return keys
}

func everyLeaf() []uint8 {
	leaves := make([]uint8, 256)
	for i := range leaves {
		leaves[i] = uint8(i)
	}
	return leaves
}

// An empty node gets all that another holds, over several pages and with values
// that are stored outside, and holds it through a crash.
func TestPullOfEverything(t *testing.T) {
	m := newMenders(t, 3)
	full, empty := m.nodes[0], m.nodes[1]
	keys := numberedKeys(900)
	bytesIn := 0
	for i, k := range keys {
		size := 3000
		if i%50 == 0 {
			size = 20_000
		}
		m.put(full, k, i+1, size, 0)
		bytesIn += size
	}
	records, bytes, err := empty.client.PullLeaves(m.ctx, 1, 0, everyLeaf())
	if err != nil || records != len(keys) || bytes < bytesIn || bytes > bytesIn*3/2 {
		t.Errorf("%d records, %d bytes of %d, %v", records, bytes, bytesIn, err)
	}
	m.same(full, empty, keys...)
	third := m.nodes[2]
	held, err := third.client.Pull(m.ctx, 1, keys, false)
	if err != nil || slices.Contains(held, false) {
		t.Errorf("by keys: %v", err)
	}
	m.same(full, third, keys...)
	if !slices.Equal(full.store.Trees(0), third.store.Trees(0)) || !slices.Equal(full.store.Trees(0), empty.store.Trees(0)) {
		t.Error("their trees differ")
	}
}

// A puller with a higher reap number refuses what comes; the source learns the
// number and reads again. If it may not, because it may have forgotten that it
// confirmed the round, its records are not taken.
func TestPullTellsTheReapNumber(t *testing.T) {
	keys := numberedKeys(3)
	for _, leaves := range []bool{false, true} {
		for _, unregistered := range []bool{false, true} {
			m := newMenders(t, 3)
			source, puller := m.nodes[0], m.nodes[1]
			for i, k := range keys {
				m.put(source, k, i+1, 10, 0)
			}
			if err := puller.Raise(m.ctx, 0, 7); err != nil {
				t.Fatal(err)
			}
			source.doubts.unregistered = unregistered
			var held []bool
			var err error
			if leaves {
				_, _, err = puller.client.PullLeaves(m.ctx, 1, 0, everyLeaf())
			} else if held, err = puller.client.Pull(m.ctx, 1, keys, false); slices.Contains(held, unregistered) {
				t.Errorf("unregistered %v: held %v", unregistered, held)
			}
			if (err == nil) != (!leaves || !unregistered) {
				t.Errorf("leaves %v, unregistered %v: %v", leaves, unregistered, err)
			}
			if unregistered {
				if rec, _, err := puller.Holds(keys[0]); source.Number(0) != 0 || err != nil || !rec.Absent() {
					t.Errorf("leaves %v: the number of the source is %d, %v was taken, %v", leaves, source.Number(0), rec, err)
				}
				continue
			}
			if source.Number(0) != 7 {
				t.Errorf("leaves %v: the number of the source is %d", leaves, source.Number(0))
			}
			m.same(source, puller, keys...)
		}
	}
}

// The other way round nothing is refused: what was read under a higher number
// holds nothing that was reaped before.
func TestPullUnderAHigherNumber(t *testing.T) {
	m := newMenders(t, 3)
	source, puller := m.nodes[0], m.nodes[1]
	keys := numberedKeys(3)
	if err := source.Raise(m.ctx, 0, 7); err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		m.put(source, k, i+1, 10, 7)
	}
	held, err := puller.client.Pull(m.ctx, 1, keys, false)
	if err != nil || slices.Contains(held, false) || puller.Number(0) != 0 {
		t.Errorf("held %v, number %d, %v", held, puller.Number(0), err)
	}
	m.same(source, puller, keys...)
}

// A record that the disk spoilt is replaced by what another node holds.
func TestPullMends(t *testing.T) {
	m := newMenders(t, 3)
	source, puller := m.nodes[0], m.nodes[1]
	key := numberedKeys(1)[0]
	for _, at := range []*mender{source, puller} {
		m.put(at, key, 1, 10_000, 0)
	}
	m.put(source, key, 2, 10, 0)
	m.spoil(puller, key)
	if _, _, err := puller.Holds(key); !errors.Is(err, storage.ErrCorrupt) {
		t.Fatal(err)
	}
	if held, err := puller.client.Pull(m.ctx, 1, []kv.Key{key}, false); err != nil || !held[0] {
		t.Fatal(held, err)
	}
	m.same(source, puller, key)
	if err := puller.store.CheckLeaf(0, key.Leaf()); err != nil {
		t.Error(err)
	}
	if !puller.doubts.Doubted(0, key.Leaf()) {
		t.Error("that a record was lost is not known")
	}
	// The other way round, a spoilt record of the source is no word about the key.
	m.spoil(source, key)
	if held, err := puller.client.Pull(m.ctx, 1, []kv.Key{key}, false); err != nil || held[0] {
		t.Errorf("held %v, %v", held, err)
	}
	if _, _, err := puller.client.PullLeaves(m.ctx, 1, 0, []uint8{key.Leaf()}); err == nil {
		t.Error("all of a leaf that cannot be read is held")
	}
}

// A value that the disk lost is fetched from another node that holds it.
func TestPullValue(t *testing.T) {
	m := newMenders(t, 3)
	whole, broken := m.nodes[0], m.nodes[1]
	key := numberedKeys(1)[0]
	for _, at := range []*mender{whole, broken} {
		m.put(at, key, 1, 10_000, 0)
	}
	held, _, err := whole.Holds(key)
	if err != nil {
		t.Fatal(err)
	}
	m.lose(broken)
	lost := func() (dots []vclock.Dot) {
		_, err := broken.store.CheckValues(0, key.Leaf(), func(_ kv.Key, v kv.Version) { dots = append(dots, v.Dot) })
		if err != nil {
			t.Error(err)
		}
		return dots
	}
	if got := lost(); len(got) != 1 {
		t.Fatalf("lost are %v", got)
	}
	v := held.Live[0]
	for _, id := range []kv.NodeID{2, 3} { // itself, and one that has nothing
		if err := broken.client.PullValue(m.ctx, id, key, v); err == nil || len(lost()) != 1 {
			t.Errorf("node %v gave it", id)
		}
	}
	if err := broken.client.PullValue(m.ctx, 1, key, v); err != nil || len(lost()) != 0 {
		t.Errorf("%v, lost are %v", err, lost())
	}
	m.same(whole, broken, key)
}

// lose removes all external values from a disk.
func (m *menders) lose(at *mender) {
	m.t.Helper()
	var batch storage.Batch
	err := at.engine.Scan([]byte{'v'}, []byte{'w'}, func(k, _ []byte) error {
		batch.Delete(k)
		return nil
	})
	if err := errors.Join(err, at.engine.Commit(&batch, true)); err != nil {
		m.t.Fatal(err)
	}
}

// spoil flips a bit of the stored record of a key.
func (m *menders) spoil(at *mender, key kv.Key) {
	m.t.Helper()
	var batch storage.Batch
	err := at.engine.Scan([]byte{'r'}, []byte{'s'}, func(k, v []byte) error {
		if bytes.HasSuffix(k, []byte(key.Bucket+key.Name)) {
			v = bytes.Clone(v)
			v[len(v)/2] ^= 1
			batch.Set(bytes.Clone(k), v)
		}
		return nil
	})
	if err == nil {
		err = at.engine.Commit(&batch, true)
	}
	if err != nil || batch.Len() != 1 {
		m.t.Fatal(batch.Len(), err)
	}
}

// owns reports whether the node is among the first three owners.
func (m *menders) owns(id kv.NodeID) bool {
	return slices.Contains(m.view.Active()[0].Owners(0)[:3], id)
}

// A nudge makes a node pull from the one who asks, or from another, also what
// that one keeps for others.
func TestNudges(t *testing.T) {
	m := newMenders(t, 4)
	a, b, c := m.nodes[0], m.nodes[1], m.nodes[2]
	keys := numberedKeys(3)
	for i, k := range keys {
		m.put(c, k, i+1, 10, 0)
	}
	for _, from := range []kv.NodeID{3, 0} {
		at := map[kv.NodeID]*mender{3: a, 0: c}[from]
		held, room, _, err := at.client.Nudge(m.ctx, 2, from, keys, false)
		if err != nil || slices.Contains(held, false) || room == 0 {
			t.Errorf("from %v: held %v, room %d, %v", from, held, room, err)
		}
	}
	m.same(b, c, keys...)
	key := kv.Key{Bucket: "b", Name: "hinted"}
	rec := m.put(a, key, 9, 10, 0)
	done := make(chan error, 1)
	hint := coordinator.StoreRequest{
		Fence: coordinator.Fence{Digest: m.view.Digest()}, Key: key, Target: m.view.Active()[0].Owners(0)[0], Record: kv.AppendRecord(nil, rec),
	}
	c.Store(hint, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, standIn := range []bool{false, true} {
		held, _, _, err := c.client.Nudge(m.ctx, 2, 0, []kv.Key{key}, standIn)
		rec, _, holdsErr := b.Holds(key)
		if err := errors.Join(err, holdsErr); err != nil || !held[0] || rec.Absent() == standIn {
			t.Errorf("stand-in %v: held %v, %v, holds %v", standIn, held, err, rec)
		}
	}
	// Its own hint is data for it, too, if it owns the key.
	if held, _, _, err := c.client.Nudge(m.ctx, 3, 3, []kv.Key{key}, true); err != nil || !held[0] == m.owns(3) {
		t.Errorf("of itself: held %v, %v", held, err)
	}
}
