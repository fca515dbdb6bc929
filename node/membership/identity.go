package membership

import (
	"cmp"
	"fmt"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Reason says why another node is refused.
type Reason uint8

// The reasons of a refusal.
const (
	BadMetadata    Reason = iota // what came is nothing that a node of this generation says
	ForeignCluster               // it belongs to another cluster
	TakenName                    // its name belongs to another node
	TakenID                      // its id belongs to another node: a copied directory
	TooMany                      // more nodes than are supported
	reasons
)

var reasonNames = [reasons]string{"bad_metadata", "foreign_cluster", "taken_name", "taken_id", "too_many"}

// String returns the reason as the label of a metric.
func (r Reason) String() string { return reasonNames[r] }

// refusal is the error for a node that is not let in. Its text says how it
// would be, to people on either side.
type refusal struct {
	reason Reason
	name   string // of the refused node, as it says
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(reason Reason, name, format string, args ...any) *refusal {
	return &refusal{reason: reason, name: name, text: fmt.Sprintf(format, args...)}
}

// IdentityError says that this node goes by a name or an id that belongs to
// another one. It must stop, and never serve: the other one has the data.
type IdentityError struct {
	Name   string    // that this node goes by
	ID     kv.NodeID // that this node goes by
	Holder string    // name of the other node: Name, or one that has the same id
	HeldBy kv.NodeID // id of the other node: ID, or one that has the same name
	Source string    // who says so: "the layout" or a node
	Alive  bool      // a node says so that counts the other node as alive
}

func (e *IdentityError) Error() string {
	if e.ID == e.HeldBy {
		return fmt.Sprintf("node id %s belongs to node %s (says %s), and this node is named %s: "+
			"start it under that name, or give it an empty data directory if its own was copied", e.ID, e.Holder, e.Source, e.Name)
	}
	return fmt.Sprintf("name %s belongs to node %s (says %s), and this node is %s: "+
		"start it with the data directory of that name, or choose another name; if the disk of that node is lost, "+
		"start this one with an empty directory and --rejoin-empty", e.Name, e.HeldBy, e.Source, e.ID)
}

// identity is who this node is and what it goes by in judging others. It is a
// value: the functions here decide, and change nothing.
type identity struct {
	name    string
	id      kv.NodeID
	cluster ring.ClusterID // bound to; zero: none
	layout  *ring.Layout   // the newest active one; nil: none known
}

// judge returns nil if a node that announces itself may be let in beside the
// nodes of the roster. A name or id belongs to whom the layout binds it to, and
// else to whoever is alive under it.
func (i identity) judge(name string, m metadata, others *roster) *refusal {
	if name == i.name && m.id == i.id {
		return nil
	}
	if !isName(name) {
		return refuse(BadMetadata, "", "a node is named %q", name)
	}
	if err := m.check(); err != nil {
		return refuse(BadMetadata, name, "%v", err)
	}
	if r := i.judgeCluster(name, m.cluster, others); r != nil {
		return r
	}
	if holder, ok := i.holderOf(name, m.id, others); ok {
		if holder.id == m.id {
			return refuse(TakenID, name, "node id %s belongs to node %s, so that node %s is refused: "+
				"its data directory is a copy; start it with an empty one", m.id, holder.name, name)
		}
		return refuse(TakenName, name, "name %s belongs to node %s, so that node %s is refused: "+
			"start it with the data directory of that name, or under another name", name, holder.id, m.id)
	}
	if _, known := others.named(name); !known && len(others.peers) >= maxLive {
		return refuse(TooMany, name, "node %s is refused: %d nodes are known already", name, maxLive)
	}
	return nil
}

// judgeCluster refuses a node of another cluster. A node that is bound to none
// keeps to the cluster of the first bound one that it met, so that it never
// joins two clusters to each other.
func (i identity) judgeCluster(name string, cluster ring.ClusterID, others *roster) *refusal {
	none := ring.ClusterID{}
	own := cmp.Or(i.cluster, others.cluster())
	if cluster == none || own == none || cluster == own {
		return nil
	}
	return refuse(ForeignCluster, name, "node %s is of cluster %s, node %s of cluster %s: two clusters never merge; "+
		"check the seeds, or empty the data directory of the node that is in the wrong one", name, cluster, i.name, own)
}

// holderOf returns the other node that holds the name or the id.
func (i identity) holderOf(name string, id kv.NodeID, others *roster) (binding, bool) {
	if name == i.name || id == i.id {
		return binding{name: i.name, id: i.id}, true
	}
	if b, ok := holderIn(i.layout, name, id); ok {
		return b, b.name != name || b.id != id
	}
	if p, ok := others.named(name); ok && p.State == Alive && p.ID != id {
		return p.binding(), true
	}
	if p, ok := others.identified(id); ok && p.State == Alive && p.Name != name {
		return p.binding(), true
	}
	return binding{}, false
}

// holderIn returns the member that has the name or the id.
func holderIn(l *ring.Layout, name string, id kv.NodeID) (binding, bool) {
	if l == nil {
		return binding{}, false
	}
	m, ok := l.MemberByName(name)
	if !ok {
		m, ok = l.Member(id)
	}
	return binding{name: m.Name, id: m.ID}, ok
}

// deposed returns an error if the layout gives this node's name or id to
// another one.
func (i identity) deposed(l *ring.Layout) error {
	holder, ok := holderIn(l, i.name, i.id)
	if !ok || holder.name == i.name && holder.id == i.id {
		return nil
	}
	return i.lostTo(holder, "the layout")
}

func (i identity) lostTo(holder binding, source string) *IdentityError {
	return &IdentityError{Name: i.name, ID: i.id, Holder: holder.name, HeldBy: holder.id, Source: source}
}

// contested returns an error if what another node shared shows that this one's
// name or id belongs to somebody else. A newcomer learns it in no other way:
// those who refuse it do not tell it (see [memberlist.AliveDelegate]).
//
// Whom the layout binds to name and id stays, whatever others say. Otherwise a
// third node decides: it took the other one first. Where only the two meet,
// both decide alike: see beats.
func (i identity) contested(s sharedState, live int) error {
	if holder, ok := holderIn(i.layout, i.name, i.id); ok && holder.name == i.name && holder.id == i.id {
		return nil
	}
	for _, b := range s.live {
		if (b.name == i.name) == (b.id == i.id) {
			continue // this node itself, or one that has nothing to do with it
		}
		own := claim{bound: i.cluster != (ring.ClusterID{}), live: live, id: i.id, name: i.name}
		other := claim{bound: s.cluster != (ring.ClusterID{}), live: len(s.live), id: b.id, name: b.name}
		if b.name == s.sender.name && b.id == s.sender.id && own.beats(other) {
			continue
		}
		lost := i.lostTo(b, "node "+s.sender.name)
		lost.Alive = true
		return lost
	}
	return nil
}

// claim is what one of two nodes that go by one name or one id can show for
// itself.
type claim struct {
	bound bool // belongs to a cluster
	live  int  // nodes that it counts as alive
	id    kv.NodeID
	name  string
}

// beats orders the claims of two nodes that no third one can judge: for any two
// different claims one beats the other.
func (c claim) beats(o claim) bool {
	if c.bound != o.bound {
		return c.bound
	}
	return cmp.Or(cmp.Compare(o.live, c.live), cmp.Compare(c.id, o.id), cmp.Compare(c.name, o.name)) < 0
}
