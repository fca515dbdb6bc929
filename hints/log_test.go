package hints

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
)

// What was missed is in the store soon, once for each key and target, and with
// the time of the first. It is written again only while a replay may remove it.
func TestLogKeeps(t *testing.T) {
	lives(t, func(w *world) {
		w.peer(2, func(p *peer) { p.away = true })
		w.peer(3, func(p *peer) { p.away = true })
		begun := time.Now()
		for range 3 {
			w.miss(2, key(1))
			w.miss(3, key(1))
			w.miss(2, key(2))
			time.Sleep(2 * flushEvery)
		}
		if n := w.written(); n != 3 {
			t.Errorf("%d entries were written", n)
		}
		w.log.replaying(2)
		w.miss(2, key(1))
		time.Sleep(2 * flushEvery)
		w.log.rests(2)
		if n := w.written(); n != 1 {
			t.Errorf("%d entries were written under a replay", n)
		}
		if got := w.entries(2); len(got) != 2 || !got[0].Since.Equal(begun) || !got[1].Since.Equal(begun) {
			t.Errorf("the store has %+v", got)
		}
		if o := w.owed(2); o.Missed != (Amount{Count: 2, Bytes: size(key(1)) + size(key(2)), Oldest: begun}) || o.Dropped != 0 {
			t.Errorf("owed %+v", o)
		}
	})
}

