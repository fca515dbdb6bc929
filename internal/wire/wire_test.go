package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
)

// TestReader reads one field from each input and looks at what comes out and
// how many bytes are left.
func TestReader(t *testing.T) {
	maxVarint := binary.AppendUvarint(nil, math.MaxUint64)
	for _, c := range []struct {
		name string
		in   []byte
		read func(*Reader) any
		want any
		err  error
		left int
	}{
		{"byte", []byte{7, 8}, func(r *Reader) any { return r.Byte() }, byte(7), nil, 1},
		{"byte of nothing", nil, func(r *Reader) any { return r.Byte() }, byte(0), ErrShort, 0},
		{"uint16", []byte{1, 2, 3}, func(r *Reader) any { return r.Uint16() }, uint16(0x0102), nil, 1},
		{"uint16 short", []byte{1}, func(r *Reader) any { return r.Uint16() }, uint16(0), ErrShort, 0},
		{"uint32", []byte{1, 2, 3, 4}, func(r *Reader) any { return r.Uint32() }, uint32(0x01020304), nil, 0},
		{"uint32 short", []byte{1, 2, 3}, func(r *Reader) any { return r.Uint32() }, uint32(0), ErrShort, 0},
		{"uint64", []byte{1, 2, 3, 4, 5, 6, 7, 8}, func(r *Reader) any { return r.Uint64() }, uint64(0x0102030405060708), nil, 0},
		{"uint64 short", []byte{1, 2, 3, 4, 5, 6, 7}, func(r *Reader) any { return r.Uint64() }, uint64(0), ErrShort, 0},
		{"bool true", []byte{1}, func(r *Reader) any { return r.Bool() }, true, nil, 0},
		{"bool false", []byte{0}, func(r *Reader) any { return r.Bool() }, false, nil, 0},
		{"bool neither", []byte{2}, func(r *Reader) any { return r.Bool() }, false, ErrBadValue, 0},
		{"varint 0", []byte{0}, func(r *Reader) any { return r.Uvarint() }, uint64(0), nil, 0},
		{"varint 300", []byte{0xac, 0x02, 9}, func(r *Reader) any { return r.Uvarint() }, uint64(300), nil, 1},
		{"varint largest", maxVarint, func(r *Reader) any { return r.Uvarint() }, uint64(math.MaxUint64), nil, 0},
		{"varint of nothing", nil, func(r *Reader) any { return r.Uvarint() }, uint64(0), ErrShort, 0},
		{"varint cut", []byte{0x80}, func(r *Reader) any { return r.Uvarint() }, uint64(0), ErrShort, 0},
		{"varint not minimal", []byte{0x80, 0}, func(r *Reader) any { return r.Uvarint() }, uint64(0), ErrVarint, 0},
		{"varint over 64 bits", bytes.Repeat([]byte{0xff}, 11), func(r *Reader) any { return r.Uvarint() }, uint64(0), ErrVarint, 0},
		{"count", []byte{2, 0, 0, 0, 0}, func(r *Reader) any { return r.Count(2, 9) }, 2, nil, 4},
		{"count over the limit", []byte{10, 0, 0}, func(r *Reader) any { return r.Count(0, 9) }, 0, ErrTooLarge, 0},
		{"count over what is left", []byte{2, 0, 0, 0}, func(r *Reader) any { return r.Count(2, 9) }, 0, ErrShort, 0},
		{"count of nothing", []byte{0}, func(r *Reader) any { return r.Count(2, 9) }, 0, nil, 0},
		{"string", []byte{2, 'h', 'i', '!'}, func(r *Reader) any { return r.String(2) }, "hi", nil, 1},
		{"string empty", []byte{0}, func(r *Reader) any { return r.String(2) }, "", nil, 0},
		{"string over the limit", []byte{3, 'h', 'i', '!'}, func(r *Reader) any { return r.String(2) }, "", ErrTooLarge, 0},
		{"string cut", []byte{3, 'h', 'i'}, func(r *Reader) any { return r.String(9) }, "", ErrShort, 0},
		{"rest", []byte{1, 2}, func(r *Reader) any { return len(r.Rest()) }, 2, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewReader(c.in)
			if got := c.read(r); got != c.want {
				t.Errorf("read %v, want %v", got, c.want)
			}
			if !errors.Is(r.Err(), c.err) {
				t.Errorf("error %v, want %v", r.Err(), c.err)
			}
			if r.Len() != c.left {
				t.Errorf("%d bytes left, want %d", r.Len(), c.left)
			}
		})
	}
}

