package antientropy

import (
	"encoding/binary"
	"math"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/merkle"
)

// messageVersion is the first byte of every message.
const messageVersion = 1

// Bounds of messages. What is sent stays far below them.
const (
	maxPartitions = 1 << 12 // that one request compares
	maxSummaries  = 1 << 13 // that one request asks for: 1 MiB
	maxParts      = 1 << 12 // of one request
	maxDigests    = 1 << 16 // of one part
	maxBits       = 24      // of a part: 2^24 slices of a leaf
	maxClock      = 16      // actors of a clock that travels with a key
)

// Append appends the encoding of r. Partitions are told by their distance; those
// of which the node has nothing take a byte.
func (r CompareRequest) Append(dst []byte) []byte {
	dst = append(appendFence(dst, r.Fence), byte(r.Window))
	dst = binary.AppendUvarint(dst, uint64(len(r.Roots)))
	next := uint64(0)
	for _, root := range r.Roots {
		dst = appendStep(dst, &next, root.Partition, root.Node != 0)
		if root.Node != 0 {
			dst = binary.BigEndian.AppendUint64(dst, uint64(root.Node))
		}
	}
	return dst
}

// DecodeCompareRequest reads what [CompareRequest.Append] writes.
func DecodeCompareRequest(b []byte) (CompareRequest, error) {
	rd := wire.NewReader(b)
	r := CompareRequest{Fence: readFence(rd), Window: readWindow(rd)}
	r.Roots = make([]Root, 0, rd.Count(1, maxPartitions))
	next := uint64(0)
	for range cap(r.Roots) {
		var root Root
		var filled bool
		if root.Partition, filled = readStep(rd, &next); filled {
			if root.Node = merkle.Node(rd.Uint64()); root.Node == 0 {
				rd.Fail(wire.ErrBadValue)
			}
		}
		r.Roots = append(r.Roots, root)
	}
	return r, closeMessage(rd, "compare request")
}

// appendStep appends how far a partition is from the least that may be next, and
// a flag.
func appendStep(dst []byte, next *uint64, partition uint16, flag bool) []byte {
	step := (uint64(partition) - *next) << 1
	if flag {
		step |= 1
	}
	*next = uint64(partition) + 1
	return binary.AppendUvarint(dst, step)
}

func readStep(rd *wire.Reader, next *uint64) (partition uint16, flag bool) {
	step := rd.Uvarint()
	p := *next + step>>1
	if p > math.MaxUint16 {
		rd.Fail(wire.ErrBadValue)
	}
	*next = p + 1
	return uint16(p), step&1 == 1
}

// Append appends the encoding of r.
func (r CompareReply) Append(dst []byte) []byte {
	dst = append(appendReplyHead(dst, r.Refusal, r.Starts), byte(r.Window))
	dst = binary.AppendUvarint(dst, uint64(len(r.Behind)))
	next := uint64(0)
	for _, p := range r.Behind {
		dst = appendStep(dst, &next, p, false)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Differ)))
	next = 0
	for _, d := range r.Differ {
		dst = appendStep(dst, &next, d.Partition, d.Count > 0)
		if d.Count == 0 {
			continue
		}
		dst = binary.AppendUvarint(dst, d.Count)
		dst = appendSummary(dst, d.Inner, r.Window)
	}
	return dst
}

// DecodeCompareReply reads what [CompareReply.Append] writes.
func DecodeCompareReply(b []byte) (CompareReply, error) {
	rd := wire.NewReader(b)
	var r CompareReply
	r.Refusal, r.Starts = readReplyHead(rd)
	r.Window = readWindow(rd)
	r.Behind = make([]uint16, 0, rd.Count(1, maxPartitions))
	next := uint64(0)
	for range cap(r.Behind) {
		p, flag := readStep(rd, &next)
		if flag {
			rd.Fail(wire.ErrBadValue)
		}
		r.Behind = append(r.Behind, p)
	}
	r.Differ = make([]Difference, 0, rd.Count(1, maxPartitions))
	next = 0
	for range cap(r.Differ) {
		r.Differ = append(r.Differ, readDifference(rd, &next, r.Window))
	}
	return r, closeMessage(rd, "compare reply")
}

func readDifference(rd *wire.Reader, next *uint64, w Window) Difference {
	p, filled := readStep(rd, next)
	d := Difference{Partition: p}
	if filled {
		if d.Count, d.Inner = rd.Uvarint(), readSummary(rd, w); d.Count == 0 {
			rd.Fail(wire.ErrBadValue)
		}
	}
	return d
}

// Append appends the encoding of r.
func (r ChildrenRequest) Append(dst []byte) []byte {
	dst = append(appendFence(dst, r.Fence), byte(r.Window))
	dst = binary.AppendUvarint(dst, uint64(len(r.Trees)))
	next := uint64(0)
	for _, t := range r.Trees {
		dst = appendStep(dst, &next, t.Partition, false)
		dst = binary.BigEndian.AppendUint16(dst, placesMask(t.Inner))
	}
	return dst
}

