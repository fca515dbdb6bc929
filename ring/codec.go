package ring

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
)

// The encoding of a layout, canonical: one layout has one encoding, and the
// layout's hash is taken over it.
//
//	byte      version of the encoding, 1
//	16 bytes  cluster
//	varint    version of the layout
//	varint    count of ancestors, then 16 bytes each, oldest first
//	varint    count of members, then by ascending id each:
//	          8 bytes id, string name, string address, string zone,
//	          varint weight, byte state
//	byte      log2 of the count of partitions
//	table     for each partition, for each owner in order of preference:
//	          2 bytes, the member's index, big end first
const layoutEncoding = 1

// maxLayoutLen is more than the largest layout takes, in bytes: 2 MiB of table
// and 4,096 members of some 400 bytes.
const maxLayoutLen = 4 << 20

// ErrEncoding is matched by the error for an encoding that this version of
// Starling does not know.
var ErrEncoding = errors.New("unknown encoding version: written by a newer Starling, upgrade this one")

// Append appends the canonical encoding of the layout to dst.
func (l *Layout) Append(dst []byte) []byte {
	dst = append(dst, layoutEncoding)
	dst = append(dst, l.cluster[:]...)
	dst = binary.AppendUvarint(dst, l.version)
	dst = appendHashes(dst, l.ancestors)
	dst = binary.AppendUvarint(dst, uint64(len(l.members)))
	for _, m := range l.members {
		dst = appendMember(dst, m)
	}
	dst = append(dst, byte(64-l.shift))
	for _, m := range l.slots {
		dst = binary.BigEndian.AppendUint16(dst, m)
	}
	return dst
}

func appendMember(dst []byte, m Member) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.ID))
	dst = wire.AppendString(dst, m.Name)
	dst = wire.AppendString(dst, m.Address)
	dst = wire.AppendString(dst, m.Zone)
	dst = binary.AppendUvarint(dst, uint64(m.Weight))
	return append(dst, byte(m.State))
}

func appendHashes(dst []byte, hashes []Hash) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(hashes)))
	for _, h := range hashes {
		dst = append(dst, h[:]...)
	}
	return dst
}

func hashOf(l *Layout) (h Hash) {
	sum := sha256.Sum256(l.Append(nil))
	copy(h[:], sum[:])
	return h
}

// DecodeLayout reads what [Layout.Append] writes, and nothing else. It verifies
// everything that requests rely on: members valid, sorted and unique, each
// partition with the full count of distinct owners, each owner a member with a
// weight. It does not judge how well the table spreads loads or zones: that is
// for the one who computed it. Memory is within a small multiple of len(b).
func DecodeLayout(b []byte) (*Layout, error) {
	l, err := decodeLayout(wire.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("decode layout: %w", err)
	}
	return newLayout(l), nil
}

func decodeLayout(r *wire.Reader) (l Layout, err error) {
	if v := r.Byte(); v != layoutEncoding && r.Err() == nil {
		return l, fmt.Errorf("%w (version %d)", ErrEncoding, v)
	}
	l.cluster = ClusterID(read16(r))
	l.version = r.Uvarint()
	l.ancestors = readHashes(r, MaxAncestors)
	l.members = readMembers(r)
	l.partitions = 1 << min(r.Byte(), 63)
	if r.Err() != nil {
		return l, r.Err()
	}
	if err := checkHeader(&l); err != nil {
		return l, err
	}
	l.width = min(MaxOwners, ownersOf(l.members))
	if want := 2 * l.partitions * l.width; r.Len() != want {
		return l, fmt.Errorf("table of %d bytes, want %d: %w", r.Len(), want, wire.ErrBadValue)
	}
	l.slots = make([]uint16, l.partitions*l.width)
	for i := range l.slots {
		l.slots[i] = r.Uint16()
	}
	return l, checkTable(&l)
}

// checkHeader verifies all of a decoded layout but its table.
func checkHeader(l *Layout) error {
	if !slices.IsSortedFunc(l.members, byID) {
		return fmt.Errorf("members not sorted by id: %w", wire.ErrBadValue)
	}
	if err := checkIdentity(l.cluster, l.version); err != nil {
		return err
	}
	if err := checkMembers(l.members); err != nil {
		return err
	}
	if err := checkPartitions(l.partitions); err != nil {
		return err
	}
	sorted := slices.SortedFunc(slices.Values(l.ancestors), compareHash)
	if len(slices.Compact(sorted)) != len(l.ancestors) {
		return fmt.Errorf("ancestor named twice: %w", wire.ErrBadValue)
	}
	return nil
}

// checkTable verifies that every partition has distinct owners which exist and
// have a weight.
func checkTable(l *Layout) error {
	seen := make([]int, len(l.members)) // the partition, counted from 1, last seen to be owned
	for i, m := range l.slots {
		p := i / l.width
		switch {
		case int(m) >= len(l.members) || l.members[m].Weight == 0:
			return fmt.Errorf("partition %d: owner %d is no member with a weight: %w", p, m, wire.ErrBadValue)
		case seen[m] == p+1:
			return fmt.Errorf("partition %d: owner %d stands twice: %w", p, m, wire.ErrBadValue)
		}
		seen[m] = p + 1
	}
	return nil
}

func readMembers(r *wire.Reader) []Member {
	const least = 8 + 1 + 1 + 1 + 1 + 1 // bytes of a member whose strings are empty
	members := make([]Member, r.Count(least, MaxMembers))
	for i := range members {
		members[i] = Member{
			ID:      kv.NodeID(r.Uint64()),
			Name:    r.String(MaxNameLen),
			Address: r.String(MaxAddressLen),
			Zone:    r.String(MaxNameLen),
			Weight:  readWeight(r),
			State:   State(r.Byte()),
		}
	}
	return members
}

func readWeight(r *wire.Reader) uint32 {
	w := r.Uvarint()
	if w > math.MaxUint32 {
		r.Fail(wire.ErrBadValue)
	}
	return uint32(w)
}

func readHashes(r *wire.Reader, most int) []Hash {
	hashes := make([]Hash, r.Count(len(Hash{}), most))
	for i := range hashes {
		hashes[i] = Hash(read16(r))
	}
	return hashes
}

func read16(r *wire.Reader) (b [16]byte) {
	binary.BigEndian.PutUint64(b[:8], r.Uint64())
	binary.BigEndian.PutUint64(b[8:], r.Uint64())
	return b
}

func compareHash(a, b Hash) int { return bytes.Compare(a[:], b[:]) }
