package transport

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

// aFrame draws a frame, some of them larger than a read buffer.
func aFrame(t *rapid.T) frame {
	size := rapid.OneOf(rapid.IntRange(0, 200), rapid.IntRange(readBuffer-50, readBuffer+50)).Draw(t, "size")
	return frame{
		header: header{
			kind:   frameKind(rapid.IntRange(int(kindRequest), int(kindPing)).Draw(t, "kind")),
			method: Method(rapid.Byte().Draw(t, "method")),
			id:     rapid.Uint64().Draw(t, "id"),
			budget: rapid.Uint32().Draw(t, "budget"),
		},
		body: bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, size),
	}
}

func TestFramesSurviveAnyCutting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frames := rapid.SliceOfN(rapid.Custom(aFrame), 1, 20).Draw(t, "frames")
		var stream []byte
		for _, f := range frames {
			stream = appendFrame(stream, f.header, f.body)
		}
		var from io.Reader = bytes.NewReader(stream)
		if rapid.Bool().Draw(t, "halves") {
			from = iotest.HalfReader(from)
		}
		r := newFrameReader(iotest.DataErrReader(from), 2*readBuffer)
		for i, want := range frames {
			got, err := r.next()
			if err != nil || got.header != want.header || !bytes.Equal(got.take(), want.body) {
				t.Fatalf("frame %d: %+v of %d bytes, error %v", i, got.header, len(got.body), err)
			}
		}
		if _, err := r.next(); !errors.Is(err, io.EOF) {
			t.Fatalf("behind the last frame: %v", err)
		}
	})
}

// A changed bit must never bring a frame to life, wherever it is. One in the
// length may leave the reader waiting for bytes that never come; the stream's
// end stands for the peer that is given up.
func TestAFlippedBitDeliversNothing(t *testing.T) {
	for _, size := range []int{0, 116, readBuffer} {
		whole := appendFrame(nil, header{kind: kindRequest, method: 1, id: 7, budget: 1000}, make([]byte, size))
		for i := range whole {
			if size > 200 && i > 40 && i < len(whole)-20 {
				continue
			}
			for bit := range 8 {
				b := bytes.Clone(whole)
				b[i] ^= 1 << bit
				if f, err := newFrameReader(bytes.NewReader(b), 1<<20).next(); err == nil {
					t.Fatalf("byte %d, bit %d: delivered %+v", i, bit, f.header)
				}
			}
		}
	}
}

func TestFrameLengthIsBounded(t *testing.T) {
	const maxBody = 100
	for _, test := range []struct {
		length string
		ok     bool
	}{
		{"\x00\x00\x00\x00", false},
		{"\x00\x00\x00\x15", false},
		{"\x00\x00\x00\x16", true},
		{"\x00\x00\x00\x7a", true},
		{"\x00\x00\x00\x7b", false},
		{"\xff\xff\xff\xff", false},
	} {
		size, err := frameSize([]byte(test.length), maxBody)
		if (err == nil) != test.ok || (err != nil && !damaged(err)) {
			t.Errorf("% x: size %d, error %v", test.length, size, err)
		}
	}
}

func TestBudgetIsClamped(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		-time.Second: 0, time.Millisecond: 1000, time.Hour: 3_600_000_000, 1000 * time.Hour: math.MaxUint32,
	} {
		if got := budgetOf(d); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
}

// FuzzFrames feeds the reader anything: it must not panic, and what it takes for
// a frame must be one, byte for byte.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendFrame(nil, header{kind: kindPing}, nil))
	f.Add(appendFrame(appendFrame(nil, header{kind: kindRequest, id: 1}, []byte("body")), header{kind: kindCancel, id: 1}, nil))
	f.Add([]byte("\x00\x00\x00\x16garbage that is long enough"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := newFrameReader(bytes.NewReader(stream), 1<<16)
		for rest := stream; ; {
			got, err := r.next()
			if err != nil {
				return
			}
			again := appendFrame(nil, got.header, got.body)
			if !bytes.HasPrefix(rest, again) {
				t.Fatalf("frame %+v is not in the stream", got.header)
			}
			rest = rest[len(again):]
		}
	})
}
