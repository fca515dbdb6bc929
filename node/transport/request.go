package transport

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Request is one call as its handler sees it. Reply and Refuse may be called
// from any goroutine, at any time; the first answer counts and every later one
// is ignored, as is one that comes after the caller has gone.
type Request struct {
	From   Peer
	Method Method
	Body   []byte // owned by the handler

	id       uint64
	size     int // of the body as it came
	via      answerer
	answered atomic.Bool
	ctx      requestContext
}

func newRequest(parent context.Context, deadline time.Time, from Peer, m Method, body []byte) *Request {
	return &Request{
		From: from, Method: m, Body: body, size: len(body),
		ctx: requestContext{parent: parent, deadline: deadline},
	}
}

// answerer carries the one answer of a request back to its caller. It must not
// keep body.
type answerer interface {
	reply(req *Request, body []byte)
	refuse(req *Request, r refusal, text string)
}

// Reply answers the request. body is copied before Reply returns.
func (r *Request) Reply(body []byte) {
	if r.answer() {
		r.via.reply(r, body)
	}
}

// Refuse declines the request: the caller gets [ErrBusy], which promises that
// nothing was run.
func (r *Request) Refuse(reason string) {
	if r.answer() {
		r.via.refuse(r, refusedBusy, reason)
	}
}

// answer reports whether the answer is the first, and ends the context if so.
func (r *Request) answer() bool {
	first := !r.answered.Swap(true)
	if first {
		r.ctx.end()
	}
	return first
}

// requestContext is the context of one request. Most requests are answered
// before anybody waits on their context, and a timer for each would cost more
// than the rest of a call; so the real context is made when it is first asked
// for.
type requestContext struct {
	parent   context.Context // of the connection
	deadline time.Time

	mu     sync.Mutex
	ended  bool
	real   context.Context // nil until asked for
	cancel context.CancelFunc
}

// std returns the real context. Children derived from a requestContext attach
// themselves to it, not to a goroutine, because Value answers through it too.
func (c *requestContext) std() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.real, c.cancel = context.WithDeadline(c.parent, c.deadline)
		if c.ended {
			c.cancel()
		}
	}
	return c.real
}

// end cancels the context and frees its timer.
func (c *requestContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}

func (c *requestContext) Deadline() (time.Time, bool) { return c.deadline, true }
func (c *requestContext) Done() <-chan struct{}       { return c.std().Done() }
func (c *requestContext) Value(key any) any           { return c.std().Value(key) }

// Err answers without making the real context while nothing has ended.
func (c *requestContext) Err() error {
	c.mu.Lock()
	live := c.real == nil && !c.ended
	c.mu.Unlock()
	if live && c.parent.Err() == nil && time.Until(c.deadline) > 0 {
		return nil
	}
	return c.std().Err()
}
