package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/bench"
)

type benchMemoryCmd struct {
	trialFlags

	Settle time.Duration `default:"20s" help:"Rest after the load, before memory is looked at again."`
}

// Help is the detail below the flags.
func (*benchMemoryCmd) Help() string {
	return `One node, n=1, with its default settings. All keys are written, without waiting
for the disk; then the node rests; then random ones are read in a closed loop.
What counts is the memory that is the process's own (RssAnon of /proc): pages of
files are the system's to take back. It goes up and down with the garbage
collector; MOST is the most that any look at it saw, five a second. LIVE HEAP is
what the garbage collector leaves when it is asked, after each look.

The goal is less than 500 MB for 10,000,000 keys. With fewer keys a line through
the looks after the first fifth says what more keys would add: an extrapolation,
which is told as such.

Examples:
  starling bench memory --keys 10000000 --json memory.json
  starling bench memory --keys 1000000 --duration 5s`
}

// Goals.
const (
	memoryKeys  = 10_000_000
	memoryBytes = 500_000_000
)

const memoryLook = 200 * time.Millisecond

// memoryReport is what came of a trial.
type memoryReport struct {
	machine

	Keys      int64        `json:"keys"`
	KeySize   int          `json:"key_bytes"`
	ValueSize int          `json:"value_bytes"`
	Looks     []memoryLine `json:"looks"`
	// PerKey is what each key more adds to the live heap, in bytes, and Extrapolated
	// what the live heap would be with the goal's number of keys; not measured.
	PerKey       float64 `json:"bytes_per_key"`
	Extrapolated float64 `json:"extrapolated_live_heap"`
	Met          bool    `json:"goal_met"`
}

// memoryLine is the memory of the node at a moment, or at the end of a part.
type memoryLine struct {
	What     string         `json:"what"`
	Keys     int64          `json:"keys"`
	Resident bench.Resident `json:"resident"`
	Most     int64          `json:"most_anonymous"` // since the last line
	// Live is what Go's garbage collector, asked for it, leaves on the heap.
	Live float64 `json:"live_heap"`
}

// Run measures and prints.
func (c *benchMemoryCmd) Run(ctx context.Context, w *world) error {
	return c.on(ctx, w, 1, c.quietNodes, func(t *trial) error {
		t.base.Tokens = nil // 10,000,000 of them would take the load generator's memory
		m := &memoryTrial{trial: t, settle: c.Settle, report: &memoryReport{
			machine: thisMachine(), Keys: c.Keys, KeySize: c.KeySize, ValueSize: c.ValueSize,
		}}
		if err := m.run(ctx); err != nil {
			return err
		}
		return c.trialFlags.report(w, m.report, m.table)
	})
}

type memoryTrial struct {
	*trial

	settle time.Duration
	report *memoryReport

	mu           sync.Mutex
	most         int64 // since the last line
	keys, memory []float64
}

func (m *memoryTrial) run(ctx context.Context) error {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { m.watchMemory(watching) })
	defer watch.Wait()
	defer stop()
	if err := m.look(ctx, "empty", 0); err != nil {
		return err
	}
	if err := m.fill(ctx); err != nil {
		return err
	}
	if err := pause(ctx, m.settle); err != nil {
		return err
	}
	if err := m.look(ctx, "after a rest", m.Keys); err != nil {
		return err
	}
	reads, err := bench.ParseWorkload("reads")
	if err != nil {
		return err
	}
	if _, _, err := m.measure(ctx, "reads", func(cfg *bench.Config) { cfg.Workload = reads }); err != nil {
		return err
	}
	if err := m.look(ctx, "after reads", m.Keys); err != nil {
		return err
	}
	m.judge()
	return nil
}

// fill writes the keys, a tenth of them at a time.
func (m *memoryTrial) fill(ctx context.Context) error {
	const parts = 10
	looked := int64(1)
	var looks []error
	link := m.link
	link.WriteQuery = preloading()
	err := preloadNoting(ctx, m.w, "preload", bench.Preload{
		Keys: m.Keys, Set: bench.DefaultSet, KeySize: m.KeySize, ValueSize: m.ValueSize, Overwrites: m.Overwrites,
		Connections: m.Connections, Seed: m.Seed, Dial: link.Dial,
	}, func(done int64) {
		m.mu.Lock()
		due := done >= looked*m.Keys/parts && looked < parts
		if due {
			looked++
		}
		m.mu.Unlock()
		if due {
			err := m.look(ctx, "loading", min(done, m.Keys))
			m.mu.Lock()
			looks = append(looks, err)
			m.mu.Unlock()
		}
	})
	if err := errors.Join(err, errors.Join(looks...)); err != nil {
		return err
	}
	return m.look(ctx, "loaded", m.Keys)
}

// watchMemory keeps the most that it sees until ctx ends.
func (m *memoryTrial) watchMemory(ctx context.Context) {
	ticker := time.NewTicker(memoryLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if r, err := bench.ResidentOf(m.processes.PIDs[0]); err == nil {
				m.mu.Lock()
				m.most = max(m.most, r.Anon)
				m.mu.Unlock()
			}
		}
	}
}

// look adds a line.
func (m *memoryTrial) look(ctx context.Context, what string, keys int64) error {
	r, err := bench.ResidentOf(m.processes.PIDs[0])
	if err != nil {
		return err
	}
	counters, err := bench.ScrapeLive(ctx, m.Admins[0])
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	line := memoryLine{what, keys, r, max(m.most, r.Anon), counters.Sum("go_memstats_heap_alloc_bytes")}
	m.most = 0
	m.report.Looks = append(m.report.Looks, line)
	if keys >= m.Keys/5 {
		m.keys, m.memory = append(m.keys, float64(keys)), append(m.memory, line.Live)
	}
	sayf(m.w.stderr, "%s: %s keys: %s of its own\n", what, humanize.Comma(keys), humanize.Bytes(uint64(r.Anon)))
	return nil
}

func (m *memoryTrial) judge() {
	r := m.report
	var most int64
	for _, l := range r.Looks {
		most = max(most, l.Most)
	}
	r.PerKey = bench.Slope(m.keys, m.memory)
	last := r.Looks[len(r.Looks)-1]
	r.Extrapolated = last.Live + max(0, r.PerKey)*float64(max(0, memoryKeys-r.Keys))
	r.Met = r.Keys >= memoryKeys && most < memoryBytes
}

func (m *memoryTrial) table(p *page) {
	r := m.report
	m.describe(p, r.machine, 1)
	p.row("PART", "KEYS", "OWN (RssAnon)", "MOST", "LIVE HEAP", "FILES")
	for _, l := range r.Looks {
		size := func(n int64) string { return humanize.Bytes(uint64(n)) }
		p.row(l.What, humanize.Comma(l.Keys), size(l.Resident.Anon), size(l.Most), size(int64(l.Live)), size(l.Resident.File))
	}
	p.linef("each key more adds %.1f bytes to the live heap, by a line through the looks after the first fifth", r.PerKey)
	switch {
	case r.Met:
		p.linef("goal of less than %s for %s keys: met", humanize.Bytes(memoryBytes), humanize.Comma(memoryKeys))
	case r.Keys >= memoryKeys:
		p.linef("goal of less than %s for %s keys: missed", humanize.Bytes(memoryBytes), humanize.Comma(memoryKeys))
	default:
		p.linef("EXTRAPOLATED to %s keys, not measured: a live heap of %s", humanize.Comma(memoryKeys), humanize.Bytes(uint64(r.Extrapolated)))
	}
}
