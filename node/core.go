package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/antientropy"
	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/peer"
	"github.com/starling-kv/starling/node/replica"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/standing"
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
	// Strained reports, at once, whether the machine does not keep up, so that
	// repairs should give way to requests. Nil: never.
	Strained func() bool
	// OSBoot names this boot of the operating system; empty: unknown.
	OSBoot string
	Log    *zap.Logger
}

// Options are what a core is told. The zero Repairs stand for the defaults.
type Options struct {
	Storage  storage.Options // Random and Now come from the world
	Defaults coordinator.Defaults
	// Sync acknowledges writes that do not choose when they are on disk.
	Sync bool
	// Emptied says that what the disk of this node held was lost.
	Emptied bool
	Repairs RepairOptions
}

// Core is a node between its disk and its sockets: store, layouts, replica,
// coordinator and the protocol between nodes. A process has one, and so has
// each node of a simulation.
type Core struct {
	id    kv.NodeID
	world World
	opts  Options

	store       *storage.Store
	views       *membership.Views
	ledger      *standing.Ledger
	admission   *admission
	replica     *replica.Replica
	coordinator *coordinator.Coordinator
	transport   transport.Transport
	client      *peer.Client
	peers       *peer.Server
	repairs     repairs

	running  sync.WaitGroup  // what Connect began
	stopping context.Context //nolint:containedctx // ends when Close begins
	stop     context.CancelFunc
}

// OpenCore opens what the engine keeps.
func OpenCore(id kv.NodeID, w World, o Options) (*Core, error) {
	o.Storage.Random, o.Storage.Now = stream(w.Random), w.Now
	store, err := storage.Open(w.Engine, o.Storage)
	if err != nil {
		return nil, err
	}
	c := &Core{id: id, world: w, opts: o, store: store}
	c.stopping, c.stop = context.WithCancel(context.Background())
	for _, step := range []func() error{c.openViews, c.openLedger, c.openReplica} {
		if err := step(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func (c *Core) openViews() (err error) {
	c.views, err = membership.OpenViews(c.facts(), c.world.Binder)
	return err
}

// openLedger begins a life of the node, and lets it fall if its disk was lost.
func (c *Core) openLedger() (err error) {
	c.ledger, err = standing.Open(standing.LedgerConfig{
		Self: c.id, Facts: standingFacts{c.facts()}, Life: standing.Life{Starts: c.store.Starts(), Nonce: c.world.Random()},
		OSBoot: c.world.OSBoot, View: c.views.Current, Now: c.world.Now,
	})
	if err == nil && c.opts.Emptied {
		err = c.ledger.Fall(standing.CauseSetBack)
	}
	if err != nil {
		return err
	}
	return c.store.Damaged(c.ledger.Doubt)
}

func (c *Core) openReplica() (err error) {
	c.admission = newAdmission(c)
	c.replica, err = replica.New(replica.Config{
		Self: c.id, Store: c.store, View: c.views.Current, Sync: c.opts.Sync, Standing: c.admission,
		Suspect: func(partition uint16, leaf uint8) { c.repairs.exchanger.Suspect(partition, leaf) },
		Log:     c.world.Log.Named("replica"),
	})
	return err
}

// Connect joins the core to the other nodes, over the transport that dial makes
// for its handler. alive is what is believed of the others.
func (c *Core) Connect(alive func(kv.NodeID) bool, dial func(transport.Handler) (transport.Transport, error)) (err error) {
	var early handler
	if c.transport, err = dial(&early); err != nil {
		return err
	}
	known := cluster{c.views, alive}
	c.client = peer.NewClient(peer.Config{
		Self: c.id, Local: c.replica, Merger: c.replica, Views: known, Transport: c.transport, Pressed: c.pressed,
	})
	c.makeRepairs()
	c.coordinator = coordinator.New(coordinator.Config{
		Self: c.id, Cluster: known, Replicas: c.client, Local: c.replica, Repairs: &c.repairs,
		Defaults: c.opts.Defaults, Now: c.world.Now, Random: c.world.Random, Log: c.world.Log.Named("coordinator"),
	})
	c.peers = peer.NewServer(peer.Handlers{
		Replica: c.replica, Coordinator: c.coordinator, Learn: c.views.Learn, Source: c.replica, Nudges: c.client,
		Lives: c.ledger, Exchanges: c.repairs.answers, ReapRounds: c.repairs.member,
	})
	if err := c.store.Damaged(c.repairs.exchanger.Suspect); err != nil {
		return err
	}
	early.to.Store(c.peers)
	c.repairs.run(c.stopping, &c.running, stream(c.world.Random))
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

// Repair compares what is selected with the other owners, and makes it equal: see
// [antientropy.Exchanger.Repair].
func (c *Core) Repair(ctx context.Context, sel antientropy.Selection, progress func(antientropy.Progress)) error {
	return c.repairs.exchanger.Repair(ctx, sel, progress)
}

// Restore writes again what a record in quarantine holds: see [api.Repairs]. It
// is there after Connect.
func (c *Core) Restore(ctx context.Context, key kv.Key, hash string) (api.Settled, error) {
	return c.repairs.restorer.Restore(ctx, key, hash)
}

// Discard removes a record from quarantine: see [api.Repairs]. It is there after
// Connect.
func (c *Core) Discard(ctx context.Context, key kv.Key, hash string) (api.Settled, error) {
	return c.repairs.restorer.Discard(ctx, key, hash)
}

// TakesPart reports whether the node takes records: it does once enough members
// know of its start.
func (c *Core) TakesPart() bool { return c.admission.Registered() }

// Standing knows the lives of the node, and whether it is in good standing.
func (c *Core) Standing() *standing.Ledger { return c.ledger }

// Close ends the core from the outside in. It may be called more than once.
func (c *Core) Close() error {
	c.stop()
	c.running.Wait()
	var errs []error
	if c.coordinator != nil {
		c.coordinator.Close()
		c.client.Wait()
	}
	if c.transport != nil {
		errs = append(errs, c.transport.Close())
	}
	if c.peers != nil {
		c.peers.Wait()
	}
	c.settle()
	return errors.Join(append(errs, c.store.Close())...)
}

// settle records that all that was acknowledged is on the disk. If that fails,
// the next start finds out what it means.
func (c *Core) settle() {
	if c.ledger == nil {
		return
	}
	if err := c.ledger.CleanClose(); err != nil {
		c.world.Log.Info("the end of the node was not recorded", zap.Error(err))
	}
}

func (c *Core) facts() facts { return facts{store: c.store} }

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
