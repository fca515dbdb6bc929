package skeleton

import (
	"encoding/binary"
	"errors"
	"io"
)

// A frame, numbers little end first:
//
//	length  4  of everything after it
//	kind    1
//	id      4  pairs an answer with its request
//	key     2  its length
//	key, value
const (
	lengthSize = 4
	headSize   = lengthSize + 1 + 4 + 2
	maxFrame   = 8 << 20
	readBuffer = 64 << 10
)

type kind uint8

const (
	kindGet kind = iota
	kindPut
	kindPutSync
	kindAck
	kindValue
	kindMissing
)

// frame points into the buffer that it was read into.
type frame struct {
	kind       kind
	id         uint32
	key, value []byte
}

func appendFrame(dst []byte, f frame) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(headSize-lengthSize+len(f.key)+len(f.value)))
	dst = append(dst, byte(f.kind))
	dst = binary.LittleEndian.AppendUint32(dst, f.id)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(f.key)))
	return append(append(dst, f.key...), f.value...)
}

var errFrame = errors.New("skeleton: broken frame")

// frameReader cuts a stream into frames, many a read.
type frameReader struct {
	from       io.Reader
	buf        []byte
	start, end int
}

func newFrameReader(from io.Reader) *frameReader {
	return &frameReader{from: from, buf: make([]byte, readBuffer)}
}

// next returns the next frame, which is valid until the next call.
func (r *frameReader) next() (frame, error) {
	for {
		have := r.buf[r.start:r.end]
		size := headSize
		if len(have) >= lengthSize {
			size = int(binary.LittleEndian.Uint32(have)) + lengthSize
			if size < headSize || size > maxFrame {
				return frame{}, errFrame
			}
		}
		if len(have) >= size {
			r.start += size
			return openFrame(have[:size])
		}
		if err := r.fill(size); err != nil {
			return frame{}, err
		}
	}
}

func openFrame(b []byte) (frame, error) {
	key := headSize + int(binary.LittleEndian.Uint16(b[headSize-2:]))
	if key > len(b) {
		return frame{}, errFrame
	}
	return frame{
		kind: kind(b[lengthSize]), id: binary.LittleEndian.Uint32(b[lengthSize+1:]),
		key: b[headSize:key], value: b[key:],
	}, nil
}

// fill reads once more, into a buffer with room for a frame of that size.
func (r *frameReader) fill(size int) error {
	left := r.buf[r.start:r.end]
	if size > len(r.buf) {
		r.buf = make([]byte, size)
	}
	r.end = copy(r.buf, left)
	r.start = 0
	n, err := r.from.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	return err
}
