// Package wire reads and writes the primitive fields of Starling's own binary
// formats: fixed 64-bit words, unsigned varints and length-prefixed bytes.
//
// A [Reader] carries its first error along, so that a decoder reads all its
// fields and asks once. Every length is checked against what is left before
// anything is allocated: a hostile length costs nothing. Varints must be
// minimal, so that one value has one encoding and encodings can be compared
// and hashed in place of values.
package wire

import (
	"encoding/binary"
	"errors"
)

// Errors of a [Reader]; decoders wrap them with the name of what they read.
var (
	ErrShort    = errors.New("truncated")
	ErrVarint   = errors.New("varint too long or not minimal")
	ErrTooLarge = errors.New("length over the limit")
	ErrTrailing = errors.New("bytes after the end")
	ErrBadValue = errors.New("value out of range")
)

// Reader reads fields from the front of a byte slice. The zero value reads
// from nothing. It is not safe for concurrent use.
type Reader struct {
	rest []byte
	err  error
}

// NewReader returns a reader over b, which it does not copy.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Err returns the first error met.
func (r *Reader) Err() error { return r.err }

// Fail records err unless an earlier error is already recorded, and makes
// every later read return zero.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.rest) }

// Rest takes all bytes that are left.
func (r *Reader) Rest() []byte {
	b := r.rest
	r.rest = nil
	return b
}

// Close returns the first error met, or [ErrTrailing] if bytes are left.
func (r *Reader) Close() error {
	if r.err == nil && len(r.rest) != 0 {
		r.err = ErrTrailing
	}
	return r.err
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// Uint16 reads two bytes, big end first.
func (r *Reader) Uint16() uint16 {
	b := r.take(2)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// Uint32 reads four bytes, big end first.
func (r *Reader) Uint32() uint32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// Uint64 reads eight bytes, big end first.
func (r *Reader) Uint64() uint64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// Uvarint reads a minimal unsigned varint of at most ten bytes.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	switch {
	case r.err != nil:
		return 0
	case n == 0:
		r.Fail(ErrShort)
		return 0
	case n < 0 || (n > 1 && r.rest[n-1] == 0):
		r.Fail(ErrVarint)
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Count reads a varint that announces how many items follow, each of at least
// least bytes, and fails if so many cannot be left or most is exceeded.
func (r *Reader) Count(least, most int) int {
	v := r.Uvarint()
	if v > uint64(most) {
		r.Fail(ErrTooLarge)
		return 0
	}
	if v*uint64(least) > uint64(len(r.rest)) {
		r.Fail(ErrShort)
		return 0
	}
	return int(v)
}

// Bytes reads a varint length of at most most and so many bytes, which it
// does not copy.
func (r *Reader) Bytes(most int) []byte { return r.take(r.Count(1, most)) }

// String reads what [AppendString] writes, as a copy.
func (r *Reader) String(most int) string { return string(r.Bytes(most)) }

// Bool reads one byte that must be 0 or 1.
func (r *Reader) Bool() bool {
	b := r.Byte()
	if b > 1 {
		r.Fail(ErrBadValue)
	}
	return b == 1
}

func (r *Reader) take(n int) []byte {
	if n > len(r.rest) || r.err != nil {
		r.Fail(ErrShort)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// AppendBytes appends a varint length and b.
func AppendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// AppendString appends a varint length and s.
func AppendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// AppendBool appends 1 for true and 0 for false.
func AppendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}