// Many entries do not wait for the tick, nor does the end.
func TestLogFlushes(t *testing.T) {
	lives(t, func(w *world) {
		w.peer(2, func(p *peer) { p.away = true })
		synctest.Wait()
		for i := range flushLen + 1 {
			w.miss(2, key(i))
		}
		synctest.Wait()
		if n := len(w.entries(2)); n < flushLen {
			t.Errorf("%d entries are stored at once", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.peer(2, func(p *peer) { p.away = true })
		stop := w.start()
		w.miss(2, key(1))
		stop()
		if n := len(w.entries(2)); n != 1 {
			t.Errorf("%d entries at the end", n)
		}
	})
}

// While the store takes nothing, entries wait; once there are too many, the
// newest are dropped, and their partitions marked. The caller never waits.
func TestLogWithoutStore(t *testing.T) {
	for _, refusal := range []bool{true, false} {
		lives(t, func(w *world) {
			w.peer(2, func(p *peer) { p.away = true })
			w.limits(1<<30, 1<<30)
			w.mu.Lock()
			if refusal {
				w.busy = errors.New("busy")
			} else {
				w.failed = errors.New("the disk is full")
			}
			w.mu.Unlock()
			begun := time.Now()
			for i := range queueLen + 3 {
				w.miss(2, key(i))
			}
			if took := time.Since(begun); took > 0 {
				t.Errorf("took %v", took)
			}
			time.Sleep(time.Second)
			if o := w.owed(2); o.Dropped < 1 || o.Dropped > 3 || o.Missed.Count > 0 || len(w.marked()) == 0 {
				t.Errorf("%+v", o)
			}
			w.mu.Lock()
			w.busy, w.failed = nil, nil
			w.mu.Unlock()
			time.Sleep(time.Second)
			if n := len(w.entries(2)); n < queueLen || n != w.owed(2).Missed.Count {
				t.Errorf("%d stored later, %+v", n, w.owed(2))
			}
			w.log.mu.Lock()
			defer w.log.mu.Unlock()
			if w.log.growth.total != 0 {
				t.Errorf("%d bytes are thought to be on their way", w.log.growth.total)
			}
		})
	}
}

// At a limit hints are dropped, counted, and their partitions marked once a
// round; room comes back as they are replayed.
func TestLogLimits(t *testing.T) {
	lives(t, func(w *world) {
		for _, id := range []kv.NodeID{2, 3, 4} {
			w.peer(id, func(p *peer) { p.away = true })
		}
		time.Sleep(flushEvery / 2)
		each := size(key(100))
		fill := func(target kv.NodeID, n int) {
			for i := range n {
				w.miss(target, key(100+i))
			}
			time.Sleep(2 * flushEvery) // and so, again, to between two flushes
		}
		most := int(w.log.cfg.TargetBytes / each)
		fill(2, 900)
		fill(2, 900) // the same
		if o := w.owed(2); o.Missed.Count != 900 || o.Dropped != 0 {
			t.Errorf("coalescing: %+v", o)
		}
		fill(2, most+1)
		if o := w.owed(2); o.Missed.Count > most || o.Missed.Count < most-20 || o.Dropped != uint64(most+1-o.Missed.Count) {
			t.Errorf("%+v of at most %d", o, most)
		}
		w.marked()
		fill(3, most)
		o := w.owed(3)
		if rest := int((w.log.cfg.TotalBytes - w.owed(2).Missed.Bytes) / each); o.Missed.Count > rest || o.Missed.Count < rest-20 {
			t.Errorf("%+v, want about %d", o, rest)
		}
		if marks := w.marked(); len(marks) == 0 || len(marks) > 4 ||
			!slices.IsSortedFunc(marks, func(a, b mark) int { return int(a.partition) - int(b.partition) }) {
			t.Errorf("marked %v", marks)
		}
		before := o.Dropped
		w.peer(2, func(p *peer) { p.away = false })
		time.Sleep(5 * time.Second)
		fill(3, most)
		if o := w.owed(3); o.Dropped != before && o.Missed.Count <= 600 {
			t.Errorf("there was no room again: %+v", o)
		}
		if o := w.owed(2); o.Missed.Count > 0 {
			t.Errorf("%+v is still owed", o)
		}
	})
}

// The log against a model that is a set: what the store holds is what was
// missed, but for what was dropped and what was removed, and the counts are
// exact. A crash forgets at most what was not flushed.
func TestLogModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ops := rapid.SliceOfN(rapid.IntRange(0, 99), 1, 60).Draw(rt, "ops")
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for _, p := range w.peers {
				p.away = true
			}
			w.moved(1, 2, 3, 4)
			stop := w.start()
			model := make(map[debtor]bool)
			for _, op := range ops {
				target, k := kv.NodeID(2+op%3), key(op/3%7)
				switch {
				case op < 60:
					w.miss(target, k)
					model[debtor{target, k}] = true
				case op < 70:
					time.Sleep(flushEvery * 2)
				case op < 85:
					time.Sleep(flushEvery * 2)
					w.log.replaying(target)
					if err := w.log.settle(nil, w.entries(target)); err != nil {
						rt.Fatal(err)
					}
					w.log.rests(target)
					for i := range 7 {
						delete(model, debtor{target, key(i)})
					}
				case op < 90: // an entry of which more was missed since is not removed
					time.Sleep(flushEvery * 2)
					w.log.replaying(target)
					seen := w.entries(target)
					w.miss(target, k)
					model[debtor{target, k}] = true
					time.Sleep(flushEvery * 2)
					if err := w.log.settle(nil, seen); err != nil {
						rt.Fatal(err)
					}
					w.log.rests(target)
					for _, m := range seen {
						if m.Key != k {
							delete(model, debtor{target, m.Key})
						}
					}
				default:
					stop()
					stop = w.start()
				}
			}
			time.Sleep(flushEvery * 2)
			for target := kv.NodeID(2); target < 5; target++ {
				entries := w.entries(target)
				var want Amount
				for _, m := range entries {
					want.add(size(m.Key), m.Since)
					if !model[debtor{target, m.Key}] {
						rt.Errorf("%v of %v is in the store", m.Key, target)
					}
					delete(model, debtor{target, m.Key})
				}
				got := w.owed(target).Missed
				if got.Count != want.Count || got.Bytes != want.Bytes || got.Oldest.After(want.Oldest) {
					rt.Errorf("owed to %v: %+v, in the store %+v", target, got, want)
				}
			}
			if len(model) > 0 {
				rt.Errorf("not in the store: %v", model)
			}
			stop()
		})
	})
}
