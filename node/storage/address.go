package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/vclock"
)

// schemaVersion names the layout of keys below and of what they hold. A store
// refuses a directory of another.
const schemaVersion = 2

// A space is the first byte of every storage key. All integers behind it are
// of fixed width, big end first, so that bytewise order is numeric order.
type space byte

const (
	// spaceRecord: partition u16, leaf u8, generation u32, bucket length u8,
	// bucket, name. The records of a partition are contiguous, so that handing
	// one over is one scan, and within it those of a leaf of its trees.
	spaceRecord space = 'r'
	// spaceHint: target u64, then as spaceRecord. The hints for one target are
	// contiguous.
	spaceHint space = 'h'
	// spaceMissed: target u64, then as spaceRecord: that the target missed a
	// write of the key.
	spaceMissed space = 'n'
	// spaceValue: partition u16, actor u64, counter u64, chunk u16: a piece of
	// an external value of a record. Dots are unique, so that no key is needed.
	spaceValue space = 'v'
	// spaceHintValue: target u64, then as spaceValue: a piece of an external
	// value of a hint. Hints share no values with records or with one another,
	// so that each record alone decides when its values go.
	spaceHintValue space = 'w'
	// spacePart: id u64, part u16: a piece of a record or fact that is too large
	// for one entry.
	spacePart space = 'p'
	// spaceJournal: number u64: how one transaction changed the trees.
	spaceJournal space = 'd'
	// spacePage: partition u16, n u8: a tree.
	spacePage space = 't'
	// spaceMeta: name. Facts of the layers above.
	spaceMeta space = 'm'
	// spaceStore: name. The store's own facts.
	spaceStore space = 's'
)

// hasTarget reports whether keys of the space go on with the node that their
// record is held for.
func (s space) hasTarget() bool {
	return s == spaceHint || s == spaceHintValue || s == spaceMissed
}

// generation numbers the lives of a bucket. Deleting one will be a new number.
const generation uint32 = 0

// maxMetaName bounds the name of a fact, in bytes.
const maxMetaName = 1 << 10

// address is a storage key taken apart. Which fields count depends on the
// space; the others are zero.
type address struct {
	space  space
	slot   kv.Slot    // of records, hints and what was missed whole, of values without the key
	dot    vclock.Dot // of values
	id     uint64     // of parts, and the number of a journal entry
	nmax   uint8      // of trees; their partition is in slot
	number uint16     // of values and parts: the place of the piece
	name   string     // of facts
}

func slotAddress(s kv.Slot) address {
	if s.Target != 0 {
		return address{space: spaceHint, slot: s}
	}
	return address{space: spaceRecord, slot: s}
}

// valueAddress is the address of the first chunk of the value that a record in
// slot s holds under d.
func valueAddress(s kv.Slot, d vclock.Dot) address {
	a := address{space: spaceValue, slot: kv.Slot{Target: s.Target, Partition: s.Partition}, dot: d}
	if s.Target != 0 {
		a.space = spaceHintValue
	}
	return a
}

func missedAddress(m Missed) address {
	return address{space: spaceMissed, slot: kv.Slot{Target: m.Target, Partition: m.Partition, Key: m.Key}}
}

func partAddress(id uint64) address { return address{space: spacePart, id: id} }

func journalAddress(number uint64) address { return address{space: spaceJournal, id: number} }

func pageAddress(id merkle.ID) address {
	return address{space: spacePage, slot: kv.Slot{Partition: id.Partition}, nmax: id.NMax}
}

// tree names the tree whose page is at a.
func (a address) tree() merkle.ID { return merkle.ID{Partition: a.slot.Partition, NMax: a.nmax} }

func metaAddress(name string) address { return address{space: spaceMeta, name: name} }

// piece returns the address of the i-th piece beside a.
func (a address) piece(i int) address {
	a.number = uint16(i)
	return a
}

// bytes returns the storage key.
func (a address) bytes() []byte {
	b := make([]byte, 0, 24+len(a.slot.Key.Bucket)+len(a.slot.Key.Name)+len(a.name))
	b = append(b, byte(a.space))
	if a.space.hasTarget() {
		b = binary.BigEndian.AppendUint64(b, uint64(a.slot.Target))
	}
	switch a.space {
	case spaceRecord, spaceHint, spaceMissed:
		b = binary.BigEndian.AppendUint16(b, a.slot.Partition)
		b = append(b, a.slot.Key.Leaf())
		b = binary.BigEndian.AppendUint32(b, generation)
		b = append(b, byte(len(a.slot.Key.Bucket)))
		b = append(b, a.slot.Key.Bucket...)
		b = append(b, a.slot.Key.Name...)
	case spaceValue, spaceHintValue:
		b = binary.BigEndian.AppendUint16(b, a.slot.Partition)
		b = binary.BigEndian.AppendUint64(b, uint64(a.dot.Actor))
		b = binary.BigEndian.AppendUint64(b, a.dot.Counter)
		b = binary.BigEndian.AppendUint16(b, a.number)
	case spacePart:
		b = binary.BigEndian.AppendUint64(b, a.id)
		b = binary.BigEndian.AppendUint16(b, a.number)
	case spaceJournal:
		b = binary.BigEndian.AppendUint64(b, a.id)
	case spacePage:
		b = append(binary.BigEndian.AppendUint16(b, a.slot.Partition), a.nmax)
	case spaceMeta, spaceStore:
		b = append(b, a.name...)
	}
	return b
}

