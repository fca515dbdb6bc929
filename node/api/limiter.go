package api

import (
	"sync"
	"sync/atomic"
	"time"
)

// A limiter bounds how many requests on keys are under way at once: by most while
// the machine keeps up, and otherwise by what it was seen to keep up with, but
// never by less than least. The bound is raised little by little and lowered in
// proportion (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for
// Congestion Avoidance", 1989). It is safe for concurrent use.
type limiter struct {
	most, least int64
	late        func() time.Duration // how late timers are; nil: never
	began       time.Time

	used     atomic.Int64
	limit    atomic.Int64
	adjusted atomic.Int64 // nanoseconds since began
}

const (
	// lateLimit is how late timers may be, on average, of a machine that keeps up.
	// Each time that a request changes hands it waits about as long, and it does
	// some ten times.
	lateLimit = 2 * time.Millisecond
	// fewRequests are let in however strained the machine is: others may be the
	// cause, and this node should have its share.
	fewRequests = 64
	// adjustEvery is the least time between two changes of the bound.
	adjustEvery = 10 * time.Millisecond
)

func newLimiter(most int, late func() time.Duration) *limiter {
	l := &limiter{most: int64(most), least: min(int64(most), fewRequests), late: late, began: time.Now()}
	l.limit.Store(l.most)
	return l
}

// take reports whether one more request is let in, and counts it if so.
func (l *limiter) take(now time.Time) bool {
	l.adjust(now)
	if l.used.Add(1) > l.limit.Load() {
		l.used.Add(-1)
		return false
	}
	return true
}

// give counts a request out.
func (l *limiter) give() { l.used.Add(-1) }

// full reports whether no request would be let in.
func (l *limiter) full(now time.Time) bool {
	l.adjust(now)
	return l.used.Load() >= l.limit.Load()
}

// adjust has the bound follow the strain, now and then.
func (l *limiter) adjust(now time.Time) {
	if l.late == nil {
		return
	}
	at, before := int64(now.Sub(l.began)), l.adjusted.Load()
	if at-before < int64(adjustEvery) || !l.adjusted.CompareAndSwap(before, at) {
		return
	}
	l.limit.Store(l.next(l.limit.Load(), l.used.Load(), l.late()))
}

// next is the bound after one of limit, under which so many requests are under
// way and timers are so late. It is raised only where it is in the way.
func (l *limiter) next(limit, used int64, late time.Duration) int64 {
	switch {
	case late > lateLimit:
		return max(l.least, min(limit, used)/16*15)
	case used >= limit/4*3:
		return min(l.most, limit+limit/64+1)
	}
	return limit
}

// A pacer makes refusals wait while they are many: clients that ask again at once,
// whatever they are told, would otherwise keep the machine busy with refusing.
// It is safe for concurrent use.
type pacer struct {
	mu   sync.Mutex
	next time.Time // when the next refusal is due
}

const (
	// refusalEvery is the time between two refusals that take turns, after
	// refusalBurst of them that need not.
	refusalEvery = time.Millisecond
	refusalBurst = 256
	// longestRefusal bounds how long a refusal waits: clients are told to come
	// again after so long.
	longestRefusal = time.Second
)

// wait returns how long a refusal that is decided now is to wait: the generic cell
// rate algorithm (ITU-T I.371).
func (p *pacer) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if idle := now.Add(-refusalBurst * refusalEvery); p.next.Before(idle) {
		p.next = idle
	}
	wait := min(max(0, p.next.Sub(now)), longestRefusal)
	if wait < longestRefusal {
		p.next = p.next.Add(refusalEvery)
	}
	return wait
}
