package hints

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
)

// converged reports whether a peer has fetched so many keys as they are here.
func (w *world) converged(id kv.NodeID, keys int) bool {
	defer w.lock()()
	for i := range keys {
		if w.peers[id].holds[key(i)] != w.held(key(i), true) {
			return false
		}
	}
	return true
}

// A target that comes back soon has all that it missed, and nothing is owed.
func TestReplay(t *testing.T) {
	lives(t, func(w *world) {
		w.peer(2, func(p *peer) { p.away = true })
		const keys = 900
		for i := range keys {
			w.miss(2, key(i))
		}
		time.Sleep(10 * time.Second)
		if n := w.sent(); len(n) > 0 {
			t.Errorf("a node that is away was asked: %v", n)
		}
		w.peer(2, func(p *peer) { p.away = false })
		time.Sleep(2 * sweepEvery)
		if !w.converged(2, keys) {
			t.Error("it has not fetched all")
		}
		if o := w.owed(2); o != (Owed{Target: 2}) || len(w.entries(2)) > 0 {
			t.Errorf("%+v is still owed", o)
		}
		if s := w.replay.Stats(); s.Replayed != keys || s.Failed > 0 {
			t.Errorf("%+v", s)
		}
		for i, n := range w.sent() {
			if limit := []int{firstRoom, mostRoom}[min(i, 1)]; n.to != 2 || n.standIn || n.keys > limit {
				t.Errorf("nudge %d: %+v", i, n)
			}
		}
	})
}

// The target says how much it takes, and when it takes nothing.
func TestReplayIsPaced(t *testing.T) {
	for name, busy := range map[string]func(p *peer){
		"by its answer":  func(p *peer) { p.pause = time.Second },
		"by its refusal": func(p *peer) { p.err = &kv.Error{Code: kv.CodeOverloaded, RetryAfter: time.Second} },
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(w *world) {
				w.peer(2, func(p *peer) { p.away, p.room = true, 10 })
				for i := range 200 {
					w.miss(2, key(i))
				}
				time.Sleep(time.Second)
				w.peer(2, func(p *peer) { p.away = false; busy(p) })
				time.Sleep(10 * time.Second)
				if n := len(w.sent()); n < 9 || n > 11 {
					t.Errorf("a busy node was asked %d times in 10 s", n)
				}
				w.peer(2, func(p *peer) { p.pause, p.err = 0, nil })
				time.Sleep(1100 * time.Millisecond)
				if n := len(w.sent()); n != 1+(200-firstRoom+9)/10 || !w.converged(2, 200) {
					t.Errorf("%d nudges for 200 keys", n)
				}
				if f := w.replay.Stats().Failed; f > 0 {
					t.Errorf("%d turns count as failed", f)
				}
			})
		})
	}
}

// A write that is missed while its key is being fetched stays owed, however the
// moments fall.
func TestMissedMeanwhile(t *testing.T) {
	lives(t, func(w *world) {
		w.slowDisk(3 * time.Millisecond)
		w.peer(2, func(p *peer) { p.away = true })
		for i := range 5 {
			w.miss(2, key(i))
		}
		var again atomic.Int64
		again.Store(40)
		w.peer(2, func(p *peer) {
			p.away, p.slow = false, time.Millisecond
			p.onPull = func(k kv.Key) {
				if left := again.Add(-1); left > 0 {
					time.AfterFunc(time.Duration(left)*time.Millisecond/2, func() { w.miss(2, k) })
				}
			}
		})
		time.Sleep(20 * time.Second)
		if again.Load() > 0 || !w.converged(2, 5) || w.owed(2).Missed.Count > 0 {
			t.Errorf("%d to come, %+v", again.Load(), w.owed(2))
		}
	})
}

