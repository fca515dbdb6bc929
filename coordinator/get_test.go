package coordinator

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// getError reads at n and returns the error of the failure, which must come.
func (n *node) getError(g Get) *kv.Error {
	n.world.t.Helper()
	g.Key = key
	got, err := n.Get(n.world.t.Context(), g)
	var e *kv.Error
	if !errors.As(err, &e) {
		n.world.t.Fatalf("get at %s: %+v, %v; want a kv.Error", n.name(), got, err)
	}
	return e
}

func TestGetOfNothing(t *testing.T) {
	lives(t, 3, func(w *world) {
		got := w.nodes[0].read(Get{})
		if len(got.Values) > 0 || got.Deleted || len(got.Token.Seen) > 0 || got.ETag != 0 {
			t.Errorf("got %+v", got)
		}
	})
}

// A read merges what its r owners hold and names those that lack some of it.
func TestGetMerges(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{refused: true})
		owners[2].set(trouble{refused: true})
		owners[0].put(text("a").with(Options{W: One}))
		synctest.Wait()
		owners[0].set(trouble{refused: true})
		owners[1].set(trouble{})
		owners[1].put(text("b").with(Options{W: One}))
		synctest.Wait()
		owners[0].set(trouble{})
		owners[2].set(trouble{})
		got := owners[2].reads("a", "b")
		w.same("behind", got.Behind, names3(owners...))
		if n := owners[2].Stats().Behind; n != 3 {
			t.Errorf("%d counted as behind", n)
		}
	})
}

// A read whose context names what the first owners do not have goes on asking,
// however slow the one may be that has it.
func TestFloor(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{refused: true})
		owners[2].set(trouble{refused: true})
		done := owners[0].put(text("v").with(Options{W: One}))
		synctest.Wait()
		owners[0].set(trouble{slow: 50 * time.Millisecond})
		owners[1].set(trouble{})
		owners[2].set(trouble{})
		begun := time.Now()
		got := owners[1].read(Get{Floor: done.Token.Floor, Options: Options{R: One}})
		w.same("values", texts(got), values("v"))
		if took := time.Since(begun); took != 50*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if got := owners[1].read(Get{Options: Options{R: One}}); len(got.Values) > 0 {
			t.Error("without a floor the first answer will do")
		}

		owners[0].set(trouble{silent: true})
		begun = time.Now()
		e := owners[1].getError(Get{Floor: done.Token.Floor, Options: Options{R: One}})
		w.told(e, kv.CodeStale, "", "context")
		if took := time.Since(begun); took != 2*time.Second || e.RetryAfter == 0 {
			t.Errorf("took %v: %+v", took, e)
		}
		// It waits for what is under way.
		time.AfterFunc(time.Second, func() { owners[0].set(trouble{}) })
		got = owners[1].read(Get{Floor: done.Token.Floor, Options: Options{R: One}})
		w.same("values", texts(got), values("v"))
		if !got.Token.Floor.Dominates(done.Token.Floor) {
			t.Error("the floor fell")
		}
	})
}

// What was reaped since a context was given out is not missing, if all owners
// say so; a context that is as young as the last round must still be met.
func TestFloorMayHaveBeenReaped(t *testing.T) {
	gone := vclock.Clock{{Actor: 77, Counter: 7}}
	reaped := func(w *world, number uint64) []*node {
		owners := w.owners(key)
		for _, o := range owners {
			partition := o.slot(key, 0).Partition
			o.mu.Lock()
			o.reap[partition] = number
			o.mu.Unlock()
		}
		return owners
	}
	lives(t, 5, func(w *world) {
		owners := reaped(w, 3)
		got := owners[1].read(Get{Floor: gone, FloorReap: 2, Options: Options{R: One}})
		if got.Token.Floor.Dominates(gone) || got.Token.Reap != 3 {
			t.Errorf("token %+v: the floor would be asked for again", got.Token)
		}
		w.told(owners[1].getError(Get{Floor: gone, FloorReap: 3, Options: Options{R: One}}), kv.CodeStale, "")
	})
	lives(t, 5, func(w *world) {
		owners := reaped(w, 3)
		owners[0].set(trouble{refused: true})
		w.told(owners[1].getError(Get{Floor: gone, FloorReap: 2, Options: Options{R: One}}), kv.CodeStale, "")
	})
	lives(t, 5, func(w *world) {
		owners := reaped(w, 3)
		owners[2].set(trouble{recovering: true})
		w.told(owners[1].getError(Get{Floor: gone, FloorReap: 2, Options: Options{R: One}}), kv.CodeStale, "")
	})
}

