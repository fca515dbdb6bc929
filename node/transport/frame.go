package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/cespare/xxhash/v2"
)

// A frame, all numbers big end first:
//
//	length  4  of everything after it
//	kind    1
//	method  1  of a request, else 0
//	id      8  pairs a request with its answer and its cancellation; 0 for a ping
//	budget  4  of a request: microseconds until its caller gives up
//	body
//	sum     8  xxhash-64 of all before it
const (
	lengthSize = 4
	headerSize = lengthSize + 1 + 1 + 8 + 4
	sumSize    = 8
	frameExtra = headerSize + sumSize // a frame's size beyond its body
)

type frameKind uint8

const (
	kindRequest frameKind = 1
	kindReply   frameKind = 2
	kindRefuse  frameKind = 3 // an answer that is no reply: see refusal
	kindCancel  frameKind = 4 // the caller of a request has gone
	kindPing    frameKind = 5 // nothing to say; the sender is there
)

// Errors of a damaged stream. Nothing after such a frame can be trusted, so the
// connection ends with it.
var (
	errFrameLength = errors.New("frame length out of bounds")
	errFrameSum    = errors.New("frame checksum wrong")
	errFrameKind   = errors.New("frame out of place")
)

// damaged reports whether err says that the bytes of a stream were wrong, not
// that it ended.
func damaged(err error) bool {
	return errors.Is(err, errFrameLength) || errors.Is(err, errFrameSum) || errors.Is(err, errFrameKind)
}

type header struct {
	kind   frameKind
	method Method
	id     uint64
	budget uint32
}

type frame struct {
	header
	body  []byte
	owned bool // body is not part of a buffer that will be used again
}

// take returns the body for good, copied if it has to be.
func (f *frame) take() []byte {
	if f.owned {
		return f.body
	}
	return append([]byte(nil), f.body...)
}

// budgetOf returns d in the unit of a frame. More than 71 minutes become that.
func budgetOf(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 0), math.MaxUint32))
}

func (h header) left() time.Duration { return time.Duration(h.budget) * time.Microsecond }

// appendFrame appends a frame of len(body) + frameExtra bytes.
func appendFrame(dst []byte, h header, body []byte) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(frameExtra-lengthSize+len(body)))
	dst = append(dst, byte(h.kind), byte(h.method))
	dst = binary.BigEndian.AppendUint64(dst, h.id)
	dst = binary.BigEndian.AppendUint32(dst, h.budget)
	dst = append(dst, body...)
	return binary.BigEndian.AppendUint64(dst, xxhash.Sum64(dst[start:]))
}

// frameSize returns the size of the frame that b starts with, 0 if b is too
// short to tell.
func frameSize(b []byte, maxBody int) (int, error) {
	if len(b) < lengthSize {
		return 0, nil
	}
	size := uint64(binary.BigEndian.Uint32(b)) + lengthSize
	if size < frameExtra || size > uint64(maxBody)+frameExtra {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", errFrameLength, size, maxBody+frameExtra)
	}
	return int(size), nil
}

// openFrame reads the one frame that b is. The body is part of b.
func openFrame(b []byte) (frame, error) {
	sum := len(b) - sumSize
	if xxhash.Sum64(b[:sum]) != binary.BigEndian.Uint64(b[sum:]) {
		return frame{}, errFrameSum
	}
	f := frame{body: b[headerSize:sum:sum], header: header{
		kind:   frameKind(b[4]),
		method: Method(b[5]),
		id:     binary.BigEndian.Uint64(b[6:]),
		budget: binary.BigEndian.Uint32(b[14:]),
	}}
	if f.kind < kindRequest || f.kind > kindPing {
		return frame{}, fmt.Errorf("%w: kind %d", errFrameKind, f.kind)
	}
	return f, nil
}

// readBuffer holds the frames of one read; it is the memory that an idle
// connection costs.
const readBuffer = 32 << 10

// frameReader cuts a stream into frames.
type frameReader struct {
	from    io.Reader
	maxBody int
	// arrived is when the frames in the buffer came: one look at the clock serves
	// all of them.
	arrived time.Time

	buf        []byte
	start, end int // what is read and not yet taken
}

func newFrameReader(from io.Reader, maxBody int) *frameReader {
	return &frameReader{from: from, maxBody: maxBody, buf: make([]byte, readBuffer)}
}

// next returns the next frame. Its body is valid until the next call, unless it
// is owned.
func (r *frameReader) next() (frame, error) {
	for {
		size, err := frameSize(r.buf[r.start:r.end], r.maxBody)
		switch {
		case err != nil:
			return frame{}, err
		case size > len(r.buf):
			return r.large(size)
		case size > 0 && size <= r.end-r.start:
			r.start += size
			return openFrame(r.buf[r.start-size : r.start])
		}
		if err := r.fill(); err != nil {
			return frame{}, err
		}
	}
}

// fill reads once, behind what is left.
func (r *frameReader) fill() error {
	r.end = copy(r.buf, r.buf[r.start:r.end])
	r.start = 0
	n, err := r.from.Read(r.buf[r.end:])
	r.end += n
	r.arrived = time.Now()
	if n > 0 {
		return nil // an error will come again
	}
	return err
}

// large reads a frame that does not fit the buffer into memory of its own.
func (r *frameReader) large(size int) (frame, error) {
	whole := make([]byte, size)
	n := copy(whole, r.buf[r.start:r.end])
	r.start, r.end = 0, 0
	if _, err := io.ReadFull(r.from, whole[n:]); err != nil {
		return frame{}, err
	}
	r.arrived = time.Now()
	f, err := openFrame(whole)
	f.owned = true
	return f, err
}
