package sim

import "fmt"

// Violation is a broken promise.
type Violation struct {
	Checker string
	Text    string
	// again is a value that shows although it was replaced; of a write that was
	// attempted twice that is a false sibling, which goes away by itself.
	again *record
}

// String is the checker and what it saw.
func (v Violation) String() string { return v.Checker + ": " + v.Text }

func violation(checker, format string, args ...any) Violation {
	return Violation{Checker: checker, Text: fmt.Sprintf(format, args...)}
}

// checkRead judges the answer of a read by what is promised of every read, by
// what its context asks, and by what quorums that overlap promise.
func (h *history) checkRead(r *record) []Violation {
	out := h.checkValues(r.Key, r.result, fmt.Sprintf("read #%d", r.ID))
	out = append(out, h.checkSession(r)...)
	return append(out, h.checkFreshness(r)...)
}

// checkValues judges values that are shown together: each was written, and none
// is in the history of another.
func (h *history) checkValues(key int, values ids, where string) []Violation {
	var out []Violation
	values.each(func(id int) {
		switch w := h.at(id); {
		case w == nil || w.Key != key || w.begin == 0:
			out = append(out, violation("set", "%s shows #%d, which nobody has written to k%d", where, id, key))
		case w.outcome == Failed:
			out = append(out, violation("not applied", "%s shows #%d, which was reported as not applied", where, id))
		default:
			if s, ok := w.must.first(func(s int) bool { return s != id && values.has(s) }); ok && !h.mayReturn(s, w) {
				v := violation("causal", "%s shows #%d beside #%d, whose context had seen it", where, s, id)
				v.again = h.records[s]
				out = append(out, v)
			}
		}
	})
	return out
}

// checkSession judges a read that was given a floor. What was reaped is missing
// from all owners as is what all who held it lost: where things are reaped, no
// promise is made for the latter.
func (h *history) checkSession(r *record) []Violation {
	var out []Violation
	r.floor.each(func(id int) {
		w := h.records[id]
		if h.judgeLosses(w); h.ages && len(h.losses) > 0 && (w.lost || w.unsound) {
			return
		}
		if v, bad := h.reflects(r, w, "session"); bad {
			out = append(out, v)
		}
	})
	return out
}

// checkFreshness judges a read by the writes that were acknowledged before it
// began and whose quorum its own overlaps. What all nodes that acknowledged a
// write have lost since is lost, and of one that was set back by less than it can
// notice nothing is promised, see [history.judgeLosses].
func (h *history) checkFreshness(r *record) []Violation {
	var out []Violation
	h.writes(r.Key, func(w *record) {
		overlap := r.R+w.W > max(r.N, w.N) && r.strict() && w.strict()
		if w.outcome != OK || w.end > r.begin || !overlap {
			return
		}
		if h.judgeLosses(w); w.lost || w.unsound {
			return
		}
		if v, bad := h.reflects(r, w, "freshness"); bad {
			out = append(out, v)
		}
	})
	return out
}

// reflects reports whether the answer of r shows that w was seen.
func (h *history) reflects(r, w *record, checker string) (v Violation, bad bool) {
	if !h.explained(w, r.result, r.deleted) {
		return violation(checker, "read #%d shows %v and not #%d, nor anything that replaced it", r.ID, r.result.list(), w.ID), true
	}
	if s, ok := w.must.first(func(s int) bool { return s != w.ID && r.result.has(s) }); ok {
		v = violation(checker, "read #%d shows #%d, which #%d had replaced", r.ID, s, w.ID)
		v.again = h.records[s]
		return v, true
	}
	return Violation{}, false
}

// checkFinal judges what all replicas of a key hold together once all is
// healed: live are the siblings, tombstones among them.
func (h *history) checkFinal(key int, live ids) []Violation {
	out := h.checkValues(key, live, "the final state")
	for i := range out {
		if len(h.losses) == 0 {
			out[i].again = nil // all attempts are known by now, unless a disk forgot one
		}
	}
	h.writes(key, func(w *record) {
		if w.outcome != OK {
			return
		}
		if h.judgeLosses(w); w.lost {
			return
		}
		if !h.explained(w, live, false) {
			out = append(out, violation("set", "#%d was acknowledged by %v and is lost: k%d holds %v", w.ID, w.acked, key, live.list()))
		}
		if s, ok := w.must.first(func(s int) bool { return s != w.ID && live.has(s) }); ok && !h.mayReturn(s, w) {
			v := violation("resurrection", "k%d holds #%d, which #%d (acknowledged) had replaced", key, s, w.ID)
			if len(h.losses) > 0 {
				v.again = h.records[s]
			}
			out = append(out, v)
		}
	})
	return out
}

// checkReads judges all reads again by the outcomes that are known by now.
func (h *history) checkReads() []Violation {
	var out []Violation
	for _, r := range h.records {
		if r == nil || r.Kind != Read {
			continue
		}
		if id, ok := r.result.first(func(id int) bool { w := h.at(id); return w != nil && w.outcome == Failed }); ok {
			out = append(out, violation("not applied", "read #%d shows #%d, which was reported as not applied", r.ID, id))
		}
	}
	return out
}

func (h *history) at(id int) *record {
	if id >= len(h.records) {
		return nil
	}
	return h.records[id]
}
