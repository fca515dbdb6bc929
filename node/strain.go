package node

import (
	"context"
	"sync/atomic"
	"time"
)

// strain tells whether the machine keeps up: by how late timers are. Where they
// are, goroutines wait for a processor, those of requests too, and repairs give
// way to them.
type strain struct{ late atomic.Int64 } // nanoseconds, averaged

const (
	strainTick = 10 * time.Millisecond
	// strained is how late timers are, on average over some tenths of a second,
	// on a machine that does not keep up. An idle one is late by a tenth of it.
	strained = 2 * time.Millisecond
	// strainMemory is the weight of what was, in parts of the next.
	strainMemory = 16
)

// run measures until ctx ends.
func (s *strain) run(ctx context.Context) {
	ticker := time.NewTimer(strainTick)
	defer ticker.Stop()
	for {
		begun := time.Now()
		ticker.Reset(strainTick)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		late := int64(time.Since(begun) - strainTick)
		before := s.late.Load()
		s.late.Store(before + (late-before)/strainMemory)
	}
}

// high reports whether the machine does not keep up.
func (s *strain) high() bool { return s.average() > strained }

// average returns how late timers are.
func (s *strain) average() time.Duration { return time.Duration(s.late.Load()) }
