package peer

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/node/transport"
)

func TestWindow(t *testing.T) {
	tests := []struct {
		name string
		give []uint64
		want []bool
	}{
		{"in order", []uint64{1, 2, 3}, []bool{true, true, true}},
		{"a copy", []uint64{1, 1}, []bool{true, false}},
		{"overtaken", []uint64{2, 1, 1, 2}, []bool{true, true, false, false}},
		{"the first after a leap", []uint64{1, 1 << 40, 1<<40 - 5, 1<<40 - 5}, []bool{true, true, true, false}},
		{"the last that is remembered", []uint64{windowBits, 1, 1}, []bool{true, true, false}},
		{"too old to be known", []uint64{windowBits + 1, 1}, []bool{true, false}},
		{"a number whose bit another had", []uint64{5, windowBits + 5, windowBits + 5}, []bool{true, true, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var w window
			for i, n := range tt.give {
				if got := w.take(n); got != tt.want[i] {
					t.Errorf("take(%d), the %dth: %v, want %v", n, i+1, got, tt.want[i])
				}
			}
		})
	}
}

// A window never takes a number twice, and takes every first that is not older
// than it remembers.
func TestWindowAgainstASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		taken := make(map[uint64]bool)
		last := uint64(0)
		for range rapid.IntRange(1, 60).Draw(t, "calls") {
			n := uint64(max(1, int64(last)+rapid.Int64Range(-2*windowBits, 2*windowBits).Draw(t, "step")))
			last = max(last, n)
			want := !taken[n] && n+windowBits > last
			if got := w.take(n); got != want {
				t.Fatalf("take(%d) after %d: %v, want %v", n, last, got, want)
			}
			taken[n] = true
		}
	})
}

func TestCopiesKnowSendersApart(t *testing.T) {
	var c copies
	a, b := transport.Peer{ID: 1, Incarnation: 1}, transport.Peer{ID: 2, Incarnation: 1}
	again := transport.Peer{ID: 1, Incarnation: 2}
	if !c.first(a, 7) || c.first(a, 7) || !c.first(b, 7) || !c.first(again, 7) || c.first(again, 7) {
		t.Error("a number is taken once of each process of each node")
	}
}
