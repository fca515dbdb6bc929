package coordinator

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-kv/starling/kv"
)

const (
	// hedgeFloor and hedgeCap bound the wait before another replica is asked.
	// The cap is fixed because a sick node drags its own percentile up.
	hedgeFloor = time.Millisecond
	hedgeCap   = 25 * time.Millisecond
	// firstGuess is the estimate for a node never heard from.
	firstGuess = 2 * time.Millisecond
	// leastEstimate and mostEstimate bound what is believed of a node. Whoever is
	// slower than the most is avoided just the same, and comes back sooner.
	leastEstimate = 10 * time.Microsecond
	mostEstimate  = 4 * hedgeCap
	// forgetting is how much of its estimate a node loses each time that it is
	// passed over for faster ones, so that reads try it again.
	forgetting = 1.0 / 1024
	// A node is shunned, that is tried by no read that can do without it, once it
	// is late so often, by its own estimate, that the number of late calls, each of
	// which counts less with every one that is in time, reaches shunAt: about as
	// many in a row, or one in ten for long. At its 98th percentile, the number of
	// a healthy node is about lateMemory / 50.
	shunAt     = 4.5
	lateMemory = 64.0
	// A shunned node is probed beside one read in probeEvery that passes it over.
	// After probation answers in a row, none of which took more than grace times
	// the estimate of those that are asked instead, it is trusted again, with
	// parole late calls to its name. One that loses one call in ten passes about
	// once in 1500 probes.
	probeEvery = 32
	probation  = 48
	parole     = 2.5
	grace      = 2.0
)

// latencies estimates how fast each replica answers reads. Safe for concurrent
// use.
type latencies struct {
	mu  sync.Mutex
	per map[kv.NodeID]*estimate
}

// estimate follows the 98th percentile of a stream: each sample above moves it
// up by 49 times what a sample below moves it down, in steps proportional to
// itself (the stochastic approximation of Robbins and Monro, 1951; as "frugal
// streaming" in Ma, Muthukrishnan and Sandler, 2013).
type estimate struct {
	p98   float64
	heard bool
	late  float64 // calls, the older the less

	shunned bool
	passed  int           // reads since it was last probed
	limit   time.Duration // within which it must answer
	good    int           // answers in a row that did
	worst   time.Duration // of these
}

const step = 1.0 / 16

// sample takes in a call that was answered after d, or not by then. The first
// answer says of what order its time is.
func (e *estimate) sample(d time.Duration, answered bool) {
	if answered && !e.heard {
		e.heard, e.p98 = true, min(max(e.p98, 2*float64(d)), float64(mostEstimate))
	}
	late := !answered || float64(d) > e.p98
	if late {
		e.p98 = min(e.p98+e.p98*step*0.98, float64(mostEstimate))
	} else {
		e.p98 = max(e.p98-e.p98*step*0.02, float64(leastEstimate))
	}
	switch {
	case e.shunned:
		e.probe(d, answered)
	case late:
		e.late++
		e.shunned = e.late > shunAt
		e.passed, e.good, e.worst = 0, 0, 0
	default:
		e.late -= e.late / lateMemory
	}
}

// probe takes in a call to a shunned node.
func (e *estimate) probe(d time.Duration, answered bool) {
	if !answered || d > e.limit {
		e.good, e.worst = 0, 0
		return
	}
	e.good++
	e.worst = max(e.worst, d)
	if e.good == probation {
		e.p98 = min(e.p98, float64(max(e.worst, leastEstimate)))
		e.shunned, e.late = false, parole
	}
}

// pass passes over the node for others, the slowest of which has that estimate.
// It reports whether the node is to be probed.
func (e *estimate) pass(slowest float64) bool {
	if !e.shunned {
		e.p98 *= 1 - forgetting
		return false
	}
	e.limit = max(time.Duration(grace*slowest), hedgeFloor)
	e.passed++
	if e.passed < probeEvery {
		return false
	}
	e.passed = 0
	return true
}

func newLatencies() *latencies { return &latencies{per: make(map[kv.NodeID]*estimate)} }

// observe records that id answered after d, or had not answered by then. What
// was waited for as long as anything ever is counts as late, whatever was
// believed.
func (l *latencies) observe(id kv.NodeID, d time.Duration, answered bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.of(id); answered || float64(d) > e.p98 || d >= hedgeCap {
		e.sample(d, answered)
	}
}

// believed returns the estimate of every node heard of.
func (l *latencies) believed() map[kv.NodeID]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[kv.NodeID]time.Duration, len(l.per))
	for id, e := range l.per {
		all[id] = time.Duration(e.p98)
	}
	return all
}

// hedgeDelay is how long to wait for id before another is asked.
func (l *latencies) hedgeDelay(id kv.NodeID) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(max(time.Duration(l.of(id).p98), hedgeFloor), hedgeCap)
}

// The classes of nodes, by which they are asked before they are by speed.
const (
	classSelf  = iota
	classAlive // as far as is known
	classDead
)

// order sorts nodes by class, lower first, shunned ones last in theirs, then by
// estimate, in place and stably. The nodes beyond the first k are passed over
// this time; it returns one of them that is to be probed, or zero.
func (l *latencies) order(ids []kv.NodeID, k int, class func(kv.NodeID) int) (probe kv.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortStableFunc(ids, func(a, b kv.NodeID) int {
		return cmp.Or(cmp.Compare(class(a), class(b)), l.of(a).compare(l.of(b)))
	})
	k = min(k, len(ids))
	var slowest float64
	for _, id := range ids[:k] {
		if class(id) == classAlive {
			slowest = max(slowest, l.of(id).p98)
		}
	}
	for _, id := range ids[k:] {
		if class(id) != classDead && l.of(id).pass(slowest) {
			probe = id
		}
	}
	return probe
}

func (e *estimate) compare(o *estimate) int {
	switch {
	case e.shunned == o.shunned:
		return cmp.Compare(e.p98, o.p98)
	case e.shunned:
		return 1
	}
	return -1
}

func (l *latencies) of(id kv.NodeID) *estimate {
	e, ok := l.per[id]
	if !ok {
		e = &estimate{p98: float64(firstGuess)}
		l.per[id] = e
	}
	return e
}

// budget is a token bucket filled by calls, not by time: each call earns a
// twentieth of a hedge or probe, so that these stay within 5% of replica calls.
// Safe for concurrent use.
type budget struct{ calls atomic.Int64 }

const (
	callsPerHedge = 20
	budgetBurst   = 100
)

func newBudget() *budget {
	b := new(budget)
	b.earn(budgetBurst * callsPerHedge)
	return b
}

func (b *budget) earn(calls int) {
	for {
		had := b.calls.Load()
		has := min(had+int64(calls), budgetBurst*callsPerHedge)
		if has == had || b.calls.CompareAndSwap(had, has) { // nearly always it is full
			return
		}
	}
}

func (b *budget) spend() bool {
	for {
		had := b.calls.Load()
		if had < callsPerHedge {
			return false
		}
		if b.calls.CompareAndSwap(had, had-callsPerHedge) {
			return true
		}
	}
}
