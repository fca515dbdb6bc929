package reap

import (
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// Rules say what of a record may be reaped, and when. No promise rests on
// After, FoldEntries and FoldQuiet: they only spare work for what may yet
// change. A zero field takes its default.
type Rules struct {
	// After is the age from which on a tombstone is reaped. Default 24 h.
	After time.Duration
	// Skew is how far the clocks of members may differ: a value is reaped once it
	// has been expired for so long by the clock of every member. Default 1 min.
	Skew time.Duration
	// IDMemory is the age of a write id at which every coordinator refuses it. It
	// must exceed the window in which attempts are taken by what clocks differ.
	// Default 4 min.
	IDMemory time.Duration
	// FoldEntries is how many dead entries of a clock are worth a round. Default
	// 16.
	FoldEntries int
	// FoldQuiet is how long the key must not have been written. Default 10 s.
	FoldQuiet time.Duration
}

func (u Rules) withDefaults() Rules {
	setDefault(&u.After, 24*time.Hour)
	setDefault(&u.Skew, time.Minute)
	setDefault(&u.IDMemory, 4*time.Minute)
	setDefault(&u.FoldEntries, 16)
	setDefault(&u.FoldQuiet, 10*time.Second)
	return u
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// judge returns what may be taken out of r at now, with the time that the
// clock of every member must have reached. ok is false if there is nothing.
func (u Rules) judge(r kv.Record, now time.Time) (p kv.Reaping, due time.Time, ok bool) {
	if r.Absent() {
		return p, due, false
	}
	if p, due, ok = u.whole(r, now); ok {
		return p, due, true
	}
	p.Drop = u.expired(r, now)
	for _, v := range r.Live {
		if slices.Contains(p.Drop, v.Dot) {
			due = later(due, u.end(v.Value))
		}
	}
	if fold, until := u.fold(r, p, now); fold.Fold {
		p, due = fold, later(due, until)
	}
	return p, due, len(p.Drop) > 0 || p.Fold
}

// whole judges a record of which nothing would be left: its siblings are
// tombstones that are old enough or values that have expired, and no attempt at
// any of its writes would be taken any more.
func (u Rules) whole(r kv.Record, now time.Time) (p kv.Reaping, due time.Time, ok bool) {
	for _, v := range r.Live {
		end := u.end(v.Value)
		if v.Value.Kind == kv.KindTombstone {
			end = v.Value.Stamp.Time().Add(u.After)
		} else {
			due = later(due, end)
		}
		if end.IsZero() || end.After(now) {
			return kv.Reaping{}, time.Time{}, false
		}
		p.Drop = append(p.Drop, v.Dot)
	}
	newest := r.IDFloor
	if len(r.IDs) > 0 {
		newest = r.IDs[len(r.IDs)-1].ID
	}
	if newest.IsZero() {
		return p, due, true
	}
	refused := newest.Issued().Add(u.IDMemory)
	if refused.After(now) {
		return kv.Reaping{}, time.Time{}, false
	}
	p.Forget = newest.Issued().Add(time.Millisecond)
	return p, later(due, refused), true
}

// expired lists the siblings that are expired, if another is left. The attempts
// at one write go together: of those left, the record would say that the write
// was replaced.
func (u Rules) expired(r kv.Record, now time.Time) []vclock.Dot {
	lives := func(v kv.Version) bool {
		end := u.end(v.Value)
		return end.IsZero() || end.After(now)
	}
	var drop []vclock.Dot
	for _, v := range r.Live {
		if !slices.ContainsFunc(r.Live, func(w kv.Version) bool { return lives(w) && oneWrite(v, w) }) {
			drop = append(drop, v.Dot)
		}
	}
	if len(drop) == len(r.Live) {
		return nil // write ids are still needed, and would be all that is left
	}
	return drop
}

func oneWrite(v, w kv.Version) bool {
	return v.Dot == w.Dot || !v.Value.WriteID.IsZero() && v.Value.WriteID == w.Value.WriteID
}

// end is when a value may go; zero for what does not expire.
func (u Rules) end(s kv.Sibling) time.Time {
	if s.Kind == kv.KindTombstone || s.Expires == 0 {
		return time.Time{}
	}
	return time.UnixMilli(s.Expires).Add(u.Skew)
}

// fold adds to p that the clock is folded, if that is worth it.
func (u Rules) fold(r kv.Record, p kv.Reaping, now time.Time) (kv.Reaping, time.Time) {
	if len(r.Clock) < u.FoldEntries || r.LatestStamp().Time().Add(u.FoldQuiet).After(now) {
		return p, time.Time{}
	}
	var refused time.Time
	for _, id := range r.IDs {
		if at := id.ID.Issued().Add(u.IDMemory); !at.After(now) {
			refused = at
			p.Forget = id.ID.Issued().Add(time.Millisecond)
		}
	}
	p.Fold = true
	p.Fold = len(r.Clock)-len(r.Reaped(p).Clock) >= u.FoldEntries
	return p, refused
}

// next returns a time before which r will not be worth a round, unless it
// changes; zero if time alone will never make it so.
func (u Rules) next(r kv.Record) time.Time {
	var first time.Time
	soonest := func(t time.Time) {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	for _, v := range r.Live {
		if v.Value.Kind == kv.KindTombstone {
			soonest(v.Value.Stamp.Time().Add(u.After))
		} else if end := u.end(v.Value); !end.IsZero() {
			soonest(end)
		}
	}
	if len(r.Clock) >= u.FoldEntries || len(r.Live) == 0 {
		soonest(r.LatestStamp().Time().Add(u.FoldQuiet))
	}
	return first
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
