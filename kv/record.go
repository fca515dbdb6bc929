package kv

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/vclock"
)

// Kind says what a sibling is.
type Kind uint8

// The kinds of sibling. Values that merge by themselves will add theirs.
const (
	KindValue     Kind = 1
	KindTombstone Kind = 2 // a delete, kept until all replicas know of it
)

// InlineLimit is the largest value, in bytes, that lives in the record itself.
// A larger one is stored by its dot, so that merging never copies it.
const InlineLimit = 4 << 10

// Meta is one field of a client's own metadata.
type Meta struct{ Name, Value string }

// Sibling is one value, or delete, of a key. It never changes once written.
type Sibling struct {
	Kind        Kind
	N           uint8   // the number of replicas that its write asked for
	Stamp       HLC     // hybrid time of the write, at its coordinating replica
	Expires     int64   // Unix milliseconds, stamped with the dot; 0: never
	WriteID     WriteID // zero when the client gave none
	ContentType string
	Meta        []Meta // sorted by name, no name twice
	Length      uint64 // of the value, in bytes
	Checksum    uint64 // xxhash64 of the value
	External    bool   // the value is stored by its dot, not in Inline
	Inline      []byte // the value, unless External
}

// Expired reports whether the sibling is not shown any more at now.
func (s *Sibling) Expired(now time.Time) bool { return s.Expires != 0 && s.Expires <= now.UnixMilli() }

// Checksum is the checksum of a value: xxhash64.
func Checksum(value []byte) uint64 { return xxhash.Sum64(value) }

// Blob is an external value under the dot of its sibling.
type Blob struct {
	Dot  vclock.Dot
	Data []byte
}

// Version is a sibling under its dot.
type Version = vclock.Versioned[Sibling]

// IssuedID lists the dots that attempts of one write have been given.
type IssuedID struct {
	ID   WriteID
	Dots []vclock.Dot // sorted, at least one
}

// MaxIDs bounds the write ids that a record remembers; the oldest leave first.
const MaxIDs = 128

// Mine is the actor with which this replica may go on writing to this record:
// only while Boot is the boot of the running process. It is never sent.
type Mine struct {
	Actor vclock.Actor
	Boot  uint64
}

// Record is what a replica keeps of a key. The zero Record is that of a key
// never heard of. Records are values: operations return new ones.
type Record struct {
	vclock.Set[Sibling]

	// NMax is the largest n that the key was ever written with. Placement and
	// repair go by it; it never falls while the record lives.
	NMax uint8
	// IDs are the writes that the key remembers, sorted, all after IDFloor.
	IDs     []IssuedID
	IDFloor WriteID
	// Mine is local to this replica: merging keeps the receiver's.
	Mine Mine
}

// Absent reports whether nothing was ever heard of the key.
func (r Record) Absent() bool { return len(r.Clock) == 0 }

// Merge returns what a replica knows that has heard of both r and o, with r's
// Mine. It is commutative (Mine apart), associative and idempotent.
func (r Record) Merge(o Record) Record {
	switch { // most merges are of replicas that differ little or not at all
	case r.Covers(o):
		return r
	case o.Covers(r):
		o.Mine = r.Mine
		return o
	}
	out := Record{Set: r.Set.Merge(o.Set), NMax: max(r.NMax, o.NMax), Mine: r.Mine}
	out.IDs, out.IDFloor = mergeIDs(r, o)
	return out.settle()
}

// Covers reports whether merging o into r would change nothing.
func (r Record) Covers(o Record) bool {
	if !r.Clock.Dominates(o.Clock) || r.NMax < o.NMax || r.IDFloor.Compare(o.IDFloor) < 0 {
		return false
	}
	// What o holds and r does not, r has seen and dropped; so only what o has
	// dropped and r still holds could change r.
	if slices.ContainsFunc(r.Live, func(v Version) bool { return o.Replaced(v.Dot) }) {
		return false
	}
	return r.remembers(o.IDs)
}