// Between two replays, however the last one ended, a key that is missed again is
// not written again.
func TestMissedBetween(t *testing.T) {
	for name, last := range map[string]struct {
		is   func(p *peer)
		away bool // afterwards
	}{
		"failed":           {func(p *peer) { p.err = errors.New("disk") }, false},
		"left keys behind": {func(p *peer) { p.refuse = func(kv.Key) bool { return true } }, false},
		"was cut short":    {func(p *peer) { p.pause = time.Minute }, true},
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(w *world) {
				w.peer(2, func(p *peer) { p.away = true })
				w.miss(2, key(1))
				time.Sleep(5 * time.Second)
				w.peer(2, func(p *peer) { p.away = false; last.is(p) })
				time.Sleep(5 * time.Second)
				w.peer(2, func(p *peer) { p.away = last.away })
				time.Sleep(2 * time.Minute)
				w.written()
				w.miss(2, key(1))
				time.Sleep(2 * flushEvery)
				if n := w.written(); n > 0 || len(w.sent()) == 0 || w.owed(2).Missed.Count != 1 {
					t.Errorf("%d entries were written, %+v", n, w.owed(2))
				}
			})
		})
	}
}

// Targets do not wait for one another, and one that fails is left alone for
// longer and longer.
func TestTargetsAreIndependent(t *testing.T) {
	lives(t, func(w *world) {
		w.peer(2, func(p *peer) { p.slow = time.Minute })
		w.peer(3, func(p *peer) { p.err = errors.New("not registered") })
		for _, id := range []kv.NodeID{2, 3} {
			for i := range 10 {
				w.miss(id, key(i))
			}
		}
		time.Sleep(3 * time.Second)
		w.peer(3, func(p *peer) { p.err = nil })
		time.Sleep(3 * time.Second)
		if !w.converged(3, 10) {
			t.Error("a node waits for another that is slow")
		}
		w.peer(3, func(p *peer) { p.err = errors.New("disk") })
		for i := range 10 {
			w.miss(3, key(i))
		}
		w.sent()
		time.Sleep(3 * time.Minute)
		if n := len(w.sent()); n < 10 || n > 40 {
			t.Errorf("%d nudges of failing nodes in 3 minutes", n)
		}
	})
}

// Keys that a target cannot take do not keep it from the others, and are tried
// again now and then.
func TestKeysThatStay(t *testing.T) {
	lives(t, func(w *world) {
		bad := func(k kv.Key) bool { return len(k.Name) == 2 } // k0 to k9
		w.peer(2, func(p *peer) { p.away, p.refuse, p.room = true, bad, 7 })
		const keys = 500
		for i := range keys {
			w.miss(2, key(i))
		}
		time.Sleep(time.Second)
		w.peer(2, func(p *peer) { p.away = false })
		time.Sleep(5 * time.Second)
		if o := w.owed(2); o.Missed.Count != 10 || w.converged(2, 10) {
			t.Errorf("%+v is owed", o)
		}
		w.sent()
		time.Sleep(10 * time.Minute)
		if n := len(w.sent()); n < 20 || n > 200 {
			t.Errorf("keys that stay were tried %d times in 10 minutes", n)
		}
		w.peer(2, func(p *peer) { p.refuse = nil })
		time.Sleep(time.Minute)
		if !w.converged(2, keys) || w.owed(2).Missed.Count > 0 {
			t.Errorf("%+v is owed", w.owed(2))
		}
	})
}

// More than fits a page.
func TestPages(t *testing.T) {
	lives(t, func(w *world) {
		w.limits(1<<30, 1<<30)
		w.peer(2, func(p *peer) { p.away = true; p.refuse = func(k kv.Key) bool { return k.Hash()%100 == 0 } })
		const keys = 2*pageLen + 10
		for i := range keys {
			w.miss(2, key(i))
			if i%1000 == 0 {
				time.Sleep(flushEvery)
			}
		}
		time.Sleep(time.Second)
		w.scanned()
		w.peer(2, func(p *peer) { p.away = false })
		time.Sleep(2 * time.Second)
		if o := w.owed(2); o.Missed.Count == 0 || o.Missed.Count > keys/50 || o.Dropped > 0 {
			t.Errorf("%+v", o)
		}
		if n := w.scanned(); n > 10 {
			t.Errorf("%d scans", n)
		}
	})
}

