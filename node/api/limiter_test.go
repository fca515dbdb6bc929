package api

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// The bound stays within its own bounds, goes down only under strain and up only
// without, and only where it is in the way.
func TestLimiterBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLimiter(rapid.IntRange(1, 2000).Draw(t, "most"), nil)
		limit := rapid.IntRange(l.least, l.most).Draw(t, "limit")
		used := rapid.IntRange(0, limit).Draw(t, "used")
		late := time.Duration(rapid.Int64Range(0, int64(4*lateLimit)).Draw(t, "late"))
		next := l.next(limit, used, late)
		switch {
		case next < l.least || next > l.most:
			t.Fatalf("%d is not within %d and %d", next, l.least, l.most)
		case late > lateLimit && next > limit, late <= lateLimit && next < limit:
			t.Fatalf("from %d to %d when timers are %v late", limit, next, late)
		case next > limit && used < limit/2:
			t.Fatalf("from %d to %d while %d are under way", limit, next, used)
		}
	})
}

// A machine on which timers are as late as there are requests under way settles
// where they are as late as they may be, comes down to it fast, and goes back up.
func TestLimiterFollowsTheStrain(t *testing.T) {
	var perRequest time.Duration
	var l *limiter
	l = newLimiter(1024, func() time.Duration { return time.Duration(l.used) * perRequest })
	now := time.Now()
	flood := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(adjustEvery) {
			for l.underWay() > l.bound() {
				l.give()
			}
			for !l.tight(now) {
				l.join(now)
			}
		}
	}
	perRequest = lateLimit / 200
	flood(time.Second)
	for range 100 {
		flood(100 * time.Millisecond)
		if n := l.bound(); n < 150 || n > 250 {
			t.Fatalf("%d requests are let in where the machine keeps up with 200", n)
		}
	}
	perRequest = 0
	flood(3 * time.Second)
	if n := l.bound(); n != 1024 {
		t.Errorf("%d requests are let in by a machine that keeps up", n)
	}
	perRequest = time.Second
	flood(time.Second)
	if n := l.bound(); n != fewRequests {
		t.Errorf("%d requests are let in by a machine that others keep busy", n)
	}
}

// Beyond the bound, as many again wait, in the order in which they came and no
// longer than a moment; whoever comes then is refused at once.
func TestLimiterLetsACrowdPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 3
		l := newLimiter(bound, nil)
		for range bound {
			if !l.take(time.Now()) {
				t.Fatal("there was no room")
			}
		}
		var order []int
		var refused atomic.Int64
		for i := range bound {
			go func() {
				if !l.take(time.Now()) {
					refused.Add(1)
					return
				}
				order = append(order, i) // one at a time is let in, and waited for
			}()
			synctest.Wait()
		}
		if !l.full(time.Now()) || l.take(time.Now()) {
			t.Error("more were let in to wait than there is room for")
		}
		for range bound - 1 {
			l.give()
			synctest.Wait()
		}
		time.Sleep(roomWait)
		synctest.Wait()
		if !slices.Equal(order, []int{0, 1}) || refused.Load() != 1 || l.underWay() != bound {
			t.Errorf("%v were let in, %d refused, %d are under way", order, refused.Load(), l.underWay())
		}
		for range bound {
			l.give()
		}
		if l.full(time.Now()) || l.underWay() != 0 || !l.take(time.Now()) {
			t.Error("room was lost")
		}
	})
}

// However many come and go, no more are under way than there is room for, and
// no room is lost.
func TestLimiterUnderCrowds(t *testing.T) {
	l := newLimiter(4, nil)
	var inside, done, refused atomic.Int64
	var crowd sync.WaitGroup
	for range 32 {
		crowd.Go(func() {
			for range 200 {
				if !l.take(time.Now()) {
					refused.Add(1)
					continue
				}
				if n := inside.Add(1); n > 4 {
					t.Errorf("%d are under way", n)
				}
				runtime.Gosched()
				inside.Add(-1)
				l.give()
				done.Add(1)
			}
		})
	}
	crowd.Wait()
	if l.underWay() != 0 || len(l.waiting) != 0 || done.Load() == 0 || done.Load()+refused.Load() != 32*200 {
		t.Errorf("%d are under way, %d wait, %d done, %d refused", l.underWay(), len(l.waiting), done.Load(), refused.Load())
	}
}

func TestPacer(t *testing.T) {
	var p pacer
	now := time.Now()
	for i := range refusalBurst + 1 {
		if d := p.wait(now); d > 0 {
			t.Fatalf("refusal %d of a burst waits %v", i, d)
		}
	}
	for i := 1; i <= 10; i++ {
		if d := p.wait(now); d != time.Duration(i)*refusalEvery {
			t.Fatalf("refusal %d after the burst waits %v", i, d)
		}
	}
	for range 10_000 {
		if d := p.wait(now); d > longestRefusal {
			t.Fatalf("a refusal waits %v", d)
		}
	}
	if d := p.wait(now); d != longestRefusal {
		t.Errorf("among ten thousand a refusal waits %v", d)
	}
	if d := p.wait(now.Add(longestRefusal + refusalBurst*refusalEvery)); d > 0 {
		t.Errorf("after a pause a refusal waits %v", d)
	}
	// Those that come at the pace of refusals need not wait.
	for i := range 1000 {
		if d := p.wait(now.Add(time.Hour + time.Duration(i)*refusalEvery)); d > 0 {
			t.Fatalf("refusal %d at the pace waits %v", i, d)
		}
	}
}