// DecodeChildrenRequest reads what [ChildrenRequest.Append] writes.
func DecodeChildrenRequest(b []byte) (ChildrenRequest, error) {
	rd := wire.NewReader(b)
	r := ChildrenRequest{Fence: readFence(rd), Window: readWindow(rd)}
	r.Trees = make([]InnerNodes, 0, rd.Count(3, maxPartitions))
	asked, next := 0, uint64(0)
	for range cap(r.Trees) {
		p, flag := readStep(rd, &next)
		t := InnerNodes{p, maskPlaces(rd.Uint16())}
		if asked += len(t.Inner); flag || len(t.Inner) == 0 || asked > maxSummaries {
			rd.Fail(wire.ErrBadValue)
		}
		r.Trees = append(r.Trees, t)
	}
	return r, closeMessage(rd, "children request")
}

// Append appends the encoding of r.
func (r ChildrenReply) Append(dst []byte) []byte {
	dst = append(appendReplyHead(dst, r.Refusal, r.Starts), byte(r.Window))
	dst = binary.AppendUvarint(dst, uint64(len(r.Children)))
	for _, s := range r.Children {
		dst = appendSummary(dst, s, r.Window)
	}
	return dst
}

// DecodeChildrenReply reads what [ChildrenReply.Append] writes.
func DecodeChildrenReply(b []byte) (ChildrenReply, error) {
	rd := wire.NewReader(b)
	var r ChildrenReply
	r.Refusal, r.Starts = readReplyHead(rd)
	r.Window = readWindow(rd)
	r.Children = make([]merkle.Summary, 0, rd.Count(2, maxSummaries))
	for range cap(r.Children) {
		r.Children = append(r.Children, readSummary(rd, r.Window))
	}
	return r, closeMessage(rd, "children reply")
}

// Append appends the encoding of r.
func (r KeysRequest) Append(dst []byte) []byte {
	dst = wire.AppendBool(appendFence(dst, r.Fence), r.Held)
	dst = binary.AppendUvarint(dst, uint64(len(r.Parts)))
	for _, l := range r.Parts {
		dst = appendPart(dst, l.Part)
		dst = binary.AppendUvarint(dst, uint64(len(l.Digests)))
		for _, d := range l.Digests {
			dst = binary.BigEndian.AppendUint64(dst, d)
		}
	}
	return dst
}

// DecodeKeysRequest reads what [KeysRequest.Append] writes.
func DecodeKeysRequest(b []byte) (KeysRequest, error) {
	rd := wire.NewReader(b)
	r := KeysRequest{Fence: readFence(rd), Held: rd.Bool()}
	r.Parts = make([]Listing, 0, rd.Count(6, maxParts))
	for range cap(r.Parts) {
		l := Listing{Part: readPart(rd)}
		l.Digests = make([]uint64, 0, rd.Count(8, maxDigests))
		for range cap(l.Digests) {
			d := rd.Uint64()
			if n := len(l.Digests); n > 0 && d < l.Digests[n-1] {
				rd.Fail(wire.ErrBadValue)
			}
			l.Digests = append(l.Digests, d)
		}
		r.Parts = append(r.Parts, l)
	}
	return r, closeMessage(rd, "keys request")
}

// Append appends the encoding of r.
func (r KeysReply) Append(dst []byte) []byte {
	dst = appendReplyHead(dst, r.Refusal, r.Starts)
	dst = binary.AppendUvarint(dst, uint64(len(r.Parts)))
	for _, c := range r.Parts {
		dst = binary.AppendUvarint(dst, uint64(len(c.Unknown)))
		for _, i := range c.Unknown {
			dst = binary.AppendUvarint(dst, uint64(i))
		}
		dst = wire.AppendBool(dst, c.Cut)
		dst = binary.AppendUvarint(dst, uint64(len(c.Extra)))
		for _, e := range c.Extra {
			dst = appendEntry(dst, e)
		}
	}
	return dst
}

// DecodeKeysReply reads what [KeysReply.Append] writes.
func DecodeKeysReply(b []byte) (KeysReply, error) {
	rd := wire.NewReader(b)
	var r KeysReply
	r.Refusal, r.Starts = readReplyHead(rd)
	r.Parts = make([]Contrast, 0, rd.Count(3, maxParts))
	for range cap(r.Parts) {
		r.Parts = append(r.Parts, readContrast(rd))
	}
	return r, closeMessage(rd, "keys reply")
}

func readContrast(rd *wire.Reader) Contrast {
	c := Contrast{Unknown: make([]uint32, 0, rd.Count(1, maxDigests))}
	for range cap(c.Unknown) {
		place := rd.Uvarint()
		if n := len(c.Unknown); place >= maxDigests || n > 0 && uint32(place) <= c.Unknown[n-1] {
			rd.Fail(wire.ErrBadValue)
		}
		c.Unknown = append(c.Unknown, uint32(place))
	}
	c.Cut = rd.Bool()
	c.Extra = make([]Entry, 0, rd.Count(entryOverhead, maxExtraBytes))
	for range cap(c.Extra) {
		c.Extra = append(c.Extra, readEntry(rd))
	}
	return c
}

// entryOverhead is the least that an entry takes in a message beside its key:
// the digest and three lengths.
const entryOverhead = 8 + 3
