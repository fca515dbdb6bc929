package reap

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
)

func mustReap(t *testing.T, r *Reaper, want Result) {
	t.Helper()
	got, err := r.Reap(t.Context(), 1)
	if err != nil {
		t.Error(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestReap(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	keys := keysOf(h.view, 1, 5)
	c.hold(1, deleted, keys[0])
	c.hold(1, recordOf(draft{written: ago(time.Hour), expires: ago(time.Hour)}, draft{written: ago(time.Hour), beside: true}), keys[1])
	c.hold(1, rewritten(20, draft{written: ago(time.Hour)}), keys[2])
	c.hold(1, older, keys[3])
	c.hold(0, deleted, keysOf(h.view, 0, 1)[0])
	c.hosts[1].records[kv.Slot{Target: 3, Partition: 1, Key: keys[0]}] = deleted
	delete(c.hosts[2].records, kv.Slot{Partition: 1, Key: keys[0]})

	mustReap(t, r, Result{Rounds: 1, Confirmed: 3, Reaped: 3})
	for _, h := range c.hosts {
		if len(h.records) != 4 || h.number[1] != 1 || h.number[0] != 0 {
			t.Errorf("%v holds %d records under numbers %v", h.id, len(h.records), h.number)
		}
		if got := h.records[kv.Slot{Partition: 1, Key: keys[1]}]; len(got.Live) != 1 || len(got.Clock) != 2 {
			t.Errorf("%v: expired: %+v", h.id, got.Set)
		}
		if got := h.records[kv.Slot{Partition: 1, Key: keys[2]}]; len(got.Live) != 1 || len(got.Clock) != 1 {
			t.Errorf("%v: folded: %+v", h.id, got.Set)
		}
	}
	mustReap(t, r, Result{})
	if want := (Stats{Rounds: 1, Confirmed: 3, Reaped: 3}); !reflect.DeepEqual(r.Stats(), want) {
		t.Errorf("%+v", r.Stats())
	}
}

// What one member has not, or no longer, confirmed stays, and is said to wait.
func TestReapOnlyWhatAllConfirm(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	keys := keysOf(h.view, 1, 3)
	c.hold(1, deleted, keys...)
	for i, other := range slices.DeleteFunc(slices.Clone(c.hosts), func(o *host) bool { return o == h }) {
		other.records[kv.Slot{Partition: 1, Key: keys[i]}] = older
	}
	oldest := ago(48 * time.Hour)
	mustReap(t, r, Result{Rounds: 1, Confirmed: 1, Reaped: 1, Oldest: oldest})
	if c.left() != 6 {
		t.Errorf("%d records are left", c.left())
	}
	c.hold(1, deleted, keys[:2]...)
	mustReap(t, r, Result{Rounds: 1, Confirmed: 2, Reaped: 2})
	if c.left() != 0 || h.number[1] != 2 {
		t.Errorf("%d records are left, number %d", c.left(), h.number[1])
	}
}

// A round that nobody but the reaper could confirm raises no more numbers than
// those of who was asked.
func TestReapStopsWhenNothingIsLeft(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	key := keysOf(h.view, 1, 1)[0]
	c.hold(1, older, key)
	h.records[kv.Slot{Partition: 1, Key: key}] = deleted
	mustReap(t, r, Result{Rounds: 1, Oldest: ago(48 * time.Hour)})
	var numbers uint64
	for _, h := range c.hosts {
		numbers += h.number[1]
	}
	if numbers != 1 {
		t.Errorf("%d numbers were raised", numbers)
	}
}

func TestReapInBatches(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	c.hold(1, deleted, keysOf(h.view, 1, 2*MaxItems+3)...)
	mustReap(t, r, Result{Rounds: 3, Confirmed: 2*MaxItems + 3, Reaped: 2*MaxItems + 3})
	if c.left() != 0 || h.number[1] != 3 {
		t.Errorf("%d records are left, number %d", c.left(), h.number[1])
	}
}

var errLost = errors.New("lost")

// One member that is away stops reaping. Nothing is begun, so that no message
// is refused in vain.
func TestReapWithoutAMember(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	c.hold(1, deleted, keysOf(h.view, 1, 1)...)
	away := h.id%3 + 1
	c.cut[away] = true
	got, err := r.Reap(t.Context(), 1)
	want := Result{Refused: 1, Oldest: ago(48 * time.Hour), Missing: []kv.NodeID{away}}
	if err == nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if c.left() != 3 || h.number[1] != 0 {
		t.Errorf("%d records are left, number %d", c.left(), h.number[1])
	}
	delete(c.cut, away)
	mustReap(t, r, Result{Rounds: 1, Confirmed: 1, Reaped: 1})
}

func TestReapRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		hinder  func(c *cluster, other *host)
		mend    func(c *cluster, other *host)
		missing bool
		number  uint64 // of the reaper, after it is mended
	}{
		{
			"a call is lost",
			func(c *cluster, other *host) {
				c.before = func(to kv.NodeID, what string) error { return lostAt(to == other.id && what == "confirm") }
			},
			func(c *cluster, _ *host) { c.before = func(kv.NodeID, string) error { return nil } }, true, 2,
		},
		{
			"an answer is lost",
			func(c *cluster, other *host) {
				c.after = func(to kv.NodeID, what string) error { return lostAt(to == other.id && what == "confirm") }
			},
			func(c *cluster, _ *host) { c.after = func(kv.NodeID, string) error { return nil } }, true, 2,
		},
		{
			"one is not in good standing",
			func(_ *cluster, other *host) { other.fallen = true }, func(_ *cluster, other *host) { other.fallen = false }, true, 2,
		},
		{
			"one knows another view",
			func(c *cluster, other *host) { other.view = viewOf(c.t, 4, partitions) },
			func(c *cluster, other *host) { other.view = viewOf(c.t, 3, partitions) }, true, 2,
		},
		{
			"numbers grow as fast",
			func(c *cluster, other *host) {
				c.before = func(kv.NodeID, string) error { other.number[1] += 5; return nil }
			},
			func(c *cluster, _ *host) { c.before = func(kv.NodeID, string) error { return nil } }, false, 0,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, 3)
			r, h := c.reaper(1)
			c.hold(1, deleted, keysOf(h.view, 1, 1)...)
			other := c.hosts[h.id%3]
			tt.hinder(c, other)
			got, err := r.Reap(t.Context(), 1)
			if err == nil || got.Confirmed != 0 || c.left() != 3 || got.Oldest.IsZero() || slices.Contains(got.Missing, other.id) != tt.missing {
				t.Errorf("%+v, %v, %d left", got, err, c.left())
			}
			if r.Stats().Refused != 1 {
				t.Errorf("%+v", r.Stats())
			}
			tt.mend(c, other)
			mustReap(t, r, Result{Rounds: 1, Confirmed: 1, Reaped: 1})
			if c.left() != 0 || tt.number != 0 && h.number[1] != tt.number {
				t.Errorf("%d left, number %d", c.left(), h.number[1])
			}
		})
	}
}

