package sim

import (
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Int64("sim.seed", -1, "replay this seed alone")
	fromFlag  = flag.Uint64("sim.from", 1, "the first seed")
	seedsFlag = flag.Uint64("sim.seeds", 300, "how many seeds to run")
	forFlag   = flag.Duration("sim.for", 0, "run seeds for so long, with a line of progress every ten seconds")
	opsFlag   = flag.Int("sim.ops", 0, "operations a run, instead of what the seed draws")
	sceneFlag = flag.String("sim.scene", "", "the scene that half of the plans play, instead of what the seed draws")
	logFlag   = flag.Bool("sim.log", false, "with -sim.seed, print every event")
	cleanFlag = flag.Bool("sim.clean", false, "a hundred clean runs, not five")
	quietFlag = flag.Bool("sim.checker", false, "stop at the first failure and print only its seed and checkers")
)

// TestSim runs seeds until one breaks a promise or all are done. Flags say
// which; without any it runs few enough for everybody's `go test`.
func TestSim(t *testing.T) {
	if *seedFlag >= 0 {
		replay(t, uint64(*seedFlag))
		return
	}
	begun, told := time.Now(), time.Now()
	var sum totals
	for seed := *fromFlag; more(seed, begun); seed++ {
		r := Run(t, seed, config())
		sum.add(r)
		if r.Failed() && *quietFlag {
			t.Fatalf("caught by %v at seed %d, run %d", r.Checkers(), seed, sum.runs)
		}
		if r.Failed() {
			t.Fatalf("%s", Explain(t, r))
		}
		if *forFlag > 0 && time.Since(told) > 10*time.Second {
			told = time.Now()
			progress(&sum, begun)
		}
	}
	progress(&sum, begun)
}

func config() Config {
	cfg := Config{Ops: *opsFlag}
	if *sceneFlag != "" {
		cfg.Scenes = []Scene{Scene(*sceneFlag)}
	}
	return cfg
}

func more(seed uint64, begun time.Time) bool {
	if *forFlag > 0 {
		return time.Since(begun) < *forFlag
	}
	return seed < *fromFlag+*seedsFlag
}

func progress(sum *totals, begun time.Time) {
	_, _ = fmt.Fprintf(os.Stdout, "%v, %.0f seeds a second\n", sum, float64(sum.runs)/time.Since(begun).Seconds())
}

// replay runs one seed and prints its trace.
func replay(t *testing.T, seed uint64) {
	t.Helper()
	log := io.Discard
	if *logFlag {
		log = os.Stdout
	}
	r := ExecuteLogged(t, Draw(seed, config()), log)
	_, _ = fmt.Fprintf(os.Stdout, "seed %d trace %016x\n", seed, r.Trace)
	if r.Failed() {
		t.Fatalf("%s", Explain(t, r))
	}
	if testing.Verbose() {
		_, _ = fmt.Fprint(os.Stdout, r)
	}
}
