// Package node is what one process of a cluster is made of, and its wiring:
// from top to bottom, what is opened, what is joined to what, and in which
// order it ends.
package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/fastcache"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/badgerengine"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/vclock"
)

// memTable is the most that a table of the engine in memory takes: synced writes
// are fastest with tables of this size, and five nodes fit on a laptop.
const memTable = 16 << 20

// memTableOf returns the size of a node's tables in memory, from three quarters
// of the most. Replicas store the same writes: with tables of one size they
// would all be full, flushed and compacted at the same moments, and none left to
// answer in time.
func memTableOf(id kv.NodeID) int64 {
	const steps = 8
	return memTable - int64(id%steps)*memTable/(4*steps)
}

// drainTime bounds how long a node that stops waits for requests under way.
const drainTime = 5 * time.Second

// Node is one running node.
type Node struct {
	*Core

	cfg Config
	log *zap.Logger

	dir      *storage.Dir
	gossip   *membership.Gossip
	tcp      *transport.TCP
	api      *api.Server
	registry *prometheus.Registry
	strain   strain
	keyring  atomic.Pointer[vclock.Keyring]
	wasEmpty bool // no record was in the data directory when the node ended

	listeners listeners
	ends      []func() error // what Close does, the last first

	running  context.Context //nolint:containedctx // ends when Close begins
	halt     context.CancelFunc
	serving  sync.WaitGroup
	failed   chan error // the first thing that ended by itself
	closing  sync.Once
	closeErr error
}

// Start opens the data directory, joins the cluster and serves. What it began
// is ended again if it fails.
func Start(ctx context.Context, cfg Config, log *zap.Logger) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: log, registry: prometheus.NewRegistry(), failed: make(chan error, 4)}
	n.running, n.halt = context.WithCancel(context.WithoutCancel(ctx))
	for _, step := range []func() error{n.listen, n.openStore, n.join, n.connect, n.serve} {
		if err := step(); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	log.Info("node started", zap.Stringer("id", n.id), zap.Uint64("start", n.store.Starts()),
		zap.String("client", n.ClientURL()), zap.String("admin", n.AdminURL()))
	return n, nil
}

// ID returns the id of the node's data directory.
func (n *Node) ID() kv.NodeID { return n.id }

// ClientURL returns where clients reach the node.
func (n *Node) ClientURL() string { return "http://" + n.cfg.advertised(n.listeners.client.Addr()) }

// AdminURL returns where the operator reaches the node.
func (n *Node) AdminURL() string { return "http://" + n.listeners.admin.Addr().String() }

// Wait blocks until the node can no longer go on, and returns why, or until
// Close was called, and returns nil.
func (n *Node) Wait() error {
	select {
	case err := <-n.failed:
		return err
	case err := <-n.gossip.Fatal():
		return err
	case <-n.running.Done():
		return nil
	}
}

// Close ends the node: it takes no new requests, waits a while for those under
// way, leaves the gossip and closes the store. It may be called more than once.
func (n *Node) Close() error {
	n.closing.Do(func() {
		n.halt()
		if n.Core != nil {
			empty, err := n.store.Empty()
			n.wasEmpty = empty && err == nil
		}
		for _, end := range slices.Backward(n.ends) {
			n.closeErr = errors.Join(n.closeErr, end())
		}
		n.serving.Wait()
	})
	return n.closeErr
}

// ending has Close call fn, before all that was begun earlier.
func (n *Node) ending(fn func() error) { n.ends = append(n.ends, fn) }

type listeners struct{ client, admin, peer net.Listener }

