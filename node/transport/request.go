package transport

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/starling-kv/starling/internal/deadline"
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
	ctx      deadline.Context
}

func newRequest(parent context.Context, until time.Time, from Peer, m Method, body []byte) *Request {
	return &Request{
		From: from, Method: m, Body: body, size: len(body),
		ctx: deadline.Context{Parent: parent, At: until},
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
		r.ctx.End()
	}
	return first
}