// A floor that nobody meets costs few messages.
func TestFloorAsksWithPauses(t *testing.T) {
	lives(t, 3, func(w *world) {
		done := w.nodes[0].put(text("v"))
		synctest.Wait()
		for _, n := range w.nodes {
			n.slots = map[kv.Slot]kv.Record{}
		}
		w.told(w.nodes[0].getError(Get{Floor: done.Token.Floor}), kv.CodeStale, "")
		if n := w.messages("fetch"); n > 60 {
			t.Errorf("%d fetches", n)
		}
	})
}

// A value that one owner cannot deliver is asked of the next, also of those
// whose record was not needed.
func TestValueFromAnother(t *testing.T) {
	for _, f := range []trouble{{badValue: true}, {noValue: true}, {slowValue: time.Minute}} {
		lives(t, 3, func(w *world) {
			owners := w.owners(key)
			big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
			owners[0].put(text(big).with(Options{W: All}))
			if f.slowValue == 0 {
				owners[0].set(f)
			}
			owners[1].set(f)
			begun := time.Now()
			got := owners[0].read(Get{Options: Options{R: One}})
			w.same("values", texts(got), values(big))
			got = owners[2].read(Get{Options: Options{R: Exactly(2)}})
			w.same("values", texts(got), values(big))
			if took := time.Since(begun); took > 2*lateAfter {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestSilentHolderOfAValue(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
		owners[0].put(text(big).with(Options{W: All}))
		for _, o := range owners[:2] {
			o.set(trouble{slowValue: time.Minute})
		}
		begun := time.Now()
		got := owners[4].read(Get{})
		w.same("values", texts(got), values(big))
		if took := time.Since(begun); took > 3*lateAfter {
			t.Errorf("took %v", took)
		}
	})
}

func TestValueNobodyHas(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
		owners[0].put(text(big).with(Options{W: All}))
		for _, o := range owners {
			o.set(trouble{noValue: true})
		}
		e := owners[0].getError(Get{})
		w.told(e, kv.CodeQuorumUnreached, "", owners[0].name(), owners[1].name(), owners[2].name(), "12288 bytes")
		if n := w.messages("value"); n > 60 {
			t.Errorf("%d requests for the value", n)
		}
	})
}

// A value that was replaced between the fetch of its record and its own: the
// record is read again.
func TestValueMovedOn(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
		owners[0].put(text(big).with(Options{W: All}))
		for _, o := range owners[:3] {
			o.set(trouble{slowValue: 20 * time.Millisecond})
		}
		time.AfterFunc(10*time.Millisecond, func() {
			owners[0].put(Put{Key: key, Value: []byte("new"), Overwrite: true, Options: Options{W: All}})
		})
		got := owners[4].read(Get{})
		w.same("values", texts(got), values("new"))
	})
}

func TestHedges(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("v").with(Options{W: All}))
		owners[0].set(trouble{slow: 100 * time.Millisecond})
		for _, tt := range []struct {
			hedge   Hedge
			fetches int
			took    time.Duration
		}{
			{HedgeAll, 3, 0},
			{HedgeOff, 1, 100 * time.Millisecond},
			{HedgeAuto, 2, hedgeCap},
		} {
			reader := w.add(kv.NodeID(90+tt.hedge), owners[0].View())
			before, begun := w.messages("fetch"), time.Now()
			w.same("values", texts(reader.read(Get{Options: Options{R: One, Hedge: tt.hedge}})), values("v"))
			if took := time.Since(begun); took > tt.took {
				t.Errorf("hedge %d: took %v", tt.hedge, took)
			}
			w.sleep(time.Second)
			if n := w.messages("fetch") - before; n > tt.fetches {
				t.Errorf("hedge %d: %d fetches", tt.hedge, n)
			}
		}
	})
}

