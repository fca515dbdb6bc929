package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/bench"
	"github.com/starling-kv/starling/bench/picture"
)

type benchCompareCmd struct {
	printer

	Rounds      int           `default:"5" help:"Rounds, in each of which every system is started, measured and stopped."`
	Seconds     float64       `default:"5" help:"Load that counts, of each row in each round."`
	WarmUp      time.Duration `default:"2s" help:"Load that goes before and does not count."`
	Connections int           `default:"64" help:"Connections, where the row does not say another number."`
	Keys        int64         `default:"1000000" help:"Keys with values of 100 bytes."`
	LargeKeys   int64         `default:"100000" help:"Keys with values of 1 KiB."`
	KeySize     int           `default:"16" help:"Bytes of a key."`
	Overwrites  int           `default:"2" help:"How often the preload writes each key once more."`
	Seed        uint64        `default:"1" help:"Chooses keys and operations."`

	Only     []string `placeholder:"SYSTEM" help:"Measure these alone, such as skeleton,starling,'etcd no fsync'."`
	Rows     []string `placeholder:"ROW" help:"Only these loads: reads, writes, mix, mix-1k, mix-16, mix-4."`
	PortBase int      `default:"18700" placeholder:"PORT" help:"The systems use ports up to 510 above."`

	Dir  string `type:"path" placeholder:"DIR" help:"Where the systems keep their data; it goes at the end. Default: a temporary directory."`
	JSON string `type:"path" placeholder:"FILE" help:"Write the report as JSON besides."`
	SVG  string `type:"path" placeholder:"FILE" help:"Write a picture."`
}

// Help is the detail below the flags.
func (*benchCompareCmd) Help() string {
	return `Every system runs on this machine's loopback, one at a time, beside the load
generator; the processors are shared by all. Each is filled once and keeps its
data from round to round. The echo server and the quorum skeleton are limits:
what the HTTP library can do, and what the shape of the cluster can do without
any of its promises. Stores that are not installed are skipped; on Debian:
apt-get install etcd-server redis-server nats-server

Examples:
  starling bench compare --json compare.json --svg compare.svg
  starling bench compare --only skeleton,starling --rows mix --rounds 1 --keys 100000`
}

// Run compares and prints.
func (c *benchCompareCmd) Run(ctx context.Context, w *world) (err error) {
	dir, err := os.MkdirTemp(c.Dir, "starling-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	memory, err := inMemory()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(memory)) }()
	plan, err := c.plan(w, systems(ctx, c.PortBase, dir, memory))
	if err != nil {
		return err
	}
	for _, s := range plan.Systems {
		sayf(w.stderr, "%s\n", describeSystem(s.Name, s.Version, s.Setting, s.Missing))
	}
	report, err := bench.Compare(ctx, plan)
	return errors.Join(err, c.print(w.stdout, report, func(p *page) { tableOfComparison(p, report) }), c.save(report))
}

// inMemory makes a directory on a file system in memory, or none.
func inMemory() (string, error) {
	const shared = "/dev/shm"
	if _, err := os.Stat(shared); err != nil {
		return "", nil //nolint:nilerr // what needs it is skipped
	}
	return os.MkdirTemp(shared, "starling-bench-")
}

func (c *benchCompareCmd) plan(w *world, all []bench.System) (bench.Comparison, error) {
	rows := bench.Rows(c.Connections)
	chosen, err := choose(all, func(s bench.System) string { return s.Name }, c.Only, "--only")
	if err != nil {
		return bench.Comparison{}, err
	}
	if rows, err = choose(rows, func(r bench.Row) string { return r.Name }, c.Rows, "--rows"); err != nil {
		return bench.Comparison{}, err
	}
	if c.Rounds < 1 || c.Seconds <= 0 || c.Keys < 1 || c.LargeKeys < 1 {
		return bench.Comparison{}, usage("--rounds, --seconds, --keys and --large-keys must be more than 0")
	}
	return bench.Comparison{
		Systems: chosen, Rows: rows, Rounds: c.Rounds, Keys: c.Keys, LargeKeys: c.LargeKeys, KeySize: c.KeySize,
		Overwrites: c.Overwrites, WarmUp: c.WarmUp, Duration: time.Duration(c.Seconds * float64(time.Second)), Seed: c.Seed,
		Say:     func(text string) { sayf(w.stderr, "%s\n", text) },
		Preload: func(ctx context.Context, what string, p bench.Preload) error { return preload(ctx, w, what, p) },
	}, nil
}

// choose keeps those of all whose names are listed, or all.
func choose[T any](all []T, name func(T) string, listed []string, flag string) ([]T, error) {
	if len(listed) == 0 {
		return all, nil
	}
	var chosen []T
	var names []string
	for _, one := range all {
		names = append(names, name(one))
		if slices.Contains(listed, name(one)) {
			chosen = append(chosen, one)
		}
	}
	for _, l := range listed {
		if !slices.Contains(names, l) {
			return nil, usage("%s %q: use some of %s", flag, l, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}

func (c *benchCompareCmd) save(r *bench.Report) error {
	var errs []error
	if c.JSON != "" {
		errs = append(errs, writeJSON(c.JSON, r))
	}
	if c.SVG != "" {
		svg, err := picture.Comparison(r)
		if err == nil {
			err = os.WriteFile(c.SVG, svg, 0o644) //nolint:gosec // a picture, for everybody
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func describeSystem(name, version, setting, missing string) string {
	if missing != "" {
		return fmt.Sprintf("%s: SKIPPED: %s", name, missing)
	}
	return fmt.Sprintf("%s: %s; version %s", name, setting, version)
}

// noisy is how much of a core others may use before the figures are doubted.
const noisy = 0.1

func tableOfComparison(p *page, r *bench.Report) {
	c := r.Config
	p.linef("%d rounds of %gs, medians; %s keys of %d bytes, each overwritten %d times (%s with 1 KiB values); %d cores, Linux %s, %s",
		c.Rounds, c.Seconds, humanize.Comma(c.Keys), c.KeySize, c.Overwrites, humanize.Comma(c.LargeKeys), c.Cores, c.Kernel, c.Go)
	for _, s := range r.Systems {
		p.linef("%s", describeSystem(s.Name, s.Version, s.Setting, s.Missing))
	}
	p.linef("CPU is seconds of all servers for 100,000 requests; OTHERS is cores that other processes used meanwhile;")
	p.linef("FAILED are requests, and reads that found nothing.")
	p.row("ROW", "SYSTEM", "PER SECOND", "FROM", "TO", "P50 ms", "P99", "P99.9", "CPU", "/SKELETON", "STARLING/IT", "OTHERS", "FAILED")
	loud := false
	for _, row := range r.Rows {
		for _, cell := range row.Cells {
			rowOfComparison(p, row.Name, cell)
			loud = loud || cell.Others > noisy
		}
	}
	if loud {
		p.linef("NOISY: other processes used the cores meanwhile: these figures are no measurement. Repeat it on a quiet machine.")
	}
}

func rowOfComparison(p *page, row string, c bench.ReportCell) {
	number := func(v float64) string { return humanize.Comma(int64(v)) }
	digits := func(v float64) string {
		if v == 0 {
			return "-"
		}
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	p.row(row, c.Variant, number(c.Throughput), number(c.Slowest), number(c.Fastest), digits(c.P50), digits(c.P99), digits(c.P999),
		digits(c.Per100k), digits(c.OfSkeleton), digits(c.StarlingOver), digits(c.Others), c.Failed+c.Missing)
}
