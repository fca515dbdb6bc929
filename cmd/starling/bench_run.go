package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/bench"
	"github.com/starling-kv/starling/bench/picture"
	"github.com/starling-kv/starling/cmd/starling/internal/devcluster"
)

type benchRunCmd struct {
	reach
	printer
	loadFlags

	Own int               `placeholder:"NODES" help:"Start a cluster of so many nodes for this, and stop it after."`
	Dir string            `type:"path" placeholder:"DIR" help:"With --own: keep the data here; else it goes at the end."`
	Set map[string]string `placeholder:"KEY=VALUE" help:"With --own: a key of starling serve for every node, such as durability=async."`

	PortBase int `default:"18700" placeholder:"PORT" help:"With --own: port before that of the first node."`

	Workload     string        `default:"mix" help:"a, b, c, d, f of YCSB, or reads, writes, mix."`
	Distribution string        `enum:",uniform,zipf,latest" default:"" help:"Of keys: uniform, zipf or latest; else that of the workload."`
	Rate         float64       `placeholder:"PER-SECOND" help:"Open loop: requests a second, their latency counted from when they were due."`
	Duration     time.Duration `default:"10s" help:"Load that counts."`
	ValueSize    int           `default:"100" help:"Bytes of a value."`
	Bucket       string        `default:"bench" help:"Bucket of the keys."`
	Preload      bool          `default:"true" negatable:"" help:"Write all keys first."`
	Tokens       bool          `default:"true" negatable:"" help:"Writes carry the token of their key's last answer; else they overwrite."`
	WriteIDs     bool          `name:"write-ids" help:"Writes carry a write id each, as those of the Go client do."`

	N    int    `placeholder:"N" help:"Replicas."`
	R    string `placeholder:"R" help:"Replicas that must answer a read."`
	W    string `placeholder:"W" help:"Replicas that must acknowledge a write."`
	Sync *bool  `negatable:"" help:"Acknowledge when synced to disk, or when the operating system has it."`

	SVG string `type:"path" placeholder:"FILE" help:"Write a picture of the latencies and the throughput."`
}

// Help is the detail below the flags.
func (*benchRunCmd) Help() string {
	return `The load is a closed loop, in which each connection sends its next request
when the last one is answered, or with --rate an open one. The load generator
takes its share of the processors: on the machine of the nodes it is part of
what is measured. Workload E of YCSB is missing: it scans, and there are no scans.

Examples:
  starling bench run --own 3 --workload b --keys 1000000 --overwrites 2
  starling bench run --rate 5000 --duration 60s --svg latency.svg -o json`
}

