package membership

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// State says how a node seems. A suspicion that has not ended is none of them:
// memberlist does not show it, and such a node counts as alive.
type State uint8

// The states of a [Peer]. None of them takes a node out of a layout.
const (
	Alive State = iota
	Dead        // does not answer, or has not been met since this node started
	Left        // stopped on purpose
)

// String returns "alive", "dead" or "left".
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Left:
		return "left"
	case Dead:
	}
	return "dead"
}

// MarshalText returns what [State.String] does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Peer is a node that has been seen, as it last said of itself.
type Peer struct {
	Name        string
	ID          kv.NodeID
	Incarnation uint64
	State       State
	Address     string         // of gossip, host:port
	PeerAddress string         // of the peer transport, host:port
	ClientURL   string         // may be empty
	Zone        string         // may be empty
	Weight      uint32         // that it asks for; the layout says what it has
	Cluster     ring.ClusterID // zero: none yet
	ViewDigest  uint64         // see [ring.View.Digest]

	bootstraps bool
}

func newPeer(name, address string, m metadata) Peer {
	p := Peer{
		Name:        name,
		ID:          m.id,
		Incarnation: m.incarnation,
		Address:     address,
		PeerAddress: m.peerAddress,
		ClientURL:   m.clientURL,
		Zone:        m.zone,
		Weight:      m.weight,
		Cluster:     m.cluster,
		ViewDigest:  m.digest,
		bootstraps:  m.bootstraps,
	}
	if m.leaving {
		p.State = Left
	}
	return p
}

func (p Peer) binding() binding {
	return binding{name: p.Name, id: p.ID, incarnation: p.Incarnation}
}

// roster is a snapshot of a table. It never changes.
type roster struct {
	peers []Peer            // by name
	byID  map[kv.NodeID]int // index into peers; of several with one id the live one
}

func newRoster(peers []Peer) *roster {
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	r := &roster{peers: peers, byID: make(map[kv.NodeID]int, len(peers))}
	for i, p := range peers {
		if other, dup := r.byID[p.ID]; !dup || peers[other].State != Alive {
			r.byID[p.ID] = i
		}
	}
	return r
}

func (r *roster) named(name string) (Peer, bool) {
	i, ok := slices.BinarySearchFunc(r.peers, name, func(p Peer, name string) int { return cmp.Compare(p.Name, name) })
	if !ok {
		return Peer{}, false
	}
	return r.peers[i], true
}

func (r *roster) identified(id kv.NodeID) (Peer, bool) {
	i, ok := r.byID[id]
	if !ok {
		return Peer{}, false
	}
	return r.peers[i], true
}

// live returns the peers that are alive, by name.
func (r *roster) live() []Peer {
	return slices.DeleteFunc(slices.Clone(r.peers), func(p Peer) bool { return p.State != Alive })
}

// cluster returns the cluster of the live peers: they are all of one or of
// none, because no second one was let in.
func (r *roster) cluster() ring.ClusterID {
	for _, p := range r.peers {
		if p.State == Alive && p.Cluster != (ring.ClusterID{}) {
			return p.Cluster
		}
	}
	return ring.ClusterID{}
}

// table holds the nodes ever seen. Reading takes no lock. Changing copies the
// whole: changes are rare beside look-ups, and a cluster has at most thousands
// of nodes.
type table struct {
	mu  sync.Mutex // orders changes
	now atomic.Pointer[roster]
}

func newTable(peers []Peer) *table {
	t := new(table)
	t.now.Store(newRoster(peers))
	return t
}

func (t *table) roster() *roster { return t.now.Load() }

// put adds a peer, or replaces the one of its name.
func (t *table) put(p Peer) { t.refresh(p.Name, func() Peer { return p }) }

// refresh puts what latest returns under the given name. Of concurrent ones,
// the last to ask is the last to put.
func (t *table) refresh(name string, latest func() Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	peers := slices.DeleteFunc(slices.Clone(t.roster().peers), func(p Peer) bool { return p.Name == name })
	t.now.Store(newRoster(append(peers, latest())))
}

// lost says that the named node does not answer any more. One that said before
// that it was leaving has left.
func (t *table) lost(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	peers := slices.Clone(t.roster().peers)
	for i := range peers {
		if peers[i].Name == name && peers[i].State == Alive {
			peers[i].State = Dead
		}
	}
	t.now.Store(newRoster(peers))
}
