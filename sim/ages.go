package sim

import (
	"math/rand/v2"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/reap"
)

const (
	// idMemory is after how long attempts at a write are taken to have ended in
	// plans that age: far more than the retries of a client take, and longer than
	// faults can hold a message up.
	idMemory = 20 * time.Second
	// longestFault bounds faults in plans that age.
	longestFault = 3 * time.Second
	// shortestTTL is the shortest time to live that is taken.
	shortestTTL = coordinator.MinTTL
)

// age makes a plan long enough for rounds of reaping.
func (p Plan) age(rng *rand.Rand) Plan {
	p.Length = time.Duration(2+rng.IntN(4))*(idMemory+4*time.Second) + 4*time.Second
	p.Repairs.ReapEvery = time.Duration(100+rng.IntN(2000)) * time.Millisecond
	p.Repairs.Reap = reap.Rules{
		After: time.Duration(1+rng.IntN(2000)) * time.Millisecond, Skew: time.Duration(1+rng.IntN(500)) * time.Millisecond,
		IDMemory: idMemory, FoldEntries: 1 + rng.IntN(2), FoldQuiet: time.Duration(1+rng.IntN(1000)) * time.Millisecond,
	}
	return p
}

// slowness are faults that stretch the rounds of reaping, so that writes come
// between their steps, and messages from before them come after.
func (p Plan) slowness(rng *rand.Rand) []Fault {
	var faults []Fault
	for at := time.Duration(0); at < p.Length; at += idMemory + p.Repairs.Reap.After {
		faults = append(faults, Fault{At: at, For: longestFault, Kind: SlowNet, Size: rng.Float64()})
	}
	return faults
}

// season moves most operations to the moments at which what was done a while
// before is reaped, and has values expire.
func (p Plan) season(rng *rand.Rand) {
	for i := range p.Ops {
		o := &p.Ops[i]
		if rng.IntN(10) > 0 {
			moments := int64(p.Length / idMemory)
			o.At = time.Duration(rng.Int64N(moments))*(idMemory+p.Repairs.Reap.After) + time.Duration(rng.Int64N(int64(3*time.Second)))
		}
		if o.Kind == Write && rng.IntN(3) == 0 {
			o.TTL = shortestTTL + time.Duration(rng.Int64N(int64(6*time.Second)))
		}
		if o.Kind == Write && rng.IntN(3) == 0 {
			o.Kind, o.TTL, o.Large, o.WriteID, o.Condition, o.Context = Delete, 0, false, true, Always, LastContext
		}
	}
}

// gone reports whether a write may have left no trace by now: a value that has
// expired, or a delete that was reaped.
func (h *history) gone(w *record) bool {
	switch {
	case !h.ages || w.begin == 0:
		return false
	case w.Kind == Delete:
		return h.now() >= w.since+idMemory
	}
	return w.TTL > 0 && h.now() >= w.since+w.TTL-tick
}
