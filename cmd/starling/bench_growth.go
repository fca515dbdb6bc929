package main

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/bench"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
)

type benchGrowthCmd struct {
	trialFlags

	Of        []string      `default:"keys,nodes" enum:"keys,nodes" help:"What grows: keys, nodes."`
	KeyCounts []int64       `default:"10000,1000000" placeholder:"KEYS" help:"Numbers of keys on three nodes."`
	Clusters  []int         `default:"3,5,7,9" placeholder:"NODES" help:"Numbers of nodes that hold --keys keys."`
	Idle      time.Duration `default:"5s" help:"Time without requests in which the nodes' own processor time is measured."`
}

// Help is the detail below the flags.
func (*benchGrowthCmd) Help() string {
	return `The processor time of all nodes for 100,000 requests of a closed loop, as keys
or nodes grow many; n=3 r=2 w=2. Each figure is of a cluster of its own, whose
keys were all overwritten, twice unless --overwrites says otherwise.

With more than three nodes most requests reach a node that has nothing of their
key. ROUTED clients know the layout (/cluster) and ask the first owner.
IDLE is what the nodes spend without requests, in cores: part of every figure.

Examples:
  starling bench growth --of keys --key-counts 10000,1000000,10000000 --set durability=async
  starling bench growth --of nodes --json growth.json`
}

// Goals: of a request's processor time over that of the first row.
const (
	growthKeys, growthNodes = 1.6, 1.2
)

// growthReport is what came of a trial.
type growthReport struct {
	machine

	Rows []growthRow `json:"rows"`
}

// growthRow is one cluster under load.
type growthRow struct {
	Of     string      `json:"of"` // "keys", "nodes", "nodes, routed"
	Nodes  int         `json:"nodes"`
	Keys   int64       `json:"keys"`
	Load   bench.Phase `json:"load"`
	CPU    float64     `json:"cpu_per_100k"` // seconds of all nodes
	Idle   float64     `json:"idle_cores"`
	Growth float64     `json:"over_first"` // CPU over that of the first row of its kind
}

const (
	ofKeys   = "keys"
	ofNodes  = "nodes"
	ofRouted = "nodes, routed"
)

// Run measures and prints.
func (c *benchGrowthCmd) Run(ctx context.Context, w *world) error {
	if c.Overwrites == 0 {
		c.Overwrites = 2
	}
	g := &growthTrial{cmd: c, w: w, report: &growthReport{machine: thisMachine()}}
	if slices.Contains(c.Of, ofKeys) {
		for _, keys := range c.KeyCounts {
			if err := g.cluster(ctx, 3, keys, []string{ofKeys}); err != nil {
				return err
			}
		}
	}
	if slices.Contains(c.Of, ofNodes) {
		for _, nodes := range c.Clusters {
			if err := g.cluster(ctx, nodes, c.Keys, []string{ofNodes, ofRouted}); err != nil {
				return err
			}
		}
	}
	return c.trialFlags.report(w, g.report, g.table)
}

type growthTrial struct {
	cmd    *benchGrowthCmd
	w      *world
	report *growthReport
	phases []bench.Phase
}

// cluster measures one cluster in the ways that are asked for.
func (g *growthTrial) cluster(ctx context.Context, nodes int, keys int64, ways []string) error {
	flags := g.cmd.trialFlags
	flags.Keys = keys
	return flags.on(ctx, g.w, nodes, flags.quietNodes, func(t *trial) error { return g.measure(ctx, t, nodes, ways) })
}

func (g *growthTrial) measure(ctx context.Context, t *trial, nodes int, ways []string) error {
	if err := t.preload(ctx); err != nil {
		return err
	}
	idle, err := t.idle(ctx, g.cmd.Idle)
	if err != nil {
		return err
	}
	for _, way := range ways {
		if way == ofRouted {
			if err := t.route(ctx); err != nil {
				return err
			}
		}
		_, phase, err := t.measure(ctx, fmt.Sprintf("%s: %d nodes, %s keys", way, nodes, humanize.Comma(t.Keys)), nil)
		if err != nil {
			return err
		}
		g.add(growthRow{Of: way, Nodes: nodes, Keys: t.Keys, Load: phase, Idle: idle})
	}
	g.phases = append(g.phases, t.phases...)
	return nil
}

