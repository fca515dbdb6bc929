package bench

import (
	"testing"
	"testing/synctest"
)

func TestNewPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := mustRun(t, testLoad(newFakeStore(1e7), "mix"))
		p := NewPhase("healthy", &r, Metrics{
			metricCalls: float64(r.Done) * 2 * 1.2, metricHedges: 10, metricRescues: 20, metricProbes: 30,
		})
		if !near(p.PeerCalls, 2) || !near(p.Extra, 60/(float64(r.Done)*2.4)) { // the warm-up is a fifth of what counts
			t.Errorf("%+v", p)
		}
		if !near(p.Reads.P50, 10) || !near(p.Writes.P99, 10) || p.Throughput != r.Throughput {
			t.Errorf("%+v", p)
		}
		if p := NewPhase("", &r, nil); p.PeerCalls != 0 || p.Extra != 0 {
			t.Errorf("without counters: %+v", p)
		}
	})
}

func TestSettled(t *testing.T) {
	slice := func(p99 float64, failed, done int64) Second {
		return Second{Done: done, Failed: failed, Latency: Latency{P99: p99}}
	}
	good, bad, failing, silent := slice(1, 0, 9), slice(3, 0, 9), slice(1, 1, 9), slice(0, 0, 0)
	for _, tt := range []struct {
		name string
		all  []Second
		at   float64
		ok   bool
	}{
		{"nothing", nil, 0, false},
		{"never away", []Second{good, good}, 0, true},
		{"late", []Second{bad, good, bad, good}, 3, true},
		{"failures", []Second{failing, good}, 1, true},
		{"silence", []Second{good, silent, good}, 2, true},
		{"never", []Second{good, bad}, 2, false},
	} {
		for i := range tt.all {
			tt.all[i].At = float64(i + 1)
		}
		if at, ok := Settled(tt.all, 2); at != tt.at || ok != tt.ok {
			t.Errorf("%s: %v, %v", tt.name, at, ok)
		}
	}
	if b := Bound([]Second{good, bad, good}); b != 3 {
		t.Errorf("a bound of %v", b)
	}
	if Over(3, 2) != 1.5 || Over(1, 0) != 0 {
		t.Error("ratios")
	}
}
