package ring

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The sizes at which placement is judged: at least 64 partitions a node, n=3.
var tableSizes = []int{3, 4, 5, 10, 30, 100, 300, 1000}

// TestTable prints the table by which placement is judged and holds it to the
// goals. DESIGN.md explains the columns.
func TestTable(t *testing.T) {
	for _, shares := range [][]int{nil, {1, 1, 1}, {6, 5, 4, 3, 2}} {
		var out strings.Builder
		fmt.Fprintf(&out, "\nmembers of equal weight, zones %v\n", shares)
		fmt.Fprintf(&out, "%5s %6s | %5s %5s %5s %5s %6s | %5s %5s %5s %5s | %4s | %7s %7s | %6s %6s\n",
			"nodes", "parts", "n=1", "n=2", "n=3", "n=5", "share", "join", "leave", "x2", "x1/2", "zone", "first", "join", "lookup", "allocs")
		for _, nodes := range tableSizes {
			if (testing.Short() || underRace) && nodes > 30 {
				t.Logf("SKIPPED under -short or -race: %d nodes", nodes)
				continue
			}
			r := measure(t, nodes, shares)
			fmt.Fprintln(&out, r)
			r.judge(t)
		}
		t.Log(out.String())
	}
}

// row is one line of the table.
type row struct {
	nodes, partitions int
	peak              [4]float64 // largest load over the mean, at n = 1, 2, 3, 5
	share             float64    // largest load over what weights and zones allow, at n = 3, also after each change
	join, leave       float64    // moved over the least possible
	double, half      float64    // the same, for one weight
	zones             int        // violations, also after each change
	first, again      time.Duration
	lookup            float64 // ns
	allocs            float64
}

func (r *row) String() string {
	return fmt.Sprintf("%5d %6d | %5.3f %5.3f %5.3f %5.3f %6.3f | %5.3f %5.3f %5.3f %5.3f | %4d | %7s %7s | %4.1fns %6g",
		r.nodes, r.partitions, r.peak[0], r.peak[1], r.peak[2], r.peak[3], r.share, r.join, r.leave, r.double, r.half,
		r.zones, r.first.Round(100*time.Microsecond), r.again.Round(100*time.Microsecond), r.lookup, r.allocs)
}

func measure(t *testing.T, nodes int, shares []int) *row {
	t.Helper()
	r := &row{nodes: nodes, partitions: min(MaxPartitions, powerOfTwo(64*nodes))}
	all := members(nodes+1, shares...)
	ms := all[:nodes]

	start := time.Now()
	l := compute(t, ms, r.partitions, nil)
	r.first = time.Since(start)
	for i, n := range []int{1, 2, 3, 5} {
		r.peak[i] = peak(l, n)
	}
	r.share, r.zones = peakOverQuota(l, setSize), zoneViolations(l)

	start = time.Now()
	joined := compute(t, all, r.partitions, l)
	r.again = time.Since(start)
	r.join = r.change(l, joined)
	r.leave = r.change(l, compute(t, ms[1:], r.partitions, l))
	ms = slices.Clone(ms)
	ms[1].Weight *= 2
	r.double = r.change(l, compute(t, ms, r.partitions, l))
	ms[1].Weight /= 4
	r.half = r.change(l, compute(t, ms, r.partitions, l))

	r.lookup, r.allocs = timeLookup(l)
	return r
}

// change returns what a change moves over the least it could.
func (r *row) change(l, to *Layout) float64 {
	r.share = max(r.share, peakOverQuota(to, setSize))
	r.zones += zoneViolations(to)
	got, least := moved(l, to, setSize), leastMoved(l, to, setSize)
	if least == 0 {
		return float64(1 + got) // as it should be, if nothing moved
	}
	return float64(got) / float64(least)
}

func timeLookup(l *Layout) (nanoseconds, allocs float64) {
	const rounds = 1 << 20
	hash, sum := uint64(1), uint64(0)
	start := time.Now()
	for range rounds {
		hash = hash*0x9e3779b97f4a7c15 + 1
		sum += uint64(l.Owners(l.Partition(hash))[0])
	}
	nanoseconds = float64(time.Since(start)) / rounds
	allocs = testing.AllocsPerRun(100, func() { sum += uint64(l.Owners(l.Partition(sum))[0]) })
	return nanoseconds, allocs
}

func (r *row) judge(t *testing.T) {
	t.Helper()
	if r.share > 1.05 {
		t.Errorf("%d nodes: a node has %.3f of its share, goal 1.05", r.nodes, r.share)
	}
	if worst := max(r.join, r.leave, r.double, r.half); worst > 1.10 {
		t.Errorf("%d nodes: a change moves %.3f of the least possible, goal 1.10", r.nodes, worst)
	}
	if r.zones > 0 || r.allocs > 0 {
		t.Errorf("%d nodes: %d zone violations, %g allocations, goal 0", r.nodes, r.zones, r.allocs)
	}
}

func BenchmarkCompute(b *testing.B) {
	for _, nodes := range tableSizes {
		all := members(nodes+1, 1, 1, 1)
		partitions := min(MaxPartitions, powerOfTwo(64*nodes))
		l := compute(b, all[:nodes], partitions, nil)
		b.Run(fmt.Sprintf("first/nodes=%d", nodes), func(b *testing.B) {
			for b.Loop() {
				compute(b, all[:nodes], partitions, nil)
			}
		})
		b.Run(fmt.Sprintf("join/nodes=%d", nodes), func(b *testing.B) {
			for b.Loop() {
				compute(b, all, partitions, l)
			}
		})
	}
}

func BenchmarkOwners(b *testing.B) {
	for _, nodes := range tableSizes {
		l := compute(b, members(nodes), min(MaxPartitions, powerOfTwo(64*nodes)), nil)
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			b.ReportAllocs()
			hash, sum := uint64(1), uint64(0)
			for b.Loop() {
				hash = hash*0x9e3779b97f4a7c15 + 1
				sum += uint64(l.Owners(l.Partition(hash))[0])
			}
			_ = sum
		})
	}
}

func BenchmarkDecodeLayout(b *testing.B) {
	encoded := compute(b, members(1000), MaxPartitions, nil).Append(nil)
	for b.Loop() {
		if _, err := DecodeLayout(encoded); err != nil {
			b.Fatal(err)
		}
	}
}