// listen takes the ports first: one in use is reported before anything else.
func (n *Node) listen() error {
	for _, l := range []struct {
		what, address string
		into          *net.Listener
	}{
		{"listen", n.cfg.Listen, &n.listeners.client},
		{"admin", n.cfg.Admin, &n.listeners.admin},
		{"peer", n.cfg.Peer, &n.listeners.peer},
	} {
		ln, err := new(net.ListenConfig).Listen(n.running, "tcp", l.address)
		if err != nil {
			return fmt.Errorf("%s address %s: %w: stop what uses it, or choose another", l.what, l.address, err)
		}
		*l.into = ln
		n.ending(func() error {
			if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	return nil
}

// openStore opens the data directory and the records in it.
func (n *Node) openStore() (err error) {
	if n.dir, err = storage.OpenDir(n.cfg.Dir, n.cfg.Name, random); err != nil {
		return err
	}
	n.ending(n.dir.Close)
	options := badgerengine.Options{MemTableSize: memTableOf(n.dir.Identity().Node), Logger: n.log.Named("badger")}
	low, high, err := n.watermarks(options.Reserve())
	if err != nil {
		return err
	}
	engine, err := badgerengine.Open(n.dir, options)
	if err != nil {
		return err
	}
	world := World{Engine: engine, Binder: binder{n.dir}, Now: time.Now, Random: random, OSBoot: osBoot(), Strained: n.strain.high, Log: n.log}
	n.serving.Go(func() { n.strain.run(n.running) })
	identity := n.dir.Identity()
	n.Core, err = OpenCore(identity.Node, world, Options{
		Storage:  storage.Options{Free: n.dir.Free, LowWater: low, HighWater: high, Cache: newCache(n.cfg.RecordCache)},
		Defaults: n.cfg.Defaults, Sync: !n.cfg.Async, Emptied: identity.Emptied, Repairs: n.cfg.Repairs,
	})
	if err != nil {
		return err
	}
	n.ending(n.Core.Close)
	return n.dir.Recorded()
}

// newCache returns a cache of so many bytes, nil for none.
func newCache(size int) storage.Cache {
	if size == 0 {
		return nil
	}
	return fastcache.New(size)
}

// osBoot names this boot of the operating system, where it tells.
func osBoot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func (n *Node) watermarks(reserve uint64) (low, high uint64, err error) {
	if n.cfg.MinFree > 0 {
		return n.cfg.MinFree, n.cfg.MinFree + n.cfg.MinFree/10, nil
	}
	_, total, err := n.dir.Space()
	low, high = storage.Watermarks(total, reserve)
	return low, high, err
}

// join starts the gossip, which brings the layouts and says who is alive.
func (n *Node) join() (err error) {
	n.gossip, err = membership.Start(membership.Config{
		Name: n.cfg.Name, ID: n.id, Incarnation: n.store.Starts(),
		Bind: n.cfg.Gossip, Advertise: n.advertisedGossip(),
		PeerAddress: n.cfg.advertised(n.listeners.peer.Addr()), ClientURL: n.ClientURL(),
		Zone: n.cfg.Zone, Weight: n.cfg.Weight, Seeds: n.cfg.Seeds, Secret: n.cfg.Secret,
		Random: random, Peers: n.facts(),
		Bootstrap: n.cfg.Bootstrap, Expect: n.cfg.Expect, Partitions: n.cfg.Partitions,
		Log: n.log.Named("gossip"),
	}, n.views)
	if err == nil {
		n.ending(n.gossip.Close)
	}
	return err
}

// advertisedGossip is where others reach this node's gossip, empty where
// membership finds out by itself.
func (n *Node) advertisedGossip() string {
	_, port, err := net.SplitHostPort(n.cfg.Gossip)
	if err != nil || port == "0" {
		return ""
	}
	return net.JoinHostPort(n.cfg.AdvertiseHost, port)
}

// connect joins the core to the other nodes.
func (n *Node) connect() error {
	return n.Connect(n.gossip.Alive, func(h transport.Handler) (transport.Transport, error) {
		t, err := transport.NewTCP(transport.Options{
			Listener: n.listeners.peer, Handler: h, Secret: n.cfg.Secret,
			Local: n.hello, Resolve: n.gossip.Resolve,
			Rand: func() float64 { return float64(random()>>11) / (1 << 53) },
			Log:  n.log.Named("transport"),
		})
		n.tcp = t
		return t, err
	})
}

// hello is what this node says of itself to another.
func (n *Node) hello() transport.Hello {
	id, _ := n.views.Cluster()
	return transport.Hello{
		Cluster: id, Node: n.id, Name: n.cfg.Name, Incarnation: n.store.Starts(), View: n.views.Durable().Digest(),
	}
}

// serve answers clients and the operator.
func (n *Node) serve() (err error) {
	n.registerMetrics()
	n.api, err = api.New(api.Options{
		KV: n.coordinator, Inspector: inspector{n}, Repairs: &mending{Node: n}, Keyring: n.tokens, Registry: n.registry,
		Log: n.log.Named("api"), Limits: api.Limits{ValueBytes: n.cfg.MaxValue}, Late: n.strain.average,
	})
	if err != nil {
		return err
	}
	n.ending(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		return n.api.Close(ctx)
	})
	n.serving.Go(func() { n.report("client", n.api.Serve(n.listeners.client)) })
	n.serving.Go(func() { n.report("admin", n.api.ServeAdmin(n.listeners.admin)) })
	return nil
}

// report keeps the error of a listener that ended by itself.
func (n *Node) report(what string, err error) {
	if err == nil || n.running.Err() != nil {
		return
	}
	select {
	case n.failed <- fmt.Errorf("%s listener: %w", what, err):
	default:
	}
}

// tokens returns the keyring of the cluster, nil before the node is in one.
func (n *Node) tokens() *vclock.Keyring {
	if k := n.keyring.Load(); k != nil {
		return k
	}
	id, ok := n.views.Cluster()
	if !ok {
		return nil
	}
	n.keyring.CompareAndSwap(nil, vclock.NewKeyring(n.cfg.Secret, id[:], time.Now))
	return n.keyring.Load()
}

// random returns 64 random bits. It is safe for concurrent use.
func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process rather
	return binary.LittleEndian.Uint64(b[:])
}
