package sim

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// shrinkTime bounds how long a failure is shrunk, in real time.
const shrinkTime = 20 * time.Second

// Explain returns what a person needs to see of a run that failed: what broke,
// the command that replays it, and the shortest history found that breaks the
// same promise.
func Explain(t *testing.T, r Report) string {
	t.Helper()
	small := smallest(t, r)
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d breaks a promise, at commit %s\n", r.Plan.Seed, commit())
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "  %v\n", v)
	}
	fmt.Fprintf(&b, "replay it: make sim SEED=%d\n", r.Plan.Seed)
	fmt.Fprintf(&b, "the shortest history found that fails, %d of %d operations and %d of %d faults:\n",
		len(small.Plan.Ops), len(r.Plan.Ops), len(small.Plan.Faults), len(r.Plan.Faults))
	return b.String() + small.String()
}

// smallest shrinks the plan of a failed run.
func smallest(t *testing.T, r Report) Report {
	t.Helper()
	begun := time.Now()
	best := r
	shrink(r.Plan, func(p Plan) (fails, more bool) {
		again := Execute(t, p)
		if fails = sameFailure(r, again); fails {
			best = again
		}
		return fails, time.Since(begun) < shrinkTime
	})
	return best
}

// sameFailure reports whether b breaks what a broke first.
func sameFailure(a, b Report) bool {
	return b.Failed() && slices.Contains(b.Checkers(), a.Checkers()[0])
}

// commit is the commit that the running code was built from, as far as known.
func commit() string {
	if c := os.Getenv("STARLING_COMMIT"); c != "" {
		return c
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	out, err := exec.CommandContext(context.Background(), "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