// Reused reports that o, which came from elsewhere, has seen events of the
// actor that only this replica may continue and that it never made: the actor
// was used twice, by a copy of this node's disk or by damage.
func (r Record) Reused(o Record, boot uint64) bool {
	return r.Mine.Actor != 0 && r.Mine.Boot == boot && o.Clock.Counter(r.Mine.Actor) > r.Clock.Counter(r.Mine.Actor)
}

// Put returns r after a write of s whose author had seen the clock seen. The
// actor is r.Mine's if it is of this boot; otherwise a new one is minted, never
// zero, and becomes r.Mine. Ids issued before forget are dropped from memory.
//
// All attempts at one write carry the clock that the first had seen. One that
// had seen an earlier attempt would replace it, which hides both: where
// [Record.Attempts] knows of one, there is nothing to put.
func (r Record) Put(s Sibling, seen vclock.Clock, boot uint64, mint func() vclock.Actor, forget time.Time) (Record, vclock.Dot) {
	out := r
	if out.Mine.Actor == 0 || out.Mine.Boot != boot {
		out.Mine = Mine{Actor: mint(), Boot: boot}
	}
	var dot vclock.Dot
	out.Set, dot = r.Set.Write(seen, out.Mine.Actor, s)
	out.NMax = max(r.NMax, s.N)
	if !s.WriteID.IsZero() {
		out.IDs, out.IDFloor = mergeIDs(r, Record{IDs: []IssuedID{{ID: s.WriteID, Dots: []vclock.Dot{dot}}}})
	}
	return out.settle().forget(forget), dot
}

// Attempts returns the dots that earlier attempts of a write were given here.
func (r Record) Attempts(id WriteID) []vclock.Dot {
	if i, ok := r.findID(id); ok {
		return r.IDs[i].Dots
	}
	return nil
}

// Visible returns the values to show, in the order of their dots: no
// tombstones, nothing expired by now, and of the attempts of one write only
// the first. deleted reports whether a tombstone is among the siblings.
func (r Record) Visible(now time.Time) (values []Version, deleted bool) {
	for _, v := range r.Live {
		switch {
		case v.Value.Kind == KindTombstone:
			deleted = true
		case v.Value.Expired(now):
		case slices.ContainsFunc(values, func(w Version) bool { return sameWrite(v, w) }):
		default:
			values = append(values, v)
		}
	}
	return values, deleted
}

func sameWrite(v, w Version) bool {
	return !v.Value.WriteID.IsZero() && v.Value.WriteID == w.Value.WriteID
}

// ETag identifies a set of visible values, independent of which attempt of
// their writes is shown.
func ETag(values []Version) uint64 {
	if len(values) == 1 { // nearly always
		var room [maxWriteName]byte
		return xxhash.Sum64(appendWriteName(room[:0], values[0]))
	}
	names := make([][]byte, len(values))
	for i, v := range values {
		names[i] = appendWriteName(nil, v)
	}
	slices.SortFunc(names, slices.Compare)
	return xxhash.Sum64(slices.Concat(names...))
}

// maxWriteName is the length of the longest name of a write.
const maxWriteName = 8 + binary.MaxVarintLen64

// appendWriteName appends the id of the write that v comes from, or its dot.
func appendWriteName(dst []byte, v Version) []byte {
	if v.Value.WriteID.IsZero() {
		return vclock.AppendDot(dst, v.Dot)
	}
	return append(dst, v.Value.WriteID[:]...)
}

// LatestStamp returns the largest hybrid time among the live siblings.
func (r Record) LatestStamp() HLC {
	var last HLC
	for _, v := range r.Live {
		last = max(last, v.Value.Stamp)
	}
	return last
}

// Bytes returns the total length of the live values.
func (r Record) Bytes() uint64 {
	var n uint64
	for _, v := range r.Live {
		n += v.Value.Length
	}
	return n
}

