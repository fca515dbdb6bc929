package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/starling-kv/starling/kv"
)

// call waits for one answer. Whoever takes it out of its table, and nobody
// else, completes it.
type call struct {
	done   chan struct{} // has room for the one signal
	answer frameKind     // 0: none, the link ended
	body   []byte

	behind *follower // of a call that nobody waits for, in place of done
}

var callPool = sync.Pool{New: func() any { return newCall() }}

func newCall() *call { return &call{done: make(chan struct{}, 1)} }

func (k *link) complete(c *call, answer frameKind, body []byte) {
	c.answer, c.body = answer, body
	if f := c.behind; f != nil {
		f.done(k.result(c, f.lane, f.end.Load()))
		return
	}
	c.done <- struct{}{}
}

// release makes the call free for another use. It must be in no table, and its
// signal taken.
func (c *call) release() {
	c.answer, c.body = 0, nil
	callPool.Put(c)
}

// calls are the calls in flight on a link, by request id. Ids are never used
// twice on a link, so that a late answer finds nothing.
type calls struct {
	mu    sync.Mutex
	open  map[uint64]*call
	last  uint64
	ended bool
}

// add registers c if fewer than limit calls are in flight.
func (t *calls) add(c *call, limit int) (id uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended:
		return 0, errEnded
	case len(t.open) >= limit:
		return 0, fmt.Errorf("%w: %d calls in flight", ErrQueueFull, limit)
	}
	t.last++
	t.open[t.last] = c
	return t.last, nil
}

// take removes a call and returns it, nil if it is not in flight.
func (t *calls) take(id uint64) *call {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.open[id]
	delete(t.open, id)
	return c
}

// end lets no more calls in and returns those that have no answer.
func (t *calls) end() map[uint64]*call {
	t.mu.Lock()
	defer t.mu.Unlock()
	lost := t.open
	t.open, t.ended = nil, true
	return lost
}

// call sends a request to the accepter and waits for its answer. It fails with
// an error that wraps errEnded if the link was gone before the request was
// queued.
func (k *link) call(ctx context.Context, deadline time.Time, m Method, body []byte) ([]byte, error) {
	to := k.remote.ID
	c, ok := callPool.Get().(*call)
	if !ok {
		c = newCall()
	}
	defer c.release()
	id, err := k.calls.add(c, k.limits.MaxCalls)
	if err != nil {
		return nil, notRun(to, err)
	}
	l := k.laneFor(len(body), nil)
	end, err := l.out.add(header{kind: kindRequest, method: m, id: id, budget: budgetOf(time.Until(deadline))}, body)
	if err != nil {
		k.withdraw(id, c)
		return nil, notRun(to, k.notQueued(err))
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if k.withdraw(id, c) {
			k.cancel(l, id, ctx.Err())
			return nil, mayHaveRun(to, ctx.Err())
		}
	}
	return k.result(c, l, end)
}

// withdraw takes a call back. It returns false if the call was completed
// meanwhile: then its answer counts, whatever else happened.
func (k *link) withdraw(id uint64, c *call) bool {
	if k.calls.take(id) == nil {
		<-c.done
		return false
	}
	return true
}

// cancel tells the accepter that the caller has gone. A deadline it sees for
// itself.
func (k *link) cancel(l *lane, id uint64, why error) {
	if errors.Is(why, context.Canceled) {
		_ = l.out.addShort(header{kind: kindCancel, id: id}, nil) // on a closed link there is nothing to cancel
	}
}

// notQueued explains why a request was not queued.
func (k *link) notQueued(err error) error {
	if errors.Is(err, errOutboxClosed) {
		return errEnded
	}
	return err
}

// result turns a completed call into what the caller gets. A request of which
// not even the last byte left cannot have run: its checksum was missing.
func (k *link) result(c *call, l *lane, end uint64) ([]byte, error) {
	to := k.remote.ID
	switch c.answer {
	case kindReply:
		return c.body, nil
	case kindRefuse:
		return nil, refused(to, c.body)
	default:
		lost := fmt.Errorf("%w: %w", ErrLost, context.Cause(k.ctx))
		return nil, &CallError{Peer: to, MayHaveRun: end <= l.out.sent, Err: lost}
	}
}

// onAnswer takes the frames that an accepter sends.
func onAnswer(l *lane, f frame) error {
	switch f.kind {
	case kindPing:
		return nil
	case kindReply, kindRefuse:
		if c := l.link.calls.take(f.id); c != nil {
			l.link.complete(c, f.kind, f.take())
		}
		return nil
	default:
		return fmt.Errorf("%w: kind %d from an accepter", errFrameKind, f.kind)
	}
}

// checkCall applies the rules that hold for every call on every transport.
func checkCall(ctx context.Context, to kv.NodeID, body []byte, maxBody int) (time.Time, error) {
	deadline, ok := ctx.Deadline()
	switch {
	case !ok:
		return deadline, notRun(to, ErrNoDeadline)
	case ctx.Err() != nil:
		return deadline, notRun(to, ctx.Err())
	case len(body) > maxBody:
		return deadline, notRun(to, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(body), maxBody))
	}
	return deadline, nil
}
