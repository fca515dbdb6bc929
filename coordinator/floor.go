package coordinator

import (
	"context"
	"math"

	"github.com/starling-kv/starling/kv"
)

// neverReaped is the reap number of tokens whose floor must be met as it is: it
// may stand for what only a stand-in holds, of which owners that all lack it
// prove nothing.
const neverReaped = math.MaxUint64

// reapOf is the reap number of a token given out under one.
func reapOf(sloppy bool, number uint64) uint64 {
	if sloppy {
		return neverReaped
	}
	return number
}

// reapedSince reports whether what an answer lacks of the request's floor was
// reaped since the token was given out: a later round is known, and of all nodes
// that could ever have owned the key none lacks it for another reason, as all
// have answered, in good standing, and know of that round. It returns what they
// hold.
func (c *Coordinator) reapedSince(ctx context.Context, g Get, col collection) (collection, bool) {
	if g.Sloppy || col.highest <= g.FloorReap {
		return collection{}, false
	}
	p, err := newPlan(col.plan.view, g.Key, kv.MaxN)
	if err != nil {
		return collection{}, false
	}
	wide, err := c.collect(ctx, p, query{key: g.Key, need: kv.MaxN, hedge: HedgeAll, reap: col.highest})
	return wide, err == nil && wide.tally.Reached() && wide.highest > g.FloorReap
}
