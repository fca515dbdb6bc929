// Command mutants asks whether the checkers of the simulation see. It plants
// bugs in the production code, one at a time, by an overlay at build time, and
// runs seeds until a checker complains:
//
//	go run ./sim/mutants                  # the planted bugs, a table of them
//	go run ./sim/mutants -mechanical      # every comparison, off-by-one and dropped statement
//
// It fails if a bug is not caught, or if an edit does not apply any more.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

type settings struct {
	seeds      int
	patience   time.Duration
	mechanical bool
	only       string
}

func main() {
	var s settings
	flag.IntVar(&s.seeds, "seeds", 5000, "seeds a bug may live through")
	flag.DurationVar(&s.patience, "patience", 4*time.Minute, "how long the seeds of one bug may take")
	flag.BoolVar(&s.mechanical, "mechanical", false, "mutate the merge, the quorum, the token and the codec mechanically")
	flag.StringVar(&s.only, "only", "", "only bugs whose name, or files whose path, contains this")
	flag.Parse()
	run := runPlanted
	if s.mechanical {
		run = runMechanical
	}
	if err := run(s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// runPlanted prints the table of the planted bugs.
func runPlanted(s settings, out io.Writer) error {
	var missed []string
	_, _ = fmt.Fprintln(out, "| bug | breaks | caught by | seeds |\n|---|---|---|---|")
	for _, b := range bugs() {
		if !strings.Contains(b.name, s.only) {
			continue
		}
		v, err := hunt(s, b)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		if v.checkers == "" {
			missed = append(missed, b.name)
		}
		_, _ = fmt.Fprintf(out, "| %s | %s | %s | %s |\n", b.name, b.breaks, v.checkers, v.seeds)
	}
	if len(missed) > 0 {
		return fmt.Errorf("not caught: %s", strings.Join(missed, "; "))
	}
	return nil
}

// verdict is who caught a bug, after how many seeds.
type verdict struct{ checkers, seeds string }

// hunt builds the simulation with the bug and runs it.
func hunt(s settings, b planted) (verdict, error) {
	edited, err := b.apply(".")
	if err != nil {
		return verdict{}, err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return verdict{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := writeOverlay(dir, edited)
	if err != nil {
		return verdict{}, err
	}
	return simulate(s, dir, overlay)
}

// writeOverlay writes the file that tells the compiler to read the edited files
// instead of those of the same paths.
func writeOverlay(dir string, edited map[string][]byte) (string, error) {
	replace := make(map[string]string)
	for file, source := range edited {
		original, err := filepath.Abs(file)
		if err != nil {
			return "", err
		}
		replace[original] = filepath.Join(dir, fmt.Sprintf("edited%d.go", len(replace)))
		if err := os.WriteFile(replace[original], source, 0o600); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, b, 0o600)
}

var caught = regexp.MustCompile(`caught by \[(.*)\] at seed \d+, run (\d+)`)

func simulate(s settings, dir, overlay string) (verdict, error) {
	binary := filepath.Join(dir, "sim.test")
	if out, err := exec.CommandContext(context.Background(), "go", "test", "-c", "-overlay", overlay, "-o", binary, "./sim").CombinedOutput(); err != nil {
		return verdict{}, fmt.Errorf("build: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(context.Background(), binary, "-test.run=^TestSim$", "-sim.checker", fmt.Sprintf("-sim.seeds=%d", s.seeds),
		fmt.Sprintf("-test.timeout=%v", s.patience))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch m := caught.FindSubmatch(out); {
	case m != nil:
		return verdict{checkers: string(m[1]), seeds: string(m[2])}, nil
	case errors.As(err, &exit) && strings.Contains(string(out), "test timed out"):
		return verdict{checkers: "", seeds: "out of time"}, nil
	case errors.As(err, &exit):
		return verdict{checkers: "panic", seeds: "?"}, nil
	case err != nil:
		return verdict{}, err
	}
	return verdict{seeds: fmt.Sprintf("> %d", s.seeds)}, nil
}
