package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/starling-kv/starling/node/transport"
)

func echo(t trial) {
	handler, requests := collecting(1)
	a := t.join(alice, silent)
	t.join(bob, handler)
	call := calling(within(t, patience), a, "ping")
	req := receive(t, requests, "the request")
	if req.From.ID != alice || req.From.Name == "" || req.From.Incarnation == 0 {
		t.Errorf("from %+v", req.From)
	}
	if req.Method != 1 || string(req.Body) != "ping" {
		t.Errorf("method %d, body %q", req.Method, req.Body)
	}
	req.Reply([]byte("pong"))
	if got := receive(t, call, "the reply"); got.err != nil || string(got.reply) != "pong" {
		t.Errorf("reply %q, error %v", got.reply, got.err)
	}
	if err := a.Reachable(within(t, patience), bob); err != nil {
		t.Errorf("reachable: %v", err)
	}
}

func manyAtOnce(t trial) {
	const callers, calls = 64, 100
	a, b := t.join(alice, echoing), t.join(bob, echoing)
	ctx := within(t, patience)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			from, to := a, bob
			if i%2 == 1 {
				from, to = b, alice
			}
			for n := range calls {
				body := fmt.Appendf(nil, "%d/%d/%s", i, n, strings.Repeat("x", i*n%200))
				got, err := from.Call(ctx, to, 1, body)
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("caller %d, call %d: reply %q, error %v", i, n, got, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func sizes(t trial) {
	a := t.join(alice, silent)
	t.join(bob, echoing)
	for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20, transport.DefaultMaxBody} {
		body := bytes.Repeat([]byte("seventeen letters"), size/17+1)[:size]
		got, err := a.Call(within(t, patience), bob, 1, body)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes: %d came back, error %v", size, len(got), err)
		}
	}
}

func overTheLimit(t trial) {
	large := make([]byte, transport.DefaultMaxBody+1)
	a := t.join(alice, silent)
	t.join(bob, transport.HandlerFunc(func(_ context.Context, req *transport.Request) { req.Reply(large) }))
	_, err := a.Call(within(t, patience), bob, 1, large)
	if !errors.Is(err, transport.ErrTooLarge) || !transport.NotRun(err) {
		t.Errorf("large request: %v", err)
	}
	_, err = a.Call(within(t, patience), bob, 1, nil)
	if !errors.Is(err, transport.ErrTooLarge) || transport.NotRun(err) {
		t.Errorf("large reply: %v", err)
	}
}

func noSharedMemory(t trial) {
	handler, requests := collecting(1)
	a := t.join(alice, silent)
	t.join(bob, handler)
	for _, size := range []int{100, 100_000} {
		sent := bytes.Repeat([]byte{1}, size)
		done := make(chan result, 1)
		go func() {
			reply, err := a.Call(within(t, patience), bob, 1, sent)
			done <- result{reply, err}
		}()
		req := receive(t, requests, "the request")
		body := bytes.Clone(req.Body)
		answer := bytes.Repeat([]byte{2}, size)
		req.Reply(answer)
		clear(answer)
		clear(req.Body)
		got := receive(t, done, "the reply")
		if got.err != nil || !bytes.Equal(got.reply, bytes.Repeat([]byte{2}, size)) {
			t.Errorf("%d bytes: the reply changed after it was given, error %v", size, got.err)
		}
		if !bytes.Equal(body, sent) || sent[0] != 1 {
			t.Errorf("%d bytes: the handler's body is the caller's", size)
		}
	}
}

func needsDeadline(t trial) {
	a := t.join(alice, silent)
	t.join(bob, echoing)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := a.Call(ctx, bob, 1, nil); !errors.Is(err, transport.ErrNoDeadline) || !transport.NotRun(err) {
		t.Errorf("call: %v", err)
	}
	if err := a.Reachable(ctx, bob); !errors.Is(err, transport.ErrNoDeadline) {
		t.Errorf("reachable: %v", err)
	}
}

func contextOver(t trial) {
	a := t.join(alice, silent)
	t.join(bob, echoing)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cancel()
	if _, err := a.Call(ctx, bob, 1, nil); !errors.Is(err, context.Canceled) || !transport.NotRun(err) {
		t.Errorf("cancelled before: %v", err)
	}
}

func deadlineTravels(t trial) {
	handler, requests := collecting(1)
	a := t.join(alice, silent)
	t.join(bob, handler)
	for _, budget := range []time.Duration{patience, time.Hour} {
		call := calling(within(t, budget), a, "")
		req := receive(t, requests, "the request")
		deadline, ok := req.ctx.Deadline()
		if left := time.Until(deadline); !ok || left <= 0 || left > budget {
			t.Errorf("of %v, %v are left to the handler", budget, left)
		}
		if err := req.ctx.Err(); err != nil {
			t.Errorf("context is over at once: %v", err)
		}
		req.Reply(nil)
		receive(t, call, "the reply")
	}
}

func deadlineEnds(t trial) {
	handler, requests := collecting(1)
	a := t.join(alice, silent)
	t.join(bob, handler)
	connected(t, a)
	call := calling(within(t, 200*time.Millisecond), a, "")
	req := receive(t, requests, "the request")
	got := receive(t, call, "the end of the call")
	if !errors.Is(got.err, context.DeadlineExceeded) || transport.NotRun(got.err) {
		t.Errorf("call: %v", got.err)
	}
	receive(t, req.ctx.Done(), "the end of the handler's context")
	if err := req.ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("handler: %v", err)
	}
}

func cancellation(t trial) {
	handler, requests := collecting(2)
	a := t.join(alice, silent)
	t.join(bob, handler)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	call := calling(ctx, a, "cancelled")
	other := calling(within(t, patience), a, "kept")
	first, second := receive(t, requests, "a request"), receive(t, requests, "a request")
	if string(first.Body) == "kept" {
		first, second = second, first
	}
	derived, release := context.WithTimeout(first.ctx, time.Hour)
	defer release()
	cancel()
	if got := receive(t, call, "the end of the call"); !errors.Is(got.err, context.Canceled) || transport.NotRun(got.err) {
		t.Errorf("call: %v", got.err)
	}
	receive(t, first.ctx.Done(), "the end of the handler's context")
	receive(t, derived.Done(), "the end of a context derived from it")
	if !errors.Is(first.ctx.Err(), context.Canceled) || second.ctx.Err() != nil {
		t.Errorf("contexts: %v, of the other request: %v", first.ctx.Err(), second.ctx.Err())
	}
	second.Reply(nil)
	if got := receive(t, other, "the other reply"); got.err != nil {
		t.Errorf("the other call: %v", got.err)
	}
}

func contextEndsWithAnswer(t trial) {
	handler, requests := collecting(1)
	a := t.join(alice, silent)
	t.join(bob, handler)
	call := calling(within(t, patience), a, "")
	req := receive(t, requests, "the request")
	req.Reply(nil)
	receive(t, req.ctx.Done(), "the end of the context")
	receive(t, call, "the reply")
}

// connected makes sure that a call to bob does not have to wait for a connection.
func connected(t trial, from transport.Transport) {
	t.Helper()
	if err := from.Reachable(within(t, patience), bob); err != nil {
		t.Fatalf("not reachable: %v", err)
	}
	if !from.Connected(bob) {
		t.Error("reachable, but not connected")
	}
}
