package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/bench"
)

type benchOverloadCmd struct {
	trialFlags

	Nodes            int           `default:"3" help:"Nodes of the cluster."`
	Times            float64       `default:"10" help:"Load, as a multiple of the peak of a closed loop."`
	FloodConnections int           `default:"2000" help:"Connections of the overload."`
	Patience         time.Duration `default:"1ms" help:"Clients give a request up whose connection is busy for longer."`
	Aftermath        time.Duration `default:"5s" help:"Half of the peak, right after the overload."`
}

// Help is the detail below the flags.
func (*benchOverloadCmd) Help() string {
	return `The peak is that of a closed loop with --connections; normal is half of it in
an open loop. Then ten times the peak is due, in an open loop over so many
connections that the nodes must refuse: clients send each request at most once,
honour no Retry-After, and send the next as soon as it is due. A connection that
waits for an answer cannot send another request: what is due meanwhile is given
up unsent, and counted. OFFERED is all that was due; SENT is what reached the
cluster.

RECOVERED is when, after the overload, the 99th percentile of every later tenth
of a second was no worse than in the worst one of the normal part.

Example:
  starling bench overload --keys 1000000 --overwrites 2 --set durability=async --json overload.json`
}

// Goals.
const (
	overloadGoodput = 0.9 // of the peak
	overloadP99     = 5.0 // times normal
	overloadReturn  = 2.0 // seconds
)

// overloadSlice is the length of the parts in which recovery is measured.
const overloadSlice = 100 * time.Millisecond

// overloadReport is what came of a trial.
type overloadReport struct {
	machine

	Peak      bench.Phase `json:"peak"`
	Normal    bench.Phase `json:"normal"`
	Overload  bench.Phase `json:"overload"`
	Aftermath bench.Phase `json:"aftermath"`

	Offered   float64 `json:"offered_per_second"`
	Sent      float64 `json:"sent_per_second"`
	Goodput   float64 `json:"goodput_over_peak"`
	OverPeak  float64 `json:"p99_over_peak"`
	OverHalf  float64 `json:"p99_over_normal"`
	Recovered settled `json:"recovered"`
	Met       bool    `json:"goals_met"`
}

// Run measures and prints.
func (c *benchOverloadCmd) Run(ctx context.Context, w *world) error {
	return c.on(ctx, w, c.Nodes, c.quietNodes, func(t *trial) error {
		if err := t.preload(ctx); err != nil {
			return err
		}
		r, err := c.measureAll(ctx, t)
		if err != nil {
			return err
		}
		return c.trialFlags.report(w, r, func(p *page) { c.table(p, r, t.phases) })
	})
}

func (c *benchOverloadCmd) measureAll(ctx context.Context, t *trial) (r *overloadReport, err error) {
	r = &overloadReport{machine: thisMachine()}
	if _, r.Peak, err = t.measure(ctx, "peak", nil); err != nil {
		return nil, err
	}
	half := func(cfg *bench.Config) { cfg.Rate, cfg.Slice = r.Peak.Throughput/2, overloadSlice }
	normal, phase, err := t.measure(ctx, "normal", half)
	if err != nil {
		return nil, err
	}
	r.Normal = phase
	_, r.Overload, err = t.measure(ctx, "overload", func(cfg *bench.Config) {
		cfg.Rate, cfg.Connections, cfg.Patience = r.Peak.Throughput*c.Times, c.FloodConnections, c.Patience
	})
	if err != nil {
		return nil, err
	}
	after, phase, err := t.measure(ctx, "aftermath", func(cfg *bench.Config) {
		half(cfg)
		cfg.WarmUp, cfg.Duration = 0, c.Aftermath
	})
	if err != nil {
		return nil, err
	}
	r.Aftermath = phase
	at, ok := bench.Settled(after.Timeline, bench.Bound(normal.Timeline))
	r.Recovered = settled{at, ok, bench.Bound(after.Timeline)}
	r.judge()
	return r, nil
}

func (r *overloadReport) judge() {
	o := r.Overload
	r.Offered = o.Rate
	r.Sent = o.Throughput + float64(o.Counts.Failed())/o.Seconds
	r.Goodput = bench.Over(o.Throughput, r.Peak.Throughput)
	r.OverPeak = bench.Over(o.Latency.P99, r.Peak.Latency.P99)
	r.OverHalf = bench.Over(o.Latency.P99, r.Normal.Latency.P99)
	r.Met = r.Goodput >= overloadGoodput && r.OverHalf <= overloadP99 && r.Recovered.OK && r.Recovered.Seconds <= overloadReturn
}

func (c *benchOverloadCmd) table(p *page, r *overloadReport, phases []bench.Phase) {
	c.describe(p, r.machine, c.Nodes)
	phaseHeader(p)
	for _, ph := range []bench.Phase{r.Peak, r.Normal, r.Overload, r.Aftermath} {
		phaseRow(p, ph)
	}
	number := func(v float64) string { return humanize.Comma(int64(v)) }
	o := r.Overload
	p.linef("")
	p.row("OFFERED", "SENT", "ACCEPTED", "GOODPUT /PEAK", "P99 OF ACCEPTED ms", "/NORMAL", "/PEAK", "RECOVERED", "GOALS")
	verdict := "missed"
	if r.Met {
		verdict = "met"
	}
	p.row(number(r.Offered), number(r.Sent), number(o.Throughput), digits(r.Goodput), digits(o.Latency.P99),
		digits(r.OverHalf), digits(r.OverPeak), r.Recovered, verdict)
	for _, kind := range slices.Sorted(maps.Keys(o.Counts.Errors)) {
		p.linef("overload: %s a second answered: %s", number(float64(o.Counts.Errors[kind])/o.Seconds), kind)
	}
	p.linef("overload: %s a second given up unsent, since all %s connections waited for answers",
		number(float64(o.Counts.GivenUp)/o.Seconds), humanize.Comma(int64(c.FloodConnections)))
	p.linef("goals: goodput of %g of the peak, p99 of accepted within %g times normal, recovered within %g s",
		overloadGoodput, overloadP99, overloadReturn)
	warnIfLoud(p, phases)
}
