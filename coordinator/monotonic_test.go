package coordinator

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
)

func TestNeeds(t *testing.T) {
	for _, c := range []struct{ r, n, plain, monotonic int }{
		{1, 1, 1, 1}, {1, 3, 1, 3}, {2, 3, 2, 2}, {3, 3, 3, 3}, {2, 4, 2, 3}, {3, 5, 3, 3}, {1, 5, 1, 5},
	} {
		g := Get{Options: Options{N: c.n, R: Exactly(c.r)}}
		if got := g.needs(); got != c.plain {
			t.Errorf("r=%d n=%d needs %d", c.r, c.n, got)
		}
		g.Monotonic = true
		if got := g.needs(); got != c.monotonic {
			t.Errorf("monotonic r=%d n=%d needs %d, want %d", c.r, c.n, got, c.monotonic)
		}
		if most := c.n - c.r; c.monotonic <= most {
			t.Errorf("a read of %d of %d may miss all %d holders", c.r, c.n, c.monotonic)
		}
	}
}

// only writes s to one owner alone.
func (w *world) only(o *node, s string) {
	owners := w.owners(key)
	for _, other := range owners[:3] {
		if other != o {
			other.set(trouble{refused: true})
		}
	}
	o.put(text(s).with(Options{W: One}))
	synctest.Wait()
	for _, other := range owners[:3] {
		other.set(trouble{})
	}
}

func monotonic(r Count) Get { return Get{Options: Options{R: r}, Monotonic: true} }

// What a monotonic read returns is on so many owners that no later read can miss
// it, whatever fails.
func TestMonotonic(t *testing.T) {
	big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
	for _, r := range []Count{One, Quorum, All} {
		for _, s := range []string{"v", big} {
			for holder := range 3 {
				lives(t, 5, func(w *world) {
					owners := w.owners(key)
					w.only(owners[holder], s)
					seen := len(owners[4].read(monotonic(r)).Values) > 0
					for down := range 4 {
						if down < 3 && r != All {
							owners[down].set(trouble{refused: true})
						}
						later := len(owners[4].read(Get{Options: Options{R: r}}).Values) > 0
						if seen && !later {
							t.Errorf("r=%v, held by %d, without owner %d: seen, and not seen later", r, holder, down)
						}
						if down < 3 {
							owners[down].set(trouble{})
						}
					}
				})
			}
		}
	}
}

// An owner that cannot store what was found is replaced by another; if none is
// left, the read says why it waited, and for whom.
func TestMonotonicUnheld(t *testing.T) {
	full := trouble{door: &kv.Error{Code: kv.CodeDiskFull, Outcome: kv.NotApplied, Message: "no space"}}
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		w.only(owners[0], "v")
		owners[1].set(full)
		w.same("values", texts(owners[0].read(monotonic(Quorum))), values("v"))
		w.same("values", texts(owners[2].read(Get{Options: Options{R: One}})), values("v"))

		w.only(owners[0], "w")
		owners[1].set(full)
		owners[2].set(full)
		begun := time.Now()
		e := owners[0].getError(monotonic(Quorum))
		w.told(e, kv.CodeStale, "", "1 of 2", "no space", owners[1].name(), "r=2")
		if took := time.Since(begun); took < time.Second || took > 2*time.Second {
			t.Errorf("gave up after %v", took)
		}
		w.same("acked", e.Acked, names3(owners[0]))
	})
}

// Too few owners to hold it, too few to be asked.
func TestMonotonicUnreached(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("v").with(Options{W: All}))
		owners[2].set(trouble{refused: true})
		w.told(owners[0].getError(monotonic(One)), kv.CodeQuorumUnreached, "", "monotonic=true", "r=2")
		w.same("values", texts(owners[0].read(monotonic(Quorum))), values("v"))
		owners[2].set(trouble{recovering: true})
		w.told(owners[0].getError(monotonic(One)), kv.CodeQuorumUnreached, "", "good standing", "r=2")
	})
}

// A key has no more owners than it was ever written with.
func TestMonotonicWider(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("v").with(Options{N: 2, W: All}))
		wide := monotonic(One)
		wide.N = 3
		begun := time.Now()
		w.told(owners[0].getError(wide), kv.CodeStale, "", "kept by 2", "needs 3", "n=2")
		if took := time.Since(begun); took > time.Second {
			t.Errorf("said so after %v", took)
		}
		wide.R = Quorum
		w.same("values", texts(owners[0].read(wide)), values("v"))
	})
}

// An owner that heard of a round of reaping takes the merge once it was read
// after that round.
func TestMonotonicAfterReap(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		w.only(owners[0], "v")
		owners[1].raise(7)
		owners[2].raise(7)
		w.same("values", texts(owners[0].read(monotonic(Quorum))), values("v"))
		if n := owners[0].number(); n != 7 {
			t.Errorf("the holder knows of %d rounds", n)
		}
	})
}

// While layouts change, it is held in each.
func TestMonotonicInAllLayouts(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		w.only(owners[0], "v")
		v := w.grown(8)
		for _, n := range w.nodes {
			n.learns(v)
		}
		w.nodes[0].read(monotonic(Quorum))
		p, err := newPlan(v, key, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range p.groups {
			held := 0
			for _, id := range g {
				if !w.node(id).holds(key).Absent() {
					held++
				}
			}
			if held < 2 {
				t.Errorf("%d of %v hold it", held, g)
			}
		}
	})
}
