package membership

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

var ours, theirs = ring.ClusterID{1}, ring.ClusterID{2}

// layoutOf makes a layout of members named as the ids are given.
func layoutOf(t *testing.T, members map[string]kv.NodeID) *ring.Layout {
	t.Helper()
	ms := make([]ring.Member, 0, len(members))
	for name, id := range members {
		ms = append(ms, ring.Member{ID: id, Name: name, Address: name + ":1", Weight: 1})
	}
	l, err := ring.Compute(ours, 1, ms, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func alive(name string, id kv.NodeID, cluster ring.ClusterID) Peer {
	return newPeer(name, name+":7946", metadata{id: id, cluster: cluster})
}

func dead(name string, id kv.NodeID, cluster ring.ClusterID) Peer {
	p := alive(name, id, cluster)
	p.State = Dead
	return p
}

func TestJudge(t *testing.T) {
	none := ring.ClusterID{}
	members := layoutOf(t, map[string]kv.NodeID{"n1": 1, "n2": 2, "n3": 3})
	for _, c := range []struct {
		name    string
		bound   ring.ClusterID
		layout  *ring.Layout
		known   []Peer
		node    string
		id      kv.NodeID
		cluster ring.ClusterID
		want    string // reason; empty: let in
	}{
		{name: "this node itself", bound: ours, layout: members, node: "n1", id: 1, cluster: ours},
		{name: "this node itself, before it was bound", bound: ours, node: "n1", id: 1},
		{name: "first node met", node: "n2", id: 2},
		{name: "member", bound: ours, layout: members, node: "n2", id: 2, cluster: ours},
		{name: "spare", bound: ours, layout: members, node: "n9", id: 9, cluster: ours},
		{name: "newcomer", bound: ours, layout: members, node: "n9", id: 9},

		{name: "another cluster", bound: ours, layout: members, node: "n9", id: 9, cluster: theirs, want: "foreign_cluster"},
		{name: "a cluster, at a node of none", node: "n9", id: 9, cluster: theirs},
		{
			name: "a second cluster, at a node of none", known: []Peer{alive("n2", 2, ours)},
			node: "n9", id: 9, cluster: theirs, want: "foreign_cluster",
		},
		{name: "a second cluster, after the first is dead", known: []Peer{dead("n2", 2, ours)}, node: "n9", id: 9, cluster: theirs},

		{name: "own name", node: "n1", id: 9, want: "taken_name"},
		{name: "own id", node: "n9", id: 1, want: "taken_id"},
		{name: "name of a member", bound: ours, layout: members, node: "n2", id: 9, want: "taken_name"},
		{name: "id of a member", bound: ours, layout: members, node: "n9", id: 2, cluster: ours, want: "taken_id"},
		{name: "name of one member, id of another", bound: ours, layout: members, node: "n2", id: 3, cluster: ours, want: "taken_name"},
		{
			name: "member whose name another one goes by", bound: ours, layout: members, known: []Peer{alive("n2", 9, none)},
			node: "n2", id: 2, cluster: ours,
		},
		{name: "name of a live node", known: []Peer{alive("n2", 2, none)}, node: "n2", id: 9, want: "taken_name"},
		{name: "id of a live node", known: []Peer{alive("n2", 2, none)}, node: "n9", id: 2, want: "taken_id"},
		{name: "name of a dead node", known: []Peer{dead("n2", 2, none)}, node: "n2", id: 9},
		{name: "id of a dead node", known: []Peer{dead("n2", 2, none)}, node: "n9", id: 2},

		{name: "no name", node: "", id: 9, want: "bad_metadata"},
		{name: "name with a newline", node: "n\n9", id: 9, want: "bad_metadata"},
		{name: "long name", node: strings.Repeat("n", 65), id: 9, want: "bad_metadata"},
	} {
		t.Run(c.name, func(t *testing.T) {
			self := identity{name: "n1", id: 1, cluster: c.bound, layout: c.layout}
			r := self.judge(c.node, metadata{id: c.id, cluster: c.cluster, peerAddress: "h:1"}, newRoster(c.known))
			got := ""
			if r != nil {
				got = r.reason.String()
			}
			if got != c.want {
				t.Errorf("judged %q, want %q: %v", got, c.want, r)
			}
		})
	}
}

func TestJudgeBoundsTheNodes(t *testing.T) {
	known := make([]Peer, maxLive)
	for i := range known {
		known[i] = alive(kv.NodeID(i).String(), kv.NodeID(100+i), ring.ClusterID{})
	}
	self := identity{name: "n1", id: 1}
	if r := self.judge("n2", metadata{id: 2, peerAddress: "h:1"}, newRoster(known)); r == nil || r.reason != TooMany {
		t.Errorf("one node more: %v", r)
	}
	if r := self.judge(known[7].Name, metadata{id: known[7].ID, peerAddress: "h:1"}, newRoster(known)); r != nil {
		t.Errorf("a known node: %v", r)
	}
}

func TestContested(t *testing.T) {
	members := layoutOf(t, map[string]kv.NodeID{"n1": 1, "n2": 2})
	me, other, third := binding{name: "n1", id: 1}, binding{name: "n1", id: 9}, binding{name: "n3", id: 3}
	copied := binding{name: "n8", id: 1}
	for _, c := range []struct {
		name    string
		bound   ring.ClusterID
		layout  *ring.Layout
		live    int // nodes that this one counts
		sender  binding
		cluster ring.ClusterID
		lists   []binding
		holder  kv.NodeID // who has the name; 0: this node goes on
	}{
		{name: "listed as it is", live: 2, sender: third, lists: []binding{me, third}},
		{name: "listed as it was", live: 2, sender: third, lists: []binding{{name: "n1", id: 1, incarnation: 7}, third}},
		{name: "not listed", live: 2, sender: third, lists: []binding{third}},
		{name: "a third node lists another one", live: 9, sender: third, lists: []binding{other, third}, holder: 9},
		{
			name: "a third node lists another one, the layout this one", bound: ours, layout: members, live: 9,
			sender: third, cluster: ours, lists: []binding{other, third},
		},
		{name: "a third node lists a copy", live: 9, sender: third, lists: []binding{copied, third}, holder: 1},
		{name: "the other one has a cluster", live: 9, sender: other, cluster: ours, lists: []binding{other}, holder: 9},
		{name: "this one has a cluster", bound: ours, live: 1, sender: other, lists: []binding{other, third}},
		{name: "the other one knows more nodes", live: 1, sender: other, lists: []binding{other, third}, holder: 9},
		{name: "this one knows more nodes", live: 2, sender: other, lists: []binding{other}},
		{name: "equal claims, smaller id", live: 1, sender: other, lists: []binding{other}},
		{name: "equal claims, larger id", live: 1, sender: binding{name: "n1", id: 0xa}, lists: []binding{{name: "n1", id: 0xa}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			self := identity{name: "n1", id: 1, cluster: c.bound, layout: c.layout}
			err := self.contested(sharedState{sender: c.sender, cluster: c.cluster, live: c.lists}, c.live)
			var id *IdentityError
			errors.As(err, &id)
			switch {
			case c.holder == 0 && err != nil:
				t.Errorf("it must stop: %v", err)
			case c.holder != 0 && (id == nil || id.HeldBy != c.holder || !id.Alive):
				t.Errorf("contested = %v, want one that says that %s has it and is alive", err, c.holder)
			}
		})
	}
}

// Two nodes that contest a name decide alike: one of them goes on.
func TestOneOfTwoClaimsStands(t *testing.T) {
	gen := rapid.Custom(func(t *rapid.T) claim {
		return claim{
			bound: rapid.Bool().Draw(t, "bound"),
			live:  rapid.IntRange(1, 3).Draw(t, "live"),
			id:    kv.NodeID(rapid.Uint64Range(1, 3).Draw(t, "id")),
			name:  rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := gen.Draw(t, "a"), gen.Draw(t, "b"), gen.Draw(t, "c")
		if a != b && a.beats(b) == b.beats(a) {
			t.Fatalf("%+v and %+v: both stand or neither", a, b)
		}
		if a.beats(b) && b.beats(c) && !a.beats(c) {
			t.Fatalf("%+v, %+v, %+v: not an order", a, b, c)
		}
	})
}

func TestFounders(t *testing.T) {
	self := identity{name: "n1", id: 1}
	boots := alive("n4", 4, ring.ClusterID{})
	boots.bootstraps = true
	me, n2, n3 := alive("n1", 1, ring.ClusterID{}), alive("n2", 2, ring.ClusterID{}), alive("n3", 3, ring.ClusterID{})
	mine := alive("n1", 1, ours) // bound before a crash
	mine.bootstraps = true
	for _, c := range []struct {
		name   string
		expect int
		live   []Peer
		want   int    // members
		waits  string // part of what it waits for
	}{
		{name: "one of one", expect: 1, live: []Peer{me}, want: 1},
		{name: "too few", expect: 3, live: []Peer{me, n2}, waits: "expects 3 nodes, 2 are alive"},
		{name: "enough", expect: 3, live: []Peer{me, n2, n3}, want: 3},
		{name: "more than enough", expect: 2, live: []Peer{me, n2, n3}, want: 3},
		{name: "two names of one node", expect: 3, live: []Peer{me, n2, alive("n5", 2, ring.ClusterID{})}, waits: "2 are alive"},
		{name: "another bootstrap", expect: 2, live: []Peer{me, n2, boots}, waits: "nodes n1 and n4 were both told to bootstrap"},
		{name: "a cluster exists", expect: 2, live: []Peer{me, alive("n2", 2, theirs)}, waits: "is of cluster " + theirs.String() + " already"},
		{name: "going on after a crash", expect: 2, live: []Peer{mine, n2}, want: 2},
		{name: "the layout was out before the crash", expect: 2, live: []Peer{mine, alive("n2", 2, ours)}, waits: "waiting to learn its layout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			members, waits := founders(self, c.expect, c.live)
			if len(members) != c.want || !strings.Contains(waits, c.waits) || (waits == "") != (c.want > 0) {
				t.Errorf("%d members, waits %q; want %d, %q", len(members), waits, c.want, c.waits)
			}
		})
	}
}