func TestCloseRefusesTrailingBytes(t *testing.T) {
	r := NewReader([]byte{1, 2})
	r.Byte()
	if err := r.Close(); !errors.Is(err, ErrTrailing) {
		t.Errorf("Close before the end: %v, want %v", err, ErrTrailing)
	}
	r = NewReader([]byte{1})
	r.Byte()
	if err := r.Close(); err != nil {
		t.Errorf("Close at the end: %v", err)
	}
}

// TestFirstErrorStays: a decoder reads on after an error and asks once, so no
// later field may read anything or hide the cause.
func TestFirstErrorStays(t *testing.T) {
	r := NewReader([]byte{0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	r.Uvarint()
	if r.Byte() != 0 || r.Uint16() != 0 || r.Uint32() != 0 || r.Uint64() != 0 || r.Uvarint() != 0 ||
		r.Bool() || r.Count(0, 9) != 0 || r.Bytes(9) != nil || r.String(9) != "" || len(r.Rest()) != 0 {
		t.Error("a field was read after an error")
	}
	r.Fail(ErrBadValue)
	if err := r.Close(); !errors.Is(err, ErrVarint) {
		t.Errorf("error %v, want the first, %v", err, ErrVarint)
	}
}

// TestBytesCannotGrowIntoTheInput: what Bytes returns shares the input's
// storage, and appending to it must not overwrite the next field.
func TestBytesCannotGrowIntoTheInput(t *testing.T) {
	in := []byte{1, 'a', 'b'}
	r := NewReader(in)
	_ = append(r.Bytes(9), 'X')
	if got := r.Byte(); got != 'b' {
		t.Errorf("the byte after is %q, want 'b'", got)
	}
}

// FuzzReader has the first input choose fields to read from the second. What
// was read must encode to exactly the bytes that were consumed.
func FuzzReader(f *testing.F) {
	f.Add("bwlqvsST", []byte{1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0xac, 2, 2, 'h', 'i', 1, 1, 0})
	f.Add("vvvv", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0x80, 0})
	f.Add("sss", []byte{0xff, 0xff, 3, 1})
	f.Fuzz(func(t *testing.T, fields string, in []byte) {
		r := NewReader(in)
		var again []byte
		for _, field := range fields {
			before := len(again)
			switch field {
			case 'b':
				again = append(again, r.Byte())
			case 'w':
				again = binary.BigEndian.AppendUint16(again, r.Uint16())
			case 'l':
				again = binary.BigEndian.AppendUint32(again, r.Uint32())
			case 'q':
				again = binary.BigEndian.AppendUint64(again, r.Uint64())
			case 'v':
				again = binary.AppendUvarint(again, r.Uvarint())
			case 's':
				again = AppendBytes(again, r.Bytes(64))
			case 'S':
				again = AppendString(again, r.String(64))
			case 'T':
				again = AppendBool(again, r.Bool())
			}
			if r.Err() != nil {
				again = again[:before]
				break
			}
			if len(again)+r.Len() != len(in) {
				t.Fatalf("%d bytes read and %d left of %d", len(again), r.Len(), len(in))
			}
		}
		if !bytes.HasPrefix(in, again) {
			t.Fatalf("read % x\nencodes to % x", in, again)
		}
	})
}

func TestAppendReadRoundTrip(t *testing.T) {
	b := AppendBool(AppendString(AppendBytes(nil, []byte{1, 2}), strings.Repeat("x", 200)), true)
	r := NewReader(b)
	if got := r.Bytes(2); !bytes.Equal(got, []byte{1, 2}) {
		t.Errorf("bytes %v", got)
	}
	if got := r.String(200); len(got) != 200 {
		t.Errorf("string of %d", len(got))
	}
	if !r.Bool() {
		t.Error("bool false")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
