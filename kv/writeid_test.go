package kv

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWriteIDShape holds the fields against RFC 9562, section 5.7, and the
// example of its appendix A.6.
func TestWriteIDShape(t *testing.T) {
	const example = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
	issued := time.Date(2022, time.February, 22, 19, 22, 22, 0, time.UTC)
	bits := []uint64{0xcc3, 0x18c4dc0c0c07398f << 2}
	id := NewWriteID(issued, func() uint64 { b := bits[0]; bits = bits[1:]; return b })
	if got := id.String(); got != example {
		t.Errorf("made %s, want %s", got, example)
	}
	if !id.Issued().Equal(issued) {
		t.Errorf("issued %v, want %v", id.Issued(), issued)
	}
	for _, random := range []uint64{0, math.MaxUint64} {
		id := NewWriteID(issued, func() uint64 { return random })
		if got, err := ParseWriteID(id.String()); err != nil || got != id || !id.Issued().Equal(issued) {
			t.Errorf("random %#x: %v is no UUID of version 7 of that time: %v", random, id, err)
		}
	}
	if id := NewWriteID(time.UnixMilli(-5), func() uint64 { return 1 }); id.Issued().UnixMilli() != 0 {
		t.Errorf("an id from before 1970 says %v", id.Issued())
	}
}

func TestWriteIDOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const latest = 1<<48 - 1
		a := writeIDs(latest).Draw(t, "a")
		b := writeIDs(latest).Draw(t, "b")
		byTime := a.Issued().Compare(b.Issued())
		if byTime != 0 && a.Compare(b) != byTime {
			t.Errorf("%v, %v: order %d, by time %d", a, b, a.Compare(b), byTime)
		}
		if a.Compare(b) != -b.Compare(a) || (a.Compare(b) == 0) != (a == b) || a.Compare(b) != strings.Compare(a.String(), b.String()) {
			t.Errorf("%v, %v: no order, or not that of their texts", a, b)
		}
		if got, err := ParseWriteID(a.String()); err != nil || got != a {
			t.Errorf("%v came back as %v, %v", a, got, err)
		}
	})
}

// writeIDs draws ids issued at most latest milliseconds after 1970.
func writeIDs(latest int64) *rapid.Generator[WriteID] {
	return rapid.Custom(func(t *rapid.T) WriteID {
		ms := rapid.Int64Range(0, latest).Draw(t, "ms")
		return NewWriteID(time.UnixMilli(ms), func() uint64 { return rapid.Uint64().Draw(t, "random") })
	})
}

func TestParseWriteID(t *testing.T) {
	const good = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
	id, err := ParseWriteID(strings.ToUpper(good))
	if err != nil || id.String() != good {
		t.Errorf("upper case was read as %v, %v", id, err)
	}
	for name, text := range map[string]string{
		"nothing":               "",
		"no dashes":             strings.ReplaceAll(good, "-", ""),
		"too long":              good + "0",
		"too short":             good[:35],
		"braces":                "{" + good[1:35] + "}",
		"not hexadecimal":       good[:35] + "g",
		"dashes in other parts": "017f22e2-79b0-7cc3-98c4-dc0c0c0739--",
		"one dash too many":     "0-7f22e2-79b0-7cc3-98c4-dc0c0c07398f",
		"only dashes":           strings.Repeat("-", 36),
		"version 4":             "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
		"another variant":       "017f22e2-79b0-7cc3-d8c4-dc0c0c07398f",
		"all zero":              "00000000-0000-0000-0000-000000000000",
	} {
		if got, err := ParseWriteID(text); !errors.Is(err, ErrWriteID) || !got.IsZero() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		var into WriteID
		if err := into.UnmarshalText([]byte(text)); !errors.Is(err, ErrWriteID) || !into.IsZero() {
			t.Errorf("%s: unmarshalled to %v, %v", name, into, err)
		}
	}
}

// FuzzParseWriteID: a text that is accepted is that of the id, letter case
// apart.
func FuzzParseWriteID(f *testing.F) {
	f.Add("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
	f.Add("017f22e2-79b0-7cc3-98c4-dc0c0c0739--")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseWriteID(text)
		if err == nil && id.String() != strings.ToLower(text) {
			t.Errorf("%q was read as %v", text, id)
		}
	})
}
