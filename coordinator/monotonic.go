package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// needs is how many owners must answer, and for a monotonic read hold what it
// returns: so many that every later read with the same r meets one of them.
func (g Get) needs() int {
	r := g.R.Of(g.N)
	if g.Monotonic {
		return max(r, g.N-r+1)
	}
	return r
}

// askWidely asks all owners, and is content after a while with whoever answered:
// whether they are enough is judged by what they hold.
func (c *Coordinator) askWidely(ctx context.Context, pl plan, q query) (collection, error) {
	soon, cancel := context.WithTimeout(ctx, late(ctx))
	defer cancel()
	q.need, q.hedge, q.each = pl.n, HedgeAll, true
	col, err := c.collect(soon, pl, q)
	if _, stale := errors.AsType[*StaleViewError](err); stale {
		return col, err
	}
	return col, nil
}

// confirmation is what became of a merge that was sent to an owner.
type confirmation struct {
	from kv.NodeID
	err  error
}

// anchor sends what a read is about to return to the owners that answered with
// less, until need owners in good standing hold it in every active layout.
func (c *Coordinator) anchor(ctx context.Context, key kv.Key, col collection, need int) error {
	held := NewTally(need, col.plan.groups)
	inbox := make(chan confirmation, len(col.replies))
	open := 0
	for _, r := range col.replies {
		switch {
		case r.err != nil || r.from != r.owner || !r.Standing:
		case r.Record.Covers(col.merged):
			held.Yes(r.from)
		default:
			open++
			c.hand(ctx, key, col, r.from, inbox)
		}
	}
	var outdated error
	for ; !held.Reached() && open > 0; open-- {
		select {
		case a := <-inbox:
			if stale := col.plan.newer(a.err); stale != nil {
				return stale
			}
			if a.err == nil {
				held.Yes(a.from)
				continue
			}
			held.No(a.from, a.err)
			if _, ok := errors.AsType[*StaleReapError](a.err); ok {
				outdated = a.err
			}
		case <-ctx.Done():
			return unheld(col, held, need)
		}
	}
	if held.Reached() {
		return nil
	}
	return errors.Join(errAgain, outdated, unheld(col, held, need))
}

// tooFewKeep is the error of a read that needs more owners to hold what it found
// than the key has: no more than it was ever written with.
func tooFewKeep(col collection, need int) error {
	kept := int(col.merged.NMax)
	if col.merged.Absent() || kept >= need {
		return nil
	}
	return &kv.Error{
		Code: kv.CodeStale, N: col.plan.n, R: need,
		Message: fmt.Sprintf("the key is kept by %d nodes, and monotonic=true with this n and r needs %d that hold it: ask with n=%d",
			kept, need, kept),
	}
}

// hand sends the merge to an owner. The owner is better off with it whatever
// becomes of the read, so that only the read's deadline ends it.
func (c *Coordinator) hand(ctx context.Context, key kv.Key, col collection, to kv.NodeID, inbox chan<- confirmation) {
	req := StoreRequest{Key: key, Reap: col.number(), Record: kv.AppendRecord(nil, col.merged)}
	deadline, _ := ctx.Deadline()
	ok := c.spawn(func() { //nolint:contextcheck // what the answer no longer needs, the owner still does
		ctx, cancel := context.WithDeadline(c.base, deadline)
		defer cancel()
		inbox <- confirmation{to, c.give(ctx, col.plan, to, req, func(d vclock.Dot) ([]byte, error) {
			b, err := c.blobOf(ctx, key, col, d)
			return b.Data, err
		})}
	})
	if !ok {
		inbox <- confirmation{to, errClosed}
	}
}

// unheld is the error of a read that came to nothing because too few hold what
// it found.
func unheld(col collection, held *Tally, need int) error {
	acked, _ := col.plan.counted(held)
	failed := col.plan.failures(held)
	return &kv.Error{
		Code: kv.CodeStale, N: col.plan.n, R: need, Acked: acked, Failed: failed, RetryAfter: time.Second,
		Message: fmt.Sprintf("too few owners hold what was found: %d of %d needed, missing %s%s",
			len(acked), need, names(failed), monotonicRemedy(col.plan.n)),
	}
}

func monotonicRemedy(n int) string {
	return fmt.Sprintf("; monotonic=true needs the fewest owners with r=%d: use that, wait until more can be reached, "+
		"or ask without it", Quorum.Of(n))
}

// explained says in the error of a monotonic read why it asked so many.
func (g Get) explained(err error) error {
	e, ok := errors.AsType[*kv.Error](err)
	if !ok || !g.Monotonic || e.Code != kv.CodeQuorumUnreached && e.Code != kv.CodeTimeout {
		return err
	}
	more := *e
	more.Message += monotonicRemedy(g.N)
	return &more
}
