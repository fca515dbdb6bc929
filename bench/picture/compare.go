package picture

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/starling-kv/starling/bench"
)

// Comparison draws, for each row of a report, the throughput of all variants as
// bars, and their latencies over percentiles.
func Comparison(r *bench.Report) ([]byte, error) {
	var plots [][]*plot.Plot
	colors := map[string]int{} // of the variants: the same in all rows
	for _, row := range r.Rows {
		if len(row.Cells) == 0 {
			continue
		}
		for _, c := range row.Cells {
			if _, ok := colors[c.Variant]; !ok {
				colors[c.Variant] = len(colors)
			}
		}
		rates, err := bars(row, colors)
		if err != nil {
			return nil, err
		}
		var all []series
		for _, c := range row.Cells {
			all = append(all, series{color: colors[c.Variant], points: points(c.Curve)})
		}
		latencies, err := curves(row.Name+": latency", all)
		if err != nil {
			return nil, err
		}
		plots = append(plots, []*plot.Plot{rates, latencies})
	}
	if len(plots) == 0 {
		return nil, fmt.Errorf("the report of %d rows has no results to draw", len(r.Rows))
	}
	return grid(plots)
}

const barWidth = vg.Length(14) // points

// bars plots the throughput of each variant.
func bars(row bench.ReportRow, colors map[string]int) (*plot.Plot, error) {
	title := fmt.Sprintf("%s: values of %d bytes, %d connections", row.Name, row.ValueSize, row.Connections)
	p := newPlot(title, "requests a second", "")
	var names []string
	// The first stands on top, which is the end of an axis.
	for i := range row.Cells {
		c := row.Cells[len(row.Cells)-1-i]
		bar, err := plotter.NewBarChart(plotter.Values{c.Throughput}, barWidth)
		if err != nil {
			return nil, fmt.Errorf("draw %s: %w", c.Variant, err)
		}
		bar.Horizontal, bar.XMin = true, float64(i)
		bar.Color, bar.LineStyle.Width = plotutil.Color(colors[c.Variant]), 0
		p.Add(bar)
		names = append(names, fmt.Sprintf("%s  %.0f", c.Variant, c.Throughput))
	}
	p.NominalY(names...)
	p.X.Min = 0
	return p, nil
}
