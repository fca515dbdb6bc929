package sim

import (
	"slices"
)

// shrink returns a part of the plan that still fails, from which no single
// fault and no single operation can be taken, unless try runs out before: try
// carries a plan out and says whether it fails, and whether there is time for
// another.
func shrink(p Plan, try func(Plan) (fails, more bool)) Plan {
	for {
		before := len(p.Faults) + len(p.Ops)
		var more bool
		if p, more = shrinkFaults(p, try); more {
			p, more = shrinkOps(p, try)
		}
		if !more || len(p.Faults)+len(p.Ops) == before {
			return p
		}
	}
}

func shrinkFaults(p Plan, try func(Plan) (fails, more bool)) (Plan, bool) {
	faults, more := lessen(p.Faults, func(kept []Fault) (bool, bool) {
		q := p
		q.Faults = kept
		return try(q)
	})
	p.Faults = faults
	return p, more
}

func shrinkOps(p Plan, try func(Plan) (fails, more bool)) (Plan, bool) {
	ops, more := lessen(p.Ops, func(kept []Op) (bool, bool) {
		q := p
		q.Ops = kept
		return try(q)
	})
	p.Ops = ops
	return p, more
}

// lessen takes out of list what can be spared: runs of half its length first,
// single elements last (after Zeller and Hildebrandt's delta debugging, 2002).
func lessen[T any](list []T, try func([]T) (fails, more bool)) ([]T, bool) {
	for size := max(1, len(list)/2); ; size /= 2 {
		for at := 0; at < len(list); {
			kept := slices.Delete(slices.Clone(list), at, min(at+size, len(list)))
			fails, more := try(kept)
			if fails {
				list = kept
			} else {
				at += size
			}
			if !more {
				return list, false
			}
		}
		if size <= 1 {
			return list, true
		}
	}
}