// Run measures and prints.
func (c *benchRunCmd) Run(ctx context.Context, w *world) (err error) {
	load, err := parseWorkload(c.Workload, c.Distribution)
	if err != nil {
		return err
	}
	cfg := c.config(load)
	if err := cfg.Validate(); err != nil {
		return usage("%w", err)
	}
	endpoints, pids, stop, err := c.target(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	link := c.link(endpoints, w)
	cfg.Dial, cfg.PIDs = link.Dial, pids
	if c.Preload {
		if err := c.preload(ctx, w, *link, cfg.Tokens); err != nil {
			return err
		}
	}
	line := newLoadLine(w, cfg.Duration)
	cfg.Report = line.second
	result, err := bench.Run(ctx, cfg)
	line.close()
	if err != nil {
		return err
	}
	return errors.Join(c.print(w.stdout, result, func(p *page) { tableOfLoad(p, result) }), c.draw(result))
}

func (c *benchRunCmd) config(load bench.Workload) bench.Config {
	cfg := bench.Config{
		Workload: load, Keys: c.Keys, Set: bench.DefaultSet, KeySize: c.KeySize, ValueSize: c.ValueSize, Connections: c.Connections,
		Rate: c.Rate, WarmUp: c.WarmUp, Duration: c.Duration, Seed: c.Seed,
	}
	if c.Tokens && c.Keys > 0 {
		cfg.Tokens = bench.NewTokens(c.Keys)
	}
	return cfg
}

// target is the cluster that is measured, and how to end it if it was started
// for this.
func (c *benchRunCmd) target(ctx context.Context) (endpoints []string, pids []int, stop func() error, err error) {
	if c.Own == 0 {
		endpoints, err = c.endpoints(ctx)
		return endpoints, nil, func() error { return nil }, err
	}
	plan := devcluster.Plan{Nodes: c.Own, PortBase: c.PortBase}
	if err := plan.Validate(); err != nil {
		return nil, nil, nil, usage("--own: %w", err)
	}
	p, err := startProcesses(ctx, plan, c.Dir, starlingNodes(plan, c.Set))
	if err != nil {
		return nil, nil, nil, err
	}
	return p.Endpoints, p.PIDs, p.stop, nil
}

func (c *benchRunCmd) link(endpoints []string, w *world) *bench.HTTP {
	link := &bench.HTTP{Endpoints: endpoints, Bucket: c.Bucket, Timeout: benchTimeout, Query: url.Values{}, WriteQuery: url.Values{}}
	for name, value := range map[string]string{"n": positive(c.N), "r": c.R, "w": c.W} {
		if value != "" {
			link.Query.Set(name, value)
		}
	}
	if c.Sync != nil {
		link.WriteQuery.Set("sync", strconv.FormatBool(*c.Sync))
	}
	if !c.Tokens {
		link.WriteQuery.Set("overwrite", "true")
	}
	if c.WriteIDs {
		link.WriteID = newWriteID(w.now)
	}
	return link
}

func positive(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// preload writes all keys, over whatever is there, and waits for no disk.
func (c *benchRunCmd) preload(ctx context.Context, w *world, link bench.HTTP, tokens *bench.Tokens) error {
	link.WriteQuery = preloading()
	p := bench.Preload{
		Keys: c.Keys, Set: bench.DefaultSet, KeySize: c.KeySize, ValueSize: c.ValueSize, Overwrites: c.Overwrites,
		Connections: c.Connections, Seed: c.Seed, Tokens: tokens, Dial: link.Dial,
	}
	return preload(ctx, w, "preload", p)
}

func preload(ctx context.Context, w *world, what string, p bench.Preload) error {
	return preloadNoting(ctx, w, what, p, func(int64) {})
}

// preloadNoting tells note besides how many writes are done, now and then, by
// many goroutines at once.
func preloadNoting(ctx context.Context, w *world, what string, p bench.Preload, note func(done int64)) error {
	shown := newCount(w, what, p.Total())
	defer shown.close()
	p.Report = func(done int64) {
		shown.reached(done)
		note(done)
	}
	return p.Run(ctx)
}

func (c *benchRunCmd) draw(r bench.Result) error {
	if c.SVG == "" {
		return nil
	}
	svg, err := picture.Run(r)
	if err != nil {
		return err
	}
	return os.WriteFile(c.SVG, svg, 0o644) //nolint:gosec // a picture, for everybody
}

func tableOfLoad(p *page, r bench.Result) {
	loop := "closed loop"
	if r.Rate > 0 {
		loop = fmt.Sprintf("open loop, %g requests a second", r.Rate)
	}
	p.linef("workload %s, %s keys of %d bytes (%s), values of %d bytes, %d connections, %s, %gs", r.Workload.Name,
		humanize.Comma(r.Keys), r.KeySize, r.Workload.Keys, r.ValueSize, r.Connections, loop, r.Seconds)
	p.row("", "REQUESTS", "PER SECOND", "MEAN ms", "P50", "P90", "P99", "P99.9", "MAX")
	for _, kind := range slices.Sorted(maps.Keys(r.ByKind)) {
		rowOfLatency(p, kind, r.ByKind[kind].Done, r.Seconds, r.ByKind[kind].Latency)
	}
	rowOfLatency(p, "all", r.Done, r.Seconds, r.Latency)
	if r.CPU != nil {
		p.linef("processor: servers %.2f s for 100,000 requests, %.2f cores; load generator %.2f cores; other processes %.2f cores",
			r.CPU.Per100k, r.CPU.Servers/r.Seconds, r.CPU.Client/r.Seconds, r.CPU.Others/r.Seconds)
	}
	if r.Lag != nil {
		p.linef("sent after it was due: p50 %.2f ms, p99 %.2f ms, part of the latencies above", r.Lag.P50, r.Lag.P99)
	}
	tableOfCounts(p, r)
}

func rowOfLatency(p *page, what string, done int64, seconds float64, l bench.Latency) {
	ms := func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }
	p.row(what, humanize.Comma(done), humanize.Comma(int64(float64(done)/seconds)),
		ms(l.Mean), ms(l.P50), ms(l.P90), ms(l.P99), ms(l.P999), ms(l.Max))
}

// tableOfCounts tells what else there was, if there was.
func tableOfCounts(p *page, r bench.Result) {
	for _, c := range []struct {
		what string
		n    int64
	}{
		{"reads found no value", r.Missing},
		{"answers told of several values", r.Conflicts},
		{"writes had to read their key first", r.Resolving},
		{"requests were due and never sent: the cluster does not keep up with this rate", r.Unsent},
	} {
		if c.n > 0 {
			p.linef("%s %s", humanize.Comma(c.n), c.what)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
		p.linef("%s failed: %s", humanize.Comma(r.Errors[kind]), kind)
	}
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644) //nolint:gosec // a result, for everybody
}
