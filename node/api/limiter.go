package api

import (
	"slices"
	"sync"
	"time"
)

// A limiter bounds how many requests on keys are under way at once: by most while
// the machine keeps up, and otherwise by what it was seen to keep up with, but
// never by less than least. The bound is raised little by little and lowered in
// proportion (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for
// Congestion Avoidance", 1989). As many again may wait a moment for room, first
// come, first served. It is safe for concurrent use.
type limiter struct {
	most, least int
	late        func() time.Duration // how late timers are; nil: never

	mu       sync.Mutex
	used     int
	limit    int
	adjusted time.Time
	waiting  []chan struct{} // closed when there is room for whoever waits
}

const (
	// lateLimit is how late timers may be, on average, of a machine that keeps up.
	// Each time that a request changes hands it waits about as long, and it does
	// some ten times.
	lateLimit = time.Millisecond
	// fewRequests are let in however strained the machine is: others may be the
	// cause, and this node should have its share.
	fewRequests = 32
	// adjustEvery is the least time between two changes of the bound.
	adjustEvery = 10 * time.Millisecond
	// roomWait is how long a request waits for room: a crowd that passes is let
	// through, one that stays is refused before it has waited for long.
	roomWait = 10 * time.Millisecond
)

func newLimiter(most int, late func() time.Duration) *limiter {
	return &limiter{most: most, least: min(most, fewRequests), late: late, limit: most}
}

// take lets one more request in, at once or after a moment, and reports whether
// there was room.
func (l *limiter) take(now time.Time) bool {
	room := l.join(now)
	if room == nil {
		return false
	}
	select {
	case <-room:
		return true
	default:
	}
	timer := time.NewTimer(roomWait)
	defer timer.Stop()
	select {
	case <-room:
		return true
	case <-timer.C:
		return l.withdraw(room)
	}
}

// noWait is what somebody waits for who is let in at once.
var noWait = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// join returns what is closed once the request is let in, nil if too many wait.
func (l *limiter) join(now time.Time) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.adjust(now)
	switch {
	case l.used < l.limit && len(l.waiting) == 0:
		l.used++
		return noWait
	case len(l.waiting) >= l.limit:
		return nil
	}
	room := make(chan struct{})
	l.waiting = append(l.waiting, room)
	return room
}

// withdraw waits no longer. It reports whether the request was let in meanwhile.
func (l *limiter) withdraw(room chan struct{}) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, room)
	if i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
	return i < 0
}

// give counts a request out, and lets in who waits.
func (l *limiter) give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used--
	for l.used < l.limit && len(l.waiting) > 0 {
		l.used++
		close(l.waiting[0])
		l.waiting = slices.Delete(l.waiting, 0, 1)
	}
}

// full reports whether no request would be let in, not even after a moment.
func (l *limiter) full(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.adjust(now)
	return l.used >= l.limit && len(l.waiting) >= l.limit
}

// tight reports whether no request would be let in at once.
func (l *limiter) tight(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.adjust(now)
	return l.used >= l.limit
}

// bound returns how many requests are let in at the moment.
func (l *limiter) bound() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit
}

// underWay returns how many requests were let in and not yet counted out.
func (l *limiter) underWay() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// adjust has the bound follow the strain, now and then.
func (l *limiter) adjust(now time.Time) {
	if l.late == nil || now.Sub(l.adjusted) < adjustEvery {
		return
	}
	l.adjusted = now
	l.limit = l.next(l.limit, l.used, l.late())
}

// next is the bound after one of limit, under which so many requests are under
// way and timers are so late. It is raised only where it is in the way.
func (l *limiter) next(limit, used int, late time.Duration) int {
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
