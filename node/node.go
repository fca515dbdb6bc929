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
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/peer"
	"github.com/starling-kv/starling/node/replica"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/badgerengine"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// drainTime bounds how long a node that stops waits for requests under way.
const drainTime = 5 * time.Second

// Node is one running node.
type Node struct {
	cfg Config
	log *zap.Logger
	id  kv.NodeID

	dir         *storage.Dir
	store       *storage.Store
	views       *membership.Views
	gossip      *membership.Gossip
	replica     *replica.Replica
	transport   *transport.TCP
	peers       *peer.Server
	coordinator *coordinator.Coordinator
	api         *api.Server
	registry    *prometheus.Registry
	keyring     atomic.Pointer[vclock.Keyring]

	listeners listeners
	ends      []func() error // what Close does, the last first

	stopping context.Context //nolint:containedctx // ends when Close begins
	stop     context.CancelFunc
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
	n.stopping, n.stop = context.WithCancel(context.WithoutCancel(ctx))
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
	case <-n.stopping.Done():
		return nil
	}
}

// Close ends the node: it takes no new requests, waits a while for those under
// way, leaves the gossip and closes the store. It may be called more than once.
func (n *Node) Close() error {
	n.closing.Do(func() {
		n.stop()
		for i := len(n.ends) - 1; i >= 0; i-- {
			n.closeErr = errors.Join(n.closeErr, n.ends[i]())
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
		ln, err := new(net.ListenConfig).Listen(n.stopping, "tcp", l.address)
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
	n.id = n.dir.Identity().Node
	options := badgerengine.Options{Logger: n.log.Named("badger")}
	engine, err := badgerengine.Open(n.dir, options)
	if err != nil {
		return err
	}
	low, high, err := n.watermarks(options.Reserve())
	if err != nil {
		return errors.Join(err, engine.Close())
	}
	n.store, err = storage.Open(engine, storage.Options{
		Random: random, Now: time.Now, Free: n.dir.Free, LowWater: low, HighWater: high,
	})
	if err != nil {
		return err
	}
	n.ending(n.store.Close)
	n.views, err = membership.OpenViews(n.facts(), binder{n.dir})
	return err
}

func (n *Node) watermarks(reserve uint64) (low, high uint64, err error) {
	if n.cfg.MinFree > 0 {
		return n.cfg.MinFree, n.cfg.MinFree + n.cfg.MinFree/10, nil
	}
	_, total, err := n.dir.Space()
	low, high = storage.Watermarks(total, reserve)
	return low, high, err
}

func (n *Node) facts() facts { return facts{store: n.store, ctx: n.stopping} }

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

// connect joins the replica, the coordinator and the other nodes to each other.
func (n *Node) connect() (err error) {
	n.replica = replica.New(n.id, n.store, n.views.Current, !n.cfg.Async, n.log.Named("replica"))
	var early handler
	n.transport, err = transport.NewTCP(transport.Options{
		Listener: n.listeners.peer, Handler: &early, Secret: n.cfg.Secret,
		Local: n.hello, Resolve: n.gossip.Resolve,
		Rand: func() float64 { return float64(random()>>11) / (1 << 53) },
		Log:  n.log.Named("transport"),
	})
	if err != nil {
		return err
	}
	n.coordinator = coordinator.New(coordinator.Config{
		Self: n.id, Cluster: cluster{n}, Replicas: peer.NewClient(n.id, n.replica, n.transport), Local: n.replica,
		Defaults: n.cfg.Defaults, Now: time.Now, Random: random, Log: n.log.Named("coordinator"),
	})
	n.peers = peer.NewServer(n.replica, n.coordinator, n.views.Learn)
	early.serve(n.peers)
	n.ending(func() error {
		n.coordinator.Close()
		err := n.transport.Close()
		n.peers.Wait()
		return err
	})
	return nil
}

// handler refuses what comes before the node can answer.
type handler struct{ to atomic.Pointer[peer.Server] }

func (h *handler) serve(s *peer.Server) { h.to.Store(s) }

// Handle implements [transport.Handler].
func (h *handler) Handle(ctx context.Context, req *transport.Request) {
	if s := h.to.Load(); s != nil {
		s.Handle(ctx, req)
		return
	}
	req.Refuse("the node is starting")
}

// hello is what this node says of itself to another.
func (n *Node) hello() transport.Hello {
	id, _ := n.views.Cluster()
	return transport.Hello{
		Cluster: id, Node: n.id, Name: n.cfg.Name, Incarnation: n.store.Starts(), View: n.views.Durable().Digest(),
	}
}

// cluster is what the coordinator knows of the others.
type cluster struct{ *Node }

func (c cluster) View() ring.View         { return c.views.Current() }
func (c cluster) Learn(v ring.View) error { return c.views.Learn(v) }
func (c cluster) Alive(id kv.NodeID) bool { return c.gossip.Alive(id) }

// serve answers clients and the operator.
func (n *Node) serve() (err error) {
	n.registerMetrics()
	n.api, err = api.New(api.Options{
		KV: n.coordinator, Inspector: inspector{n}, Keyring: n.tokens, Registry: n.registry,
		Log: n.log.Named("api"), Limits: api.Limits{ValueBytes: n.cfg.MaxValue},
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
	if err == nil || n.stopping.Err() != nil {
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
