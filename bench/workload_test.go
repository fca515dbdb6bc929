package bench

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestParseWorkload(t *testing.T) {
	for name := range strings.SplitSeq(WorkloadNames(), ", ") {
		w, err := ParseWorkload(strings.ToUpper(name))
		sum := 0.0
		for _, share := range w.Shares {
			sum += share
		}
		if err != nil || w.Name != name || math.Abs(sum-1) > 1e-9 {
			t.Errorf("%s: %+v, %v", name, w, err)
		}
	}
	if _, err := ParseWorkload("e"); !errors.Is(err, ErrScans) {
		t.Errorf("workload e: %v", err)
	}
	if _, err := ParseWorkload("g"); err == nil || !strings.Contains(err.Error(), WorkloadNames()) {
		t.Errorf("workload g: %v", err)
	}
}

func TestOperationsComeInTheirShares(t *testing.T) {
	const draws = 100_000
	for _, w := range workloads {
		var counts [operations]float64
		r := source(1)
		for range draws {
			counts[w.next(r)]++
		}
		for op, share := range w.Shares {
			if got := counts[op] / draws; math.Abs(got-share) > 0.01 {
				t.Errorf("workload %s: %v has a share of %.3f, want %.3f", w.Name, Operation(op), got, share)
			}
		}
	}
}
