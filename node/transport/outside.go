package transport

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// NewRequest returns a request for a [Transport] of another package, such as
// that of a simulation, to hand to a [Handler] by [Request.Serve]. Its context
// ends with parent, at the deadline and with the answer. answer is called once
// at most, by the first Reply or Refuse, on the goroutine that answers: with a
// body that it may keep, or with [ErrBusy] or [ErrTooLarge].
func NewRequest(parent context.Context, deadline time.Time, from Peer, m Method, body []byte, answer func([]byte, error)) *Request {
	req := newRequest(parent, deadline, from, m, body)
	req.via = answerFunc(answer)
	return req
}

// Serve hands the request to h.
func (r *Request) Serve(h Handler) { h.Handle(&r.ctx, r) }

// answerFunc carries answers to where no frames are known.
type answerFunc func([]byte, error)

func (f answerFunc) reply(_ *Request, body []byte) {
	if len(body) > DefaultMaxBody {
		f(nil, fmt.Errorf("reply: %w", ErrTooLarge))
		return
	}
	f(bytes.Clone(body), nil)
}

func (f answerFunc) refuse(_ *Request, _ refusal, text string) {
	f(nil, fmt.Errorf("%w: %q", ErrBusy, text))
}
