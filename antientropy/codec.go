package antientropy

import (
	"encoding/binary"
	"fmt"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
)

// messageVersion is the first byte of every message.
const messageVersion = 1

// Bounds of messages. What is sent stays far below them.
const (
	maxPartitions = 1 << 12 // that one request compares
	maxTrees      = kv.MaxN // of one partition
	maxSummaries  = 1 << 13 // that one request asks for: 1 MiB
	maxParts      = 1 << 12 // of one request
	maxDigests    = 1 << 16 // of one part
	maxBits       = 24      // of a part: 2^24 slices of a leaf
)

// Append appends the encoding of r: the fence, and of each partition u16 the
// number of trees u8, and of each its n u8 and root u64.
func (r CompareRequest) Append(dst []byte) []byte {
	dst = appendFence(dst, r.Fence)
	dst = binary.AppendUvarint(dst, uint64(len(r.Partitions)))
	for _, p := range r.Partitions {
		dst = binary.BigEndian.AppendUint16(dst, p.Partition)
		dst = append(dst, byte(len(p.Trees)))
		for _, t := range p.Trees {
			dst = append(dst, t.NMax)
			dst = binary.BigEndian.AppendUint64(dst, uint64(t.Node))
		}
	}
	return dst
}

// DecodeCompareRequest reads what [CompareRequest.Append] writes.
func DecodeCompareRequest(b []byte) (CompareRequest, error) {
	rd := wire.NewReader(b)
	r := CompareRequest{Fence: readFence(rd)}
	r.Partitions = make([]Roots, 0, rd.Count(3, maxPartitions))
	for range cap(r.Partitions) {
		p := Roots{Partition: rd.Uint16()}
		if n := len(r.Partitions); n > 0 && p.Partition <= r.Partitions[n-1].Partition {
			rd.Fail(wire.ErrBadValue)
		}
		p.Trees = readRoots(rd)
		r.Partitions = append(r.Partitions, p)
	}
	return r, closeMessage(rd, "compare request")
}

func readRoots(rd *wire.Reader) []Root {
	trees := make([]Root, 0, rd.Count(9, maxTrees))
	last := uint8(0)
	for range cap(trees) {
		t := Root{NMax: readNMax(rd), Node: merkle.Node(rd.Uint64())}
		if t.NMax <= last || t.Node == 0 {
			rd.Fail(wire.ErrBadValue)
		}
		last = t.NMax
		trees = append(trees, t)
	}
	return trees
}

// Append appends the encoding of r.
func (r CompareReply) Append(dst []byte) []byte {
	dst = appendReplyHead(dst, r.Refusal, r.Starts)
	dst = binary.AppendUvarint(dst, uint64(len(r.Behind)))
	for _, p := range r.Behind {
		dst = binary.BigEndian.AppendUint16(dst, p)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Differ)))
	for _, d := range r.Differ {
		dst = appendTreeID(dst, d.Tree)
		dst = binary.AppendUvarint(dst, d.Count)
		dst = appendSummary(dst, d.Inner)
	}
	return dst
}

// DecodeCompareReply reads what [CompareReply.Append] writes.
func DecodeCompareReply(b []byte) (CompareReply, error) {
	rd := wire.NewReader(b)
	var r CompareReply
	r.Refusal, r.Starts = readReplyHead(rd)
	r.Behind = make([]uint16, 0, rd.Count(2, maxPartitions))
	for range cap(r.Behind) {
		p := rd.Uint16()
		if n := len(r.Behind); n > 0 && p <= r.Behind[n-1] {
			rd.Fail(wire.ErrBadValue)
		}
		r.Behind = append(r.Behind, p)
	}
	r.Differ = make([]Difference, 0, rd.Count(6, maxPartitions*maxTrees))
	for range cap(r.Differ) {
		d := Difference{Tree: readTreeID(rd), Count: rd.Uvarint(), Inner: readSummary(rd)}
		if n := len(r.Differ); n > 0 && d.Tree.Compare(r.Differ[n-1].Tree) <= 0 {
			rd.Fail(wire.ErrBadValue)
		}
		r.Differ = append(r.Differ, d)
	}
	return r, closeMessage(rd, "compare reply")
}