// idle measures the cores that the nodes use without requests.
func (t *trial) idle(ctx context.Context, length time.Duration) (cores float64, err error) {
	before, err := bench.CPUOf(t.processes.PIDs)
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, length); err != nil {
		return 0, err
	}
	after, err := bench.CPUOf(t.processes.PIDs)
	return (after - before).Seconds() / max(length, time.Millisecond).Seconds(), err
}

// route has each request go to the first owner of its key.
func (t *trial) route(ctx context.Context) error {
	var c api.Cluster
	if err := look(ctx, t.Endpoints[0]+"/cluster", &c); err != nil {
		return err
	}
	node, err := t.firstOwner(c.Layout)
	if err != nil {
		return err
	}
	routed := &bench.Routed{HTTP: t.link, Node: node}
	routed.Endpoints = t.Endpoints
	t.base.Dial = routed.Dial
	return nil
}

// firstOwner returns a function that finds the place of a key's first owner.
func (t *trial) firstOwner(l *api.Layout) (func(key []byte) int, error) {
	if l == nil || bits.OnesCount(uint(len(l.Partitions))) != 1 {
		return nil, errors.New("the cluster tells of no layout to route by")
	}
	first := make([]int, len(l.Partitions))
	for p, owners := range l.Partitions {
		if len(owners) == 0 || !slices.Contains(t.Names, owners[0]) {
			return nil, fmt.Errorf("partition %d of the layout has no owner that runs here", p)
		}
		first[p] = slices.Index(t.Names, owners[0])
	}
	shift := 64 - bits.TrailingZeros(uint(len(first)))
	return func(key []byte) int { return first[kv.Key{Bucket: benchBucket, Name: string(key)}.Hash()>>shift] }, nil
}

// add appends a row, compared with the first of its kind.
func (g *growthTrial) add(row growthRow) {
	if row.Load.CPU != nil {
		row.CPU = row.Load.CPU.Per100k
	}
	first := row
	if i := slices.IndexFunc(g.report.Rows, func(r growthRow) bool { return r.Of == row.Of }); i >= 0 {
		first = g.report.Rows[i]
	}
	row.Growth = bench.Over(row.CPU, first.CPU)
	g.report.Rows = append(g.report.Rows, row)
}

func (g *growthTrial) table(p *page) {
	c := g.cmd
	p.linef("nodes and the load generator on %d cores, Linux %s, %s, version %s; workload %s, keys of %d bytes overwritten %d times, "+
		"values of %d bytes, %d connections", g.report.Cores, g.report.Kernel, g.report.Go, g.report.Version, c.Workload,
		c.KeySize, c.Overwrites, c.ValueSize, c.Connections)
	p.row("OF", "NODES", "KEYS", "CPU s/100k", "/FIRST", "PER SECOND", "p99 ms", "CALLS", "IDLE cores", "OTHERS", "FAILED")
	for _, r := range g.report.Rows {
		others := "-"
		if r.Load.CPU != nil {
			others = digits(r.Load.CPU.Others / r.Load.Seconds)
		}
		p.row(r.Of, r.Nodes, humanize.Comma(r.Keys), digits(r.CPU), digits(r.Growth), humanize.Comma(int64(r.Load.Throughput)),
			digits(r.Load.Latency.P99), digits(r.Load.PeerCalls), digits(r.Idle), others, r.Load.Counts.Failed()+r.Load.Counts.Missing)
	}
	p.linef("goals: keys within %g times the first row; nodes within %g times where clients route", growthKeys, growthNodes)
	warnIfLoud(p, g.phases)
}
