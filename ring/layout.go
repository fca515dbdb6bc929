// Package ring says who owns what: a [Layout] cuts the 64-bit hash space into
// partitions and gives each one an ordered list of distinct owners; a [View]
// is the set of layouts that a node knows and those of them it knows retired.
//
// Everything here is a pure value: no goroutine, no clock, no I/O. Layouts and
// views are immutable and safe for concurrent use.
package ring

import (
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"

	"github.com/starling-kv/starling/kv"
)

// Limits that [Compute] and the decoders enforce.
const (
	MaxOwners     = 16      // owners of a partition, and so the largest n
	MaxMembers    = 4096    // members of a layout
	MaxPartitions = 1 << 16 // partitions of a layout
	MaxAncestors  = 1024    // ancestors a layout names: the youngest ones
	MaxNameLen    = 64      // bytes of a member's name, and of a zone's
	MaxAddressLen = 255     // bytes of a member's address
)

// Partition numbers an equal, contiguous share of the hash space.
type Partition uint16

// ClusterID names a cluster for ever: 128 random bits, drawn at bootstrap.
type ClusterID [16]byte

// String returns the id as 32 hexadecimal digits.
func (id ClusterID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes the id as 32 hexadecimal digits.
func (id ClusterID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads what [ClusterID.MarshalText] writes.
func (id *ClusterID) UnmarshalText(b []byte) error { return unhex(id[:], b, "cluster id") }

// Hash names a layout by its content: the first 16 bytes of the SHA-256 of its
// canonical encoding.
type Hash [16]byte

// String returns the hash as 32 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes the hash as 32 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads what [Hash.MarshalText] writes.
func (h *Hash) UnmarshalText(b []byte) error { return unhex(h[:], b, "layout hash") }

func unhex(dst, text []byte, what string) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%s %q: want %d hexadecimal digits", what, text, hex.EncodedLen(len(dst)))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return fmt.Errorf("%s %q: want %d hexadecimal digits", what, text, hex.EncodedLen(len(dst)))
	}
	return nil
}

// Layout is one assignment of partitions to members. It is computed once, by
// [Compute], and from then on carried whole under its hash: whoever receives
// it verifies it, by [DecodeLayout], and never computes it again.
type Layout struct {
	cluster    ClusterID
	version    uint64
	ancestors  []Hash   // oldest first
	members    []Member // by ascending ID
	partitions int      // a power of two
	width      int      // owners of each partition

	slots  []uint16    // partition p is owned by members[slots[p*width:][:width]]
	owners []kv.NodeID // slots spelt out, so that a look-up copies nothing
	shift  uint        // 64 - log2(partitions): the top bits of a hash number its partition
	hash   Hash
}

// newLayout finishes a layout whose fields up to slots are set and checked.
func newLayout(l Layout) *Layout {
	l.shift = uint(64 - bits.TrailingZeros(uint(l.partitions)))
	l.owners = make([]kv.NodeID, len(l.slots))
	for i, m := range l.slots {
		l.owners[i] = l.members[m].ID
	}
	l.hash = hashOf(&l)
	return &l
}

// Cluster returns the cluster that the layout belongs to.
func (l *Layout) Cluster() ClusterID { return l.cluster }

// Version counts the layouts from the first, which is 1, to this one along its
// longest line of descent. Concurrent edits give two layouts one version.
func (l *Layout) Version() uint64 { return l.version }

// Hash returns the name of the layout.
func (l *Layout) Hash() Hash { return l.hash }

// Ancestors returns the layouts that this one descends from, oldest first, at
// most the [MaxAncestors] youngest. The slice is shared: read only.
func (l *Layout) Ancestors() []Hash { return l.ancestors }

// Members returns the members by ascending id. The slice is shared: read only.
func (l *Layout) Members() []Member { return l.members }

// Partitions returns how many partitions there are: a power of two from 1 to
// [MaxPartitions], fixed for the life of a cluster.
func (l *Layout) Partitions() int { return l.partitions }

// Width returns how many owners each partition has: one for each member that
// has a weight, up to [MaxOwners].
func (l *Layout) Width() int { return l.width }

// Partition returns the partition of the key with the given 64-bit xxhash.
func (l *Layout) Partition(hash uint64) Partition { return Partition(hash >> l.shift) }

// Owners returns the [Layout.Width] distinct owners of p in order of
// preference: a key with n lives on the first n of them. It allocates nothing;
// the slice is shared: read only. It panics if the layout has no partition p.
func (l *Layout) Owners(p Partition) []kv.NodeID {
	end := (int(p) + 1) * l.width
	return l.owners[end-l.width : end : end]
}

// Member returns the member with the given id.
func (l *Layout) Member(id kv.NodeID) (Member, bool) {
	i, ok := slices.BinarySearchFunc(l.members, id, compareID)
	if !ok {
		return Member{}, false
	}
	return l.members[i], true
}

// MemberByName returns the member with the given name. It searches all
// members: for operators, not for requests.
func (l *Layout) MemberByName(name string) (Member, bool) {
	i := slices.IndexFunc(l.members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return l.members[i], true
}
