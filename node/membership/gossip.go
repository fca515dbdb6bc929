package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Gossip is one node's part in the gossip of its cluster. It is safe for
// concurrent use; what reads it never waits for the network or the disk.
type Gossip struct {
	cfg     Config
	log     *zap.Logger
	views   *Views
	table   *table // all nodes ever seen, this one included
	list    *memberlist.Memberlist
	guard   *guard
	address string // of gossip, as advertised

	fatal     chan error
	failure   atomic.Pointer[error]  // the first fatal one
	isolation atomic.Pointer[string] // why no other node is in reach
	waiting   atomic.Pointer[string] // what bootstrap waits for
	leaving   atomic.Bool

	announced atomic.Pointer[string] // metadata that memberlist has been given
	encoded   atomic.Pointer[encodedView]
	arrived   inbox // views to be learnt
	doubts    doubts
	refusals  ledger
	stats     counters

	metadataChanged, contactsChanged, peersChanged signal

	ctx     context.Context // of everything that Close ends
	cancel  context.CancelFunc
	running sync.WaitGroup
	closing atomic.Bool
	closed  chan struct{}
}

// signal wakes one goroutine, which then looks what has changed.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Start joins the gossip and returns without waiting for others. It fails if
// the configuration makes no sense, the address is in use, or the layout says
// that this node is not who it claims to be ([*IdentityError]).
func Start(cfg Config, views *Views) (*Gossip, error) {
	g, err := newGossip(cfg, views)
	if err != nil {
		if cfg.Transport != nil {
			err = errors.Join(err, cfg.Transport.Shutdown())
		}
		return nil, err
	}
	if err := g.listen(); err != nil {
		g.cancel()
		return nil, err
	}
	views.OnChange(func(ring.View) { g.viewChanged() })
	g.viewChanged()
	g.running.Go(g.announce)
	g.running.Go(g.learn)
	g.running.Go(g.keepContact)
	g.running.Go(g.savePeers)
	if cfg.Bootstrap {
		g.running.Go(g.makeCluster)
	}
	return g, nil
}

func newGossip(cfg Config, views *Views) (*Gossip, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	g := &Gossip{
		cfg:             cfg,
		log:             cfg.Log,
		views:           views,
		fatal:           make(chan error, 1),
		metadataChanged: newSignal(),
		contactsChanged: newSignal(),
		peersChanged:    newSignal(),
		closed:          make(chan struct{}),
	}
	if err := g.identity().deposed(newest(views.Current())); err != nil {
		return nil, err
	}
	g.arrived.changed = newSignal()
	g.table = newTable(g.loadPeers())
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g, nil
}

// listen starts memberlist over the transport.
func (g *Gossip) listen() error {
	lc, err := g.cfg.listConfig()
	if err != nil {
		return err
	}
	lc.Logger = newListLog(g.log)
	d := delegate{g}
	lc.Delegate, lc.Events, lc.Alive, lc.Merge = d, d, d, d
	inner := g.cfg.Transport
	if inner == nil {
		if inner, err = g.cfg.sockets(lc); err != nil {
			return err
		}
	}
	g.guard = newGuard(inner)
	lc.Transport = g.guard
	ip, port, err := inner.FinalAdvertiseAddr(lc.AdvertiseAddr, lc.AdvertisePort)
	if err != nil {
		return errors.Join(fmt.Errorf("gossip: no address to advertise, set one: %w", err), g.guard.Shutdown())
	}
	g.address = net.JoinHostPort(ip.String(), strconv.Itoa(port))
	if g.list, err = memberlist.Create(lc); err != nil {
		return errors.Join(fmt.Errorf("start gossip: %w", err), g.guard.Shutdown())
	}
	return nil
}

// Address returns where others reach this node's gossip, host:port.
func (g *Gossip) Address() string { return g.address }

// Alive reports whether a node seems alive; this one is. It is a belief: a
// suspicion alone is no reason not to try.
func (g *Gossip) Alive(id kv.NodeID) bool {
	p, ok := g.table.roster().identified(id)
	return ok && p.State == Alive
}

// Peers returns all nodes ever seen, this one included, by name.
func (g *Gossip) Peers() []Peer {
	return append([]Peer(nil), g.table.roster().peers...)
}

// Resolve returns where the peer transport of a node was last heard to listen,
// host:port: by gossip or, for a node never met, by the newest layout that has
// it. It returns false if neither knows the node.
func (g *Gossip) Resolve(id kv.NodeID) (address string, ok bool) {
	if p, ok := g.table.roster().identified(id); ok {
		return p.PeerAddress, true
	}
	for _, l := range g.views.Current().Active() {
		if m, ok := l.Member(id); ok {
			return m.Address, true
		}
	}
	return "", false
}

