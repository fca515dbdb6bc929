package healing

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/badgerengine"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

const (
	nodes      = 3
	partitions = 1024
)

var secret = []byte("a secret for nodes of one process")

// cluster is three cores whose layout is given to them.
type cluster struct {
	tb    testing.TB
	home  string
	view  ring.View
	nodes [nodes]*member
}

type member struct {
	*node.Core
	tcp *transport.TCP
	ln  net.Listener
	dir *storage.Dir
	// life counts the directories of the node: a new one is empty.
	life int
}

func newCluster(tb testing.TB) *cluster {
	tb.Helper()
	c := &cluster{tb: tb, home: tb.TempDir()}
	members := make([]ring.Member, nodes)
	for i := range c.nodes {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		c.check(err)
		c.nodes[i] = &member{ln: ln}
		members[i] = ring.Member{ID: id(i), Name: name(i), Address: ln.Addr().String(), Weight: 1}
	}
	l, err := ring.Compute(ring.ClusterID{1}, 1, members, partitions, nil)
	c.check(err)
	c.view, err = ring.View{}.With(l)
	c.check(err)
	for i := range c.nodes {
		c.start(i)
	}
	tb.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	return c
}

func id(i int) kv.NodeID { return kv.NodeID(i + 1) }

func name(i int) string { return fmt.Sprintf("n%d", i+1) }

func (c *cluster) check(err error) {
	c.tb.Helper()
	if err != nil {
		c.tb.Fatal(err)
	}
}

func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// binder binds every directory to the one cluster.
type binder struct{ id ring.ClusterID }

func (b *binder) Cluster() (ring.ClusterID, bool) { return b.id, b.id != ring.ClusterID{} }

func (b *binder) Bind(to ring.ClusterID) error {
	b.id = to
	return nil
}

// start opens the node's directory and returns how long it took until the node
// takes part.
func (c *cluster) start(i int) time.Duration {
	c.tb.Helper()
	m := c.nodes[i]
	begun := time.Now()
	var err error
	m.dir, err = storage.OpenDir(filepath.Join(c.home, fmt.Sprintf("%s-%d", name(i), m.life)), name(i), random)
	c.check(err)
	engine, err := badgerengine.Open(m.dir, badgerengine.Options{MemTableSize: 16 << 20})
	c.check(err)
	world := node.World{Engine: engine, Binder: &binder{}, Now: time.Now, Random: random, OSBoot: "one", Log: zap.NewNop()}
	m.Core, err = node.OpenCore(id(i), world, node.Options{
		Defaults: coordinator.Defaults{N: nodes, Timeout: 5 * time.Second},
		Repairs:  node.RepairOptions{Exchange: time.Hour, ReapEvery: time.Hour, Scrub: 1000 * time.Hour},
	})
	c.check(err)
	c.check(m.Views().Learn(c.view))
	if m.ln == nil {
		l, _ := c.view.Active()[0].Member(id(i))
		m.ln, err = net.Listen("tcp", l.Address)
		c.check(err)
	}
	c.check(m.Connect(func(kv.NodeID) bool { return true }, func(h transport.Handler) (transport.Transport, error) {
		m.tcp, err = transport.NewTCP(transport.Options{
			Listener: m.ln, Handler: h, Secret: secret, Rand: mathrand.Float64,
			Local: func() transport.Hello {
				return transport.Hello{Cluster: ring.ClusterID{1}, Node: id(i), Name: name(i), Incarnation: m.Store().Starts()}
			},
			Resolve: func(to kv.NodeID) (string, bool) {
				member, ok := c.view.Active()[0].Member(to)
				return member.Address, ok
			},
		})
		return m.tcp, err
	}))
	for !m.TakesPart() && time.Since(begun) < time.Minute && c.up() {
		<-time.After(time.Millisecond)
	}
	return time.Since(begun)
}

// up reports whether all nodes run: the first ones are not registered alone.
func (c *cluster) up() bool {
	for _, m := range c.nodes {
		if m.Core == nil {
			return false
		}
	}
	return true
}

func (c *cluster) stop(i int) {
	m := c.nodes[i]
	if m.Core == nil {
		return
	}
	c.check(m.Core.Close())
	c.check(m.dir.Close())
	m.Core, m.ln = nil, nil
}

// plain returns how many such records a second a store takes that does nothing
// else, on a new disk.
func (c *cluster) plain(keys int) float64 {
	c.tb.Helper()
	dir, err := storage.OpenDir(filepath.Join(c.home, "plain"), "plain", random)
	c.check(err)
	engine, err := badgerengine.Open(dir, badgerengine.Options{MemTableSize: 16 << 20})
	c.check(err)
	s, err := storage.Open(engine, storage.Options{Random: random, Now: time.Now})
	c.check(err)
	rate := c.store(0, keys, firstSalt, []*storage.Store{s})
	c.check(s.Close())
	c.check(dir.Close())
	return rate
}

// firstSalt is of the values that are written first.
const firstSalt = "first"

// fill stores the same records of 100 bytes in some nodes, as they come from a
// coordinator, and returns how many a second the slowest of them took.
func (c *cluster) fill(from, to int, salt string, into ...int) float64 {
	c.tb.Helper()
	stores := make([]*storage.Store, len(into))
	for i, n := range into {
		stores[i] = c.nodes[n].Store()
	}
	return c.store(from, to, salt, stores)
}

func (c *cluster) store(from, to int, salt string, stores []*storage.Store) float64 {
	c.tb.Helper()
	begun := time.Now()
	layout := c.view.Active()[0]
	done := make(chan error, 1024)
	waiting := 0
	take := func() {
		c.check(<-done)
		waiting--
	}
	for k := from; k < to; k++ {
		key := kv.Key{Bucket: "b", Name: fmt.Sprintf("key-%09d", k)}
		record := recordOf(k, firstSalt, kv.Record{})
		if salt != firstSalt {
			record = recordOf(k, salt, record)
		}
		for _, s := range stores {
			if waiting++; waiting == cap(done) {
				take()
			}
			c.check(s.Submit(storage.Update{
				Slot: kv.Slot{Partition: uint16(layout.Partition(key.Hash())), Key: key}, Size: 200,
				Apply: func(old kv.Record, _ uint64) (storage.Change, error) {
					return storage.Change{Record: old.Merge(record)}, nil
				},
				Done: func(err error) { done <- err },
			}))
		}
	}
	for waiting > 0 {
		take()
	}
	return float64(to-from) / time.Since(begun).Seconds()
}

// recordOf is the record of a key, written by one who had read before.
func recordOf(k int, salt string, before kv.Record) kv.Record {
	value := make([]byte, 100)
	copy(value, fmt.Sprintf("%s value %d", salt, k))
	s := kv.Sibling{
		Kind: kv.KindValue, N: nodes, Stamp: kv.HLC(0).Next(time.Unix(1_800_000_000, 0)),
		Length: 100, Checksum: kv.Checksum(value), Inline: value,
	}
	actor := vclock.Actor(mathrand.NewPCG(uint64(k), uint64(len(salt))).Uint64() | 1)
	r, _ := before.Put(s, before.Clock, 1, func() vclock.Actor { return actor }, time.Time{})
	r.Mine = kv.Mine{}
	return r
}

// traffic is what all nodes have sent.
func (c *cluster) traffic() (bytes uint64) {
	for _, m := range c.nodes {
		bytes += m.tcp.Stats().BytesOut
	}
	return bytes
}
