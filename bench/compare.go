package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// System is one of those that [Compare] measures.
type System struct {
	Name    string
	Version string
	Setting string // in words
	// Missing says why the system cannot be had, and how to get it. It is skipped
	// then.
	Missing string
	// Variants are measured on the same processes, one after the other.
	Variants []Variant
	// Start runs the processes, on the data that they left the last time.
	Start func(ctx context.Context) (Instance, error)
	// Tokens says that writes carry them.
	Tokens bool
}

// Variant is one way to use a system.
type Variant struct {
	Name string // "starling async"
	// Sync says that every acknowledgement means synced.
	Sync bool
	// WritesOnly leaves out reads alone, which are those of another variant.
	WritesOnly bool
}

// Instance is a running system.
type Instance interface {
	// Dial returns how to reach it, in that variant. To preload is true for
	// connections whose writes replace whatever is there.
	Dial(v Variant, preload bool) Dial
	PIDs() []int
	// Stop ends the processes and waits for them.
	Stop() error
}

// Row is one load that all systems are put under.
type Row struct {
	Name        string   `json:"name"`
	Workload    Workload `json:"workload"`
	ValueSize   int      `json:"value_bytes"`
	Connections int      `json:"connections"`
	Large       bool     `json:"-"` // uses the set of keys with large values
}

// Sizes of values in bytes.
const (
	smallValue = 100
	largeValue = 1 << 10
)

// Rows are the loads of a comparison. Connections are those of the first four.
func Rows(connections int) []Row {
	named := func(name string) Workload {
		w, _ := ParseWorkload(name) // it is there
		return w
	}
	mixed := named("mix")
	return []Row{
		{"reads", named("reads"), smallValue, connections, false},
		{"writes", named("writes"), smallValue, connections, false},
		{"mix", mixed, smallValue, connections, false},
		{"mix-1k", mixed, largeValue, connections, true},
		{"mix-16", mixed, smallValue, 16, false},
		{"mix-4", mixed, smallValue, 4, false},
	}
}

// Comparison is what [Compare] does. All fields must be set but Report.
type Comparison struct {
	Systems []System
	Rows    []Row
	Rounds  int

	Keys, LargeKeys  int64 // of the two sets
	KeySize          int
	Overwrites       int
	WarmUp, Duration time.Duration // of one row
	Seed             uint64

	Say     func(text string)                                       // what goes on
	Preload func(ctx context.Context, what string, p Preload) error // carries p out, and shows it
}

// Compare measures all systems in every round and returns what came of it, also
// beside an error: what was measured until then.
func Compare(ctx context.Context, c Comparison) (*Report, error) {
	report := &Report{Config: c.describe()}
	measured := make(map[string]*cell)
	tokens := make(map[string]*[2]*Tokens)
	for round := range c.Rounds {
		for _, s := range c.Systems {
			if s.Missing != "" {
				continue
			}
			m := measurement{Comparison: &c, system: s, round: round, cells: measured, tokens: tokens}
			if err := m.run(ctx); err != nil {
				report.fill(&c, measured)
				return report, fmt.Errorf("round %d, %s: %w", round+1, s.Name, err)
			}
		}
	}
	report.fill(&c, measured)
	return report, nil
}

// cell gathers what the rounds measured of one variant under one load.
type cell struct {
	results   []Result
	histogram *hdr.Histogram
}

// measurement is one system in one round.
type measurement struct {
	*Comparison

	system System
	round  int
	cells  map[string]*cell
	tokens map[string]*[2]*Tokens // by system; small and large
}

func (m *measurement) run(ctx context.Context) (err error) {
	instance, err := m.system.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, instance.Stop()) }()
	if m.round == 0 {
		if err := m.fill(ctx, instance); err != nil {
			return err
		}
	}
	for _, v := range m.system.Variants {
		for _, row := range m.Rows {
			if v.WritesOnly && !row.Workload.writes() {
				continue
			}
			if err := m.measure(ctx, instance, v, row); err != nil {
				return fmt.Errorf("%s, %s: %w", v.Name, row.Name, err)
			}
		}
	}
	return nil
}

// sets of keys: their letter, number, and size of values.
func (m *measurement) set(large bool) (set byte, keys int64, value int) {
	if large {
		return 'l', m.LargeKeys, largeValue
	}
	return DefaultSet, m.Keys, smallValue
}

// fill writes the sets of keys that the rows use.
func (m *measurement) fill(ctx context.Context, in Instance) error {
	tokens := new([2]*Tokens)
	m.tokens[m.system.Name] = tokens
	for i, large := range []bool{false, true} {
		if !slices.ContainsFunc(m.Rows, func(r Row) bool { return r.Large == large }) {
			continue
		}
		set, keys, value := m.set(large)
		if m.system.Tokens {
			tokens[i] = NewTokens(keys)
		}
		p := Preload{
			Keys: keys, Set: set, KeySize: m.KeySize, ValueSize: value, Overwrites: m.Overwrites,
			Connections: preloadConnections, Seed: m.Seed, Tokens: tokens[i], Dial: in.Dial(m.system.Variants[0], true),
		}
		if err := m.Preload(ctx, fmt.Sprintf("preload %s, values of %d bytes", m.system.Name, value), p); err != nil {
			return err
		}
	}
	return nil
}

const preloadConnections = 64

func (m *measurement) measure(ctx context.Context, in Instance, v Variant, row Row) error {
	set, keys, _ := m.set(row.Large)
	tokens := m.tokens[m.system.Name][0]
	if row.Large {
		tokens = m.tokens[m.system.Name][1]
	}
	r, err := Run(ctx, Config{
		Workload: row.Workload, Keys: keys, Set: set, KeySize: m.KeySize, ValueSize: row.ValueSize,
		Connections: row.Connections, WarmUp: m.WarmUp, Duration: m.Duration, Seed: m.Seed + uint64(m.round),
		Tokens: tokens, Dial: in.Dial(v, false), PIDs: in.PIDs(),
	})
	if err != nil {
		return err
	}
	c := m.cells[cellKey(v.Name, row.Name)]
	if c == nil {
		c = &cell{histogram: newHistogram()}
		m.cells[cellKey(v.Name, row.Name)] = c
	}
	c.results = append(c.results, r)
	c.histogram.Merge(r.histogram)
	m.Say(fmt.Sprintf("round %d of %d: %-16s %-7s %8.0f a second, p99 %6.2f ms%s",
		m.round+1, m.Rounds, v.Name, row.Name, r.Throughput, r.Latency.P99, complaints(r)))
	return nil
}

// complaints is what makes a result worth a second look.
func complaints(r Result) string {
	var text strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(&text, "; %d failed: %s", r.Errors[kind], kind)
	}
	if r.Missing > 0 {
		fmt.Fprintf(&text, "; %d reads found nothing", r.Missing)
	}
	return text.String()
}

func cellKey(variant, row string) string { return variant + "/" + row }