// Ready reports whether this node can take requests, as a member of the layout
// or not: whether it is in a cluster and knows a layout, durably. If not, it
// says why.
func (g *Gossip) Ready() (ready bool, reason string) {
	if err := g.failure.Load(); err != nil {
		return false, (*err).Error()
	}
	if g.views.failed.Load() {
		return false, ErrViewNotDurable.Error()
	}
	if len(g.views.Durable().Active()) > 0 {
		return true, ""
	}
	if waits := g.waiting.Load(); waits != nil && *waits != "" {
		return false, *waits
	}
	if why := g.isolation.Load(); why != nil && g.alone() {
		return false, *why
	}
	if cluster, bound := g.views.Cluster(); bound {
		return false, fmt.Sprintf("this node is of cluster %s, but knows no layout of it yet: no node that does has been reached; "+
			"if this node was making the cluster, start it with bootstrap again", cluster)
	}
	return false, "this node is in no cluster yet: exactly one node must be started with bootstrap, and the others must reach it"
}

// alone reports whether no other node is alive.
func (g *Gossip) alone() bool { return len(g.table.roster().live()) == 1 }

// Fatal returns a channel that receives an error, once, if this node must stop:
// an [*IdentityError].
func (g *Gossip) Fatal() <-chan error { return g.fatal }

// fail stops this node from serving, for the first reason that comes.
func (g *Gossip) fail(err error) {
	if g.failure.CompareAndSwap(nil, &err) {
		g.log.Error("this node must stop", zap.Error(err))
		g.fatal <- err
	}
}

// identity returns who this node is by now.
func (g *Gossip) identity() identity {
	i := identity{name: g.cfg.Name, id: g.cfg.ID, layout: newest(g.views.Current())}
	i.cluster, _ = g.views.Cluster()
	return i
}

func newest(v ring.View) *ring.Layout {
	if active := v.Active(); len(active) > 0 {
		return active[0]
	}
	return nil
}

// metadata returns what this node says of itself by now. The view is read
// first: where it is not empty, the node is bound.
func (g *Gossip) metadata() metadata {
	m := g.cfg.metadata()
	m.digest = g.views.Durable().Digest()
	cluster, bound := g.views.Cluster()
	m.cluster = cluster
	m.bootstraps = g.cfg.Bootstrap && !bound
	m.leaving = g.leaving.Load()
	return m
}

// viewChanged takes notice of a view that has grown.
func (g *Gossip) viewChanged() {
	if err := g.identity().deposed(newest(g.views.Current())); err != nil {
		g.fail(err)
	}
	g.refreshSelf()
	g.metadataChanged.set()
	g.contactsChanged.set()
}

// self returns this life of this node.
func (g *Gossip) self() binding {
	return binding{name: g.cfg.Name, id: g.cfg.ID, incarnation: g.cfg.Incarnation}
}

func (g *Gossip) refreshSelf() {
	g.table.refresh(g.cfg.Name, func() Peer { return newPeer(g.cfg.Name, g.address, g.metadata()) })
}

// announceTimeout bounds how long memberlist is given to send an announcement
// on its way; it stays queued after that.
const announceTimeout = time.Second

// announce tells the others what this node says of itself whenever it changes.
func (g *Gossip) announce() {
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.metadataChanged:
		}
		g.update(announceTimeout)
	}
}

func (g *Gossip) update(timeout time.Duration) {
	g.refreshSelf()
	now := string(g.metadata().encode())
	if before := g.announced.Load(); before != nil && *before == now {
		return
	}
	if err := g.list.UpdateNode(timeout); err != nil {
		g.log.Debug("announcement is still queued", zap.Error(err))
	}
}

// Bounds of the stages of Close that wait for the network.
const (
	sayLeaving = 500 * time.Millisecond
	sayGone    = time.Second
)

// Close tells the others that this node leaves on purpose, which takes nothing
// from it: it remains a member of the layout. Then it ends all that Start
// began, within some four seconds, unless the disk takes longer to store a view.
// It is idempotent, and returns when all has ended, save a last probe of
// memberlist's, which ends by itself within seconds and reaches nobody.
func (g *Gossip) Close() error {
	if !g.closing.CompareAndSwap(false, true) {
		<-g.closed
		return nil
	}
	defer close(g.closed)
	g.cancel()
	// A node that goes by another one's name says nothing: the others would take
	// it for that one's word.
	if g.failure.Load() == nil {
		g.leaving.Store(true)
		g.update(sayLeaving)
		if leave := g.list.Leave(sayGone); leave != nil {
			g.log.Debug("left without telling", zap.Error(leave))
		}
	}
	err := g.list.Shutdown()
	g.running.Wait()
	return err
}
