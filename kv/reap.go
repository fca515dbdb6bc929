package kv

import (
	"slices"
	"time"

	"github.com/starling-kv/starling/vclock"
)

// Reaping is what a reap round takes out of one record. It is safe only while
// every copy of the record that can still be merged is either this one or has
// come from it: what it takes out would return with an older copy.
type Reaping struct {
	// Drop are the dots of the siblings that go: expired values, or all that is
	// live, tombstones included.
	Drop []vclock.Dot
	// Forget is the time of issue before which write ids are forgotten, in whole
	// milliseconds: such an id is refused everywhere by now. Zero: none is.
	Forget time.Time
	// Fold takes out the clock's entries of actors that nothing live and no
	// remembered write id names.
	Fold bool
}

// Reaped returns r after the reaping. It depends on nothing but what replicas
// share of r, so that equal records stay equal. If neither a sibling nor a
// write id is left, nothing is: the key was never heard of. Mine goes with its
// actor's entry, because counting from 1 again would give dots out twice.
func (r Record) Reaped(p Reaping) Record {
	out := r
	out.Set = r.Without(func(v Version) bool { return slices.Contains(p.Drop, v.Dot) })
	out = out.settle().forget(p.Forget)
	switch {
	case len(out.Live) == 0 && len(out.IDs) == 0:
		return Record{}
	case p.Fold:
		out.Clock = out.folded()
	}
	if out.Clock.Counter(out.Mine.Actor) == 0 {
		out.Mine = Mine{}
	}
	return out
}

// folded is the part of r's clock that its siblings and write ids need.
func (r Record) folded() vclock.Clock {
	needed := make([]vclock.Actor, 0, len(r.Live)+len(r.IDs))
	for _, v := range r.Live {
		needed = append(needed, v.Dot.Actor)
	}
	for _, id := range r.IDs {
		for _, d := range id.Dots {
			needed = append(needed, d.Actor)
		}
	}
	slices.Sort(needed)
	clock := make(vclock.Clock, 0, len(needed))
	for _, d := range r.Clock {
		if _, ok := slices.BinarySearch(needed, d.Actor); ok {
			clock = append(clock, d)
		}
	}
	return clock
}
