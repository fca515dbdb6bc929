package reap

import (
	"flag"
	"fmt"
	"math/bits"
	"slices"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// This file plays a partition with three or four members, any message of which
// may come at any time, twice or never, under several reapers at once, and judges
// by whole histories, in place of the clocks that sum them up:
//
//   - what a write or delete had seen shows nowhere where that is known, and
//     nowhere at all once everything has met;
//   - what nobody had replaced is there once everything has met.
//
// The mistakes that it must find are planted at the ports, beside the code.

var runs = flag.Int("model.runs", 3000, "random runs of the model")

var firstSeed = flag.Uint64("model.seed", 1, "seed of the model's first run")

var rates = flag.Bool("model.rates", false, "count in how many runs of the model each planted mistake shows")

const (
	modelKeys  = 2
	modelSteps = 160
	idWindow   = 12 * time.Second // in which an attempt under a write id is taken
	maxAhead   = 2 * time.Second  // of one clock to another
)

var modelRules = Rules{
	After: time.Second, Skew: 3 * time.Second, IDMemory: idWindow + 2*maxAhead, FoldEntries: 1, FoldQuiet: time.Second,
}

// flaw is a mistake that is planted in a model.
type flaw string

const (
	flawNone       flaw = ""
	flawNotRaised  flaw = "a confirmation leaves the number as it is"
	flawNotEqual   flaw = "what is no longer equal is reaped"
	flawAdopted    flaw = "a number that was learnt counts as confirmed"
	flawOwnOnly    flaw = "hints are not looked at"
	flawTaken      flaw = "records read under a lower number are taken"
	flawReadBefore flaw = "a record is read before the number that it is sent with"
	flawMissing    flaw = "a member is not asked"
	flawMine       flaw = "an actor goes on after its entry is folded"
	flawIDs        flaw = "write ids are forgotten while attempts are taken"
	flawEarly      flaw = "values are dropped before they expire"
)

func (m *model) failf(format string, args ...any) {
	if m.wrong == "" {
		m.wrong = fmt.Sprintf(format, args...)
	}
}

func (m *model) eventOf(k int, d vclock.Dot) int {
	return slices.IndexFunc(m.events[k], func(e event) bool { return e.dot == d })
}

// check looks for what n shows and knows to be replaced.
func (n *modelNode) check(k int) {
	at := n.places[ownSlot(k)]
	values, _ := at.record.Visible(n.clock())
	for _, v := range values {
		e := n.eventOf(k, v.Dot)
		for known := uint64(at.known); known != 0; known &= known - 1 {
			if f := bits.TrailingZeros64(known); n.events[k][f].seen.has(e) {
				n.failf("%d shows event %d of key %d, which event %d had seen", n.id, e, k, f)
			}
		}
	}
}

// finish lets everything meet and compares what is left with what should be.
func (m *model) finish() {
	for k := range modelKeys {
		var all kv.Record
		for _, n := range m.nodes {
			all = all.Merge(n.places[ownSlot(k)].record)
			for _, o := range m.nodes {
				all = all.Merge(n.places[kv.Slot{Target: o.id, Key: modelKey(k)}].record)
			}
		}
		if _, err := kv.DecodeRecord(kv.AppendRecord(nil, all)); err != nil {
			m.failf("key %d: %v", k, err)
		}
		m.compare(k, all)
	}
}

func (m *model) compare(k int, all kv.Record) {
	latest := m.now.Add(maxAhead)
	values, _ := all.Visible(m.now)
	shown := make(map[int]bool) // by write
	for _, v := range values {
		shown[m.events[k][m.eventOf(k, v.Dot)].write] = true
	}
	for w, in := range m.writes {
		if in.key != k || in.sibling.Kind == kv.KindTombstone {
			continue
		}
		attempts, expires := set(0), false
		for i, e := range m.events[k] {
			if e.write == w {
				attempts |= 1 << i
				expires = expires || !e.expires.IsZero() && !e.expires.After(latest)
			}
		}
		replaced := slices.ContainsFunc(m.events[k], func(e event) bool { return e.seen&attempts != 0 })
		switch {
		case replaced && shown[w]:
			m.failf("write %d of key %d came back", w, k)
		case attempts != 0 && !replaced && !expires && !shown[w]:
			m.failf("write %d of key %d is lost", w, k)
		}
	}
}

// run plays one seed and returns what went wrong, if anything did.
func run(t *testing.T, seed uint64, f flaw, views []ring.View, trace bool) *model {
	t.Helper()
	m := newModel(t, seed, f, views)
	m.trace = trace
	for i := 0; i < modelSteps && m.wrong == ""; i++ {
		m.step()
	}
	for i := 0; i < modelSteps && len(m.flight) > 0 && m.wrong == ""; i++ {
		m.deliver()
	}
	m.finish()
	return m
}

func modelViews(tb testing.TB) []ring.View {
	tb.Helper()
	return []ring.View{viewOf(tb, 3, 1), viewOf(tb, 4, 1)}
}

// TestModel: deletes stay, and nothing is lost. -model.runs says how often, and
// -model.seed replays a run.
func TestModel(t *testing.T) {
	views := modelViews(t)
	var reaped, folded, expired, resent int
	for seed := *firstSeed; seed < *firstSeed+uint64(*runs); seed++ {
		m := run(t, seed, flawNone, views, false)
		if m.wrong != "" {
			run(t, seed, flawNone, views, true)
			t.Fatalf("-model.seed=%d: %s", seed, m.wrong)
		}
		reaped, folded, expired, resent = reaped+m.reaped, folded+m.folded, expired+m.expired, resent+m.resent
	}
	t.Logf("%d runs: %d records reaped, %d folded, %d rid of expired values, %d messages refused and sent again",
		*runs, reaped, folded, expired, resent)
	if *runs > 1000 && min(reaped, folded, expired, resent) < *runs/40 {
		t.Error("the model hardly does what it is for")
	}
}

// TestModelFindsMistakes: each planted mistake shows. -model.rates counts in how
// many of -model.runs it does.
func TestModelFindsMistakes(t *testing.T) {
	views := modelViews(t)
	for _, f := range []flaw{
		flawNotRaised, flawNotEqual, flawAdopted, flawOwnOnly, flawTaken, flawReadBefore, flawMissing, flawMine, flawIDs, flawEarly,
	} {
		t.Run(string(f), func(t *testing.T) {
			most, found := 20_000, 0
			if *rates {
				most = *runs
			}
			for seed := uint64(1); seed <= uint64(most) && (found == 0 || *rates); seed++ {
				if m := run(t, seed, f, views, false); m.wrong != "" {
					found++
				}
			}
			if *rates {
				t.Logf("%d of %d runs", found, most)
			}
			if found == 0 {
				t.Errorf("not found in %d runs", most)
			}
		})
	}
}

// TestLearntNumberConfirmsNothing is the rarest of the mistakes, by hand. A
// member that was away learns the number of a round while it still holds what
// was deleted, sends that on, and only then hears of the delete.
func TestLearntNumberConfirmsNothing(t *testing.T) {
	for _, f := range []flaw{flawNone, flawAdopted} {
		m := newModel(t, 1, f, modelViews(t)[:1])
		slot := ownSlot(0)
		a, b, away := m.nodes[0], m.nodes[1], m.nodes[2]
		m.writes = []intention{{sibling: kv.Sibling{Kind: kv.KindValue}}, {sibling: kv.Sibling{Kind: kv.KindTombstone}}}
		a.write(0)
		away.merge(slot, a.places[slot])
		m.writes[1].seen = reading{a.places[slot].record.Clock, a.places[slot].known}
		a.write(1)
		b.merge(slot, a.places[slot])
		m.now, m.flight = m.now.Add(time.Hour), nil

		a.begin()
		oldest := func() { do := m.flight[0]; m.flight = m.flight[1:]; do() }
		for range 4 { // a and b are asked, and answer; the question to the third is under way
			oldest()
		}
		away.offer(a, slot)
		ask, refused := m.flight[0], m.flight[1]
		m.flight = nil
		refused()
		oldest() // the refusal: it learns the number, reads again and sends again
		late := m.flight[0]
		m.flight = nil
		away.merge(slot, a.places[slot])
		ask()
		for len(m.flight) > 0 {
			oldest()
		}
		late()
		m.finish()
		if back := m.wrong != ""; back != (f == flawAdopted) {
			t.Errorf("%q: %q", f, m.wrong)
		}
	}
}
