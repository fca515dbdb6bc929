package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
)

// progress shows how many of a number of things are done: as a bar on a terminal,
// elsewhere as a line now and then. It is safe for concurrent use.
type progress struct {
	mu    sync.Mutex
	bar   *progressbar.ProgressBar // nil where there is no terminal
	out   io.Writer
	what  string
	unit  string // of what is counted, in the plural
	now   func() time.Time
	total int
	done  int
	bytes int64
	shown time.Time // when the last line was written
}

const (
	lineInterval = 5 * time.Second
	barInterval  = 100 * time.Millisecond
)

func newProgress(w *world, what, unit string, total int) *progress {
	p := &progress{out: w.stderr, what: what, unit: unit, now: w.now, total: total, shown: w.now()}
	if w.terminal {
		p.bar = progressbar.NewOptions(total,
			progressbar.OptionSetWriter(w.stderr), progressbar.OptionSetDescription(what), progressbar.OptionShowCount(),
			progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit), progressbar.OptionThrottle(barInterval),
			progressbar.OptionClearOnFinish())
	}
	return p
}

// add counts one more, of so many bytes.
func (p *progress) add(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	p.bytes += int64(bytes)
	if p.bar != nil {
		_ = p.bar.Add(1) // a terminal that went away
		return
	}
	if now := p.now(); now.Sub(p.shown) >= lineInterval {
		p.shown = now
		sayf(p.out, "%s\n", p.line())
	}
}

// line says how far it is. Not everything that is counted has bytes.
func (p *progress) line() string {
	line := fmt.Sprintf("%s: %s of %s %s", p.what, humanize.Comma(int64(p.done)), humanize.Comma(int64(p.total)), p.unit)
	if p.bytes == 0 {
		return line
	}
	return line + ", " + humanize.IBytes(uint64(p.bytes))
}

// close takes the bar away.
func (p *progress) close() {
	if p.bar != nil {
		_ = p.bar.Finish() // a terminal that went away
	}
}
