package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Operation is what one request of a load is.
type Operation uint8

// The operations. Modify reads a key and writes it; its latency is that of both.
const (
	Read Operation = iota
	Update
	Insert
	Modify
	operations int = iota
)

// String returns the name under which results tell the operation.
func (o Operation) String() string { return [...]string{"read", "update", "insert", "modify"}[o] }

// Workload is a mix of operations over keys.
type Workload struct {
	Name   string              `json:"name"`
	Shares [operations]float64 `json:"-"` // by Operation; they add up to 1
	Keys   Distribution        `json:"distribution"`
}

// workloads are the core workloads of YCSB (Cooper et al., "Benchmarking Cloud
// Serving Systems with YCSB", 2010), without E, and three even ones.
var workloads = []Workload{
	{"a", [...]float64{Read: 0.5, Update: 0.5, Modify: 0}, Zipf},
	{"b", [...]float64{Read: 0.95, Update: 0.05, Modify: 0}, Zipf},
	{"c", [...]float64{Read: 1, Modify: 0}, Zipf},
	{"d", [...]float64{Read: 0.95, Insert: 0.05, Modify: 0}, Latest},
	{"f", [...]float64{Read: 0.5, Modify: 0.5}, Zipf},
	{"reads", [...]float64{Read: 1, Modify: 0}, Uniform},
	{"writes", [...]float64{Update: 1, Modify: 0}, Uniform},
	{"mix", [...]float64{Read: 0.5, Update: 0.5, Modify: 0}, Uniform},
}

// WorkloadNames lists what [ParseWorkload] knows.
func WorkloadNames() string {
	names := make([]string, len(workloads))
	for i, w := range workloads {
		names[i] = w.Name
	}
	return strings.Join(names, ", ")
}

// ErrScans is why there is no workload E.
var ErrScans = errors.New("YCSB's workload E is 95% scans of key ranges, and there are none here: " +
	"keys are spread over the nodes by their hash, so that neighbours live apart")

// ParseWorkload returns the workload of that name, in either case.
func ParseWorkload(name string) (Workload, error) {
	name = strings.ToLower(name)
	if name == "e" {
		return Workload{}, ErrScans
	}
	i := slices.IndexFunc(workloads, func(w Workload) bool { return w.Name == name })
	if i < 0 {
		return Workload{}, fmt.Errorf("workload %q: use one of %s", name, WorkloadNames())
	}
	return workloads[i], nil
}

// next draws an operation.
func (w *Workload) next(r *rand.Rand) Operation {
	u := r.Float64()
	for op, share := range w.Shares {
		if u < share {
			return Operation(op)
		}
		u -= share
	}
	return Read // of rounding
}

// writes reports whether the workload changes keys that are there.
func (w *Workload) writes() bool { return w.Shares[Update]+w.Shares[Modify] > 0 }
