package coordinator

import (
	"cmp"
	"slices"
	"sync"
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
	// forgetting is how much of its estimate a node loses each time that it is
	// passed over for faster ones, so that it is tried again.
	forgetting = 1.0 / 1024
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
type estimate struct{ p98 float64 }

func (e *estimate) add(d time.Duration) {
	const step = 1.0 / 16
	if float64(d) > e.p98 {
		e.p98 += e.p98 * step * 0.98
	} else {
		e.p98 -= e.p98 * step * 0.02
	}
	e.p98 = max(e.p98, float64(10*time.Microsecond))
}

func newLatencies() *latencies { return &latencies{per: make(map[kv.NodeID]*estimate)} }

// observe records that id answered after d, or had not answered by then.
func (l *latencies) observe(id kv.NodeID, d time.Duration, answered bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.of(id)
	if answered || float64(d) > e.p98 {
		e.add(d)
	}
}

// hedgeDelay is how long to wait for id before another is asked.
func (l *latencies) hedgeDelay(id kv.NodeID) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(max(time.Duration(l.of(id).p98), hedgeFloor), hedgeCap)
}

// order sorts nodes by class, lower first, then by estimate, in place and
// stably; the nodes beyond the first k are passed over this time.
func (l *latencies) order(ids []kv.NodeID, k int, class func(kv.NodeID) int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortStableFunc(ids, func(a, b kv.NodeID) int {
		return cmp.Or(cmp.Compare(class(a), class(b)), cmp.Compare(l.of(a).p98, l.of(b).p98))
	})
	for _, id := range ids[min(k, len(ids)):] {
		l.of(id).p98 *= 1 - forgetting
	}
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
// twentieth of a hedge, so that hedges stay within 5% of replica calls. Safe
// for concurrent use.
type budget struct {
	mu     sync.Mutex
	tokens float64
}

const (
	hedgesPerCall = 0.05
	budgetBurst   = 100
)

func newBudget() *budget { return &budget{tokens: budgetBurst} }

func (b *budget) earn(calls int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+hedgesPerCall*float64(calls), budgetBurst)
}

func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