func lostAt(here bool) error {
	if here {
		return errLost
	}
	return nil
}

// A number that is ahead, for whatever reason, costs one more attempt.
func TestReapAboveTheHighestNumber(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	c.hold(1, deleted, keysOf(h.view, 1, 1)...)
	c.hosts[h.id%3].number[1] = 41
	mustReap(t, r, Result{Rounds: 2, Confirmed: 1, Reaped: 1})
	if h.number[1] != 42 {
		t.Errorf("number %d", h.number[1])
	}
}

// Whoever does not hear that it may reap keeps what it has, gives it to the
// others, and confirms it in the next round.
func TestApplyLost(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	key := keysOf(h.view, 1, 1)[0]
	c.hold(1, deleted, key)
	c.before = func(to kv.NodeID, what string) error { return lostAt(to != h.id && what == "apply") }
	mustReap(t, r, Result{Rounds: 1, Confirmed: 1, Reaped: 1})
	if c.left() != 2 {
		t.Errorf("%d left", c.left())
	}
	c.before = func(kv.NodeID, string) error { return nil }
	h.records[kv.Slot{Partition: 1, Key: key}] = deleted
	mustReap(t, r, Result{Rounds: 1, Confirmed: 1, Reaped: 1})
	if c.left() != 0 {
		t.Errorf("%d left", c.left())
	}
}

