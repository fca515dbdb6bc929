package coordinator

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/readrepair"
)

func (n *node) survey(width int) (replies []readrepair.Reply, from []string) {
	n.world.t.Helper()
	ctx, cancel := context.WithTimeout(n.world.t.Context(), 2*time.Second)
	defer cancel()
	replies, err := n.Survey(ctx, key, width)
	if err != nil {
		n.world.t.Fatal(err)
	}
	for _, r := range replies {
		from = append(from, n.world.node(r.From).name())
	}
	return replies, from
}

// A survey hears every owner that answers in good time, whatever the others do,
// and tells what each holds.
func TestSurvey(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("v").with(Options{W: All}))
		for _, o := range owners[:3] {
			o.raise(7)
		}
		owners[2].set(trouble{recovering: true, slow: 100 * time.Millisecond})
		for _, via := range []*node{owners[0], owners[4]} {
			replies, from := via.survey(3)
			w.same("asked", from, sortedNames(owners[:3]...))
			for _, r := range replies {
				if o := w.node(r.From); r.Standing != (o != owners[2]) || r.Reap != 7 || !r.Record.Covers(o.holds(key)) {
					t.Errorf("%s told %+v", o.name(), r)
				}
			}
		}
		owners[0].set(trouble{refused: true})
		owners[1].set(trouble{silent: true})
		begun := time.Now()
		_, from := owners[4].survey(3)
		w.same("asked", from, sortedNames(owners[2]))
		if took := time.Since(begun); took > lateAfter {
			t.Errorf("took %v", took)
		}
	})
}

// It is under the layouts of all that are asked.
func TestSurveyOfTwoLayouts(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		v := w.grown(8)
		owners[1].learns(v)
		p, err := newPlan(v, key, 3)
		if err != nil {
			t.Fatal(err)
		}
		all := make([]*node, 0, 6)
		for _, id := range p.owners(3) {
			all = append(all, w.node(id))
		}
		_, from := owners[0].survey(3)
		w.same("asked", from, sortedNames(all...))
	})
}

func sortedNames(nodes ...*node) []string {
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b *node) int { return int(a.id) - int(b.id) })
	return names3(nodes...)
}

// A monotonic read goes on with whom it can reach while another owner refuses.
func TestMonotonicBesideRefusal(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		w.only(owners[0], "v")
		owners[2].set(trouble{refused: true})
		full := &kv.Error{Code: kv.CodeDiskFull, Outcome: kv.NotApplied}
		owners[1].set(trouble{door: full, slow: 20 * time.Millisecond})
		time.AfterFunc(100*time.Millisecond, func() { owners[1].set(trouble{slow: 20 * time.Millisecond}) })
		w.same("values", texts(owners[0].read(monotonic(Quorum))), values("v"))
		if owners[1].holds(key).Absent() {
			t.Error("only one holds it")
		}
	})
}
