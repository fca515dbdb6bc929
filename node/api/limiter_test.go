package api

import (
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The bound stays within its own bounds, goes down only under strain and up only
// without, and only where it is in the way.
func TestLimiterBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLimiter(rapid.IntRange(1, 2000).Draw(t, "most"), nil)
		limit := rapid.Int64Range(l.least, l.most).Draw(t, "limit")
		used := rapid.Int64Range(0, limit).Draw(t, "used")
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
	var perRequest atomic.Int64
	var l *limiter
	l = newLimiter(1024, func() time.Duration { return time.Duration(l.used.Load() * perRequest.Load()) })
	now := l.began
	flood := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(adjustEvery) {
			for l.used.Load() > l.limit.Load() {
				l.give()
			}
			for l.take(now) { // as many as are let in
			}
		}
	}
	perRequest.Store(int64(lateLimit) / 200)
	flood(time.Second)
	for range 100 {
		flood(100 * time.Millisecond)
		if n := l.limit.Load(); n < 150 || n > 250 {
			t.Fatalf("%d requests are let in where the machine keeps up with 200", n)
		}
	}
	perRequest.Store(0)
	flood(3 * time.Second)
	if n := l.limit.Load(); n != 1024 {
		t.Errorf("%d requests are let in by a machine that keeps up", n)
	}
	perRequest.Store(int64(time.Second))
	flood(time.Second)
	if n := l.limit.Load(); n != fewRequests {
		t.Errorf("%d requests are let in by a machine that others keep busy", n)
	}
}

func TestLimiterWithoutStrain(t *testing.T) {
	l := newLimiter(2, nil)
	now := l.began.Add(time.Hour)
	if !l.take(now) || l.full(now) || !l.take(now) || !l.full(now) || l.take(now) {
		t.Error("not two were let in")
	}
	l.give()
	if l.full(now) || !l.take(now) {
		t.Error("room was lost")
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
