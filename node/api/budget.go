package api

import "sync/atomic"

// A budget bounds how much of something is in use at once. What does not fit
// is refused at once: a queue here would only move the wait into memory.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take reports whether n more fit, and counts them if they do.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

// give returns n of what was taken.
func (b *budget) give(n int64) { b.used.Add(-n) }
