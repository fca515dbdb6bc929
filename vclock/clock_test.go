package vclock

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/internal/wire"
)

func TestClockCounterAndCovers(t *testing.T) {
	c := Clock{{1, 2}, {5, 7}}
	for _, tt := range []struct {
		dot     Dot
		counter uint64
		covers  bool
	}{
		{Dot{1, 1}, 2, true},
		{Dot{1, 2}, 2, true},
		{Dot{1, 3}, 2, false},
		{Dot{3, 1}, 0, false},
		{Dot{5, 7}, 7, true},
		{Dot{9, 1}, 0, false},
	} {
		if got := c.Counter(tt.dot.Actor); got != tt.counter {
			t.Errorf("%v.Counter(%v) = %d, want %d", c, tt.dot.Actor, got, tt.counter)
		}
		if got := c.Covers(tt.dot); got != tt.covers {
			t.Errorf("%v.Covers(%v) = %v, want %v", c, tt.dot, got, tt.covers)
		}
	}
}

func TestClockMergeAndDominates(t *testing.T) {
	for _, tt := range []struct {
		name           string
		a, b, merged   Clock
		aOverB, bOverA bool
	}{
		{"both empty", nil, nil, nil, true, true},
		{"one empty", Clock{{1, 1}}, nil, Clock{{1, 1}}, true, false},
		{"equal", Clock{{1, 1}, {2, 3}}, Clock{{1, 1}, {2, 3}}, Clock{{1, 1}, {2, 3}}, true, true},
		{"later", Clock{{1, 1}, {2, 3}}, Clock{{2, 2}}, Clock{{1, 1}, {2, 3}}, true, false},
		{"crossed", Clock{{1, 5}, {2, 1}}, Clock{{1, 1}, {2, 5}}, Clock{{1, 5}, {2, 5}}, false, false},
		{"apart", Clock{{2, 1}}, Clock{{1, 1}, {3, 1}}, Clock{{1, 1}, {2, 1}, {3, 1}}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.a.Merge(tt.b); !got.Equal(tt.merged) {
				t.Errorf("a.Merge(b) = %v, want %v", got, tt.merged)
			}
			if got := tt.b.Merge(tt.a); !got.Equal(tt.merged) {
				t.Errorf("b.Merge(a) = %v, want %v", got, tt.merged)
			}
			if tt.a.Dominates(tt.b) != tt.aOverB || tt.b.Dominates(tt.a) != tt.bOverA {
				t.Errorf("Dominates: %v and %v, want %v and %v", tt.a.Dominates(tt.b), tt.b.Dominates(tt.a), tt.aOverB, tt.bOverA)
			}
		})
	}
}

// events is the dumb twin of a clock: all events that it has seen, one by one.
type events map[Dot]bool

func eventsOf(c Clock) events {
	e := events{}
	for _, d := range c {
		for n := uint64(1); n <= d.Counter; n++ {
			e[Dot{d.Actor, n}] = true
		}
	}
	return e
}

func (e events) union(o events) events {
	u := maps.Clone(e)
	maps.Copy(u, o)
	return u
}

func (e events) includes(o events) bool {
	return len(e.union(o)) == len(e)
}

// clocks draws clocks of few actors and small counters, so that two of them
// have much in common.
func clocks() *rapid.Generator[Clock] {
	return rapid.Custom(func(t *rapid.T) Clock {
		var c Clock
		for a := Actor(1); a <= 5; a++ {
			if n := rapid.Uint64Range(0, 4).Draw(t, "counter"); n > 0 {
				c = append(c, Dot{a, n})
			}
		}
		return c
	})
}

func TestClockAgreesWithEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := clocks().Draw(t, "a"), clocks().Draw(t, "b")
		d := Dot{Actor(rapid.Uint64Range(1, 6).Draw(t, "actor")), rapid.Uint64Range(1, 5).Draw(t, "counter")}
		merged := eventsOf(a).union(eventsOf(b))
		if got := a.Merge(b); !maps.Equal(eventsOf(got), merged) {
			t.Errorf("%v.Merge(%v) = %v", a, b, got)
		}
		if got := a.Dominates(b); got != eventsOf(a).includes(eventsOf(b)) {
			t.Errorf("%v.Dominates(%v) = %v", a, b, got)
		}
		if got := a.Covers(d); got != eventsOf(a)[d] {
			t.Errorf("%v.Covers(%v) = %v", a, d, got)
		}
		if got := a.With(d); !maps.Equal(eventsOf(got), eventsOf(a).union(eventsOf(Clock{d}))) {
			t.Errorf("%v.With(%v) = %v", a, d, got)
		}
		if got := a.Equal(b); got != maps.Equal(eventsOf(a), eventsOf(b)) {
			t.Errorf("%v.Equal(%v) = %v", a, b, got)
		}
	})
}

func TestClockMergeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := clocks().Draw(t, "a"), clocks().Draw(t, "b"), clocks().Draw(t, "c")
		if !a.Merge(b).Equal(b.Merge(a)) {
			t.Error("not commutative")
		}
		if !a.Merge(b).Merge(c).Equal(a.Merge(b.Merge(c))) {
			t.Error("not associative")
		}
		if !a.Merge(a).Equal(a) || !a.Merge(b).Merge(b).Equal(a.Merge(b)) {
			t.Error("not idempotent")
		}
		if !a.Merge(b).Dominates(a) || a.Dominates(b) && b.Dominates(a) != a.Equal(b) {
			t.Error("merge and dominance disagree")
		}
	})
}

// TestClockOperandsStay: results may share their operands' storage, so no
// operation may write to it.
func TestClockOperandsStay(t *testing.T) {
	roomy := append(make(Clock, 0, 16), Dot{2, 1}, Dot{4, 1})
	other := append(make(Clock, 0, 16), Dot{1, 1}, Dot{4, 2})
	first := roomy.Merge(other)
	_, _ = first.With(Dot{9, 1}), first.With(Dot{8, 1})
	_, _ = roomy.With(Dot{9, 1}), roomy.With(Dot{3, 1})
	if !roomy.Equal(Clock{{2, 1}, {4, 1}}) || !other.Equal(Clock{{1, 1}, {4, 2}}) {
		t.Errorf("operands became %v and %v", roomy, other)
	}
	if !first.Equal(Clock{{1, 1}, {2, 1}, {4, 2}}) {
		t.Errorf("result became %v", first)
	}
}

func TestClockString(t *testing.T) {
	if got, want := (Clock{{1, 2}, {0xabc, 7}}).String(), "{0000000000000001:2 0000000000000abc:7}"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !(Dot{}).IsZero() || (Dot{1, 1}).IsZero() {
		t.Error("IsZero")
	}
}

// TestClockEncoding pins the bytes, which lie on disks.
func TestClockEncoding(t *testing.T) {
	for want, c := range map[string]Clock{
		"00":                   nil,
		"01000000000000000101": {{1, 1}},
		"02" + "0000000000000001ac02" + "ffffffffffffffffffffffffffffffffff01": {{1, 300}, {math.MaxUint64, math.MaxUint64}},
	} {
		if got := hex.EncodeToString(AppendClock(nil, c)); got != want {
			t.Errorf("%v encodes to %s, want %s", c, got, want)
		}
	}
}

func TestReadClockRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":               "",
		"fewer than announced":  "02000000000000000101",
		"more than announced":   "0100000000000000010100",
		"actor zero":            "01000000000000000001",
		"counter zero":          "01000000000000000100",
		"repeated actor":        "02000000000000000101000000000000000102",
		"descending actors":     "02000000000000000201000000000000000101",
		"counter not minimal":   "0100000000000000018100",
		"count over the limit":  "818004" + "000000000000000101",
		"count over the length": "ffff03" + "000000000000000101",
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := decodeClock(b); err == nil {
			t.Errorf("%s: read as %v", name, c)
		}
	}
}

func TestReadClockLimit(t *testing.T) {
	c := make(Clock, 1<<16+1)
	for i := range c {
		c[i] = Dot{Actor(i + 1), 1}
	}
	if _, err := decodeClock(AppendClock(nil, c[1:])); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := decodeClock(AppendClock(nil, c)); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("over the limit: %v, want %v", err, wire.ErrTooLarge)
	}
}

func TestClockEncodingRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := clocks().Draw(t, "clock")
		b := AppendClock(nil, c)
		if got, err := decodeClock(b); err != nil || !got.Equal(c) {
			t.Errorf("%v came back as %v, %v", c, got, err)
		}
		for i := range b {
			if got, err := decodeClock(b[:i]); err == nil {
				t.Errorf("%v cut to %d of %d bytes was read as %v", c, i, len(b), got)
			}
		}
	})
}

// FuzzReadClock: whatever is accepted is the one encoding of what was read.
func FuzzReadClock(f *testing.F) {
	f.Add([]byte{0})
	f.Add(AppendClock(nil, Clock{{1, 1}, {2, 300}}))
	f.Add(AppendClock(nil, Clock{{1, math.MaxUint64}})[:9])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeClock(b)
		if err != nil {
			return
		}
		if again := AppendClock(nil, c); !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %v, which is %x", b, c, again)
		}
	})
}

func decodeClock(b []byte) (Clock, error) {
	r := wire.NewReader(b)
	c := ReadClock(r)
	return c, r.Close()
}
