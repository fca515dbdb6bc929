package picture

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/starling-kv/starling/bench"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is drawn otherwise: look at it, and run the test with -update if it is better", name)
	}
}

func curveOf(scale float64) []bench.Point {
	at := [][2]float64{{10, 1}, {50, 2}, {90, 5}, {99, 20}, {99.9, 90}}
	points := make([]bench.Point, len(at))
	for i, p := range at {
		points[i] = bench.Point{Percentile: p[0], Latency: p[1] * scale}
	}
	return points
}

func TestRun(t *testing.T) {
	w, err := bench.ParseWorkload("mix")
	if err != nil {
		t.Fatal(err)
	}
	r := bench.Result{
		Workload: w, Connections: 64, Curve: curveOf(0.3),
		ByKind:   map[string]bench.ByKind{"read": {Curve: curveOf(0.2)}, "update": {Curve: curveOf(0.4)}},
		Timeline: []bench.Second{{At: 1, Length: 1, Done: 9000}, {At: 2, Length: 1, Done: 12000}, {At: 3, Length: 1, Done: 11000}},
	}
	svg, err := Run(r)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "run.svg", svg)
}

func TestComparison(t *testing.T) {
	r := &bench.Report{Rows: []bench.ReportRow{
		{Row: bench.Row{Name: "reads", ValueSize: 100, Connections: 64}, Cells: []bench.ReportCell{
			{Variant: "echo", Throughput: 150_000, Curve: curveOf(0.1)}, {Variant: "starling async", Throughput: 50_000, Curve: curveOf(0.4)},
		}},
		{Row: bench.Row{Name: "writes", ValueSize: 100, Connections: 64}},
		{Row: bench.Row{Name: "mix", ValueSize: 100, Connections: 64}, Cells: []bench.ReportCell{
			{Variant: "starling async", Throughput: 40_000, Curve: curveOf(0.5)},
		}},
	}}
	svg, err := Comparison(r)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "comparison.svg", svg)
}

// A run in which nothing, or hardly anything, happened is drawn all the same.
func TestEmptyRuns(t *testing.T) {
	for name, r := range map[string]bench.Result{
		"nothing":    {},
		"one point":  {Curve: []bench.Point{{Percentile: 10, Latency: 1}}, Timeline: []bench.Second{{At: 1, Length: 1}}},
		"one height": {Curve: []bench.Point{{Percentile: 10, Latency: 1}, {Percentile: 50, Latency: 1}}},
	} {
		svg, err := Run(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d := xml.NewDecoder(bytes.NewReader(svg))
		for err == nil {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) || bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) {
			t.Errorf("%s: %v: %.300s", name, err, svg)
		}
	}
	if _, err := Comparison(&bench.Report{}); err == nil {
		t.Error("a report without results was drawn")
	}
}
