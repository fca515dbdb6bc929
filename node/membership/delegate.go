package membership

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/ring"
)

// delegate is what memberlist calls. NotifyAlive and the events come under its
// lock: they must neither wait nor call it back.
type delegate struct{ *Gossip }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.AliveDelegate = delegate{}
	_ memberlist.MergeDelegate = delegate{}
	_ memberlist.EventDelegate = delegate{}
)

// NodeMeta returns what this node says of itself.
func (d delegate) NodeMeta(int) []byte {
	b := d.metadata().encode()
	s := string(b)
	d.announced.Store(&s)
	return b
}

// NotifyMsg ignores messages of other programs: this one sends none.
func (delegate) NotifyMsg([]byte) {}

// GetBroadcasts returns nothing to send.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// NotifyAlive refuses a node that does not fit: every announcement of one, at
// first or second hand, passes here.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMetadata(n.Meta)
	if err == nil {
		err = checkAddress(n)
	}
	if err != nil {
		r := refuse(BadMetadata, n.Name, "%v", err)
		d.refused(r)
		return r
	}
	roster := d.table.roster()
	if r := d.identity().judge(n.Name, m, roster); r != nil {
		d.refused(r)
		return r
	}
	// memberlist starts to count announcements anew with each life of a node, and
	// may pass over this one for an old one of that number. If it does, the node
	// itself can tell it better.
	if before, ok := roster.named(n.Name); ok && before.State == Alive && before.Incarnation < m.incarnation {
		d.doubts.heard(n.Name, life{m.incarnation, n.Address()})
		d.contactsChanged.set()
	}
	return nil
}

// checkAddress refuses an address that cannot be one node's.
func checkAddress(n *memberlist.Node) error {
	ip, ok := netip.AddrFromSlice(n.Addr)
	if !ok || ip.IsUnspecified() || ip.IsMulticast() || n.Port == 0 {
		return fmt.Errorf("gossip address %v port %d is no node's", n.Addr, n.Port)
	}
	return nil
}

// NotifyMerge refuses everything that another node brings if it is of another
// cluster, what it says of dead nodes included: their names may be those of
// nodes of this cluster.
func (d delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if n.State != memberlist.StateAlive {
			continue
		}
		m, err := decodeMetadata(n.Meta)
		if err != nil {
			continue // NotifyAlive refuses it
		}
		if r := d.identity().judgeCluster(n.Name, m.cluster, d.table.roster()); r != nil {
			d.refused(r)
			return r
		}
	}
	return nil
}

// NotifyJoin takes in a node that is alive, for the first time or again.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.take(n) }

// NotifyUpdate takes in what a node newly says of itself.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.take(n) }

func (d delegate) take(n *memberlist.Node) {
	m, err := decodeMetadata(n.Meta)
	if err != nil || n.Name == d.cfg.Name {
		return // NotifyAlive let none such in; this node keeps its own entry
	}
	p := newPeer(n.Name, n.Address(), m)
	if before, ok := d.table.roster().named(p.Name); !ok || before.State != Alive {
		d.log.Info("node is alive", zap.String("node", p.Name), zap.Stringer("id", p.ID), zap.String("address", p.Address))
	}
	d.table.put(p)
	d.contactsChanged.set()
	d.peersChanged.set()
}

// NotifyLeave takes notice that a node has left or does not answer.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	if n.Name == d.cfg.Name {
		return
	}
	d.table.lost(n.Name)
	if p, ok := d.table.roster().named(n.Name); ok {
		d.log.Info("node is gone", zap.String("node", p.Name), zap.Stringer("id", p.ID), zap.Stringer("state", p.State))
	}
	d.contactsChanged.set()
}

// encodedView is a view's encoding, kept because it is handed out often.
type encodedView struct {
	digest uint64
	bytes  []byte
}

// LocalState returns what this node shares with one that it meets.
func (d delegate) LocalState(bool) []byte {
	view := d.views.Durable()
	s := sharedState{sender: d.self(), digest: view.Digest(), live: bindings(d.table.roster().live()), view: d.encodeView(view)}
	s.cluster, _ = d.views.Cluster()
	return s.encode()
}

// encodeView returns the encoded view, or nothing if it is too large to be
// shared: it then spreads by the requests that are refused for want of it.
func (d delegate) encodeView(view ring.View) []byte {
	if e := d.encoded.Load(); e != nil && e.digest == view.Digest() {
		return e.bytes
	}
	e := &encodedView{digest: view.Digest()}
	if e.digest != 0 {
		e.bytes = view.Append(nil)
	}
	if len(e.bytes) > maxViewLen {
		d.log.Error("the view is too large for gossip: let the pending layout changes complete", zap.Int("bytes", len(e.bytes)))
		e.bytes = nil
	}
	d.encoded.Store(e)
	return e.bytes
}

// MergeRemoteState takes in what a node shared that this one met.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	s, err := decodeState(b)
	if err != nil {
		d.refused(refuse(BadMetadata, "", "%v", err))
		return
	}
	own, roster := d.identity(), d.table.roster()
	if s.sender.id == own.id && s.sender.name == own.name {
		return
	}
	if r := own.judgeCluster(s.sender.name, s.cluster, roster); r != nil {
		d.refused(r)
		return
	}
	if err := own.contested(s, len(roster.live())); err != nil {
		d.fail(err)
		return
	}
	if _, known := d.table.roster().named(s.sender.name); known {
		d.doubts.listed(s.sender.name, s.lists(d.self()))
		d.contactsChanged.set()
	}
	d.takeView(own, s)
}

// takeView hands a view that differs from this node's on to be learnt.
func (d delegate) takeView(own identity, s sharedState) {
	if len(s.view) == 0 || s.digest == d.views.Durable().Digest() {
		return
	}
	view, err := ring.DecodeView(s.view)
	if err == nil && view.Cluster() != s.cluster {
		err = &ring.ClusterError{Want: s.cluster, Got: view.Cluster()}
	}
	if err != nil {
		d.refused(refuse(BadMetadata, s.sender.name, "%v", err))
		return
	}
	merged, err := d.views.Current().Merge(view)
	if err != nil {
		d.log.Error("a layout could not be learnt", zap.String("from", s.sender.name), zap.Error(err))
		return
	}
	if err := own.deposed(newest(merged)); err != nil {
		d.fail(err)
		return
	}
	d.arrived.put(view)
}

// inbox holds the views that have arrived, merged into one: what comes faster
// than it can be stored takes no more room.
type inbox struct {
	mu      sync.Mutex
	view    ring.View
	changed signal
}

// put adds a view. One that cannot be merged is left out: it comes again.
func (i *inbox) put(v ring.View) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if merged, err := i.view.Merge(v); err == nil {
		i.view = merged
	}
	i.changed.set()
}

func (i *inbox) take() ring.View {
	i.mu.Lock()
	defer i.mu.Unlock()
	v := i.view
	i.view = ring.View{}
	return v
}

// learn makes the views that arrive this node's own. It may wait for the disk,
// which memberlist's goroutines may not.
func (g *Gossip) learn() {
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.arrived.changed:
		}
		if g.failure.Load() != nil {
			continue
		}
		if err := g.views.Learn(g.arrived.take()); err != nil {
			g.log.Error("a layout could not be learnt", zap.Error(err))
		}
	}
}
