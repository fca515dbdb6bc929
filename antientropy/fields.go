package antientropy

import (
	"encoding/binary"
	"fmt"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/vclock"
)

func appendEntry(dst []byte, e Entry) []byte {
	dst = wire.AppendString(wire.AppendString(dst, e.Key.Bucket), e.Key.Name)
	dst = binary.BigEndian.AppendUint64(dst, e.Digest)
	if len(e.Clock) > maxClock {
		e.Clock = nil
	}
	return vclock.AppendClock(dst, e.Clock)
}

func readEntry(rd *wire.Reader) Entry {
	e := Entry{Key: kv.Key{Bucket: rd.String(kv.MaxBucketBytes), Name: rd.String(kv.MaxKeyBytes)}, Digest: rd.Uint64()}
	e.Clock = vclock.ReadClock(rd)
	if len(e.Clock) > maxClock {
		rd.Fail(wire.ErrTooLarge)
	}
	if rd.Err() == nil {
		if err := e.Key.Validate(); err != nil {
			rd.Fail(err)
		}
	}
	return e
}

func appendFence(dst []byte, f Fence) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, messageVersion), f.View)
	return append(dst, f.HashVersion)
}

func readFence(rd *wire.Reader) Fence {
	readMessageVersion(rd)
	return Fence{View: rd.Uint64(), HashVersion: rd.Byte()}
}

func appendReplyHead(dst []byte, r Refusal, starts uint64) []byte {
	return binary.AppendUvarint(append(dst, messageVersion, byte(r)), starts)
}

func readReplyHead(rd *wire.Reader) (Refusal, uint64) {
	readMessageVersion(rd)
	r := Refusal(rd.Byte())
	if r > lastRefusal {
		rd.Fail(wire.ErrBadValue)
	}
	return r, rd.Uvarint()
}

func readMessageVersion(rd *wire.Reader) {
	if v := rd.Byte(); rd.Err() == nil && v != messageVersion {
		rd.Fail(fmt.Errorf("message version %d is not known", v))
	}
}

func appendPart(dst []byte, p Part) []byte {
	dst = append(binary.BigEndian.AppendUint16(dst, p.Partition), p.Leaf, p.Bits)
	return binary.AppendUvarint(dst, uint64(p.Index))
}

func readPart(rd *wire.Reader) Part {
	p := Part{Partition: rd.Uint16(), Leaf: rd.Byte(), Bits: rd.Byte()}
	index := rd.Uvarint()
	if p.Bits > maxBits || index >= 1<<p.Bits {
		rd.Fail(wire.ErrBadValue)
	}
	p.Index = uint32(index)
	return p
}

func readWindow(rd *wire.Reader) Window {
	w := Window(rd.Byte())
	if w > windows {
		rd.Fail(wire.ErrBadValue)
		return Whole
	}
	return w
}

// appendSummary leaves out the nodes that are zero.
func appendSummary(dst []byte, s merkle.Summary, w Window) []byte {
	dst = binary.BigEndian.AppendUint16(dst, placesMask(s.Diff(merkle.Summary{})))
	for _, n := range s {
		switch {
		case n == 0:
		case w == Whole:
			dst = binary.BigEndian.AppendUint64(dst, uint64(n))
		default:
			dst = binary.BigEndian.AppendUint16(dst, uint16(n>>w.shift()))
		}
	}
	return dst
}

func readSummary(rd *wire.Reader, w Window) merkle.Summary {
	var s merkle.Summary
	for _, i := range maskPlaces(rd.Uint16()) {
		if w == Whole {
			s[i] = merkle.Node(rd.Uint64())
		} else {
			s[i] = merkle.Node(rd.Uint16()) << w.shift()
		}
		if s[i] == 0 {
			rd.Fail(wire.ErrBadValue)
		}
	}
	return s
}

func placesMask(places []uint8) uint16 {
	var mask uint16
	for _, i := range places {
		mask |= 1 << i
	}
	return mask
}

func maskPlaces(mask uint16) []uint8 {
	var places []uint8
	for i := range uint8(merkle.Fanout) {
		if mask&(1<<i) != 0 {
			places = append(places, i)
		}
	}
	return places
}

func closeMessage(rd *wire.Reader, what string) error {
	if err := rd.Close(); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}
