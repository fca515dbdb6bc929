package kv

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/vclock"
)

// recordVersion is the first byte of an encoded record. A decoder that meets
// another refuses it rather than guess.
const recordVersion = 1

// Bounds of decoded records: far above what is ever written, so that only
// damage meets them.
const (
	maxSiblings    = 1 << 16
	maxMetaFields  = 1 << 10
	maxFieldBytes  = 64 << 10
	maxAttempts    = 1 << 10
	siblingExpires = 1 << 0
	siblingHasID   = 1 << 1
	siblingOutside = 1 << 2
	siblingHasType = 1 << 3
)

// AppendRecord appends the canonical encoding of what all replicas share of r,
// which leaves out Mine. Equal records have equal encodings.
func AppendRecord(dst []byte, r Record) []byte {
	dst = append(slices.Grow(dst, SizeHint(r)), recordVersion, r.NMax)
	dst = vclock.AppendClock(dst, r.Clock)
	dst = binary.AppendUvarint(dst, uint64(len(r.Live)))
	for _, v := range r.Live {
		dst = vclock.AppendDot(dst, v.Dot)
		dst = appendSibling(dst, v.Value)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.IDs)))
	for _, id := range r.IDs {
		dst = append(dst, id.ID[:]...)
		dst = binary.AppendUvarint(dst, uint64(len(id.Dots)))
		for _, d := range id.Dots {
			dst = vclock.AppendDot(dst, d)
		}
	}
	dst = wire.AppendBool(dst, !r.IDFloor.IsZero())
	if !r.IDFloor.IsZero() {
		dst = append(dst, r.IDFloor[:]...)
	}
	return dst
}

// SizeHint is about the size in bytes of what [AppendRecord] appends, seldom
// under it, to allocate once.
func SizeHint(r Record) int {
	n := 24 + 11*len(r.Clock) + 30*len(r.IDs)
	for _, v := range r.Live {
		n += 56 + len(v.Value.Inline) + len(v.Value.ContentType)
		for _, m := range v.Value.Meta {
			n += 4 + len(m.Name) + len(m.Value)
		}
	}
	return n
}

// DecodeRecord reads what [AppendRecord] writes and refuses anything else. The
// record shares b's storage.
func DecodeRecord(b []byte) (Record, error) {
	rd := wire.NewReader(b)
	r := readRecord(rd)
	if err := rd.Close(); err != nil {
		return Record{}, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

// AppendLocal appends the encoding of r that a replica keeps: Mine, then the
// canonical encoding.
func AppendLocal(dst []byte, r Record) []byte {
	dst = wire.AppendBool(dst, r.Mine.Actor != 0)
	if r.Mine.Actor != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.Mine.Actor))
		dst = binary.BigEndian.AppendUint64(dst, r.Mine.Boot)
	}
	return AppendRecord(dst, r)
}

// Canonical returns the part of what [AppendLocal] wrote that [AppendRecord]
// would write of the same record. It shares local's storage.
func Canonical(local []byte) []byte {
	switch {
	case len(local) > 0 && local[0] == 0:
		return local[1:]
	case len(local) >= mineBytes:
		return local[mineBytes:]
	}
	return nil
}

// mineBytes is what Mine takes in front of a record.
const mineBytes = 1 + 8 + 8

