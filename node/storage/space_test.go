package storage

import (
	"errors"
	"testing"
	"time"
)

func TestGauge(t *testing.T) {
	type reading struct {
		free          uint64
		records, meta bool
	}
	tests := []struct {
		name     string
		readings []reading
	}{
		{"plenty", []reading{{1000, true, true}}},
		{"at the low mark", []reading{{100, true, true}}},
		{"under it", []reading{{99, false, true}}},
		{"facts use half the margin", []reading{{50, false, true}, {49, false, false}}},
		{"refuses until the high mark", []reading{{99, false, true}, {100, false, true}, {149, false, true}, {150, true, true}}},
		{"full once more", []reading{{99, false, true}, {150, true, true}, {100, true, true}, {99, false, true}}},
	}
	for _, tt := range tests {
		g := gauge{low: 100, high: 150}
		for i, r := range tt.readings {
			g = g.read(r.free)
			if g.admits(false) != r.records || g.admits(true) != r.meta {
				t.Errorf("%s: reading %d of %d free: records %v, facts %v, want %v, %v",
					tt.name, i, r.free, g.admits(false), g.admits(true), r.records, r.meta)
			}
		}
	}
}

func TestWatermarkLooksNowAndThen(t *testing.T) {
	now, looks, free := time.Unix(0, 0), 0, uint64(1000)
	var broken error
	w := &watermark{
		ask:   func() (uint64, error) { looks++; return free, broken },
		now:   func() time.Time { return now },
		every: time.Second, bytes: 100,
		gauge: gauge{low: 100, high: 100},
	}
	step := func(name string, wantLooks int, wantFull bool) {
		t.Helper()
		err := w.admit(false)
		if looks != wantLooks || errors.Is(err, ErrDiskFull) != wantFull {
			t.Errorf("%s: %d looks and %v, want %d and full=%v", name, looks, err, wantLooks, wantFull)
		}
	}
	step("the first time", 1, false)
	free = 0
	step("soon after", 1, false)
	now = now.Add(time.Second)
	step("after a while", 2, true)
	free = 1000
	w.wrote(99)
	step("after few bytes", 2, true)
	w.wrote(1)
	step("after many bytes", 3, false)
	free, broken = 0, errors.New("no answer")
	now = now.Add(time.Second)
	step("without an answer the last one stands", 4, false)
}

func TestWatermarks(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct{ total, reserve, low uint64 }{
		{gib, 0, 256 << 20},
		{gib, 600 << 20, 680 << 20},
		{100 * gib, gib, 2 * gib},
		{4000 * gib, gib, 8 * gib},
	} {
		if low, high := Watermarks(tt.total, tt.reserve); low != tt.low || high <= low {
			t.Errorf("of %d with reserve %d: %d and %d, want low %d", tt.total, tt.reserve, low, high, tt.low)
		}
	}
}

func sized(n int) task { return task{size: n} }

func TestQueueBounds(t *testing.T) {
	tests := []struct {
		name string
		put  []int
		want []bool
	}{
		{"by number", []int{1, 1, 1, 1}, []bool{true, true, true, false}},
		{"by bytes", []int{60, 40, 1}, []bool{true, true, false}},
		{"a smaller one fits", []int{60, 50, 40}, []bool{true, false, true}},
		{"one of any size", []int{1000, 1}, []bool{true, false}},
	}
	for _, tt := range tests {
		q := newQueue(3, 100)
		for i, n := range tt.put {
			if err := q.put(sized(n)); (err == nil) != tt.want[i] || err != nil && !errors.Is(err, ErrBusy) {
				t.Errorf("%s: put %d of %d bytes: %v", tt.name, i, n, err)
			}
		}
	}
}

func TestQueueTakesInOrderAndWithinBounds(t *testing.T) {
	q := newQueue(100, 1000)
	for _, n := range []int{10, 20, 70, 200, 5, 5, 5} {
		if err := q.put(sized(n)); err != nil {
			t.Fatal(err)
		}
	}
	q.end()
	var got [][]int
	for q.await() {
		tasks := q.take(nil, 2, 100)
		sizes := make([]int, 0, len(tasks))
		for _, task := range tasks {
			sizes = append(sizes, task.size)
		}
		got = append(got, sizes)
	}
	want := [][]int{{10, 20}, {70}, {200}, {5, 5}, {5}}
	if len(got) != len(want) {
		t.Fatalf("took %v, want %v", got, want)
	}
	for i := range want {
		if len(got[i]) != len(want[i]) || got[i][0] != want[i][0] {
			t.Errorf("took %v, want %v", got, want)
		}
	}
	if tasks, bytes := q.depth(); tasks != 0 || bytes != 0 {
		t.Errorf("%d tasks and %d bytes are left", tasks, bytes)
	}
}

func TestQueueRefusesWithTheFirstReason(t *testing.T) {
	q := newQueue(1, 1)
	q.refuse(ErrFailed)
	q.refuse(ErrClosed)
	if err := q.put(sized(1)); !errors.Is(err, ErrFailed) {
		t.Errorf("put: %v, want ErrFailed", err)
	}
}
