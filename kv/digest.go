package kv

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
)

// Quarantine is the target of slots in which a node puts away what it neither
// serves nor discards: records of a disk that was set back. No node has this id.
const Quarantine NodeID = math.MaxUint64

// Parcel is a record on its way between nodes, without external values.
type Parcel struct {
	Key Key
	// Reap is the reap number of the key's partition, read before the record:
	// who knows a higher one must not take the record.
	Reap   uint64
	Record []byte // canonical encoding; empty: the sender holds nothing
}

// Leaf returns the leaf of its partition's tree that the key belongs to. The
// partition is the other end of the same hash.
func (k Key) Leaf() uint8 { return uint8(k.Hash()) }

// Digest stands for a key together with the canonical encoding of its record.
// That records which differ have equal digests takes an accident of one in
// 2^64: clients cannot arrange it, because a record holds random actors and
// times of the nodes' choosing.
func Digest(k Key, canonical []byte) uint64 {
	var buf [8]byte
	binary.BigEndian.PutUint64(buf[:], k.Hash())
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(buf[:])
	_, _ = d.Write(canonical)
	return d.Sum64()
}