// settle drops the live siblings of every write that was replaced under
// another of its dots: a retry must not bring back what its first attempt lost
// to a later write. Dots leave for good, so the order of merges does not matter.
func (r Record) settle() Record {
	for _, id := range r.IDs {
		if len(id.Dots) > 1 && slices.ContainsFunc(id.Dots, r.Replaced) && slices.ContainsFunc(id.Dots, r.Holds) {
			r.Set = r.Without(func(v Version) bool { return slices.Contains(id.Dots, v.Dot) })
		}
	}
	return r.remember(MaxIDs)
}

// remember keeps the last most ids; the floor rises to the last that leaves.
func (r Record) remember(most int) Record {
	if extra := len(r.IDs) - most; extra > 0 {
		r.IDFloor = r.IDs[extra-1].ID
		r.IDs = r.IDs[extra:]
	}
	return r
}

// forget drops the ids issued before t.
func (r Record) forget(t time.Time) Record {
	keep := len(r.IDs)
	for keep > 0 && r.IDs[len(r.IDs)-keep].ID.Issued().Before(t) {
		keep--
	}
	return r.remember(keep)
}

// remembers reports whether r knows all that ids say, or has forgotten it.
func (r Record) remembers(ids []IssuedID) bool {
	known := r.IDs
	for _, i := range ids {
		if i.ID.Compare(r.IDFloor) <= 0 {
			continue
		}
		for len(known) > 0 && known[0].ID.Compare(i.ID) < 0 {
			known = known[1:]
		}
		if len(known) == 0 || known[0].ID != i.ID || !containsAll(known[0].Dots, i.Dots) {
			return false
		}
	}
	return true
}

func containsAll(all, some []vclock.Dot) bool {
	return !slices.ContainsFunc(some, func(d vclock.Dot) bool { return !slices.Contains(all, d) })
}

// mergeIDs unites what both records remember above the later floor.
func mergeIDs(r, o Record) ([]IssuedID, WriteID) {
	floor := r.IDFloor
	if o.IDFloor.Compare(floor) > 0 {
		floor = o.IDFloor
	}
	if len(r.IDs) == 0 && len(o.IDs) == 0 {
		return nil, floor
	}
	out := make([]IssuedID, 0, len(r.IDs)+len(o.IDs))
	a, b := r.IDs, o.IDs
	for len(a) > 0 || len(b) > 0 {
		var next IssuedID
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].ID.Compare(b[0].ID) < 0:
			next, a = a[0], a[1:]
		case len(a) == 0 || a[0].ID.Compare(b[0].ID) > 0:
			next, b = b[0], b[1:]
		default:
			next, a, b = IssuedID{a[0].ID, uniteDots(a[0].Dots, b[0].Dots)}, a[1:], b[1:]
		}
		if next.ID.Compare(floor) > 0 {
			out = append(out, next)
		}
	}
	return out, floor
}

func uniteDots(a, b []vclock.Dot) []vclock.Dot {
	switch {
	case containsAll(a, b):
		return a
	case containsAll(b, a):
		return b
	}
	out := slices.Concat(a, b)
	slices.SortFunc(out, vclock.Dot.Compare)
	return slices.Compact(out)
}

func (r Record) findID(id WriteID) (int, bool) {
	return slices.BinarySearchFunc(r.IDs, id, func(i IssuedID, id WriteID) int { return i.ID.Compare(id) })
}

// HLC is a hybrid logical clock (Kulkarni and others, 2014): Unix milliseconds
// in the upper 48 bits, a logical counter below.
type HLC uint64

// Next returns a time later than h and not earlier than now.
func (h HLC) Next(now time.Time) HLC {
	wall := HLC(max(0, now.UnixMilli())) << 16
	return max(h+1, wall)
}

// Time returns the physical part.
func (h HLC) Time() time.Time { return time.UnixMilli(int64(h >> 16)) }

// CompareMeta orders fields by name.
func CompareMeta(a, b Meta) int { return cmp.Compare(a.Name, b.Name) }
