package sim

import (
	"bytes"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

const (
	// settling is how much virtual time a healed cluster gets to finish what is
	// under way: more than any request of a client may take.
	settling = 10 * time.Second
	// patience is how long a healed cluster may take to repair itself.
	patience = 5 * time.Minute
)

// heal ends all faults, restarts what is down or has failed, and waits until
// nothing is under way and the replicas have repaired themselves.
func (w *world) heal() {
	for _, h := range w.heals {
		h.do()
	}
	w.net.clear()
	for _, m := range w.machines {
		m.disk.heal()
		m.clock.offset.Store(0)
		m.clock.drift.Store(0)
		w.revive(m)
	}
	w.wait(settling)
	for _, m := range w.machines {
		if m.failed() { // perhaps only now: a slow commit brings its error late
			m.crash(loseNothing, true)
			w.revive(m)
		}
	}
	w.wait(settling)
	w.converge()
}

// wait lets virtual time pass.
func (w *world) wait(d time.Duration) {
	end := false
	w.gate.schedule(w.gate.now()+d, "waited", func() { end = true })
	w.gate.run(func() bool { return end })
}

// converge waits until the replicas are the same, as long as they may take.
// What is wrong then is for the checkers to say.
func (w *world) converge() {
	begun := w.gate.now()
	for !w.agreed() && w.gate.now()-begun < patience {
		w.wait(time.Second)
	}
	w.converged = w.gate.now() - begun
}

// agreed reports whether all owners of every key hold the same bytes, the values
// that they keep outside included, nobody holds anything for another, and every
// node is in good standing.
func (w *world) agreed() bool {
	byKey, err := w.holdings()
	if err != nil {
		return false
	}
	for k, held := range byKey {
		merged := mergeAll(held, nil)
		want := kv.AppendRecord(nil, merged)
		owners := w.ownersOf(k, int(merged.NMax))
		for _, h := range held {
			if h.target != 0 || !slices.Contains(owners, h.m) || !bytes.Equal(kv.AppendRecord(nil, h.record), want) {
				return false
			}
		}
		if len(held) != len(owners) {
			return false
		}
	}
	return w.standing() && !(w.valuesRot && slices.ContainsFunc(w.machines, func(m *machine) bool { return len(w.lostValues(m)) > 0 }))
}

// standing reports whether every node is in good standing.
func (w *world) standing() bool {
	return !slices.ContainsFunc(w.machines, func(m *machine) bool { return !m.standing() })
}
