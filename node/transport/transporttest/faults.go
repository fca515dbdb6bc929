package transporttest

import (
	"context"
	"errors"
	"strings"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

// wantNotRun checks a call and Reachable, which must fail alike.
func wantNotRun(t trial, from transport.Transport, to kv.NodeID, want error) {
	t.Helper()
	ctx := within(t, patience)
	if _, err := from.Call(ctx, to, 1, nil); !errors.Is(err, want) || !transport.NotRun(err) {
		t.Errorf("call: %v, want it not run: %v", err, want)
	}
	if err := from.Reachable(ctx, to); !errors.Is(err, want) || !transport.NotRun(err) {
		t.Errorf("reachable: %v, want %v", err, want)
	}
	if from.Connected(to) {
		t.Error("connected")
	}
	if ctx.Err() != nil {
		t.Error("the answer took until the deadline")
	}
}

func unknownNode(t trial) {
	wantNotRun(t, t.join(alice, silent), carol, transport.ErrUnknownPeer)
}

func refused(t trial) {
	a := t.join(alice, silent)
	if err := t.join(bob, silent).Close(); err != nil {
		t.Fatal(err)
	}
	wantNotRun(t, a, bob, transport.ErrRefused)
}

func comesBack(t trial) {
	a := t.join(alice, silent)
	for range 3 {
		b := t.join(bob, echoing)
		connected(t, a)
		if _, err := a.Call(within(t, patience), bob, 1, nil); err != nil {
			t.Errorf("call: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		eventuallyRefused(t, a)
	}
}

// eventuallyRefused calls bob until it is known that he has gone.
func eventuallyRefused(t trial, a transport.Transport) {
	t.Helper()
	ctx := within(t, patience)
	for {
		_, err := a.Call(ctx, bob, 1, nil)
		switch {
		case errors.Is(err, transport.ErrRefused):
			return
		case err == nil || ctx.Err() != nil:
			t.Fatalf("call to a closed node: %v", err)
		}
	}
}

func diesWithRequest(t trial) {
	handler, requests := collecting(1)
	a := t.join(alice, silent)
	b := t.join(bob, handler)
	call := calling(within(t, patience), a, "")
	req := receive(t, requests, "the request")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, call, "the end of the call"); !errors.Is(got.err, transport.ErrLost) || transport.NotRun(got.err) {
		t.Errorf("call: %v", got.err)
	}
	receive(t, req.ctx.Done(), "the end of the handler's context")
}

func callerCloses(t trial) {
	handler, requests := collecting(1)
	a := t.join(alice, silent)
	t.join(bob, handler)
	call := calling(within(t, patience), a, "")
	req := receive(t, requests, "the request")
	for range 2 {
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if got := receive(t, call, "the end of the call"); !errors.Is(got.err, transport.ErrLost) || transport.NotRun(got.err) {
		t.Errorf("call in flight: %v", got.err)
	}
	wantNotRun(t, a, bob, transport.ErrClosed)
	req.Reply([]byte("to nobody"))
	receive(t, req.ctx.Done(), "the end of the handler's context")
}

func busy(t trial) {
	a := t.join(alice, silent)
	t.join(bob, transport.HandlerFunc(func(_ context.Context, req *transport.Request) {
		req.Refuse("disk asleep")
	}))
	_, err := a.Call(within(t, patience), bob, 1, nil)
	if !errors.Is(err, transport.ErrBusy) || !transport.NotRun(err) || !strings.Contains(err.Error(), "disk asleep") {
		t.Errorf("call: %v", err)
	}
}

func firstAnswer(t trial) {
	a := t.join(alice, silent)
	t.join(bob, transport.HandlerFunc(func(_ context.Context, req *transport.Request) {
		req.Reply([]byte("first"))
		req.Reply([]byte("second"))
		req.Refuse("third")
	}))
	for range 10 {
		if got, err := a.Call(within(t, patience), bob, 1, nil); err != nil || string(got) != "first" {
			t.Fatalf("reply %q, error %v", got, err)
		}
	}
}

func lateAnswer(t trial) {
	handler, requests := collecting(1)
	a := t.join(alice, silent)
	t.join(bob, handler)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	gone := calling(ctx, a, "")
	late := receive(t, requests, "the request")
	cancel()
	receive(t, gone, "the end of the call")
	next := calling(within(t, patience), a, "")
	req := receive(t, requests, "the next request")
	late.Reply([]byte("late"))
	req.Reply([]byte("in time"))
	if got := receive(t, next, "the reply"); got.err != nil || string(got.reply) != "in time" {
		t.Errorf("reply %q, error %v", got.reply, got.err)
	}
}

func answerAfterClose(t trial) {
	handler, requests := collecting(2)
	a := t.join(alice, silent)
	b := t.join(bob, handler)
	one, two := calling(within(t, patience), a, ""), calling(within(t, patience), a, "")
	first, second := receive(t, requests, "a request"), receive(t, requests, "a request")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	first.Reply([]byte("too late"))
	second.Refuse("too late")
	for _, call := range []<-chan result{one, two} {
		if got := receive(t, call, "the end of the call"); got.err == nil || transport.NotRun(got.err) {
			t.Errorf("reply %q, error %v", got.reply, got.err)
		}
	}
}

func slowRequests(t trial) {
	const slow = 1000
	requests := make(chan *transport.Request, slow)
	a := t.join(alice, silent)
	t.join(bob, transport.HandlerFunc(func(_ context.Context, req *transport.Request) {
		if string(req.Body) == "slow" {
			requests <- req
			return
		}
		req.Reply(req.Body)
	}))
	ctx := within(t, patience)
	waiting := make([]<-chan result, slow)
	for i := range waiting {
		waiting[i] = calling(ctx, a, "slow")
	}
	if _, err := a.Call(ctx, bob, 1, []byte("fast")); err != nil {
		t.Errorf("fast call: %v", err)
	}
	for range waiting {
		receive(t, requests, "a slow request").Reply(nil)
	}
	for _, call := range waiting {
		if got := receive(t, call, "a slow reply"); got.err != nil {
			t.Errorf("slow call: %v", got.err)
		}
	}
}

func stalledNode(t trial) {
	release := make(chan struct{})
	a := t.join(alice, silent)
	t.join(bob, transport.HandlerFunc(func(_ context.Context, req *transport.Request) {
		<-release // what a handler must never do
		req.Reply(nil)
	}))
	t.join(carol, echoing)
	stalled := calling(within(t, patience), a, "")
	also := calling(within(t, patience), a, "")
	for range 100 {
		if _, err := a.Call(within(t, patience), carol, 1, nil); err != nil {
			t.Fatalf("call to the node that is well: %v", err)
		}
	}
	close(release)
	for _, call := range []<-chan result{stalled, also} {
		if got := receive(t, call, "the end of a stalled call"); got.err != nil {
			t.Errorf("stalled call: %v", got.err)
		}
	}
}
