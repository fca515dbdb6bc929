package antientropy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/merkle"
)

// Bounds of the scrub.
const (
	scrubTick    = time.Second // leaves that are due are checked together
	suspectPause = time.Minute // between two checks of a leaf under suspicion
	maxSuspects  = 1 << 12     // that wait; what is dropped is met by the walk
)

// leafID names a leaf of all trees of a partition.
type leafID struct {
	partition uint16
	leaf      uint8
}

// scrubber is the walk over this node's leaves, and the suspicions that send it
// elsewhere.
type scrubber struct {
	wake chan struct{} // holds a token while there are suspects

	mu       sync.Mutex
	suspects []leafID             // in the order in which they came, each once
	checked  map[leafID]time.Time // suspects that were, in the last minute
}

// Suspect has a leaf checked soon of which a record, or a value that a record
// keeps outside, could not be read: if it is damaged, it is doubted, and healed
// from the other owners; a value is fetched from one of them. It returns at once.
// Damage that nobody can heal is met again and again: a leaf is checked once a
// minute at most.
func (x *Exchanger) Suspect(partition uint16, leaf uint8) {
	s, id := &x.scrubber, leafID{partition, leaf}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.suspects) < maxSuspects && !slices.Contains(s.suspects, id) {
		s.suspects = append(s.suspects, id)
	}
	signal(s.wake)
}

// takeSuspects returns the suspects to check now.
func (s *scrubber) takeSuspects(now time.Time) []leafID {
	s.mu.Lock()
	defer s.mu.Unlock()
	recent := make(map[leafID]time.Time)
	for id, at := range s.checked { // each by itself
		if now.Sub(at) < suspectPause {
			recent[id] = at
		}
	}
	var due, wait []leafID
	for _, id := range s.suspects {
		if _, ok := recent[id]; ok {
			wait = append(wait, id)
			continue
		}
		recent[id] = now
		due = append(due, id)
	}
	s.suspects, s.checked = wait, recent
	return due
}

// scrub walks over all leaves of this node, evenly over the time that one walk
// may take, and checks suspects in between.
func (x *Exchanger) scrub(ctx context.Context) {
	walk := walk{began: x.Now(), period: x.Scrub}
	for ctx.Err() == nil {
		for _, id := range x.scrubber.takeSuspects(x.Now()) {
			x.checkLeaf(ctx, id)
		}
		for _, id := range walk.due(x.Now(), x.surveyor.territory(x.View()).holdings) {
			x.checkLeaf(ctx, id)
		}
		waitFor(ctx, x.scrubber.wake, scrubTick)
	}
}

// walk is how far the scrub has come. It is pure.
type walk struct {
	began  time.Time
	period time.Duration
	done   int // leaves of this round
}

// due returns the leaves to check by now.
func (w *walk) due(now time.Time, holdings []holding) []leafID {
	all := len(holdings) * merkle.Leaves
	share := float64(now.Sub(w.began)) / float64(w.period)
	want := min(all, int(share*float64(all)))
	var out []leafID
	for ; w.done < want; w.done++ {
		out = append(out, leafID{holdings[w.done/merkle.Leaves].partition, uint8(w.done % merkle.Leaves)})
	}
	if share >= 1 {
		w.began, w.done = now, 0
	}
	return out
}

// checkLeaf doubts a leaf that is not in order and has it healed, and one that is
// doubted although it is in order by now: a write has taken the place of what was
// damaged, and may lack what only that held. In one that is in order, it looks
// after the values that its records keep outside.
func (x *Exchanger) checkLeaf(ctx context.Context, id leafID) {
	if ctx.Err() != nil {
		return
	}
	err := x.Leaves.CheckLeaf(id.partition, id.leaf)
	x.counts.scrubbed(errors.Is(err, ErrDamaged))
	where := []zap.Field{zap.Uint16("partition", id.partition), zap.Uint8("leaf", id.leaf), zap.Error(err)}
	switch {
	case err == nil && x.Doubts.Doubted(id.partition, id.leaf):
		x.post(func(in *inbox) { in.doubts = append(in.doubts, id) })
		return
	case err == nil:
		x.checkValues(ctx, id)
		return
	case !errors.Is(err, ErrDamaged):
		x.Log.Warn("a leaf could not be checked", where...)
		return
	}
	x.Log.Error("the disk has damaged or lost records; they are fetched from the other owners: see to the disk", where...)
	x.Doubts.Doubt(id.partition, id.leaf)
	if err := x.rebuild(ctx, id); err != nil {
		x.Log.Error("the hash tree of damaged records could not be rebuilt", append(where, zap.NamedError("rebuild", err))...)
	}
	x.post(func(in *inbox) { in.doubts = append(in.doubts, id) })
}

// rebuild makes the trees say what can be read: only then an exchange finds
// what is missing.
func (x *Exchanger) rebuild(ctx context.Context, id leafID) error {
	done := make(chan error, 1)
	if err := x.Leaves.RebuildLeaf(id.partition, id.leaf, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
