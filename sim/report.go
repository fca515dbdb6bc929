package sim

import (
	"fmt"
	"strings"
	"time"
)

// Report is what came of a run.
type Report struct {
	Plan       Plan
	Trace      uint64 // hash of all that happened, in its order
	Events     int
	Virtual    time.Duration // time that passed in the run
	Outcomes   map[Outcome]int
	Violations []Violation
	// FalseSiblings counts values that showed for a while after one of their
	// attempts had been replaced; they are no broken promise.
	FalseSiblings int
	// Reaped counts records that were reaped, or their clocks folded, before all
	// was healed; Converged is what the replicas took to be the same after that.
	Reaped     uint64
	Converged  time.Duration
	Restored   int      // values that were restored from quarantine at the end
	Operations []string // each with its outcome
}

func (w *world) report() Report {
	r := Report{
		Plan: w.plan, Trace: w.gate.trace.Sum64(), Events: w.gate.released, Virtual: w.gate.now(),
		Outcomes: make(map[Outcome]int), Violations: w.violations, FalseSiblings: w.falseSiblings,
		Reaped: w.early, Converged: w.converged, Restored: w.restored,
	}
	for _, rec := range w.history.records {
		if rec == nil {
			continue
		}
		r.Outcomes[rec.outcome]++
		r.Operations = append(r.Operations, rec.line())
	}
	return r
}

// line tells what became of an operation.
func (r *record) line() string {
	parts := []string{fmt.Sprintf("#%d %s %s", r.ID, r.Kind, r.outcome)}
	if r.code != "" {
		parts = append(parts, string(r.code))
	}
	switch {
	case r.Kind == Read && r.outcome == OK:
		parts = append(parts, fmt.Sprintf("shows %v", r.result.list()))
		if r.deleted {
			parts = append(parts, "and a delete")
		}
	case r.outcome == OK:
		parts = append(parts, fmt.Sprintf("by %v", r.acked))
	}
	if r.Kind != Read {
		parts = append(parts, fmt.Sprintf("having seen %v", r.must.list()))
	}
	return strings.Join(parts, " ")
}

// Failed reports whether a promise was broken.
func (r Report) Failed() bool { return len(r.Violations) > 0 }

// Checkers lists the checkers that complained, each once, the first first.
func (r Report) Checkers() []string {
	var out []string
	seen := make(map[string]bool)
	for _, v := range r.Violations {
		if !seen[v.Checker] {
			seen[v.Checker] = true
			out = append(out, v.Checker)
		}
	}
	return out
}

// String is what a person needs to see of a failure.
func (r Report) String() string {
	var b strings.Builder
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "BROKEN %v\n", v)
	}
	fmt.Fprintf(&b, "%v", r.Plan)
	for _, line := range r.Operations {
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, "seed %d trace %016x\n", r.Plan.Seed, r.Trace)
	return b.String()
}

// totals sums up many runs.
type totals struct {
	runs     int
	virtual  time.Duration
	events   int
	reaped   uint64
	restored int
	slowest  time.Duration // to converge
	outcomes map[Outcome]int
	faults   map[FaultKind]int
}

func (s *totals) add(r Report) {
	if s.outcomes == nil {
		s.outcomes, s.faults = make(map[Outcome]int), make(map[FaultKind]int)
	}
	s.runs++
	s.virtual += r.Virtual
	s.events += r.Events
	s.reaped += r.Reaped
	s.restored += r.Restored
	s.slowest = max(s.slowest, r.Converged)
	for o, n := range r.Outcomes {
		s.outcomes[o] += n
	}
	for _, f := range r.Plan.Faults {
		s.faults[f.Kind]++
	}
}

// String is one line: runs, simulated time, operations, faults by kind.
func (s *totals) String() string {
	ops := s.outcomes[OK] + s.outcomes[Failed] + s.outcomes[Unknown]
	var kinds []string
	count := 0
	for _, k := range FaultKinds() {
		if n := s.faults[k]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%s %d", k, n))
			count += n
		}
	}
	return fmt.Sprintf("%d seeds, %v simulated, %d events, %d operations (%d ok, %d failed, %d unknown), %d faults (%s), "+
		"%d records reaped meanwhile, %d values restored, converged in %v at most",
		s.runs, s.virtual.Round(time.Second), s.events, ops, s.outcomes[OK], s.outcomes[Failed], s.outcomes[Unknown],
		count, strings.Join(kinds, ", "), s.reaped, s.restored, s.slowest)
}
