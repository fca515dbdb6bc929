package bench

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeStore is a store in memory whose requests take a time, in the virtual
// time of a bubble.
type fakeStore struct {
	takes func() time.Duration

	mu       sync.Mutex
	writes   map[string]int // a token is their number
	siblings int            // that every write is told of
	fail     error          // of every request, if set
	dials    int
	open     int
	blind    int // overwrites without the latest token
}

func newFakeStore(takes time.Duration) *fakeStore {
	return &fakeStore{takes: func() time.Duration { return takes }, writes: map[string]int{}, siblings: 1}
}

func (s *fakeStore) dial(context.Context, int) (Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	s.open++
	return &fakeConn{s}, nil
}

type fakeConn struct{ *fakeStore }

func (c *fakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	return nil
}

func (c *fakeConn) Get(key []byte) (Answer, error) {
	time.Sleep(c.takes())
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.writes[string(key)]
	return Answer{Found: ok, Siblings: 1, Token: []byte(strconv.Itoa(n))}, c.fail
}

func (c *fakeConn) Put(key, _, token []byte) (Answer, error) {
	time.Sleep(c.takes())
	c.mu.Lock()
	defer c.mu.Unlock()
	if seen, _ := strconv.Atoi(string(token)); seen < c.writes[string(key)] {
		c.blind++
	}
	c.writes[string(key)]++
	return Answer{Found: true, Siblings: c.siblings, Token: []byte(strconv.Itoa(c.writes[string(key)]))}, c.fail
}

func testLoad(s *fakeStore, workload string) Config {
	w, err := ParseWorkload(workload)
	if err != nil {
		panic(err)
	}
	return Config{
		Workload: w, Keys: 100, Set: DefaultSet, KeySize: 8, ValueSize: 10, Connections: 4,
		WarmUp: time.Second, Duration: 5 * time.Second, Seed: 1, Dial: s.dial,
	}
}

func mustRun(t *testing.T, c Config) Result {
	t.Helper()
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func near(got, want float64) bool { return got > want*0.98 && got < want*1.02 }

func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore(10 * time.Millisecond)
		c := testLoad(s, "mix")
		var seconds []Second
		c.Report = func(s Second) { seconds = append(seconds, s) }
		r := mustRun(t, c)
		if !near(r.Throughput, 400) || !near(r.Latency.P50, 10) || !near(r.Latency.P999, 10) {
			t.Errorf("4 connections, 10 ms a request: %+v", r)
		}
		if len(seconds) != 5 || len(r.Timeline) != 5 || !near(seconds[2].Rate(), 400) {
			t.Errorf("timeline %+v", seconds)
		}
		if s.open != 0 || s.dials != 4 {
			t.Errorf("%d dials, %d still open", s.dials, s.open)
		}
		if r.ByKind["read"].Done+r.ByKind["update"].Done != r.Done || r.Lag != nil || r.CPU != nil {
			t.Errorf("%+v", r)
		}
	})
}

// A stall of one second is charged to every request that was due in it.
func TestOpenLoopCountsFromWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore(0)
		from := time.Now().Add(3 * time.Second)
		s.takes = func() time.Duration {
			if stall := time.Until(from.Add(time.Second)); stall > 0 && stall <= time.Second {
				return stall
			}
			return time.Millisecond
		}
		c := testLoad(s, "reads")
		c.Rate, c.WarmUp = 100, 0
		r := mustRun(t, c)
		if r.Done != 500 || r.Unsent != 0 || r.Missing != 500 {
			t.Errorf("done %d, unsent %d, missing %d", r.Done, r.Unsent, r.Missing)
		}
		// A fifth of the requests waited, evenly between nothing and a second.
		if !near(r.Latency.P50, 1) || r.Latency.P90 < 450 || r.Latency.P90 > 550 || r.Latency.Max < 980 {
			t.Errorf("latencies %+v", r.Latency)
		}
		if r.Lag == nil || r.Lag.P50 > 0.01 || r.Lag.P99 < 800 {
			t.Errorf("lag %+v", r.Lag)
		}
	})
}

// Clients without patience send what they can at once, and the rest never.
func TestOpenLoopGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testLoad(newFakeStore(100*time.Millisecond), "reads")
		c.Rate, c.Patience, c.Slice = 1000, time.Millisecond, 100*time.Millisecond // 40 are possible
		r := mustRun(t, c)
		if r.Done+r.GivenUp != 5000 || r.Unsent != 0 || r.Done < 190 || r.Done > 200 {
			t.Errorf("done %d, given up %d, unsent %d", r.Done, r.GivenUp, r.Unsent)
		}
		if r.Latency.Max > 102 || len(r.Timeline) != 50 {
			t.Errorf("latencies %+v, %d slices", r.Latency, len(r.Timeline))
		}
	})
}

func TestOpenLoopTellsWhatItCouldNotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testLoad(newFakeStore(100*time.Millisecond), "reads")
		c.Rate, c.WarmUp = 1000, 0 // 40 are possible
		r := mustRun(t, c)
		if r.Done+r.Unsent != 5000 || r.Done < 390 || r.Done > 410 {
			t.Errorf("done %d, unsent %d", r.Done, r.Unsent)
		}
	})
}

func TestWritesCarryTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore(time.Millisecond)
		c := testLoad(s, "f")
		c.Connections = 1 // concurrent writers of one key may miss one another
		c.Tokens = NewTokens(c.Keys)
		p := Preload{
			Keys: c.Keys, Set: c.Set, KeySize: c.KeySize, ValueSize: 10, Overwrites: 2, Connections: 3, Tokens: c.Tokens, Dial: s.dial,
		}
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for key, n := range s.writes {
			if n != 3 {
				t.Errorf("%s was written %d times", key, n)
			}
		}
		r := mustRun(t, c)
		if len(s.writes) != 100 || s.blind != 0 || r.Missing+r.Resolving+r.Conflicts != 0 {
			t.Errorf("%d keys, %d blind writes, %+v", len(s.writes), s.blind, r.Counts)
		}
		if !near(r.ByKind["modify"].Latency.P50, 2) {
			t.Errorf("a read and a write of 1 ms each: %+v", r.ByKind["modify"])
		}
	})
}

// After an answer that told of siblings, the next write reads first.
func TestConflictsAreResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore(time.Millisecond)
		s.siblings = 2
		c := testLoad(s, "writes")
		c.Tokens, c.WarmUp = NewTokens(c.Keys), 0
		r := mustRun(t, c)
		if r.Conflicts != r.Done || r.Resolving != r.Done || !near(r.Latency.P50, 2) {
			t.Errorf("done %d, %+v, %+v", r.Done, r.Counts, r.Latency)
		}
	})
}

func TestInserts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore(time.Millisecond)
		c := testLoad(s, "d")
		p := Preload{Keys: c.Keys, Set: c.Set, KeySize: c.KeySize, ValueSize: 10, Connections: 1, Dial: s.dial}
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := mustRun(t, c)
		if r.Missing != 0 || int64(len(s.writes)) < c.Keys+r.ByKind["insert"].Done {
			t.Errorf("%d reads of keys not yet there; %d keys", r.Missing, len(s.writes))
		}
	})
}

// A preload waits out refusals, not for ever, and ends with any other error.
func TestPreloadIsPatient(t *testing.T) {
	for _, tt := range []struct {
		fail error
		ends time.Duration // of the failures
		took time.Duration
		ok   bool
	}{
		{&StatusError{"503 overloaded"}, time.Second, time.Second, true},
		{&StatusError{"503 overloaded"}, time.Hour, (refusals - 1) * afterRefusal, false},
		{io.EOF, time.Hour, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newFakeStore(0)
			s.fail = tt.fail
			time.AfterFunc(tt.ends, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.fail = nil
			})
			begun := time.Now()
			p := Preload{Keys: 10, Set: DefaultSet, KeySize: 8, ValueSize: 10, Connections: 2, Dial: s.dial}
			err := p.Run(t.Context())
			if took := time.Since(begun); (err == nil) != tt.ok || took < tt.took || took > tt.took+afterRefusal {
				t.Errorf("%v for %v: %v after %v", tt.fail, tt.ends, err, took)
			}
			time.Sleep(time.Hour)
		})
	}
}

func TestErrorsAreCounted(t *testing.T) {
	for _, tt := range []struct {
		err    error
		kind   string
		redial bool
	}{
		{&StatusError{"503 overloaded"}, "503 overloaded", false},
		{io.EOF, "connection: EOF", true},
		{context.DeadlineExceeded, "no answer in time", true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newFakeStore(time.Millisecond)
			s.fail = tt.err
			r := mustRun(t, testLoad(s, "reads"))
			if r.Done != 0 || r.Failed() == 0 || r.Errors[tt.kind] != r.Failed() {
				t.Errorf("%v: done %d, %v", tt.err, r.Done, r.Errors)
			}
			if (s.dials > 4) != tt.redial || s.open != 0 {
				t.Errorf("%v: %d dials, %d open", tt.err, s.dials, s.open)
			}
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		s := newFakeStore(time.Millisecond)
		if _, err := Run(ctx, testLoad(s, "mix")); !errors.Is(err, context.DeadlineExceeded) || s.open != 0 {
			t.Errorf("%v, %d open", err, s.open)
		}
	})
}

func TestBadLoads(t *testing.T) {
	for i, change := range []func(*Config){
		func(c *Config) { c.Keys = 0 },
		func(c *Config) { c.Connections = 0 },
		func(c *Config) { c.ValueSize = -1 },
		func(c *Config) { c.ValueSize = valuePool },
		func(c *Config) { c.Rate = -1 },
		func(c *Config) { c.Duration = 0 },
		func(c *Config) { c.KeySize = 2 },
	} {
		c := testLoad(newFakeStore(0), "mix")
		change(&c)
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("load %d was run", i)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{5, 1, 3}, 3}, {[]float64{4, 1, 3, 2}, 2.5}} {
		v := slices.Clone(tt.v)
		if got := median(tt.v); got != tt.want || !slices.Equal(v, tt.v) {
			t.Errorf("median of %v: %v", tt.v, got)
		}
	}
}

// A percentile is only told when ten requests lie beyond it.
func TestCurve(t *testing.T) {
	h := newHistogram()
	for i := range 1000 {
		observe(h, time.Duration(i+1)*time.Millisecond)
	}
	points := curve(h)
	last := points[len(points)-1]
	if last.Percentile != 99 || !near(last.Latency, 990) || !near(points[4].Latency, 500) {
		t.Errorf("%+v", points)
	}
	observe(h, 24*time.Hour)
	if got := h.Max(); got < longest.Microseconds()*98/100 {
		t.Errorf("what is out of bounds counts as %d", got)
	}
}
