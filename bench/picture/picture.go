// Package picture draws results of the benchmark as SVG.
package picture

import (
	"bytes"
	"fmt"
	"image/color"
	"maps"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/starling-kv/starling/bench"
)

const (
	width  = 7 * vg.Inch
	height = 3.5 * vg.Inch // of one plot
	gap    = vg.Length(12) // points

	lineWidth = vg.Length(1.5) // points
)

// Run draws the latencies of a run over percentiles, and its throughput over
// time.
func Run(r bench.Result) ([]byte, error) {
	title := fmt.Sprintf("workload %s, %d connections", r.Workload.Name, r.Connections)
	all := []series{{name: "all", points: points(r.Curve)}}
	for i, kind := range slices.Sorted(maps.Keys(r.ByKind)) {
		all = append(all, series{kind, i + 1, points(r.ByKind[kind].Curve)})
	}
	if len(all) == 2 {
		all = all[:1] // the same twice
	}
	latencies, err := curves(title, all)
	if err != nil {
		return nil, err
	}
	rates, err := timeline(r.Timeline)
	if err != nil {
		return nil, err
	}
	return grid([][]*plot.Plot{{latencies}, {rates}})
}

// series is a line. One without a name is in no legend.
type series struct {
	name   string
	color  int
	points plotter.XYs
}

// points places a latency at 1/(1-p), so that each further nine takes the same
// room: 10 is p90, 100 is p99.
func points(curve []bench.Point) plotter.XYs {
	xys := make(plotter.XYs, 0, len(curve))
	for _, p := range curve {
		xys = append(xys, plotter.XY{X: 100 / (100 - p.Percentile), Y: p.Latency})
	}
	return xys
}

// curves plots latencies over percentiles, both on logarithmic axes.
func curves(title string, all []series) (*plot.Plot, error) {
	p := newPlot(title, "percentile", "latency (ms)")
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(percentileTicks), plot.TickerFunc(decadeTicks)
	p.Legend.Top, p.Legend.Left = true, true
	if err := addLines(p, all); err != nil {
		return nil, err
	}
	if p.X.Min >= p.X.Max || p.Y.Min >= p.Y.Max || p.Y.Min <= 0 { // too little to see, and no logarithm
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 1, 100, 0.01, 10
	}
	return p, nil
}

// timeline plots requests a second.
func timeline(seconds []bench.Second) (*plot.Plot, error) {
	p := newPlot("", "time (s)", "requests a second")
	done := make(plotter.XYs, 0, len(seconds))
	for _, s := range seconds {
		done = append(done, plotter.XY{X: s.At, Y: s.Rate()})
	}
	if err := addLines(p, []series{{points: done}}); err != nil {
		return nil, err
	}
	p.X.Min, p.Y.Min = 0, 0
	p.Y.Max = max(p.Y.Max*1.1, 1)
	p.X.Max = max(p.X.Max, 1)
	return p, nil
}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	for _, style := range []*font.Font{
		&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font,
	} {
		style.Variant = "Sans"
	}
	return p
}

func addLines(p *plot.Plot, all []series) error {
	lines := plotter.NewGrid()
	lines.Horizontal.Color, lines.Vertical.Color = color.Gray{Y: 220}, color.Gray{Y: 220}
	p.Add(lines)
	for _, s := range all {
		if len(s.points) == 0 {
			continue
		}
		line, err := plotter.NewLine(s.points)
		if err != nil {
			return fmt.Errorf("draw %s: %w", s.name, err)
		}
		line.Color, line.Dashes, line.Width = plotutil.Color(s.color), plotutil.Dashes(s.color/len(plotutil.DefaultColors)), lineWidth
		p.Add(line)
		if s.name != "" {
			p.Legend.Add(s.name, line)
		}
	}
	return nil
}

// percentileTicks marks the median and each further nine.
func percentileTicks(_, most float64) []plot.Tick {
	ticks := []plot.Tick{{Value: 1, Label: "0"}, {Value: 2, Label: "50"}}
	for x := 10.0; x <= most; x *= 10 {
		ticks = append(ticks, plot.Tick{Value: x, Label: strconv.FormatFloat(100-100/x, 'g', -1, 64)})
	}
	return ticks
}

// decadeTicks marks 1, 2 and 5 of each power of ten.
func decadeTicks(least, most float64) []plot.Tick {
	var ticks []plot.Tick
	for decade := math.Pow(10, math.Floor(math.Log10(least))); decade <= most; decade *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v := m * decade; v >= least && v <= most {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 3, 64)})
			}
		}
	}
	return ticks
}

// grid draws rows of plots, all of one length.
func grid(rows [][]*plot.Plot) ([]byte, error) {
	columns := len(rows[0])
	canvas := vgsvg.New(width*vg.Length(columns), height*vg.Length(len(rows)))
	tiles := draw.Tiles{
		Rows: len(rows), Cols: columns, PadX: gap, PadY: gap, PadTop: gap / 2, PadBottom: gap / 2, PadLeft: gap / 2, PadRight: gap,
	}
	for i, row := range plot.Align(rows, tiles, draw.New(canvas)) {
		for j, place := range row {
			rows[i][j].Draw(place)
		}
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
