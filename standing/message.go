package standing

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
)

// Announcement is what a node tells each member when it starts, and again when
// a chapter of its life begins.
type Announcement struct {
	From    kv.NodeID
	History History // not empty
}

// Known is a member's answer to an announcement.
type Known struct {
	// Stored says that the tip of the announced history is stored durably.
	// Otherwise the history does not explain what the member remembers.
	Stored bool
	// Remembered is what the member remembered before the announcement.
	Remembered Position
	// By is the present life of the member, so that one that came back with an
	// empty disk is told again.
	By Life
}

// The encodings of messages and facts begin with their version.
const encoding = 1

// Append appends the encoding of the announcement to dst:
//
//	byte     version of the encoding, 1
//	8 bytes  From
//	history
func (a Announcement) Append(dst []byte) []byte {
	dst = append(dst, encoding)
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.From))
	return appendHistory(dst, a.History)
}

// DecodeAnnouncement reads what [Announcement.Append] writes, and nothing else.
func DecodeAnnouncement(b []byte) (Announcement, error) {
	r := newReader(b)
	a := Announcement{From: readID(r), History: readHistory(r)}
	if r.Err() == nil && a.History.Tip() == (Position{}) {
		r.Fail(wire.ErrBadValue)
	}
	if err := r.Close(); err != nil {
		return Announcement{}, fmt.Errorf("decode announcement: %w", err)
	}
	return a, nil
}

// Append appends the encoding of the answer to dst:
//
//	byte      version of the encoding, 1
//	bool      Stored
//	position  Remembered
//	life      By
func (k Known) Append(dst []byte) []byte {
	dst = wire.AppendBool(append(dst, encoding), k.Stored)
	return appendLife(appendPosition(dst, k.Remembered), k.By)
}

// DecodeKnown reads what [Known.Append] writes, and nothing else.
func DecodeKnown(b []byte) (Known, error) {
	r := newReader(b)
	k := Known{Stored: r.Bool(), Remembered: readPosition(r), By: readLife(r)}
	if err := r.Close(); err != nil {
		return Known{}, fmt.Errorf("decode the answer to an announcement: %w", err)
	}
	return k, nil
}

// newReader returns a reader of what follows the version.
func newReader(b []byte) *wire.Reader {
	r := wire.NewReader(b)
	if v := r.Byte(); v != encoding && r.Err() == nil {
		r.Fail(fmt.Errorf("%w: version %d, this node knows %d: start the version that wrote it", wire.ErrBadValue, v, encoding))
	}
	return r
}

// appendHistory appends Sure, and then a varint count of positions and each.
func appendHistory(dst []byte, h History) []byte {
	dst = appendPosition(dst, h.Sure)
	dst = binary.AppendUvarint(dst, uint64(len(h.Since)))
	for _, p := range h.Since {
		dst = appendPosition(dst, p)
	}
	return dst
}

func readHistory(r *wire.Reader) History {
	h := History{Sure: readPosition(r)}
	var last Life
	for range r.Count(positionBytes, maxSince) {
		p := readPosition(r)
		if p.Life.compare(last) <= 0 {
			r.Fail(wire.ErrBadValue)
		}
		last = p.Life
		h.Since = append(h.Since, p)
	}
	if h.Tip().compare(h.Sure) < 0 {
		r.Fail(wire.ErrBadValue)
	}
	return h
}

// appendPosition appends the life, and then the chapter as a varint.
func appendPosition(dst []byte, p Position) []byte {
	return binary.AppendUvarint(appendLife(dst, p.Life), p.Chapter)
}

func readPosition(r *wire.Reader) Position {
	p := Position{Life: readLife(r), Chapter: readCount(r)}
	if p.Life == (Life{}) && p.Chapter != 0 {
		r.Fail(wire.ErrBadValue)
	}
	return p
}

// positionBytes is the least length of an encoded position.
const positionBytes = 10

// appendLife appends the starts as a varint, and then the nonce in 8 bytes.
func appendLife(dst []byte, l Life) []byte {
	return binary.BigEndian.AppendUint64(binary.AppendUvarint(dst, l.Starts), l.Nonce)
}

func readLife(r *wire.Reader) Life {
	l := Life{Starts: readCount(r), Nonce: r.Uint64()}
	if l.Starts == 0 && l.Nonce != 0 {
		r.Fail(wire.ErrBadValue)
	}
	return l
}

// readCount reads a varint that can be counted up from.
func readCount(r *wire.Reader) uint64 {
	v := r.Uvarint()
	if v > math.MaxInt64 {
		r.Fail(wire.ErrBadValue)
	}
	return v
}

// readID reads the id of a node.
func readID(r *wire.Reader) kv.NodeID {
	id := kv.NodeID(r.Uint64())
	if id == 0 || id == kv.Quarantine {
		r.Fail(wire.ErrBadValue)
	}
	return id
}
