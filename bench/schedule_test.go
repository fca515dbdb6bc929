package bench

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// All connections together send at an even pace, and until agrees with due.
func TestSchedule(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.5, 5000).Draw(t, "rate")
		connections := rapid.Int64Range(1, 20).Draw(t, "connections")
		end := start.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "length")))
		var all []time.Time
		for i := range connections {
			s := schedule{start: start, rate: rate, connections: connections, index: i}
			n := s.until(end)
			for j := range n {
				all = append(all, s.due(j))
			}
			if n > 0 && !s.due(n-1).Before(end) || s.due(n).Before(end) {
				t.Fatalf("connection %d has %d requests before %v, not those due at %v and %v", i, n, end, s.due(n-1), s.due(n))
			}
		}
		slices.SortFunc(all, time.Time.Compare)
		for i, due := range all {
			want := time.Duration(float64(i) / rate * float64(time.Second))
			if off := due.Sub(start) - want; off.Abs() > time.Microsecond {
				t.Fatalf("request %d is due %v late", i, off)
			}
		}
	})
}
