package bench

import (
	"slices"
	"sync"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Histograms count microseconds, with an error of 1%.
const (
	longest = 10 * time.Minute
	digits  = 2
)

func newHistogram() *hdr.Histogram { return hdr.New(1, longest.Microseconds(), digits) }

// observe counts d. What is out of bounds counts as the bound.
func observe(h *hdr.Histogram, d time.Duration) {
	us := min(max(d.Microseconds(), 1), longest.Microseconds())
	_ = h.RecordValue(us) // within bounds
}

// recorder counts what one connection saw. Its worker adds, the timeline takes.
type recorder struct {
	mu     sync.Mutex
	from   time.Time // requests that were due earlier do not count
	total  [operations]*hdr.Histogram
	lag    *hdr.Histogram // of an open loop: from when a request was due to when it was sent
	second *hdr.Histogram // since the timeline last took
	failed int64          // likewise
	counts Counts
}

// Counts are what happened beside the requests that succeeded.
type Counts struct {
	Errors map[string]int64 `json:"errors,omitempty"` // by kind; failed requests have no latency
	// Missing are reads that found no value, Conflicts answers that told of
	// several, and Resolving the reads that writes needed first, because of such
	// an answer or because nothing was known of their key.
	Missing   int64 `json:"missing"`
	Conflicts int64 `json:"conflicts"`
	Resolving int64 `json:"resolving_reads"`
	// Unsent are requests of an open loop that were due and never sent, because
	// their connection was still busy with earlier ones at the end.
	Unsent int64 `json:"unsent"`
	// GivenUp are requests of an open loop that clients gave up unsent, because
	// their connection was busy for longer than they had patience.
	GivenUp int64 `json:"given_up,omitempty"`
}

func (c *Counts) add(o Counts) {
	for kind, n := range o.Errors {
		c.fail(kind, n)
	}
	c.Missing += o.Missing
	c.Conflicts += o.Conflicts
	c.Resolving += o.Resolving
	c.Unsent += o.Unsent
	c.GivenUp += o.GivenUp
}

func (c *Counts) fail(kind string, n int64) {
	if c.Errors == nil {
		c.Errors = map[string]int64{}
	}
	c.Errors[kind] += n
}

// Failed returns the number of errors.
func (c *Counts) Failed() (n int64) {
	for _, count := range c.Errors {
		n += count
	}
	return n
}

func newRecorder(from time.Time) *recorder {
	r := &recorder{from: from, lag: newHistogram(), second: newHistogram()}
	for i := range r.total {
		r.total[i] = newHistogram()
	}
	return r
}

// done counts a request that was due and sent at these times and has ended.
func (r *recorder) done(op Operation, due, sent, end time.Time, saw Counts, err error) {
	if due.Before(r.from) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.add(saw)
	if err != nil {
		r.counts.fail(kindOf(err), 1)
		r.failed++
		return
	}
	observe(r.total[op], end.Sub(due))
	observe(r.second, end.Sub(due))
	observe(r.lag, sent.Sub(due))
}

// unsent counts requests that never were.
func (r *recorder) unsent(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.Unsent += n
}

// givenUp counts requests that were left out.
func (r *recorder) givenUp(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.GivenUp += n
}

// Second is what happened in one second of a run, or another part of it: how
// many requests ended and how long they had taken.
type Second struct {
	At      float64 `json:"at"` // its end, in seconds since the first request that counts
	Length  float64 `json:"length"`
	Done    int64   `json:"done"`
	Failed  int64   `json:"failed"`
	Latency Latency `json:"latency"`
}

// Rate is requests that succeeded per second.
func (s Second) Rate() float64 { return float64(s.Done) / max(s.Length, 1e-9) }

// takeSecond returns what all saw since it was last called.
func takeSecond(all []*recorder, at, length time.Duration) Second {
	sum := newHistogram()
	s := Second{At: at.Seconds(), Length: length.Seconds()}
	for _, r := range all {
		r.mu.Lock()
		sum.Merge(r.second)
		r.second.Reset()
		s.Failed += r.failed
		r.failed = 0
		r.mu.Unlock()
	}
	s.Done, s.Latency = sum.TotalCount(), latencyOf(sum)
	return s
}

// Latency sums up how long requests took, in milliseconds.
type Latency struct {
	Mean float64 `json:"mean_ms"`
	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p99_9_ms"`
	Max  float64 `json:"max_ms"`
}

func latencyOf(h *hdr.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(p float64) float64 { return milliseconds(h.ValueAtQuantile(p)) }
	return Latency{
		Mean: h.Mean() / 1000, P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: milliseconds(h.Max()),
	}
}

func milliseconds(us int64) float64 { return float64(us) / 1000 }

// Point is a latency at a percentile.
type Point struct {
	Percentile float64 `json:"percentile"`
	Latency    float64 `json:"ms"`
}

// curve returns the latencies over percentiles, as far out as there are ten
// requests beyond: a percentile that rests on fewer is chance.
func curve(h *hdr.Histogram) []Point {
	var points []Point
	for _, p := range percentiles {
		if float64(h.TotalCount())*(100-p)/100 >= 10 {
			points = append(points, Point{p, milliseconds(h.ValueAtQuantile(p))})
		}
	}
	return points
}

var percentiles = []float64{
	10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 92.5, 95, 97, 98, 98.5, 99, 99.3, 99.5, 99.7, 99.8, 99.85, 99.9,
	99.93, 99.95, 99.97, 99.98, 99.99, 99.995, 99.998, 99.999,
}

// median returns the middle of v, or the mean of the two in the middle.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