// What is owed is known to a new life of the node, and of the target.
func TestReplayAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.start()
		w.peer(2, func(p *peer) { p.away = true })
		for i := range 100 {
			w.miss(2, key(i))
		}
		w.write(2, key(100))
		stop()
		stop = w.start()
		time.Sleep(6 * time.Second)
		if o := w.owed(2); o.Missed.Count != 100 || !o.Missed.Oldest.Equal(epoch) || o.Copies.Count != 1 {
			t.Errorf("%+v", o)
		}
		w.peer(2, func(p *peer) { p.away, p.slow = false, 100*time.Millisecond })
		time.Sleep(sweepEvery)
		stop() // in the middle of it
		stop = w.start()
		time.Sleep(10 * time.Second)
		if !w.converged(2, 100) || len(w.fetched(2)) != 101 || w.owed(2) != (Owed{Target: 2}) {
			t.Errorf("%+v", w.owed(2))
		}
		stop()
	})
}

// Writes missed by a node that owns their keys no longer go to the present
// owners, also if it is away; what this node has nothing of is forgotten.
func TestRedirected(t *testing.T) {
	for _, away := range []bool{true, false} {
		lives(t, func(w *world) {
			w.peer(3, func(p *peer) { p.away = true })
			for i := range 20 {
				w.miss(3, key(i))
			}
			w.log.Missed(3, partition(key(20)), key(20)) // nobody has it here
			time.Sleep(time.Second)
			w.moved(1, 2, 4, 5)
			w.peer(3, func(p *peer) { p.away = away })
			time.Sleep(5 * time.Second)
			for _, id := range []kv.NodeID{2, 4} {
				if !w.converged(id, 20) {
					t.Errorf("away %v: node %d has not fetched all", away, id)
				}
			}
			if w.converged(5, 1) || len(w.fetched(3)) > 0 {
				t.Error("a node that owns nothing was asked")
			}
			if s := w.replay.Stats(); len(s.Owed) > 0 || s.Redirected != 21 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A target on the wide list that does not own the key is told by the record.
func TestRedirectedBeyondN(t *testing.T) {
	lives(t, func(w *world) {
		w.peer(4, func(p *peer) { p.refuse = func(kv.Key) bool { return true } })
		w.moved(1, 2, 3, 4)
		w.miss(4, key(0))
		time.Sleep(5 * time.Second)
		if !w.converged(2, 1) || !w.converged(3, 1) || len(w.replay.Stats().Owed) > 0 {
			t.Errorf("%+v", w.replay.Stats())
		}
	})
}

// A copy goes once its owner holds it, and no earlier.
func TestCopies(t *testing.T) {
	lives(t, func(w *world) {
		w.peer(2, func(p *peer) { p.away = true })
		for i := range 100 {
			w.write(2, key(i))
		}
		time.Sleep(10 * time.Second)
		if o := w.owed(2); o.Copies.Count != 100 || o.Copies.Bytes < 100*entryOverhead || len(w.sent()) > 0 {
			t.Errorf("%+v", o)
		}
		w.peer(2, func(p *peer) { p.away = false; p.refuse = func(k kv.Key) bool { return k == key(7) } })
		time.Sleep(2 * copiesEvery)
		if o := w.owed(2); o.Copies.Count != 1 || w.copies() != 1 {
			t.Errorf("%+v, %d copies", o, w.copies())
		}
		w.peer(2, func(p *peer) { p.refuse = nil })
		time.Sleep(time.Minute)
		if len(w.fetched(2)) != 100 || w.copies() > 0 || len(w.replay.Stats().Owed) > 0 {
			t.Errorf("%+v, %d copies", w.replay.Stats(), w.copies())
		}
		for _, n := range w.sent() {
			if !n.standIn {
				t.Error("the copies were not asked for")
			}
		}
	})
}

// A copy that changed while it was handed over stays until that is handed over,
// too.
func TestCopyThatChanges(t *testing.T) {
	lives(t, func(w *world) {
		w.write(2, key(0))
		changes := 5
		w.peer(2, func(p *peer) {
			p.slow = 10 * time.Millisecond
			p.onPull = func(k kv.Key) {
				if changes--; changes >= 0 {
					time.AfterFunc(0, func() { w.write(2, k) })
				}
			}
		})
		w.slowDisk(time.Millisecond)
		var last uint64
		for range 600 {
			if w.copies() > 0 {
				unlock := w.lock()
				last = w.held(key(0), true)
				unlock()
			}
			time.Sleep(100 * time.Millisecond)
		}
		if w.copies() > 0 || w.fetched(2)[key(0)] != last {
			t.Error("it was dropped before it was held")
		}
	})
}

// Copies for a node that owns their keys no longer go to all present owners, and
// stay until all hold them; this node may be one.
func TestCopiesRedirected(t *testing.T) {
	for _, away := range []bool{true, false} {
		lives(t, func(w *world) {
			w.peer(3, func(p *peer) { p.away = true })
			for i := range 20 {
				w.write(3, key(i))
			}
			w.peer(4, func(p *peer) { p.away = true })
			time.Sleep(time.Second)
			w.moved(1, 2, 4, 5)
			w.peer(3, func(p *peer) { p.away = away })
			time.Sleep(time.Minute)
			if w.copies() != 20 {
				t.Errorf("away %v: %d copies are left while an owner lacks them", away, w.copies())
			}
			want := w.fetched(2)[key(3)]
			w.peer(4, func(p *peer) { p.away = false })
			time.Sleep(2 * routeEvery)
			if w.copies() > 0 || len(w.replay.Stats().Owed) > 0 {
				t.Errorf("away %v: %+v, %d copies", away, w.replay.Stats(), w.copies())
			}
			for _, id := range []kv.NodeID{self, 2, 4} {
				if got := w.fetched(id); len(got) != 20 || got[key(3)] != want {
					t.Errorf("node %d has %d", id, len(got))
				}
			}
		})
	}
}

// Whatever the faults, once they end all is handed over; and one seed is one
// history.
func TestReplayModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ops := rapid.SliceOfN(rapid.IntRange(0, 999), 1, 80).Draw(rt, "ops")
		run := func() (nudges []nudge) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.slowDisk(time.Millisecond)
				stop := w.start()
				synctest.Wait()
				for _, op := range ops {
					target, k := kv.NodeID(2+op%2), key(op/2%10)
					switch op / 100 {
					case 0, 1, 2:
						w.miss(target, k)
					case 3:
						w.write(target, k)
					case 4:
						w.peer(target, func(p *peer) { p.away = !p.away })
					case 5:
						w.peer(target, func(p *peer) { p.pause = time.Duration(op%3) * time.Second })
					case 6:
						w.peer(target, func(p *peer) { p.refuse = func(other kv.Key) bool { return other == k } })
					case 7:
						w.peer(target, func(p *peer) { p.room, p.slow = op%5, time.Duration(op%7)*time.Millisecond })
					case 8:
						time.Sleep(time.Duration(op) * time.Millisecond)
					default:
						stop()
						stop = w.start()
					}
					synctest.Wait() // else it is chance what the next one meets
				}
				for id := kv.NodeID(2); id < 4; id++ {
					w.peer(id, func(p *peer) { p.away, p.pause, p.refuse = false, 0, nil })
				}
				time.Sleep(2 * time.Minute)
				left := len(w.entries(2)) + len(w.entries(3)) + w.copies()
				if s := w.replay.Stats(); len(s.Owed) > 0 || left > 0 {
					rt.Errorf("%+v, %d in the store", s, left)
				}
				stop()
				nudges = w.sent()
			})
			return nudges
		}
		if first, second := run(), run(); !slices.Equal(first, second) {
			rt.Errorf("two runs differ:\n%v\n%v", first, second)
		}
	})
}
