package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/bench"
	"github.com/starling-kv/starling/cmd/starling/internal/devcluster"
)

// trialFlags are those of the measurements that start a cluster of their own.
type trialFlags struct {
	printer
	loadFlags

	Workload  string            `default:"mix" help:"a, b, c, d, f of YCSB, or reads, writes, mix."`
	Duration  time.Duration     `default:"15s" help:"Load that counts, of each part."`
	ValueSize int               `default:"100" help:"Bytes of a value."`
	Set       map[string]string `placeholder:"KEY=VALUE" help:"A key of starling serve for every node, such as durability=async."`
	PortBase  int               `default:"18700" placeholder:"PORT" help:"Port before that of the first node."`
	Dir       string            `type:"path" placeholder:"DIR" help:"Where the nodes keep their data, which goes at the end."`
	JSON      string            `type:"path" placeholder:"FILE" help:"Write the report as JSON besides."`
}

// machine says where a trial was made.
type machine struct {
	Version string `json:"version"`
	Cores   int    `json:"cores"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
}

func thisMachine() machine {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // where there is one
	return machine{revision(), runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version()}
}

// trial is a cluster of its own under one load after the other.
type trial struct {
	*trialFlags
	*processes

	w      *world
	base   bench.Config
	link   bench.HTTP
	watch  []string // operators' addresses of the nodes whose counters are read
	dir    string
	phases []bench.Phase
}

// nodeArgs are the command lines of the nodes of a plan.
type nodeArgs func(devcluster.Plan) func(devcluster.Home, devcluster.Node) []string

// on starts a cluster, has fn measure it, and ends it.
func (c *trialFlags) on(ctx context.Context, w *world, nodes int, args nodeArgs, fn func(*trial) error) (err error) {
	t, err := c.start(ctx, w, nodes, args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	return fn(t)
}

// start starts a cluster for the trial. The caller closes what it got.
func (c *trialFlags) start(ctx context.Context, w *world, nodes int, args nodeArgs) (*trial, error) {
	load, err := parseWorkload(c.Workload, "")
	if err != nil {
		return nil, err
	}
	t := &trial{trialFlags: c, w: w, base: bench.Config{
		Workload: load, Keys: c.Keys, Set: bench.DefaultSet, KeySize: c.KeySize, ValueSize: c.ValueSize,
		Connections: c.Connections, WarmUp: c.WarmUp, Duration: c.Duration, Seed: c.Seed,
	}}
	if err := t.base.Validate(); err != nil {
		return nil, usage("%w", err)
	}
	t.base.Tokens = bench.NewTokens(c.Keys)
	plan := devcluster.Plan{Nodes: nodes, PortBase: c.PortBase}
	if err := plan.Validate(); err != nil {
		return nil, usage("%w", err)
	}
	if t.dir, err = os.MkdirTemp(c.Dir, "starling-bench-"); err != nil {
		return nil, err
	}
	if t.processes, err = startProcesses(ctx, plan, t.dir, args(plan)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(t.dir))
	}
	t.talkTo(func(string) bool { return true })
	return t, nil
}

// quietNodes are nodes with the settings of the trial that log warnings at most.
func (c *trialFlags) quietNodes(plan devcluster.Plan) func(devcluster.Home, devcluster.Node) []string {
	return starlingNodes(plan, c.settings())
}

func (c *trialFlags) settings() map[string]string {
	set := map[string]string{"log-level": "warn"}
	maps.Copy(set, c.Set)
	return set
}

func (t *trial) close() error { return errors.Join(t.stop(), os.RemoveAll(t.dir)) }

// talkTo has clients talk to the nodes chosen by name, and has the counters of
// these nodes read.
func (t *trial) talkTo(chosen func(name string) bool) {
	var endpoints []string
	t.watch, t.base.PIDs = nil, nil
	for i, name := range t.Names {
		t.base.PIDs = append(t.base.PIDs, t.processes.PIDs[i])
		if chosen(name) {
			endpoints, t.watch = append(endpoints, t.Endpoints[i]), append(t.watch, t.Admins[i])
		}
	}
	t.link = bench.HTTP{Endpoints: endpoints, Bucket: benchBucket, Timeout: benchTimeout}
	t.base.Dial = t.link.Dial
}

// pid returns the process of a node.
func (t *trial) pid(name string) int {
	for i, n := range t.Names {
		if n == name {
			return t.processes.PIDs[i]
		}
	}
	return 0
}

// preload writes all keys, and waits for no disk.
func (t *trial) preload(ctx context.Context) error {
	link := t.link
	link.WriteQuery = preloading()
	return preload(ctx, t.w, "preload", bench.Preload{
		Keys: t.Keys, Set: bench.DefaultSet, KeySize: t.KeySize, ValueSize: t.ValueSize, Overwrites: t.Overwrites,
		Connections: t.Connections, Seed: t.Seed, Tokens: t.base.Tokens, Dial: link.Dial,
	})
}

// measure puts the cluster under the load, as change changes it, and keeps what
// came of it as a phase.
func (t *trial) measure(ctx context.Context, name string, change func(*bench.Config)) (bench.Result, bench.Phase, error) {
	cfg := t.base
	if change != nil {
		change(&cfg)
	}
	before, err := bench.Scrape(ctx, t.watch...)
	if err != nil {
		return bench.Result{}, bench.Phase{}, err
	}
	result, err := bench.Run(ctx, cfg)
	if err != nil {
		return result, bench.Phase{}, err
	}
	after, err := bench.Scrape(ctx, t.watch...)
	if err != nil {
		return result, bench.Phase{}, err
	}
	phase := bench.NewPhase(name, &result, after.Since(before))
	t.phases = append(t.phases, phase)
	sayf(t.w.stderr, "%s: %s a second, p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms\n", name,
		humanize.Comma(int64(phase.Throughput)), phase.Latency.P50, phase.Latency.P99, phase.Latency.P999)
	return result, phase, nil
}

// report prints a report and writes its file.
func (c *trialFlags) report(w *world, r any, table func(*page)) error {
	err := c.print(w.stdout, r, table)
	if c.JSON != "" {
		err = errors.Join(err, writeJSON(c.JSON, r))
	}
	return err
}

// describe is the first line of a table.
func (c *trialFlags) describe(p *page, m machine, nodes int) {
	p.linef("%d nodes and the load generator on %d cores, Linux %s, %s, version %s; workload %s, %s keys of %d bytes overwritten %d times, "+
		"values of %d bytes, %d connections", nodes, m.Cores, m.Kernel, m.Go, m.Version, c.Workload,
		humanize.Comma(c.Keys), c.KeySize, c.Overwrites, c.ValueSize, c.Connections)
}

// phaseHeader and phaseRow are a table of phases.
func phaseHeader(p *page) {
	p.row("PART", "PER SECOND", "READS p50 ms", "p99", "p99.9", "WRITES p50", "p99", "p99.9", "CALLS", "EXTRA", "FAILED",
		"CORES: NODES", "LOAD", "OTHERS")
}

func phaseRow(p *page, ph bench.Phase) {
	cores := func(seconds float64) string { return digits(seconds / ph.Seconds) }
	nodes, load, others := "-", "-", "-"
	if ph.CPU != nil {
		nodes, load, others = cores(ph.CPU.Servers), cores(ph.CPU.Client), cores(ph.CPU.Others)
	}
	p.row(ph.Name, humanize.Comma(int64(ph.Throughput)), digits(ph.Reads.P50), digits(ph.Reads.P99), digits(ph.Reads.P999),
		digits(ph.Writes.P50), digits(ph.Writes.P99), digits(ph.Writes.P999), digits(ph.PeerCalls),
		fmt.Sprintf("%.1f%%", 100*ph.Extra), humanize.Comma(ph.Counts.Failed()+ph.Counts.Unsent+ph.Counts.Missing), nodes, load, others)
}

func digits(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

// loud reports whether other processes used so much of the machine meanwhile
// that the figures are no measurement.
func loud(phases []bench.Phase) bool {
	for _, ph := range phases {
		if ph.CPU != nil && ph.CPU.Others/ph.Seconds > noisy {
			return true
		}
	}
	return false
}

func warnIfLoud(p *page, phases []bench.Phase) {
	if loud(phases) {
		p.linef("NOISY: other processes used the cores meanwhile: these figures are no measurement. Repeat it on a quiet machine.")
	}
}
