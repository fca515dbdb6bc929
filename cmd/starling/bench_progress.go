package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"

	"github.com/starling-kv/starling/bench"
)

// count shows how much of a number is reached: as a bar on a terminal, elsewhere
// as a line now and then. It is safe for concurrent use.
type count struct {
	mu    sync.Mutex
	bar   *progressbar.ProgressBar // nil where there is no terminal
	out   io.Writer
	what  string
	now   func() time.Time
	total int64
	most  int64
	shown time.Time
}

func newCount(w *world, what string, total int64) *count {
	c := &count{out: w.stderr, what: what, now: w.now, total: total, shown: w.now()}
	if w.terminal {
		c.bar = newBar(w, what, total, progressbar.OptionShowIts())
	}
	return c
}

func newBar(w *world, what string, total int64, more ...progressbar.Option) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total, append(more,
		progressbar.OptionSetWriter(w.stderr), progressbar.OptionSetDescription(what), progressbar.OptionShowCount(),
		progressbar.OptionThrottle(barInterval), progressbar.OptionClearOnFinish())...)
}

// reached says that so many are done. Calls may overtake one another.
func (c *count) reached(done int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = max(c.most, done)
	if c.bar != nil {
		_ = c.bar.Set64(c.most) // a terminal that went away
		return
	}
	if now := c.now(); now.Sub(c.shown) >= lineInterval {
		c.shown = now
		sayf(c.out, "%s: %s of %s\n", c.what, humanize.Comma(c.most), humanize.Comma(c.total))
	}
}

func (c *count) close() {
	if c.bar != nil {
		_ = c.bar.Finish() // a terminal that went away
	}
}

// loadLine shows the seconds of a load under way. One goroutine uses it.
type loadLine struct {
	bar  *progressbar.ProgressBar // nil where there is no terminal
	out  io.Writer
	past time.Duration // since the last line
}

func newLoadLine(w *world, length time.Duration) *loadLine {
	l := &loadLine{out: w.stderr}
	if w.terminal {
		l.bar = newBar(w, "load", int64(length.Seconds()))
	}
	return l
}

func (l *loadLine) second(s bench.Second) {
	text := fmt.Sprintf("%s a second, p99 %.2f ms", humanize.Comma(int64(s.Rate())), s.Latency.P99)
	if s.Failed > 0 {
		text += fmt.Sprintf(", %s failed", humanize.Comma(s.Failed))
	}
	if l.bar != nil {
		l.bar.Describe(text)
		_ = l.bar.Add(1) // a terminal that went away
		return
	}
	if l.past += time.Duration(s.Length * float64(time.Second)); l.past >= lineInterval {
		l.past = 0
		sayf(l.out, "load: %.0fs: %s\n", s.At, text)
	}
}

func (l *loadLine) close() {
	if l.bar != nil {
		_ = l.bar.Finish() // a terminal that went away
	}
}