// Append appends the encoding of r.
func (r ChildrenRequest) Append(dst []byte) []byte {
	dst = appendFence(dst, r.Fence)
	dst = binary.AppendUvarint(dst, uint64(len(r.Trees)))
	for _, t := range r.Trees {
		dst = appendTreeID(dst, t.Tree)
		dst = binary.BigEndian.AppendUint16(dst, placesMask(t.Inner))
	}
	return dst
}

// DecodeChildrenRequest reads what [ChildrenRequest.Append] writes.
func DecodeChildrenRequest(b []byte) (ChildrenRequest, error) {
	rd := wire.NewReader(b)
	r := ChildrenRequest{Fence: readFence(rd)}
	r.Trees = make([]InnerNodes, 0, rd.Count(5, maxSummaries))
	asked := 0
	for range cap(r.Trees) {
		t := InnerNodes{Tree: readTreeID(rd), Inner: maskPlaces(rd.Uint16())}
		if n := len(r.Trees); n > 0 && t.Tree.Compare(r.Trees[n-1].Tree) <= 0 {
			rd.Fail(wire.ErrBadValue)
		}
		if asked += len(t.Inner); len(t.Inner) == 0 || asked > maxSummaries {
			rd.Fail(wire.ErrBadValue)
		}
		r.Trees = append(r.Trees, t)
	}
	return r, closeMessage(rd, "children request")
}

// Append appends the encoding of r.
func (r ChildrenReply) Append(dst []byte) []byte {
	dst = appendReplyHead(dst, r.Refusal, r.Starts)
	dst = binary.AppendUvarint(dst, uint64(len(r.Children)))
	for _, s := range r.Children {
		dst = appendSummary(dst, s)
	}
	return dst
}

// DecodeChildrenReply reads what [ChildrenReply.Append] writes.
func DecodeChildrenReply(b []byte) (ChildrenReply, error) {
	rd := wire.NewReader(b)
	var r ChildrenReply
	r.Refusal, r.Starts = readReplyHead(rd)
	r.Children = make([]merkle.Summary, 0, rd.Count(2, maxSummaries))
	for range cap(r.Children) {
		r.Children = append(r.Children, readSummary(rd))
	}
	return r, closeMessage(rd, "children reply")
}

// Append appends the encoding of r.
func (r KeysRequest) Append(dst []byte) []byte {
	dst = appendFence(dst, r.Fence)
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
	r := KeysRequest{Fence: readFence(rd)}
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

// entryOverhead is the least that an entry takes in a message: the digest and
// two lengths.
const entryOverhead = 8 + 2

func appendEntry(dst []byte, e Entry) []byte {
	dst = wire.AppendString(wire.AppendString(dst, e.Key.Bucket), e.Key.Name)
	return binary.BigEndian.AppendUint64(dst, e.Digest)
}

func readEntry(rd *wire.Reader) Entry {
	e := Entry{Key: kv.Key{Bucket: rd.String(kv.MaxBucketBytes), Name: rd.String(kv.MaxKeyBytes)}, Digest: rd.Uint64()}
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

func appendTreeID(dst []byte, id merkle.ID) []byte {
	return append(binary.BigEndian.AppendUint16(dst, id.Partition), id.NMax)
}

func readTreeID(rd *wire.Reader) merkle.ID {
	return merkle.ID{Partition: rd.Uint16(), NMax: readNMax(rd)}
}

func readNMax(rd *wire.Reader) uint8 {
	n := rd.Byte()
	if rd.Err() == nil && (n < 1 || n > kv.MaxN) {
		rd.Fail(wire.ErrBadValue)
	}
	return n
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

// appendSummary leaves out the nodes of which nothing is beneath.
func appendSummary(dst []byte, s merkle.Summary) []byte {
	dst = binary.BigEndian.AppendUint16(dst, placesMask(s.Diff(merkle.Summary{})))
	for _, n := range s {
		if n != 0 {
			dst = binary.BigEndian.AppendUint64(dst, uint64(n))
		}
	}
	return dst
}

func readSummary(rd *wire.Reader) merkle.Summary {
	var s merkle.Summary
	for _, i := range maskPlaces(rd.Uint16()) {
		s[i] = merkle.Node(rd.Uint64())
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
