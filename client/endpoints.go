package client

import (
	"cmp"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Penalties of an endpoint that gave no answer: doubled with each failure in a
// row, over as soon as it answers.
const (
	firstPenalty = time.Second
	maxPenalty   = 30 * time.Second
)

// endpoint is what is known of one node's address.
type endpoint struct {
	base     *url.URL
	failures int       // in a row
	suspect  time.Time // until then others are preferred
	busy     time.Time // until then it asked to be left alone
}

// pool chooses endpoints. It is safe for concurrent use.
type pool struct {
	mu        sync.Mutex
	endpoints []*endpoint
	turn      int // of the endpoint whose turn it is
}

// pick returns the endpoint for the next attempt of a request that has tried
// each endpoint so often, and how long to wait before it: the first in turn of
// those that are neither suspect nor busy, the least tried before others.
func (p *pool) pick(now time.Time, tried map[*endpoint]int) (*endpoint, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	best := 0
	for i := range p.endpoints {
		if p.compare(i, best, now, tried) < 0 {
			best = i
		}
	}
	e := p.endpoints[best]
	p.turn = (best + 1) % len(p.endpoints)
	if e.failures > 0 {
		e.suspect = now.Add(penalty(e.failures)) // one request finds out; others need not wait with it
	}
	return e, max(0, e.busy.Sub(now))
}

func (p *pool) compare(i, j int, now time.Time, tried map[*endpoint]int) int {
	a, b := p.endpoints[i], p.endpoints[j]
	return cmp.Or(
		cmp.Compare(a.trouble(now), b.trouble(now)),
		cmp.Compare(tried[a], tried[b]),
		cmp.Compare(p.distance(i), p.distance(j)),
	)
}

// distance is how many turns away the endpoint i is.
func (p *pool) distance(i int) int {
	return (i - p.turn + len(p.endpoints)) % len(p.endpoints)
}

func (e *endpoint) trouble(now time.Time) int {
	if e.suspect.After(now) || e.busy.After(now) {
		return 1
	}
	return 0
}

// answered notes that e gave an answer, and for how long it wants no other.
func (p *pool) answered(e *endpoint, now time.Time, retryAfter time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.failures, e.suspect, e.busy = 0, time.Time{}, now.Add(retryAfter)
}

// failed notes that e gave no answer.
func (p *pool) failed(e *endpoint, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.failures++
	e.suspect = now.Add(penalty(e.failures))
}

func penalty(failures int) time.Duration {
	return min(maxPenalty, firstPenalty<<min(failures-1, 10))
}

// untried reports whether an endpoint without trouble was not yet tried.
func (p *pool) untried(now time.Time, tried map[*endpoint]int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.endpoints, func(e *endpoint) bool { return tried[e] == 0 && e.trouble(now) == 0 })
}
