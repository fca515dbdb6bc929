package storage

import (
	"fmt"
	"sync"
	"time"
)

// gauge judges free space with hysteresis: full below low, and from then on
// until high is reached again.
type gauge struct {
	low, high uint64
	free      uint64
	full      bool
}

// read returns the gauge after free bytes were found.
func (g gauge) read(free uint64) gauge {
	g.free = free
	g.full = free < g.low || g.full && free < g.high
	return g
}

// admits reports whether there is room for a record or, if meta is set, for one
// of the few small facts that the node needs to go on, such as a layout: these
// may use half of the margin.
func (g gauge) admits(meta bool) bool {
	return g.free >= g.needs(meta)
}

// needs returns the free space from which on a write is admitted.
func (g gauge) needs(meta bool) uint64 {
	switch {
	case meta:
		return g.low / 2
	case g.full:
		return g.high
	}
	return g.low
}

// queueSlack is what may still be written when a watermark has been passed: the
// default bounds of what waits, and of what is written between two looks.
const queueSlack = 80 << 20

// Watermarks proposes watermarks for a disk of total bytes whose engine may
// need reserve bytes beyond what is stored: that and what may be waiting, at
// least 256 MiB, and 2% of the disk up to 8 GiB, since an engine that maps its
// files into memory dies when the disk is full.
func Watermarks(total, reserve uint64) (low, high uint64) {
	low = max(reserve+queueSlack, 256<<20, min(total/50, 8<<30))
	return low, low + low/10
}

// watermark asks for the free space now and then and refuses writes below it.
// It is safe for concurrent use.
type watermark struct {
	ask   func() (uint64, error) // nil: there is always room
	now   func() time.Time
	every time.Duration
	bytes int

	mu      sync.Mutex
	gauge   gauge
	asked   time.Time
	written int // since then
}

// admit returns [ErrDiskFull] if there is no room.
func (w *watermark) admit(meta bool) error {
	if w.ask == nil {
		return nil
	}
	if w.due() {
		w.look()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.gauge.admits(meta) {
		return fmt.Errorf("%w: %d bytes are free, writes need %d: free some space", ErrDiskFull, w.gauge.free, w.gauge.needs(meta))
	}
	return nil
}

// wrote tells how many bytes were committed.
func (w *watermark) wrote(n int) {
	if w.ask == nil {
		return
	}
	w.mu.Lock()
	w.written += n
	w.mu.Unlock()
	if w.due() {
		w.look()
	}
}

// due reports whether it is time to look, to one caller only.
func (w *watermark) due() bool {
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if since := now.Sub(w.asked); w.written < w.bytes && since >= 0 && since < w.every { // clocks may go back
		return false
	}
	w.asked, w.written = now, 0
	return true
}

// look asks for the free space. If nobody knows, the last answer stands.
func (w *watermark) look() {
	if w.ask == nil {
		return
	}
	free, err := w.ask()
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gauge = w.gauge.read(free)
}

// state returns how it stands. It looks where that is due: whoever waits with
// its writes for space to be freed would otherwise wait for a write.
func (w *watermark) state() gauge {
	if w.ask != nil && w.due() {
		w.look()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gauge
}