// DecodeLocal reads what [AppendLocal] writes. The record shares b's storage.
func DecodeLocal(b []byte) (Record, error) {
	rd := wire.NewReader(b)
	var mine Mine
	if rd.Bool() {
		mine = Mine{Actor: vclock.Actor(rd.Uint64()), Boot: rd.Uint64()}
		if mine.Actor == 0 {
			rd.Fail(wire.ErrBadValue)
		}
	}
	r := readRecord(rd)
	r.Mine = mine
	if err := rd.Close(); err != nil {
		return Record{}, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

func readRecord(rd *wire.Reader) Record {
	if v := rd.Byte(); rd.Err() == nil && v != recordVersion {
		rd.Fail(fmt.Errorf("record format %d is not known to this version", v))
	}
	r := Record{NMax: rd.Byte()}
	r.Clock = vclock.ReadClock(rd)
	r.Live = readLive(rd, r.Clock)
	r.IDs = readIDs(rd, r.Clock)
	if rd.Bool() {
		r.IDFloor = readWriteID(rd)
	}
	if len(r.IDs) > 0 && r.IDs[0].ID.Compare(r.IDFloor) <= 0 {
		rd.Fail(wire.ErrBadValue)
	}
	return r
}

func readLive(rd *wire.Reader, clock vclock.Clock) []Version {
	n := rd.Count(30, maxSiblings)
	if n == 0 {
		return nil
	}
	live := make([]Version, 0, min(n, 64))
	for i := 0; i < n && rd.Err() == nil; i++ {
		v := Version{Dot: vclock.ReadDot(rd)}
		v.Value = readSibling(rd)
		if !clock.Covers(v.Dot) || i > 0 && live[i-1].Dot.Compare(v.Dot) >= 0 {
			rd.Fail(wire.ErrBadValue)
		}
		live = append(live, v)
	}
	return live
}

func readIDs(rd *wire.Reader, clock vclock.Clock) []IssuedID {
	n := rd.Count(26, MaxIDs)
	if n == 0 {
		return nil
	}
	ids := make([]IssuedID, 0, n)
	dots := make([]vclock.Dot, 0, n) // one slice for all: most ids have one dot
	for i := 0; i < n && rd.Err() == nil; i++ {
		id, first := readWriteID(rd), len(dots)
		for range rd.Count(9, maxAttempts) {
			d := vclock.ReadDot(rd)
			if !clock.Covers(d) || len(dots) > first && dots[len(dots)-1].Compare(d) >= 0 {
				rd.Fail(wire.ErrBadValue)
			}
			dots = append(dots, d)
		}
		if len(dots) == first || i > 0 && ids[i-1].ID.Compare(id) >= 0 {
			rd.Fail(wire.ErrBadValue)
		}
		ids = append(ids, IssuedID{ID: id, Dots: slices.Clip(dots[first:])})
	}
	return ids
}

func readWriteID(rd *wire.Reader) WriteID {
	var id WriteID
	binary.BigEndian.PutUint64(id[:8], rd.Uint64())
	binary.BigEndian.PutUint64(id[8:], rd.Uint64())
	if id.IsZero() {
		rd.Fail(wire.ErrBadValue)
	}
	return id
}

// appendSibling appends kind, flags, n, stamp, the optional fields that the
// flags announce, metadata, length, checksum and, unless external, the value.
func appendSibling(dst []byte, s Sibling) []byte {
	dst = append(dst, byte(s.Kind), siblingFlags(s), s.N)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Stamp))
	if s.Expires != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.Expires))
	}
	if !s.WriteID.IsZero() {
		dst = append(dst, s.WriteID[:]...)
	}
	if s.ContentType != "" {
		dst = wire.AppendString(dst, s.ContentType)
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Meta)))
	for _, m := range s.Meta {
		dst = wire.AppendString(wire.AppendString(dst, m.Name), m.Value)
	}
	dst = binary.BigEndian.AppendUint64(dst, s.Checksum)
	dst = binary.AppendUvarint(dst, s.Length)
	if !s.External {
		dst = append(dst, s.Inline...)
	}
	return dst
}

func siblingFlags(s Sibling) byte {
	var f byte
	set := func(bit byte, on bool) {
		if on {
			f |= bit
		}
	}
	set(siblingExpires, s.Expires != 0)
	set(siblingHasID, !s.WriteID.IsZero())
	set(siblingOutside, s.External)
	set(siblingHasType, s.ContentType != "")
	return f
}

func readSibling(rd *wire.Reader) Sibling {
	s := Sibling{Kind: Kind(rd.Byte())}
	flags := rd.Byte()
	s.N = rd.Byte()
	s.Stamp = HLC(rd.Uint64())
	if flags&siblingExpires != 0 {
		s.Expires = int64(rd.Uint64())
	}
	if flags&siblingHasID != 0 {
		s.WriteID = readWriteID(rd)
	}
	if flags&siblingHasType != 0 {
		s.ContentType = rd.String(maxFieldBytes)
	}
	s.Meta = readMeta(rd)
	s.Checksum = rd.Uint64()
	s.External = flags&siblingOutside != 0
	if s.External {
		s.Length = rd.Uvarint()
	} else {
		s.Inline = rd.Bytes(InlineLimit)
		s.Length = uint64(len(s.Inline))
	}
	if s.Kind != KindValue && s.Kind != KindTombstone || flags != siblingFlags(s) {
		rd.Fail(wire.ErrBadValue)
	}
	return s
}

func readMeta(rd *wire.Reader) []Meta {
	n := rd.Count(2, maxMetaFields)
	if n == 0 {
		return nil
	}
	meta := make([]Meta, 0, min(n, 16))
	for i := 0; i < n && rd.Err() == nil; i++ {
		m := Meta{Name: rd.String(maxFieldBytes), Value: rd.String(maxFieldBytes)}
		if i > 0 && CompareMeta(meta[i-1], m) >= 0 {
			rd.Fail(wire.ErrBadValue)
		}
		meta = append(meta, m)
	}
	return meta
}
