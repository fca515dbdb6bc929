package standing

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Facts keeps small values durable beside the records of a node, in one order
// with its writes. It is safe for concurrent use.
type Facts interface {
	// Get returns the fact of the given name, nil if there is none.
	Get(name string) ([]byte, error)
	// Update calls fn at most once, alone of all updates, with the fact as it
	// is, and stores what it returns; nil removes the fact. It returns when that
	// is synced. If fn fails, nothing is stored and its error comes back. An
	// error after fn succeeded leaves open what is stored.
	Update(name string, fn func(old []byte) ([]byte, error)) error
	// Scan calls fn with every fact whose name begins with prefix, in the order
	// of names.
	Scan(prefix string, fn func(name string, value []byte) error) error
}

// The names of the facts.
const (
	factHistory  = "history"  // the node's own past
	factFall     = "fall"     // the last fall
	factUnsynced = "unsynced" // the operating-system boot in which unsynced writes were acknowledged

	prefixMerged     = "merged/"     // and the partition: what was merged of it since the last fall
	prefixLives      = "lives/"      // and a node: how far that one was heard of
	prefixQuarantine = "quarantine/" // and the partition: what is known of its records in quarantine
)

func partitionFact(prefix string, partition uint16) string {
	return fmt.Sprintf("%s%04x", prefix, partition)
}

func partitionOf(prefix, name string) (uint16, error) {
	p, err := strconv.ParseUint(strings.TrimPrefix(name, prefix), 16, 16)
	return uint16(p), err
}

func livesFact(id kv.NodeID) string { return prefixLives + id.String() }

// Cause says why a node fell.
type Cause uint8

// The causes of a fall.
const (
	CauseSetBack  Cause = 1 // the disk was emptied, or holds an earlier state
	CauseUnsynced Cause = 2 // the operating system ended with acknowledged writes that were not synced
)

// String returns the cause as a word.
func (c Cause) String() string {
	switch c {
	case 0:
		return "none"
	case CauseSetBack:
		return "set back"
	case CauseUnsynced:
		return "unsynced"
	}
	return fmt.Sprintf("Cause(%d)", uint8(c))
}

// fall is the last fall of a node; the zero fall is that of one that never fell.
type fall struct {
	epoch uint64 // counts the falls
	cause Cause
	since time.Time
	// pending is set while what the disk holds is not all in quarantine.
	pending bool
}

// The encoding of a fall: version, epoch as a varint, byte cause, Unix
// milliseconds in 8 bytes, bool pending.
func encodeFall(f fall) []byte {
	dst := binary.AppendUvarint([]byte{encoding}, f.epoch)
	dst = binary.BigEndian.AppendUint64(append(dst, byte(f.cause)), uint64(f.since.UnixMilli()))
	return wire.AppendBool(dst, f.pending)
}

func decodeFall(b []byte) (fall, error) {
	r := newReader(b)
	f := fall{epoch: readCount(r), cause: Cause(r.Byte()), since: time.UnixMilli(int64(r.Uint64())), pending: r.Bool()}
	if f.epoch == 0 || f.cause != CauseSetBack && f.cause != CauseUnsynced {
		r.Fail(wire.ErrBadValue)
	}
	return f, r.Close()
}

// The encoding of a catchup: version, epoch as a varint, bool whole, varint
// count of sources, and each: id in 8 bytes, starts as a varint, bool final.
func encodeCatchup(c catchup) []byte {
	dst := binary.AppendUvarint([]byte{encoding}, c.epoch)
	dst = binary.AppendUvarint(wire.AppendBool(dst, c.whole), uint64(len(c.merged)))
	for _, s := range c.merged {
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.id))
		dst = wire.AppendBool(binary.AppendUvarint(dst, s.starts), s.final)
	}
	return dst
}

// maxSources is more than a partition has owners in all layouts ever.
const maxSources = ring.MaxOwners * ring.MaxActive

func decodeCatchup(b []byte) (catchup, error) {
	r := newReader(b)
	c := catchup{epoch: readCount(r), whole: r.Bool()}
	for range r.Count(10, maxSources) {
		s := source{id: readID(r), starts: readCount(r), final: r.Bool()}
		if n := len(c.merged); n > 0 && c.merged[n-1].id >= s.id {
			r.Fail(wire.ErrBadValue)
		}
		c.merged = append(c.merged, s)
	}
	if c.epoch == 0 || c.whole && c.merged != nil {
		r.Fail(wire.ErrBadValue)
	}
	return c, r.Close()
}

func encodeHistory(h History) []byte { return appendHistory([]byte{encoding}, h) }

func decodeHistory(b []byte) (History, error) {
	r := newReader(b)
	h := readHistory(r)
	return h, r.Close()
}

func encodePosition(p Position) []byte { return appendPosition([]byte{encoding}, p) }

func decodePosition(b []byte) (Position, error) {
	r := newReader(b)
	p := readPosition(r)
	return p, r.Close()
}

// The encoding of what is in quarantine: version, reap number as a varint, Unix
// milliseconds in 8 bytes, which are left out where the time is not known.
func encodeQuarantine(q Quarantine) []byte {
	dst := binary.AppendUvarint([]byte{encoding}, q.Number)
	if q.Since.IsZero() {
		return dst
	}
	return binary.BigEndian.AppendUint64(dst, uint64(q.Since.UnixMilli()))
}

func decodeQuarantine(b []byte) (Quarantine, error) {
	r := newReader(b)
	q := Quarantine{Number: r.Uvarint()}
	if r.Len() > 0 {
		if q.Since = time.UnixMilli(int64(r.Uint64())); q.Since.IsZero() {
			r.Fail(wire.ErrBadValue)
		}
	}
	return q, r.Close()
}

// get returns a fact, the zero T if there is none.
func get[T any](f Facts, name string, decode func([]byte) (T, error)) (T, error) {
	var zero T
	b, err := f.Get(name)
	if err != nil {
		return zero, err
	}
	return parse(name, b, decode)
}

// parse returns the fact that b encodes, the zero T if b is nil.
func parse[T any](name string, b []byte, decode func([]byte) (T, error)) (T, error) {
	var zero T
	if b == nil {
		return zero, nil
	}
	v, err := decode(b)
	if err != nil {
		return zero, fmt.Errorf("the fact %q is damaged, start the node with an empty directory to replace it: %w", name, err)
	}
	return v, nil
}
