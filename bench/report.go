package bench

import (
	"os"
	"runtime"
	"slices"
	"strings"
)

// Report is the outcome of a comparison.
type Report struct {
	Config  ReportConfig   `json:"config"`
	Systems []ReportSystem `json:"systems"`
	Rows    []ReportRow    `json:"rows"`
}

// ReportConfig says what was done, on what machine.
type ReportConfig struct {
	Rounds     int     `json:"rounds"`
	Seconds    float64 `json:"seconds"`
	WarmUp     float64 `json:"warm_up_seconds"`
	Keys       int64   `json:"keys"`
	LargeKeys  int64   `json:"large_keys"`
	KeySize    int     `json:"key_bytes"`
	Overwrites int     `json:"overwrites"`
	Seed       uint64  `json:"seed"`
	Cores      int     `json:"cores"`
	Kernel     string  `json:"kernel"`
	Go         string  `json:"go"`
}

func (c *Comparison) describe() ReportConfig {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // where there is one
	return ReportConfig{
		Rounds: c.Rounds, Seconds: c.Duration.Seconds(), WarmUp: c.WarmUp.Seconds(), Keys: c.Keys, LargeKeys: c.LargeKeys,
		KeySize: c.KeySize, Overwrites: c.Overwrites, Seed: c.Seed, Cores: runtime.NumCPU(),
		Kernel: strings.TrimSpace(string(kernel)), Go: runtime.Version(),
	}
}

// ReportSystem says what was measured, or why it was not.
type ReportSystem struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Setting string `json:"setting,omitempty"`
	Missing string `json:"missing,omitempty"`
}

// ReportRow is one load and how each variant did under it.
type ReportRow struct {
	Row

	Cells []ReportCell `json:"results"`
}

// ReportCell is one variant under one load: medians over the rounds.
type ReportCell struct {
	Variant    string  `json:"variant"`
	Sync       bool    `json:"sync"`
	Rounds     int     `json:"rounds"`
	Throughput float64 `json:"throughput"`
	Slowest    float64 `json:"slowest_round"`
	Fastest    float64 `json:"fastest_round"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p99_9_ms"`
	Per100k    float64 `json:"cpu_per_100k"` // seconds of all servers
	Others     float64 `json:"other_cores"`  // used by other processes meanwhile
	Failed     int64   `json:"failed"`       // in all rounds
	Missing    int64   `json:"missing"`      // likewise
	// OfSkeleton is the throughput over that of the skeleton with the same
	// durability, StarlingOver that of Starling over this one; 0: not measured.
	OfSkeleton   float64 `json:"of_skeleton"`
	StarlingOver float64 `json:"starling_over"`
	Curve        []Point `json:"percentiles"`
}

// Names of systems. Ratios are taken of the first two.
const (
	Starling = "starling"
	Skeleton = "skeleton"
	Echo     = "echo"
)

// VariantName is that of Starling and of the skeleton, sync or not.
func VariantName(system string, sync bool) string {
	if sync {
		return system + " sync"
	}
	return system + " async"
}

// fill makes the report of what was measured.
func (r *Report) fill(c *Comparison, measured map[string]*cell) {
	for _, s := range c.Systems {
		r.Systems = append(r.Systems, ReportSystem{s.Name, s.Version, s.Setting, s.Missing})
	}
	for _, row := range c.Rows {
		out := ReportRow{Row: row}
		for _, s := range c.Systems {
			for _, v := range s.Variants {
				if m := measured[cellKey(v.Name, row.Name)]; m != nil {
					out.Cells = append(out.Cells, m.report(v))
				}
			}
		}
		out.compare()
		r.Rows = append(r.Rows, out)
	}
}

func (c *cell) report(v Variant) ReportCell {
	of := func(get func(Result) float64) []float64 {
		all := make([]float64, len(c.results))
		for i, r := range c.results {
			all[i] = get(r)
		}
		return all
	}
	rates := of(func(r Result) float64 { return r.Throughput })
	out := ReportCell{
		Variant: v.Name, Sync: v.Sync, Rounds: len(c.results), Curve: curve(c.histogram),
		Throughput: median(rates), Slowest: slices.Min(rates), Fastest: slices.Max(rates),
		P50:     median(of(func(r Result) float64 { return r.Latency.P50 })),
		P99:     median(of(func(r Result) float64 { return r.Latency.P99 })),
		P999:    median(of(func(r Result) float64 { return r.Latency.P999 })),
		Per100k: median(of(func(r Result) float64 { return r.cpu().Per100k })),
		Others:  median(of(func(r Result) float64 { return r.cpu().Others / r.Seconds })),
	}
	for _, r := range c.results {
		out.Failed += r.Failed()
		out.Missing += r.Missing
	}
	return out
}

func (r *Result) cpu() CPU {
	if r.CPU == nil {
		return CPU{}
	}
	return *r.CPU
}

// compare fills in the ratios.
func (r *ReportRow) compare() {
	throughput := map[string]float64{}
	for _, c := range r.Cells {
		throughput[c.Variant] = c.Throughput
	}
	of := func(system string, sync bool) float64 {
		if !r.Workload.writes() {
			sync = false // reads alone are measured once
		}
		return throughput[VariantName(system, sync)]
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		c.OfSkeleton = ratio(c.Throughput, of(Skeleton, c.Sync))
		c.StarlingOver = ratio(of(Starling, c.Sync), c.Throughput)
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
