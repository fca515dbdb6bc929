package transport

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/starling-kv/starling/kv"
)

// sweepEvery is how often links look for calls whose time is over and that
// nobody waits for: one ticker in place of a timer for each call.
const sweepEvery = 20 * time.Millisecond

// follower is what becomes of a call that nobody waits for.
type follower struct {
	ctx      context.Context //nolint:containedctx // of the call, looked at by the sweeper
	deadline time.Time
	done     func(reply []byte, err error)
	lane     *lane
	end      atomic.Uint64 // see outbox.add; 0 while that is not known
}

// Go implements [Transport]. While there is no link, the call waits for one in a
// goroutine, unless nobody answered when one was last tried: calls to a node that
// is stopped would gather while each attempt runs out of time, and then go on all
// at once.
func (t *TCP) Go(ctx context.Context, to kv.NodeID, m Method, body []byte, done func(reply []byte, err error)) {
	t.count.calls.Add(1)
	deadline, err := checkCall(ctx, to, body, t.opts.MaxBody)
	if err != nil {
		done(nil, err)
		return
	}
	p, err := t.peer(to)
	if err != nil {
		done(nil, err)
		return
	}
	if k := p.standing(); k != nil {
		err := k.follow(ctx, deadline, m, body, done)
		if err == nil {
			return
		}
		if !errors.Is(err, errEnded) {
			t.refusedCall(err)
			done(nil, err)
			return
		}
	}
	if err := p.silent(); err != nil { //nolint:contextcheck // an attempt outlives the call that starts it
		done(nil, err)
		return
	}
	body = bytes.Clone(body)
	if !t.start(func() { done(t.callPeer(ctx, p, deadline, m, body)) }) {
		done(nil, notRun(to, ErrClosed))
	}
}

// follow sends a request and returns: done is called once, unless there is an
// error. That wraps errEnded if the link was gone before the request was queued.
func (k *link) follow(ctx context.Context, deadline time.Time, m Method, body []byte, done func([]byte, error)) error {
	to := k.remote.ID
	f := &follower{ctx: ctx, deadline: deadline, done: done, lane: k.laneFor(len(body), nil)}
	id, err := k.calls.add(&call{behind: f}, k.limits.MaxCalls)
	if err != nil {
		return notRun(to, err)
	}
	end, err := f.lane.out.add(header{kind: kindRequest, method: m, id: id, budget: budgetOf(time.Until(deadline))}, body)
	switch {
	case err == nil:
		f.end.Store(end)
	case k.calls.take(id) != nil: // otherwise the end of the link was told already
		return notRun(to, k.notQueued(err))
	}
	return nil
}

// over returns why a call that nobody waits for is to be ended, nil if it is not.
func (f *follower) over(now time.Time) error {
	if !now.Before(f.deadline) {
		return context.DeadlineExceeded
	}
	return f.ctx.Err()
}

// takeOver removes the calls that nobody waits for and whose time is over.
func (t *calls) takeOver(now time.Time) map[uint64]*follower {
	t.mu.Lock()
	defer t.mu.Unlock()
	var over map[uint64]*follower
	for id, c := range t.open {
		if c.behind == nil || c.behind.over(now) == nil {
			continue
		}
		if over == nil {
			over = make(map[uint64]*follower)
		}
		over[id] = c.behind
		delete(t.open, id)
	}
	return over
}

// sweep ends the calls that nobody waits for and whose time is over.
func (k *link) sweep(now time.Time) {
	for id, f := range k.calls.takeOver(now) {
		err := f.over(now)
		k.cancel(f.lane, id, err)
		f.done(nil, mayHaveRun(k.remote.ID, err))
	}
}

// sweep looks after the calls of all links until the transport is closed.
func (t *TCP) sweep() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case now := <-ticker.C:
			for _, k := range t.standing() {
				k.sweep(now)
			}
		}
	}
}
