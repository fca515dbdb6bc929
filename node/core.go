package node

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/peer"
	"github.com/starling-kv/starling/node/replica"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/ring"
)

// World is what a node sees of the world outside its own code: all of it can be
// put in place by a simulation.
type World struct {
	// Engine keeps the node's data. The core owns it from then on.
	Engine storage.Engine
	// Binder keeps the cluster that the data belong to.
	Binder membership.Binder
	// Now is the wall clock. Random returns 64 uniform bits. Both are safe for
	// concurrent use.
	Now    func() time.Time
	Random func() uint64
	Log    *zap.Logger
}

// Core is a node between its disk and its sockets: store, layouts, replica,
// coordinator and the protocol between nodes. A process has one, and so has
// each node of a simulation.
type Core struct {
	id       kv.NodeID
	world    World
	defaults coordinator.Defaults
	sync     bool

	store       *storage.Store
	views       *membership.Views
	replica     *replica.Replica
	coordinator *coordinator.Coordinator
	transport   transport.Transport
	peers       *peer.Server

	stopping context.Context //nolint:containedctx // ends when Close begins
	stop     context.CancelFunc
}

// OpenCore opens what the engine keeps. Random and Now of so are the world's.
func OpenCore(id kv.NodeID, w World, so storage.Options, defaults coordinator.Defaults, sync bool) (*Core, error) {
	so.Random, so.Now = w.Random, w.Now
	store, err := storage.Open(w.Engine, so)
	if err != nil {
		return nil, err
	}
	c := &Core{id: id, world: w, defaults: defaults, sync: sync, store: store}
	c.stopping, c.stop = context.WithCancel(context.Background())
	if c.views, err = membership.OpenViews(c.facts(), w.Binder); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Connect joins the core to the other nodes, over the transport that dial makes
// for its handler. alive is what is believed of the others.
func (c *Core) Connect(alive func(kv.NodeID) bool, dial func(transport.Handler) (transport.Transport, error)) (err error) {
	c.replica, err = replica.New(replica.Config{
		Self: c.id, Store: c.store, View: c.views.Current, Sync: c.sync, Standing: trusting{}, Log: c.world.Log.Named("replica"),
	})
	if err != nil {
		return err
	}
	var early handler
	if c.transport, err = dial(&early); err != nil {
		return err
	}
	known := cluster{c.views, alive}
	client := peer.NewClient(peer.Config{Self: c.id, Local: c.replica, Merger: c.replica, Views: known, Transport: c.transport})
	c.coordinator = coordinator.New(coordinator.Config{
		Self: c.id, Cluster: known, Replicas: client, Local: c.replica,
		Defaults: c.defaults, Now: c.world.Now, Random: c.world.Random, Log: c.world.Log.Named("coordinator"),
	})
	c.peers = peer.NewServer(peer.Handlers{
		Replica: c.replica, Coordinator: c.coordinator, Learn: c.views.Learn, Source: c.replica, Nudges: client,
	})
	early.to.Store(c.peers)
	return nil
}

// Coordinator takes requests on keys. It is there after Connect.
func (c *Core) Coordinator() *coordinator.Coordinator { return c.coordinator }

// Replica is what the node does of its own records. It is there after Connect.
func (c *Core) Replica() *replica.Replica { return c.replica }

// Store keeps the node's records.
func (c *Core) Store() *storage.Store { return c.store }

// Views holds the layouts that the node knows.
func (c *Core) Views() *membership.Views { return c.views }

// Close ends the core from the outside in. It may be called more than once.
func (c *Core) Close() error {
	c.stop()
	var errs []error
	if c.coordinator != nil {
		c.coordinator.Close()
	}
	if c.transport != nil {
		errs = append(errs, c.transport.Close())
	}
	if c.peers != nil {
		c.peers.Wait()
	}
	return errors.Join(append(errs, c.store.Close())...)
}

func (c *Core) facts() facts { return facts{store: c.store, ctx: c.stopping} }

// trusting takes every disk for complete.
type trusting struct{}

func (trusting) Registered() bool                  { return true }
func (trusting) Standing(uint16, []kv.NodeID) bool { return true }
func (trusting) Doubted(uint16, uint8) bool        { return false }
func (trusting) Doubt(uint16, uint8)               {}
func (trusting) BeforeUnsynced() error             { return nil }

// handler refuses what comes before the node can answer.
type handler struct{ to atomic.Pointer[peer.Server] }

// Handle implements [transport.Handler].
func (h *handler) Handle(ctx context.Context, req *transport.Request) {
	if s := h.to.Load(); s != nil {
		s.Handle(ctx, req)
		return
	}
	req.Refuse("the node is starting")
}

// cluster is what the coordinator knows of the others.
type cluster struct {
	views *membership.Views
	alive func(kv.NodeID) bool
}

func (c cluster) View() ring.View         { return c.views.Current() }
func (c cluster) Learn(v ring.View) error { return c.views.Learn(v) }
func (c cluster) Alive(id kv.NodeID) bool { return c.alive(id) }
