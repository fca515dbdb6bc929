package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/starling-kv/starling/bench"
	"github.com/starling-kv/starling/bench/proxy"
	"github.com/starling-kv/starling/cmd/starling/internal/devcluster"
)

type benchGrayCmd struct {
	trialFlags

	Faults []string      `default:"stalled,slow,lossy" enum:"stalled,slow,lossy" help:"What goes wrong with a node: stalled, slow, lossy."`
	Share  float64       `default:"0.5" help:"Load, as a share of the peak of a closed loop."`
	Rate   float64       `placeholder:"PER-SECOND" help:"Load, in place of a share of the peak, which is not measured then."`
	Onset  time.Duration `default:"10s" help:"Load right after a fault begins or ends, until what counts begins."`
	Slow   float64       `default:"10" help:"How many times slower a slow node is."`
	Drop   float64       `default:"0.05" help:"Share of the frames that a lossy node loses."`
}

// Help is the detail below the flags.
func (*benchGrayCmd) Help() string {
	return `Three nodes, n=3 r=2 w=2. Clients talk to n1 and n2; n3 has the fault. First
the peak is measured in a closed loop, then half of it in an open loop, in which
all else is measured: healthy, with the fault, and after it.

stalled: the process is stopped (SIGSTOP). slow and lossy: a proxy before n3's
address for peers holds each answer back until its call has taken ten times as
long as n3 took, or loses one frame in twenty, either way. What n3 itself asks
of others is left alone, as is gossip. The proxy is part of the load generator's
processor time, and in use throughout.

DETECTED is when, after the fault began, the 99th percentile of every later
quarter of a second was no worse than in the worst one of the healthy part;
RECOVERED likewise after the fault ended.

Examples:
  starling bench gray --keys 1000000 --overwrites 2 --set durability=async --json gray.json
  starling bench gray --faults stalled --duration 5s`
}

// graySlice is the length of the parts in which detection is measured.
const graySlice = 250 * time.Millisecond

// Goals: of latencies with a fault over those without, and of extra calls.
const (
	grayP99, grayP999, grayExtra = 1.5, 2.0, 0.05
)

// grayVictim has the faults, and is reached by others at grayHost.
const (
	grayVictim = "n3"
	grayHost   = "127.0.1.3"
)

// grayReport is what came of a trial.
type grayReport struct {
	machine

	Share   float64     `json:"share_of_peak"`
	Peak    bench.Phase `json:"peak"`
	Healthy bench.Phase `json:"healthy"`
	Faults  []grayFault `json:"faults"`
}

// grayFault is what one fault did.
type grayFault struct {
	Fault     string  `json:"fault"`
	Detected  settled `json:"detected"`
	Recovered settled `json:"recovered"`

	Onset  bench.Phase `json:"onset"`
	During bench.Phase `json:"during"`
	Return bench.Phase `json:"return"`
	After  bench.Phase `json:"after"`

	// Latencies during the fault over healthy ones.
	ReadsP99   float64 `json:"reads_p99_over_healthy"`
	ReadsP999  float64 `json:"reads_p99_9_over_healthy"`
	WritesP99  float64 `json:"writes_p99_over_healthy"`
	WritesP999 float64 `json:"writes_p99_9_over_healthy"`
	Met        bool    `json:"goals_met"`
}

// settled is when latencies were well again.
type settled struct {
	Seconds float64 `json:"seconds"`
	OK      bool    `json:"ok"`       // false: not before the part ended
	WorstMS float64 `json:"worst_ms"` // the worst 99th percentile of a slice until then
}

// Run measures and prints.
func (c *benchGrayCmd) Run(ctx context.Context, w *world) (err error) {
	layout := devcluster.Plan{Nodes: 3, PortBase: c.PortBase}.Layout()
	victim := layout[2]
	front, err := proxy.Listen(ctx, at(grayHost, victim.Peer), victim.Peer, c.Seed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, front.Close()) }()
	return c.on(ctx, w, len(layout), c.nodes, func(t *trial) error {
		t.talkTo(func(name string) bool { return name != grayVictim })
		if err := t.preload(ctx); err != nil {
			return err
		}
		g := &grayTrial{trial: t, cmd: c, front: front, report: &grayReport{machine: thisMachine(), Share: c.Share}}
		if err := g.run(ctx); err != nil {
			return err
		}
		return c.trialFlags.report(w, g.report, g.table)
	})
}

// nodes are the command lines of the cluster: the one to be faulty tells others
// to reach it where the proxy listens.
func (c *benchGrayCmd) nodes(plan devcluster.Plan) func(devcluster.Home, devcluster.Node) []string {
	plain := c.quietNodes(plan)
	return func(h devcluster.Home, n devcluster.Node) []string {
		if n.Name != grayVictim {
			return plain(h, n)
		}
		n.Gossip = at(grayHost, n.Gossip)
		return append(plain(h, n), "--advertise-host="+grayHost)
	}
}

// at is the address with another host.
func at(host, address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return net.JoinHostPort(host, port)
}

