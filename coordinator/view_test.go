package coordinator

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// grown is the view of the world after one more layout, of so many members.
// Nodes that are new begin under that view; nobody else knows of it yet.
func (w *world) grown(size int) ring.View {
	w.t.Helper()
	v := w.nodes[0].View()
	members := make([]ring.Member, size)
	for i := range members {
		members[i] = member(i)
	}
	prev := v.Active()[0]
	v, err := v.With(layoutOf(w.t, prev.Version()+1, prev, members...))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := len(w.nodes); i < size; i++ {
		w.add(members[i].ID, v)
	}
	return v
}

func (n *node) learns(v ring.View) {
	n.world.t.Helper()
	if err := n.Learn(v); err != nil {
		n.world.t.Fatal(err)
	}
}

// A coordinator that is behind, and replicas that are, end up under one view;
// the write is applied once.
func TestViewsThatDiffer(t *testing.T) {
	for _, tt := range []struct {
		name string
		// knows says which nodes know the new layout before: the node that is
		// asked, the one that it hands the write to, other owners, or all else.
		knows func(i int) bool
	}{
		{"the node that is asked is behind", func(i int) bool { return i != 4 }},
		{"only the node that is asked knows", func(i int) bool { return i == 4 }},
		{"the first owner is behind", func(i int) bool { return i != 0 }},
		{"only the first owner knows", func(i int) bool { return i == 0 }},
		{"the second owner is behind", func(i int) bool { return i != 1 }},
		{"only the second owner knows", func(i int) bool { return i == 1 }},
		{"nobody knows", func(int) bool { return false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []Condition{{}, absent} {
				lives(t, 5, func(w *world) {
					owners := w.owners(key)
					v := w.grown(5)
					for i, o := range owners {
						if tt.knows(i) {
							o.learns(v)
						}
					}
					p := text("v").under(c).with(Options{W: All})
					for _, via := range []*node{owners[4], owners[0]} {
						via.put(p.as(w.writeID()))
						got := via.read(Get{Options: Options{R: All}})
						w.same("values", texts(got), values("v"))
						p = Put{Key: key, Value: []byte("v"), Token: got.Token, Options: Options{W: All}}
					}
					for _, o := range owners[:3] {
						if tt.name != "nobody knows" && o.View().Digest() != v.Digest() {
							t.Errorf("%s was not taught", o.name())
						}
						if rec := o.holds(key); len(rec.Live) != 1 {
							t.Errorf("%s holds %d values", o.name(), len(rec.Live))
						}
					}
				})
			}
		})
	}
}

// Views that know different layouts are merged.
func TestConcurrentLayouts(t *testing.T) {
	lives(t, 5, func(w *world) {
		v := w.nodes[0].View()
		prev := v.Active()[0]
		for i, n := range w.owners(key)[:3] {
			m := slices.Clone(prev.Members())
			m[i].Weight = 50
			n.learns(viewOf(t, prev, layoutOf(t, 2, prev, m...)))
		}
		w.nodes[4].put(text("v"))
		w.nodes[3].reads("v")
		if got := len(w.nodes[4].View().Active()); got != 4 {
			t.Errorf("%d layouts are known", got)
		}
	})
}

// A replica that cannot store a new view fails alone.
func TestReplicaThatCannotLearn(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{unlearning: true})
		v := w.grown(5)
		for _, o := range owners {
			if o != owners[1] {
				o.learns(v)
			}
		}
		for _, via := range []*node{owners[0], owners[4]} {
			done := via.put(Put{Key: key, Value: []byte("v"), Overwrite: true})
			w.same("acked", done.Acked, names3(owners[0], owners[2]))
			w.same("values", texts(via.read(Get{})), values("v"))
		}
		_, err := owners[0].Get(w.t.Context(), Get{Key: key, Options: Options{R: All}})
		var e *kv.Error
		if !errors.As(err, &e) {
			w.t.Fatal(err)
		}
		w.told(e, kv.CodeQuorumUnreached, "", owners[1].name(), "no space left")

		// And a coordinator that cannot takes no write.
		e = owners[1].refuse(text("w").with(Options{W: All}))
		w.told(e, kv.CodeInternal, kv.Unknown, "no space left")
	})
}