// A reaper that does not hear itself finds its records again.
func TestApplyFailsHere(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	c.hold(1, deleted, keysOf(h.view, 1, 1)...)
	c.before = func(to kv.NodeID, what string) error { return lostAt(to == h.id && what == "apply") }
	if got, err := r.Reap(t.Context(), 1); !errors.Is(err, errLost) || got.Confirmed != 1 || got.Reaped != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	c.before = func(kv.NodeID, string) error { return nil }
	mustReap(t, r, Result{Rounds: 1, Confirmed: 1, Reaped: 1})
}

// A record that cannot be read does not keep the others from being reaped.
func TestReapBesideDamage(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	c.hold(1, deleted, keysOf(h.view, 1, 1)...)
	h.scanning = errDamaged
	if got, err := r.Reap(t.Context(), 1); !errors.Is(err, errDamaged) || got.Reaped != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A partition is looked at again when something changed or became due.
func TestReapLooksWhenItMustLook(t *testing.T) {
	c := newCluster(t, 3)
	r, h := c.reaper(1)
	keys := keysOf(h.view, 1, 2)
	looks := func(want bool) {
		t.Helper()
		before := h.scans
		if _, err := r.Reap(t.Context(), 1); err != nil {
			t.Error(err)
		}
		if got := h.scans > before; got != want {
			t.Errorf("looked: %v, want %v", got, want)
		}
	}
	looks(true)
	looks(false)
	c.hold(1, older, keys[0])
	looks(true)
	c.now = c.now.Add(1000 * time.Hour)
	looks(false)
	c.hold(1, recordOf(draft{deletes: true, written: c.now}), keys[1])
	looks(true)
	c.now = c.now.Add(24*time.Hour - time.Millisecond)
	looks(false)
	c.now = c.now.Add(time.Millisecond)
	looks(true)
	if c.left() != 3 {
		t.Errorf("%d left", c.left())
	}
}

// TestRun: in cycles, each first owner reaps its partitions, and no other.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		r, h := c.reaper(1)
		r.Now, r.Rescan = time.Now, time.Nanosecond
		run := func(d time.Duration) Stats {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			r.Run(ctx)
			c.now = time.Now()
			return r.Stats()
		}
		run(3 * time.Minute)
		tombstone := recordOf(draft{deletes: true, written: c.now.Add(-48 * time.Hour)})
		owned := 0
		for p := range uint16(partitions) {
			c.hold(p, tombstone, keysOf(h.view, p, 1)...)
			if _, first := c.reaper(p); first == h {
				owned++
			}
		}
		away := h.id%3 + 1
		c.cut[away] = true
		s := run(3*time.Minute - time.Second)
		if !s.Oldest.Equal(tombstone.LatestStamp().Time()) || !slices.Equal(s.Missing, []kv.NodeID{away}) ||
			s.Rounds != 0 || s.Refused != uint64(3*owned) {
			t.Errorf("one away: %+v", s)
		}
		delete(c.cut, away)
		s = run(time.Second)
		if !s.Oldest.IsZero() || len(s.Missing) > 0 || s.Reaped != uint64(owned) || c.left() != 3*(partitions-owned) {
			t.Errorf("all there: %+v, %d left", s, c.left())
		}
	})
}

// Steady writes do not make the cycles look at everything each time.
func TestRunLeavesWrittenPartitionsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		r, h := c.reaper(1)
		r.Now = time.Now
		key := keysOf(h.view, 1, 1)[0]
		looks := make([]int, 0, 12)
		for range 12 { // minutes, each ended before a cycle that would begin with the next
			c.hold(1, recordOf(draft{deletes: true, written: time.Now()}), key)
			before := h.scans
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute-time.Millisecond)
			r.Run(ctx)
			cancel()
			looks = append(looks, h.scans-before)
		}
		if want := []int{partitions, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}; !slices.Equal(looks, want) {
			t.Errorf("partitions looked at in each minute: %v, want %v", looks, want)
		}
	})
}

// The looks are paced, so that a large store costs no more than a small one.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		r, h := c.reaper(1)
		r.Rate = 100
		c.hold(1, older, keysOf(h.view, 1, 500)...)
		begun := time.Now()
		if _, err := r.Reap(t.Context(), 1); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		delete(h.records, kv.Slot{Partition: 1, Key: keysOf(h.view, 1, 1)[0]})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Reap(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("out of time: %v", err)
		}
	})
}