type grayTrial struct {
	*trial

	cmd     *benchGrayCmd
	front   *proxy.Proxy
	report  *grayReport
	healthy []bench.Second
}

func (g *grayTrial) run(ctx context.Context) (err error) {
	if g.cmd.Rate == 0 {
		if _, g.report.Peak, err = g.measure(ctx, "peak", nil); err != nil {
			return err
		}
		g.cmd.Rate = g.report.Peak.Throughput * g.cmd.Share
	}
	g.base.Rate, g.base.Slice = g.cmd.Rate, graySlice
	healthy, phase, err := g.measure(ctx, "healthy", nil)
	if err != nil {
		return err
	}
	g.report.Healthy, g.healthy = phase, healthy.Timeline
	for _, name := range g.cmd.Faults {
		f, err := g.fault(ctx, name)
		if err != nil {
			return err
		}
		g.report.Faults = append(g.report.Faults, f)
	}
	return nil
}

// fault begins a fault, measures, ends it and measures again.
func (g *grayTrial) fault(ctx context.Context, name string) (f grayFault, err error) {
	f.Fault = name
	if err := g.inject(name); err != nil {
		return f, err
	}
	if f.Detected, f.Onset, err = g.onset(ctx, name+": onset"); err == nil {
		_, f.During, err = g.measure(ctx, name, nil)
	}
	if err := errors.Join(err, g.heal(name)); err != nil {
		return f, err
	}
	if f.Recovered, f.Return, err = g.onset(ctx, name+": return"); err != nil {
		return f, err
	}
	if _, f.After, err = g.measure(ctx, name+": after", nil); err != nil {
		return f, err
	}
	f.judge(g.report.Healthy)
	return f, nil
}

func (g *grayTrial) inject(name string) error {
	switch name {
	case "stalled":
		return devcluster.Suspend(g.pid(grayVictim))
	case "slow":
		g.front.Set(proxy.Fault{Slow: g.cmd.Slow})
	case "lossy":
		g.front.Set(proxy.Fault{Drop: g.cmd.Drop})
	}
	return nil
}

func (g *grayTrial) heal(name string) error {
	g.front.Set(proxy.Fault{})
	if name == "stalled" {
		return devcluster.Resume(g.pid(grayVictim))
	}
	return nil
}

// onset measures how long it takes until latencies are well.
func (g *grayTrial) onset(ctx context.Context, name string) (settled, bench.Phase, error) {
	r, phase, err := g.measure(ctx, name, func(cfg *bench.Config) { cfg.WarmUp, cfg.Duration = 0, g.cmd.Onset })
	at, ok := bench.Settled(r.Timeline, bench.Bound(g.healthy))
	return settled{at, ok, bench.Bound(r.Timeline)}, phase, err
}

func (f *grayFault) judge(healthy bench.Phase) {
	f.ReadsP99 = bench.Over(f.During.Reads.P99, healthy.Reads.P99)
	f.ReadsP999 = bench.Over(f.During.Reads.P999, healthy.Reads.P999)
	f.WritesP99 = bench.Over(f.During.Writes.P99, healthy.Writes.P99)
	f.WritesP999 = bench.Over(f.During.Writes.P999, healthy.Writes.P999)
	f.Met = max(f.ReadsP99, f.WritesP99) <= grayP99 && max(f.ReadsP999, f.WritesP999) <= grayP999 &&
		f.During.Extra <= grayExtra && f.During.Counts.Failed()+f.During.Counts.Unsent == 0
}

func (g *grayTrial) table(p *page) {
	r := g.report
	g.describe(p, r.machine, 3)
	p.linef("clients talk to n1 and n2; n3 has the fault; CALLS are those of other nodes for a request, EXTRA those of them that")
	p.linef("were made because another was late, or to see whether a slow node has recovered")
	phaseHeader(p)
	if r.Peak.Name != "" {
		phaseRow(p, r.Peak)
	}
	phaseRow(p, r.Healthy)
	for _, f := range r.Faults {
		for _, ph := range []bench.Phase{f.Onset, f.During, f.Return, f.After} {
			phaseRow(p, ph)
		}
	}
	p.linef("")
	p.row("FAULT", "DETECTED", "WORST p99 ms", "READS p99 /HEALTHY", "p99.9", "WRITES p99", "p99.9", "EXTRA", "RECOVERED", "GOALS")
	for _, f := range r.Faults {
		verdict := "missed"
		if f.Met {
			verdict = "met"
		}
		p.row(f.Fault, f.Detected, digits(f.Detected.WorstMS), digits(f.ReadsP99), digits(f.ReadsP999),
			digits(f.WritesP99), digits(f.WritesP999), digits(100*f.During.Extra)+"%", f.Recovered, verdict)
	}
	p.linef("goals: p99 within %g times and p99.9 within %g times of healthy after detection, extra calls within %g%%, nothing failed",
		grayP99, grayP999, 100*grayExtra)
	warnIfLoud(p, g.phases)
}

// String tells the time, or that it was too short.
func (s settled) String() string {
	text := digits(s.Seconds) + " s"
	if !s.OK {
		return "not in " + text
	}
	return text
}