// While a cluster grows, the layout of the smaller one asks for no more owners
// than it has.
func TestGrowingCluster(t *testing.T) {
	lives(t, 1, func(w *world) {
		w.nodes[0].put(text("one").with(Options{W: One}))
		v := w.grown(3)
		for _, n := range w.nodes {
			n.learns(v)
		}
		for _, via := range w.nodes {
			p := text("v").under(Condition{IfMatchAny: true}).with(Options{W: Exactly(2)})
			p.Overwrite = true
			done := via.put(p)
			if len(done.Acked) < 2 || !slices.Contains(done.Acked, w.nodes[0].name()) {
				t.Errorf("acked %v", done.Acked)
			}
			got := via.read(Get{Options: Options{R: Exactly(2)}})
			w.same("values", texts(got), values("v"))
		}
		w.nodes[0].set(trouble{refused: true})
		w.told(w.nodes[1].refuse(text("w")), kv.CodeQuorumUnreached, kv.NotApplied, w.nodes[0].name())
	})
}

// A write that has its dot when the layouts change counts under the new ones.
func TestLayoutChangesUnderAWrite(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
		for _, o := range owners[1:3] {
			o.set(trouble{slow: 100 * time.Millisecond})
		}
		result := make(chan PutDone, 1)
		go func() { result <- owners[0].put(text(big).with(Options{W: All})) }()
		w.sleep(50 * time.Millisecond)
		v := w.grown(8)
		owners[1].learns(v)
		done := <-result
		newest := v.Active()[0]
		for _, id := range newest.Owners(newest.Partition(key.Hash()))[:3] {
			if !slices.Contains(done.Acked, w.node(id).name()) {
				t.Errorf("acked by %v, without %s", done.Acked, w.node(id).name())
			}
		}
		for _, n := range w.nodes {
			n.learns(v)
		}
		got := w.nodes[7].reads(big)
		if len(got.Values[0].Dot.String()) == 0 || got.Values[0].Dot != done.Dot {
			t.Errorf("dot %v, answered %v", got.Values[0].Dot, done.Dot)
		}
	})
}

func TestNodeWithoutALayout(t *testing.T) {
	lives(t, 1, func(w *world) {
		n := w.add(9, ring.View{})
		w.told(n.refuse(text("v")), kv.CodeNotReady, kv.NotApplied, "bootstrapped")
		_, err := n.Get(w.t.Context(), Get{Key: key})
		var e *kv.Error
		if !errors.As(err, &e) {
			w.t.Fatal(err)
		}
		w.told(e, kv.CodeNotReady, "", "bootstrapped")
	})
}

// takeDown lets all nodes know a layout in which some are taken down.
func (w *world) takeDown(nodes ...*node) {
	w.t.Helper()
	prev := w.nodes[0].View().Active()[0]
	members := slices.Clone(prev.Members())
	for i, m := range members {
		if slices.Contains(nodes, w.node(m.ID)) {
			members[i].State = ring.StateDown
		}
	}
	v := viewOf(w.t, layoutOf(w.t, 2, prev, members...))
	for _, n := range w.nodes {
		n.view = v
	}
}

// A node that the operator took down is not tried.
func TestNodeTakenDown(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		w.takeDown(owners[1], owners[3])
		done := owners[4].put(text("v"))
		w.same("acked", done.Acked, names3(owners[0], owners[2]))
		e := owners[0].refuse(text("w").with(Options{W: All}))
		w.told(e, kv.CodeQuorumUnreached, kv.NotApplied, "taken down", owners[1].name())
		done = owners[0].put(sloppy("x", All))
		w.same("hinted", done.Hinted, values(owners[4].name()+" for "+owners[1].name()))
		got := owners[2].read(Get{Options: Options{R: All, Sloppy: true}})
		w.same("values", texts(got), values("v", "x"))
		if n := owners[1].received("fetch") + owners[1].received("store") + owners[3].received("store"); n > 0 {
			t.Errorf("%d messages were sent to a node that was taken down", n)
		}
	})
}

// What a node is handed it must own, or stand in for an owner.
func TestForwardedToTheWrongNode(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		req := ForwardRequest{
			Fence: Fence{Digest: owners[4].View().Digest()},
			Put:   text("v").with(Options{N: 3, W: One, R: One, Timeout: time.Second}),
		}
		if _, err := owners[4].Forwarded(w.t.Context(), req); !errors.Is(err, ErrNotOwner) {
			t.Errorf("at a stranger: %v", err)
		}
		req.StandInFor = owners[3].id
		if _, err := owners[4].Forwarded(w.t.Context(), req); !errors.Is(err, ErrNotOwner) {
			t.Errorf("in place of a stranger: %v", err)
		}
		req.StandInFor, req.Put.W = 0, Exactly(4)
		_, err := owners[0].Forwarded(w.t.Context(), req)
		var e *kv.Error
		if !errors.As(err, &e) || e.Code != kv.CodeBadRequest {
			t.Errorf("w over n: %v", err)
		}
		req.Fence.Digest++
		var stale *StaleViewError
		if _, err := owners[0].Forwarded(w.t.Context(), req); !errors.As(err, &stale) {
			t.Errorf("under another view: %v", err)
		}
	})
}