// parseAddress reads what [address.bytes] writes and refuses anything else.
func parseAddress(b []byte) (address, error) {
	r := wire.NewReader(b)
	a := address{space: space(r.Byte())}
	if a.space.hasTarget() {
		if a.slot.Target = kv.NodeID(r.Uint64()); a.slot.Target == 0 {
			r.Fail(wire.ErrBadValue)
		}
	}
	switch a.space {
	case spaceRecord, spaceHint, spaceMissed:
		a.slot.Partition = r.Uint16()
		a.slot.Key = readKey(r)
	case spaceValue, spaceHintValue:
		a.slot.Partition = r.Uint16()
		a.dot = vclock.Dot{Actor: vclock.Actor(r.Uint64()), Counter: r.Uint64()}
		a.number = r.Uint16()
		if a.dot.Actor == 0 || a.dot.Counter == 0 {
			r.Fail(wire.ErrBadValue)
		}
	case spacePart:
		a.id, a.number = r.Uint64(), r.Uint16()
	case spaceJournal:
		a.id = r.Uint64()
	case spacePage:
		a.slot.Partition, a.nmax = r.Uint16(), r.Byte()
	case spaceMeta, spaceStore:
		if a.name = string(r.Rest()); a.name == "" || len(a.name) > maxMetaName {
			r.Fail(wire.ErrBadValue)
		}
	default:
		r.Fail(wire.ErrBadValue)
	}
	if err := r.Close(); err != nil {
		return address{}, fmt.Errorf("storage key %q: %w", b, err)
	}
	return a, nil
}

// readKey reads leaf, generation, bucket and name.
func readKey(r *wire.Reader) kv.Key {
	leaf := r.Byte()
	if g := r.Uint32(); g != generation {
		r.Fail(wire.ErrBadValue)
	}
	n := int(r.Byte())
	rest := r.Rest()
	if n > len(rest) {
		r.Fail(wire.ErrShort)
		return kv.Key{}
	}
	k := kv.Key{Bucket: string(rest[:n]), Name: string(rest[n:])}
	if checkKey(k) != nil || k.Leaf() != leaf {
		r.Fail(wire.ErrBadValue)
	}
	return k
}

// checkKey refuses keys that an address cannot hold. What a bucket may be named
// is not judged here: see [kv.Key.Validate].
func checkKey(k kv.Key) error {
	switch {
	case k.Bucket == "" || len(k.Bucket) > kv.MaxBucketBytes:
		return fmt.Errorf("%w: its bucket has %d bytes, 1 to %d are allowed", ErrBadKey, len(k.Bucket), kv.MaxBucketBytes)
	case k.Name == "" || len(k.Name) > kv.MaxKeyBytes:
		return fmt.Errorf("%w: its name has %d bytes, 1 to %d are allowed", ErrBadKey, len(k.Name), kv.MaxKeyBytes)
	}
	return nil
}

// String names what the address holds, for errors.
func (a address) String() string {
	switch a.space {
	case spaceRecord:
		return fmt.Sprintf("record %v of partition %d", a.slot.Key, a.slot.Partition)
	case spaceHint:
		return fmt.Sprintf("hint %v of partition %d for node %v", a.slot.Key, a.slot.Partition, a.slot.Target)
	case spaceMissed:
		return fmt.Sprintf("note of a write of %v in partition %d that node %v missed", a.slot.Key, a.slot.Partition, a.slot.Target)
	case spaceValue:
		return fmt.Sprintf("value %v of partition %d", a.dot, a.slot.Partition)
	case spaceHintValue:
		return fmt.Sprintf("value %v of partition %d for node %v", a.dot, a.slot.Partition, a.slot.Target)
	case spacePart:
		return fmt.Sprintf("parts %016x", a.id)
	case spaceJournal:
		return fmt.Sprintf("entry %d of the trees' journal", a.id)
	case spacePage:
		return fmt.Sprintf("tree of partition %d and n %d", a.slot.Partition, a.nmax)
	case spaceMeta, spaceStore:
		return fmt.Sprintf("fact %q", a.name)
	}
	return "unknown entry"
}

// partitionRange returns the range of the records of a partition.
func partitionRange(partition uint16) (from, to []byte) {
	return prefixRange(binary.BigEndian.AppendUint16([]byte{byte(spaceRecord)}, partition))
}

// leafRange returns the range of the records of one leaf of a partition.
func leafRange(partition uint16, leaf uint8) (from, to []byte) {
	return prefixRange(append(binary.BigEndian.AppendUint16([]byte{byte(spaceRecord)}, partition), leaf))
}

// targetRange returns the range of what a space that is ordered by targets
// holds for a node.
func targetRange(s space, target kv.NodeID) (from, to []byte) {
	return prefixRange(binary.BigEndian.AppendUint64([]byte{byte(s)}, uint64(target)))
}

// metaRange returns the range of the facts whose names begin with prefix.
func metaRange(prefix string) (from, to []byte) {
	return prefixRange(append([]byte{byte(spaceMeta)}, prefix...))
}

// prefixRange returns the range of all keys that begin with prefix, whose first
// byte is a space and so never the last byte value.
func prefixRange(prefix []byte) (from, to []byte) {
	to = append([]byte(nil), prefix...)
	for to[len(to)-1] == 0xff {
		to = to[:len(to)-1]
	}
	to[len(to)-1]++
	return prefix, to
}
