package vclock

import "slices"

// Versioned is a value under the dot of the event that wrote it.
type Versioned[V any] struct {
	Dot   Dot
	Value V
}

// Set is a dotted version vector set: the events seen, and the values among
// them that none of these events replaced. Live is sorted by dot and each of
// its dots is covered by Clock. The zero Set has seen nothing.
type Set[V any] struct {
	Clock Clock
	Live  []Versioned[V]
}

// Merge returns what a replica knows that has heard of both s and t. It is
// commutative, associative and idempotent, given that one dot always stands
// for one value.
func (s Set[V]) Merge(t Set[V]) Set[V] {
	return Set[V]{Clock: s.Clock.Merge(t.Clock), Live: mergeLive(s, t)}
}

// mergeLive walks both sorted lists at once: a value in both stays; a value in
// one stays unless the other side has seen its dot, and so dropped it.
func mergeLive[V any](s, t Set[V]) []Versioned[V] {
	var out []Versioned[V]
	a, b := s.Live, t.Live
	for len(a) > 0 || len(b) > 0 {
		switch order := compareHeads(a, b); {
		case order == 0:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		case order < 0:
			if !t.Clock.Covers(a[0].Dot) {
				out = append(out, a[0])
			}
			a = a[1:]
		default:
			if !s.Clock.Covers(b[0].Dot) {
				out = append(out, b[0])
			}
			b = b[1:]
		}
	}
	return out
}

// compareHeads orders the first elements; an empty list comes last.
func compareHeads[V any](a, b []Versioned[V]) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return a[0].Dot.Compare(b[0].Dot)
}

// Write returns s after an event of actor whose author had seen the clock seen:
// the values that seen covers are replaced by v, all others stay beside it. The
// event's counter is one more than any that s or seen know of the actor.
func (s Set[V]) Write(seen Clock, actor Actor, v V) (Set[V], Dot) {
	d := Dot{Actor: actor, Counter: 1 + max(s.Clock.Counter(actor), seen.Counter(actor))}
	next := s.Without(func(x Versioned[V]) bool { return seen.Covers(x.Dot) })
	next.Clock = s.Clock.Merge(seen).With(d)
	at, _ := slices.BinarySearchFunc(next.Live, d, func(x Versioned[V], d Dot) int { return x.Dot.Compare(d) })
	next.Live = slices.Insert(next.Live, at, Versioned[V]{Dot: d, Value: v})
	return next, d
}

// Without returns s less the values for which drop holds. Their events stay
// seen, so that a merge does not bring them back.
func (s Set[V]) Without(drop func(Versioned[V]) bool) Set[V] {
	kept := make([]Versioned[V], 0, len(s.Live)+1)
	for _, x := range s.Live {
		if !drop(x) {
			kept = append(kept, x)
		}
	}
	return Set[V]{Clock: s.Clock, Live: kept}
}

// Holds reports whether d is live in s.
func (s Set[V]) Holds(d Dot) bool {
	_, ok := slices.BinarySearchFunc(s.Live, d, func(x Versioned[V], d Dot) int { return x.Dot.Compare(d) })
	return ok
}

// Replaced reports whether s has seen d and no longer holds it.
func (s Set[V]) Replaced(d Dot) bool { return s.Clock.Covers(d) && !s.Holds(d) }
