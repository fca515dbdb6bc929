package transport_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/starling-kv/starling/node/transport"
)

func TestCallsInFlightAreBounded(t *testing.T) {
	c := newCluster(t)
	requests := make(chan *transport.Request, 10)
	c.start(2, transport.HandlerFunc(func(_ context.Context, req *transport.Request) { requests <- req }), "127.0.0.1:0", nil)
	a := c.start(1, echoing, "127.0.0.1:0", func(o *transport.Options) { o.MaxCalls = 2 })
	ctx := within(t, patience)
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := a.Call(ctx, 2, 1, nil)
			done <- err
		}()
	}
	first, second := <-requests, <-requests
	if _, err := a.Call(ctx, 2, 1, nil); !errors.Is(err, transport.ErrQueueFull) || !transport.NotRun(err) {
		t.Errorf("one call too many: %v", err)
	}
	first.Reply(nil)
	second.Reply(nil)
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("call: %v", err)
		}
	}
	if a.Stats().Refused != 1 {
		t.Errorf("%d refused", a.Stats().Refused)
	}
}

func TestQueuedBytesAreBounded(t *testing.T) {
	c := newCluster(t)
	lanes := rawNode(t, c)
	a := c.start(1, echoing, "127.0.0.1:0", func(o *transport.Options) { o.MaxBody, o.MaxQueued = 1<<20, 2<<20 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	full := make(chan struct{}, 1000)
	for range 100 {
		calls.Go(func() {
			_, err := a.Call(ctx, 2, 1, make([]byte, 1<<20))
			if errors.Is(err, transport.ErrQueueFull) && transport.NotRun(err) {
				full <- struct{}{}
			}
		})
	}
	for range 2 {
		defer (<-lanes).Close()
	}
	<-full
}

func TestServingIsBounded(t *testing.T) {
	for name, bound := range map[string]func(*transport.Options){
		"by number": func(o *transport.Options) { o.MaxServing = 2 },
		"by bytes":  func(o *transport.Options) { o.MaxBody, o.MaxQueued = 1000, 2000 },
	} {
		c := newCluster(t)
		requests := make(chan *transport.Request, 10)
		handler := transport.HandlerFunc(func(_ context.Context, req *transport.Request) { requests <- req })
		b := c.start(2, handler, "127.0.0.1:0", bound)
		a := c.start(1, echoing, "127.0.0.1:0", nil)
		ctx := within(t, patience)
		done := make(chan error, 3)
		for range 2 {
			go func() {
				_, err := a.Call(ctx, 2, 1, make([]byte, 900))
				done <- err
			}()
		}
		held := []*transport.Request{<-requests, <-requests}
		if _, err := a.Call(ctx, 2, 1, make([]byte, 900)); !errors.Is(err, transport.ErrBusy) || !transport.NotRun(err) {
			t.Errorf("%s: one request too many: %v", name, err)
		}
		for _, req := range held {
			req.Reply(nil)
			if err := <-done; err != nil {
				t.Errorf("%s: call: %v", name, err)
			}
		}
		go func() {
			_, err := a.Call(ctx, 2, 1, nil)
			done <- err
		}()
		(<-requests).Reply(nil)
		if err := <-done; err != nil || b.Stats().Busy != 1 {
			t.Errorf("%s: call after the others: %v, %d busy", name, err, b.Stats().Busy)
		}
	}
}

// A caller that does not take its replies loses them, and is told.
func TestRepliesThatFindTheQueueFullAreDropped(t *testing.T) {
	c := newCluster(t)
	const size, calls = 60_000, 1000
	b := c.start(2, transport.HandlerFunc(func(_ context.Context, req *transport.Request) {
		req.Reply(make([]byte, size))
	}), "127.0.0.1:0", func(o *transport.Options) { o.MaxBody, o.MaxQueued = size, 1<<20 })
	nc := dialled(t, c, b, 1, 0)
	for id := range calls {
		write(t, nc, transport.RawFrame{Kind: transport.RawRequest, ID: uint64(id), Budget: 1e9}.Encode())
	}
	eventually(t, func() bool { return b.Stats().Refused > 0 })
	next := transport.RawFrames(nc)
	replied, dropped := 0, 0
	for range calls {
		f, err := next()
		switch {
		case err != nil:
			t.Fatalf("after %d replies, %d dropped: %v", replied, dropped, err)
		case f.Kind == transport.RawReply:
			replied++
		case f.Kind == transport.RawRefuse:
			dropped++
		}
	}
	if replied == 0 || uint64(dropped) != b.Stats().Refused {
		t.Errorf("%d replies, %d dropped, %d counted", replied, dropped, b.Stats().Refused)
	}
}
