package sim

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var tracesFlag = flag.Bool("sim.traces", false, "print the traces of a few seeds and nothing else")

// traced are the seeds of the trace proof.
const traced = 100

func traces(t *testing.T) []string {
	t.Helper()
	lines := make([]string, traced)
	for i := range lines {
		r := Run(t, uint64(i), Config{})
		lines[i] = fmt.Sprintf("seed %d trace %016x", i, r.Trace)
	}
	return lines
}

// TestTraces is run in other processes by TestOneSeedOneTrace.
func TestTraces(t *testing.T) {
	if !*tracesFlag {
		t.Skip("a part of TestOneSeedOneTrace")
	}
	_, _ = fmt.Fprintln(os.Stdout, strings.Join(traces(t), "\n"))
}

// One seed is one history: again in this process, in others, on one processor
// and on two, with the race detector or without.
func TestOneSeedOneTrace(t *testing.T) {
	want := strings.Join(traces(t), "\n")
	for range 3 {
		if got := strings.Join(traces(t), "\n"); got != want {
			t.Fatalf("a second time in one process:\n%s\nwant\n%s", got, want)
		}
	}
	for _, processors := range []string{"1", "2", "8"} {
		run := exec.Command(os.Args[0], "-test.run=^TestTraces$", "-sim.traces")
		run.Env = append(os.Environ(), "GOMAXPROCS="+processors)
		expectTraces(t, run, want)
	}
}

// The other build of the tests, with the race detector if this one is without,
// is made only where it is asked for: it needs a C compiler.
func TestOneSeedOneTraceUnderRace(t *testing.T) {
	if os.Getenv("STARLING_SIM_RACE") == "" {
		t.Skip("set STARLING_SIM_RACE=1, as make sim-trace does; needs a C compiler")
	}
	want := strings.Join(traces(t), "\n")
	expectTraces(t, exec.Command("go", "test", "-v", "-race", "-count=1", "-run=^TestTraces$", ".", "-args", "-sim.traces"), want)
}

func expectTraces(t *testing.T, run *exec.Cmd, want string) {
	t.Helper()
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", run, err, out)
	}
	if !strings.Contains(string(out), want) {
		t.Errorf("%v printed\n%s\nwant\n%s", run, out, want)
	}
}
