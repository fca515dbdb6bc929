// Package vclock keeps the causality of one key: dots, clocks, dotted version
// vector sets and the tokens that carry clocks through clients.
//
// A [Dot] names one write event. A [Clock] says which events a replica or a
// client has seen: per actor, all events up to a counter. A [Set] holds the
// values that no seen event has replaced, each under the dot of the event that
// wrote it. Merging two sets keeps every value that both have, and every value
// whose dot the other side has not seen; a value that the other side has seen
// and no longer holds was replaced there.
//
// The algorithm is that of Preguiça, Baquero, Almeida, Fonte and Gonçalves,
// "Dotted Version Vectors: Logical Clocks for Optimistic Replication" (2010)
// and "Scalable and Accurate Causality Tracking for Eventually Consistent
// Stores" (2014), with explicit dots in place of counted lists, so that a
// single value in the middle of an actor's run can leave by itself.
//
// All values here are immutable: operations return new ones and never write to
// their operands, whose storage the results may share.
package vclock

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/starling-kv/starling/internal/wire"
)

// MaxActors bounds the entries of one decoded clock. Clocks are never pruned;
// the bound only keeps a hostile length from costing memory.
const MaxActors = 1 << 16

// Actor is a source of events for one key: 64 random bits, minted by a replica
// for one record and one boot of its process, so that no replica that lost or
// rolled back its memory can continue an old run. Zero is no actor.
type Actor uint64

// String returns sixteen hexadecimal digits.
func (a Actor) String() string { return fmt.Sprintf("%016x", uint64(a)) }

// Dot names one event: the Counter-th of Actor, counted from 1.
type Dot struct {
	Actor   Actor
	Counter uint64
}

// IsZero reports whether d names no event.
func (d Dot) IsZero() bool { return d == Dot{} }

// Compare orders dots by actor, then counter: an order for storage, without
// causal meaning.
func (d Dot) Compare(e Dot) int {
	if c := cmp.Compare(d.Actor, e.Actor); c != 0 {
		return c
	}
	return cmp.Compare(d.Counter, e.Counter)
}

// String returns actor:counter.
func (d Dot) String() string { return fmt.Sprintf("%v:%d", d.Actor, d.Counter) }

// Clock is a version vector: for each actor the last event seen, and with it
// all earlier ones. It is sorted by actor, with one entry an actor and no
// counter of zero. Nil is the clock that has seen nothing.
type Clock []Dot

// Counter returns the last event of a that c has seen, 0 for none.
func (c Clock) Counter(a Actor) uint64 {
	i, ok := c.find(a)
	if !ok {
		return 0
	}
	return c[i].Counter
}

// Covers reports whether c has seen d.
func (c Clock) Covers(d Dot) bool { return c.Counter(d.Actor) >= d.Counter }

// Dominates reports whether c has seen all that o has.
func (c Clock) Dominates(o Clock) bool {
	i := 0
	for _, d := range o {
		for i < len(c) && c[i].Actor < d.Actor {
			i++
		}
		if i == len(c) || c[i].Actor != d.Actor || c[i].Counter < d.Counter {
			return false
		}
	}
	return true
}

// Equal reports whether c and o have seen the same events.
func (c Clock) Equal(o Clock) bool { return slices.Equal(c, o) }

// Merge returns the clock that has seen what c or o has.
func (c Clock) Merge(o Clock) Clock {
	switch {
	case c.Dominates(o):
		return c
	case o.Dominates(c):
		return o
	}
	out := make(Clock, 0, len(c)+len(o))
	for len(c) > 0 && len(o) > 0 {
		switch a, b := c[0], o[0]; {
		case a.Actor < b.Actor:
			out, c = append(out, a), c[1:]
		case a.Actor > b.Actor:
			out, o = append(out, b), o[1:]
		default:
			a.Counter = max(a.Counter, b.Counter)
			out, c, o = append(out, a), c[1:], o[1:]
		}
	}
	return append(append(out, c...), o...)
}

// With returns c having also seen d and all earlier events of its actor.
func (c Clock) With(d Dot) Clock { return c.Merge(Clock{d}) }

// String returns the entries between braces.
func (c Clock) String() string {
	parts := make([]string, len(c))
	for i, d := range c {
		parts[i] = d.String()
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func (c Clock) find(a Actor) (int, bool) {
	return slices.BinarySearchFunc(c, a, func(d Dot, a Actor) int { return cmp.Compare(d.Actor, a) })
}

// AppendClock appends the one encoding of c: a varint count, then for each
// entry the actor (8 bytes) and its counter (varint).
func AppendClock(dst []byte, c Clock) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c)))
	for _, d := range c {
		dst = AppendDot(dst, d)
	}
	return dst
}

// ReadClock reads what [AppendClock] writes and refuses anything else: entries
// out of order, repeated actors, counters of zero.
func ReadClock(r *wire.Reader) Clock {
	n := r.Count(9, MaxActors)
	if n == 0 {
		return nil
	}
	c := make(Clock, n)
	for i := range c {
		c[i] = ReadDot(r)
		if i > 0 && c[i].Actor <= c[i-1].Actor {
			r.Fail(wire.ErrBadValue)
		}
	}
	return c
}

// AppendDot appends the actor (8 bytes) and the counter (varint).
func AppendDot(dst []byte, d Dot) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(d.Actor))
	return binary.AppendUvarint(dst, d.Counter)
}

// ReadDot reads what [AppendDot] writes; the zero dot is refused.
func ReadDot(r *wire.Reader) Dot {
	d := Dot{Actor: Actor(r.Uint64()), Counter: r.Uvarint()}
	if d.Actor == 0 || d.Counter == 0 {
		r.Fail(wire.ErrBadValue)
	}
	return d
}
