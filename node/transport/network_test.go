package transport_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

// pair is a network of two nodes; the second leaves its requests to the test.
type pair struct {
	*transport.Network

	a, b     transport.Transport
	requests chan *transport.Request
	ended    chan error // of each request, how its context ended
}

const alice, bob kv.NodeID = 1, 2

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{
		Network:  transport.NewNetwork(),
		requests: make(chan *transport.Request, 10),
		ended:    make(chan error, 10),
	}
	p.a = closing(t, p.Join(alice, echoing))
	p.b = closing(t, p.Join(bob, transport.HandlerFunc(func(ctx context.Context, req *transport.Request) {
		p.requests <- req
		context.AfterFunc(ctx, func() { p.ended <- ctx.Err() })
	})))
	return p
}

// call starts a call from the first node to the second.
func (p *pair) call(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := p.a.Call(ctx, bob, 1, nil)
		done <- err
	}()
	return done
}

func wantLost(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || transport.NotRun(err) {
		t.Errorf("call: %v, want that it may have run, and %v", err, want)
	}
}

func TestNetworkCutOnTheWayThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.Cut(alice, bob, true)
		wantLost(t, <-p.call(within(t, time.Minute)), context.DeadlineExceeded)
		if len(p.requests) != 0 {
			t.Error("the request arrived")
		}
		if _, err := p.b.Call(within(t, time.Minute), alice, 1, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the reply of the other direction arrived: %v", err)
		}
		if err := p.a.Reachable(within(t, time.Minute), bob); !errors.Is(err, context.DeadlineExceeded) || !transport.NotRun(err) {
			t.Errorf("reachable: %v", err)
		}
		p.Cut(alice, bob, false)
		done := p.call(within(t, time.Minute))
		(<-p.requests).Reply(nil)
		if err := <-done; err != nil {
			t.Errorf("after the cut: %v", err)
		}
	})
}

func TestNetworkCutOnTheWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.Cut(bob, alice, true)
		done := p.call(within(t, time.Minute))
		(<-p.requests).Reply(nil)
		wantLost(t, <-done, context.DeadlineExceeded)
	})
}

func TestNetworkCutHidesACancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		done := p.call(ctx)
		<-p.requests
		p.Cut(alice, bob, true)
		cancel()
		wantLost(t, <-done, context.Canceled)
		if err := <-p.ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the handler's context ended with %v", err)
		}
	})
}

func TestNetworkNodeDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		done := p.call(within(t, time.Minute))
		held := <-p.requests
		p.SetDown(bob, true)
		wantLost(t, <-done, transport.ErrLost)
		if err := <-p.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context ended with %v", err)
		}
		if err := <-p.call(within(t, time.Minute)); !errors.Is(err, transport.ErrRefused) || !transport.NotRun(err) {
			t.Errorf("call to a node that is down: %v", err)
		}
		if _, err := p.b.Call(within(t, time.Minute), alice, 1, nil); !errors.Is(err, transport.ErrUnreachable) {
			t.Errorf("call from a node that is down: %v", err)
		}
		p.SetDown(bob, false)
		done = p.call(within(t, time.Minute))
		held.Reply([]byte("from another life"))
		(<-p.requests).Reply(nil)
		if err := <-done; err != nil {
			t.Errorf("call to the node that is back: %v", err)
		}
	})
}

func TestNetworkCountsIncarnations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		for want := range uint64(3) {
			done := p.call(within(t, time.Minute))
			req := <-p.requests
			if req.From.Incarnation != want+1 {
				t.Errorf("incarnation %d, want %d", req.From.Incarnation, want+1)
			}
			req.Reply(nil)
			if err := <-done; err != nil {
				t.Errorf("call: %v", err)
			}
			if err := p.a.Close(); err != nil {
				t.Fatal(err)
			}
			p.a = closing(t, p.Join(alice, echoing))
		}
	})
}

func TestNetworkInboxIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transport.NewNetwork()
		release := make(chan struct{})
		from := closing(t, network.Join(alice, echoing))
		closing(t, network.Join(bob, transport.HandlerFunc(func(_ context.Context, req *transport.Request) {
			<-release
			req.Reply(nil)
		})))
		const calls = 8192 + 10
		errs := make(chan error, calls)
		ctx := within(t, time.Minute)
		for range calls {
			go func() {
				_, err := from.Call(ctx, bob, 1, nil)
				errs <- err
			}()
		}
		synctest.Wait()
		if len(errs) != calls-8192-1 { // one is with the handler
			t.Errorf("%d calls were refused", len(errs))
		}
		close(release)
		for range calls {
			if err := <-errs; err != nil && (!errors.Is(err, transport.ErrQueueFull) || !transport.NotRun(err)) {
				t.Errorf("call: %v", err)
			}
		}
	})
}
