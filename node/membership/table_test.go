package membership

import (
	"sync"
	"testing"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

func TestTable(t *testing.T) {
	none := ring.ClusterID{}
	tab := newTable([]Peer{dead("n3", 3, none), dead("n1", 1, none)})
	tab.put(alive("n2", 2, none))
	tab.put(alive("n3", 3, ours))
	before := tab.roster()
	tab.lost("n2")
	tab.lost("n9") // never seen

	got := make([]string, 0, 3)
	for _, p := range tab.roster().peers {
		got = append(got, p.Name+" "+p.State.String())
	}
	want := []string{"n1 dead", "n2 dead", "n3 alive"}
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("peers %q, want %q", got, want)
		}
	}
	if p, _ := before.named("n2"); p.State != Alive {
		t.Error("a snapshot has changed")
	}
	if c := tab.roster().cluster(); c != ours {
		t.Errorf("cluster of the live peers %s, want %s", c, ours)
	}
	if _, ok := tab.roster().named("n9"); ok {
		t.Error("a node that was never seen is there")
	}
}

func TestNodeThatLeftIsNotDead(t *testing.T) {
	leaving := newPeer("n1", "a:1", metadata{id: 1, leaving: true})
	tab := newTable(nil)
	tab.put(leaving)
	tab.lost("n1")
	if p, _ := tab.roster().named("n1"); p.State != Left {
		t.Errorf("it is %s, want left", p.State)
	}
	tab.put(alive("n1", 1, ring.ClusterID{}))
	if p, _ := tab.roster().named("n1"); p.State != Alive {
		t.Errorf("it is %s after it came back, want alive", p.State)
	}
}

// A node that came back under another name is found by its id where it lives.
func TestTwoNamesOfOneID(t *testing.T) {
	for _, peers := range [][]Peer{
		{alive("new", 1, ours), dead("old", 1, ours)},
		{dead("a-old", 1, ours), alive("new", 1, ours)},
	} {
		if p, ok := newRoster(peers).identified(1); !ok || p.Name != "new" {
			t.Errorf("identified %q, want the live one", p.Name)
		}
	}
}

func TestTableChangesConcurrently(t *testing.T) {
	tab := newTable(nil)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			id := kv.NodeID(i + 1)
			tab.put(alive(id.String(), id, ours))
			if _, ok := tab.roster().identified(id); !ok {
				t.Errorf("%s is not there", id)
			}
		})
	}
	all.Wait()
	if n := len(tab.roster().live()); n != 50 {
		t.Errorf("%d live peers, want 50", n)
	}
}

func TestDoubts(t *testing.T) {
	var d doubts
	known := Peer{Name: "n2", Address: "old:1", Incarnation: 3}
	expect := func(want string) {
		t.Helper()
		if at, doubtful := d.about(known); doubtful != (want != "") || doubtful && at != want {
			t.Errorf("about = %q, %t; want %q", at, doubtful, want)
		}
	}
	expect("")
	d.heard("n2", life{incarnation: 4, address: "new:1"})
	expect("new:1")
	known.Incarnation, known.Address = 4, "new:1" // memberlist has taken it in
	expect("")
	d.listed("n2", false)
	expect("new:1")
	d.listed("n2", true)
	expect("")
}

func BenchmarkAlive(b *testing.B) {
	peers := make([]Peer, 0, 1000)
	for i := range 1000 {
		id := kv.NodeID(i + 1)
		peers = append(peers, alive(id.String(), id, ours))
	}
	g := &Gossip{table: newTable(peers)}
	b.ReportAllocs()
	for b.Loop() {
		if !g.Alive(500) {
			b.Fatal("not alive")
		}
	}
}