// Hedges stay within their share, also when every read is late.
func TestHedgeShare(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		for _, o := range owners {
			o.set(trouble{slow: 50 * time.Millisecond})
		}
		reader := w.add(90, owners[0].View())
		const reads = 5_000
		for range reads {
			reader.read(Get{Options: Options{R: One}})
		}
		if n := reader.Stats().Hedges; n > reads/callsPerHedge+budgetBurst || n < budgetBurst {
			t.Errorf("%d hedges for %d reads", n, reads)
		}
	})
}

// A replica that has become slow is found out, avoided, and probed beside reads
// that do not wait for it, within the budget; it is read from again once it is
// as fast as the others.
func TestSlowReplicasAreProbed(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("v").with(Options{W: All}))
		const normal, sick = time.Millisecond, 30 * time.Millisecond
		for _, o := range owners {
			o.set(trouble{slow: normal})
		}
		reader := w.add(90, owners[0].View())
		reads := func(n int) (slowest time.Duration) {
			for range n {
				begun := time.Now()
				reader.read(Get{Options: Options{R: Exactly(2)}})
				slowest = max(slowest, time.Since(begun))
			}
			return slowest
		}
		reads(1000)
		owners[0].set(trouble{slow: sick})
		reads(1000)
		hedges, probes := reader.Stats().Hedges, reader.Stats().Probes
		if slowest := reads(5000); slowest > 2*normal {
			t.Errorf("with one slow replica of three a read took %v", slowest)
		}
		if s := reader.Stats(); s.Hedges != hedges || s.Probes-probes > 5000/probeEvery+1 {
			t.Errorf("%d hedges, %d probes", s.Hedges-hedges, s.Probes-probes)
		}
		owners[0].set(trouble{slow: normal})
		reads((probation + 1) * probeEvery)
		before := owners[0].received("fetch")
		reads(1000)
		if n := owners[0].received("fetch") - before; n < 100 {
			t.Errorf("after its recovery it was asked by %d of 1000 reads", n)
		}
		w.sleep(time.Second)
	})
}

// A node that gossip suspects is asked last, and still asked.
func TestSuspectedOwner(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{suspected: true})
		owners[4].put(text("v").with(Options{W: All}))
		owners[4].read(Get{Options: Options{R: Exactly(2)}})
		if n := owners[0].received("forward") + owners[0].received("fetch"); n > 0 {
			t.Error("the suspected node was asked first")
		}
		owners[4].reads("v")
	})
}

func TestExplain(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{refused: true, suspected: true})
		owners[0].put(sloppy("v", All))
		owners[1].set(trouble{})
		owners[2].set(trouble{silent: true})
		ex, err := owners[4].Explain(w.t.Context(), key, 0, time.Second)
		if err != nil || ex.N != 3 || len(ex.Holdings) != 5 {
			w.t.Fatalf("%+v, %v", ex, err)
		}
		for i, h := range ex.Holdings {
			want := Holding{Node: owners[i].id, Name: owners[i].name(), Owner: i < 3, Alive: true, Standing: i != 2, Behind: i == 1}
			held := len(h.Record.Live)
			if (h.Err != nil) != (i == 2) || (held == 1) != (i == 0 || i == 3) {
				t.Errorf("%s holds %d values, %v", h.Name, held, h.Err)
			}
			h.Record, h.Err = kv.Record{}, nil
			if fmt.Sprint(h) != fmt.Sprint(want) {
				t.Errorf("%+v, want %+v", h, want)
			}
		}
		if _, err := owners[4].Explain(w.t.Context(), key, 99, 0); err == nil {
			t.Error("n=99 was taken")
		}

		// Under two layouts all owners of both are owners.
		v := w.grown(8)
		for _, n := range w.nodes {
			n.learns(v)
		}
		owners[2].set(trouble{})
		ex, err = owners[4].Explain(w.t.Context(), key, 0, time.Second)
		if err != nil {
			w.t.Fatal(err)
		}
		isOwner := map[kv.NodeID]bool{}
		for _, l := range v.Active() {
			for _, id := range l.Owners(ex.Partition)[:3] {
				isOwner[id] = true
			}
		}
		for _, h := range ex.Holdings {
			if h.Owner != isOwner[h.Node] {
				t.Errorf("%s: owner %v", h.Name, h.Owner)
			}
		}
	})
}
