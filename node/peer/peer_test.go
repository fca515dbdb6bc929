package peer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = kv.Key{Bucket: "b", Name: "k"}

// stub is what a node does when asked: it notes the request and answers err.
type stub struct {
	err   error
	wait  chan bool // if set, whatever may wait does, for it to be closed
	learn error
	slow  bool // fetches wait

	mu    sync.Mutex
	asked []string
	views []ring.View
}

func (s *stub) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, what)
}

func (s *stub) notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *stub) Fetch(req coordinator.FetchRequest) (coordinator.FetchReply, error) {
	s.note("fetch " + req.Key.Name)
	if s.slow {
		<-s.wait
	}
	return coordinator.FetchReply{Standing: true, Reap: 7}, s.err
}

func (s *stub) FetchNow(req coordinator.FetchRequest) (coordinator.FetchReply, bool, error) {
	if s.slow {
		return coordinator.FetchReply{}, true, nil
	}
	reply, err := s.Fetch(req)
	return reply, false, err
}

func (s *stub) Value(req coordinator.ValueRequest) ([]byte, error) {
	s.note("value " + req.Key.Name)
	if s.wait != nil {
		<-s.wait
	}
	return []byte("value"), s.err
}

func (s *stub) Store(req coordinator.StoreRequest, done func(error)) {
	s.note("store " + req.Key.Name)
	done(s.err)
}

func (s *stub) Forwarded(_ context.Context, req coordinator.ForwardRequest) (coordinator.PutDone, error) {
	s.note("forward " + req.Put.Key.Name)
	return coordinator.PutDone{Dot: vclock.Dot{Actor: 1, Counter: 2}, Siblings: 3}, s.err
}

func (s *stub) Learn(v ring.View) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.views = append(s.views, v)
	return s.learn
}

// pair is two nodes, the first with a client of both.
type pair struct {
	client *Client
	here   *stub
	there  *stub
	server *Server
	net    *transport.Network
	raw    transport.Transport
	ctx    context.Context //nolint:containedctx // of all calls of a test
}

func meet(t *testing.T, fn func(p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pair{here: &stub{}, there: &stub{}, net: transport.NewNetwork()}
		p.server = NewServer(Handlers{Replica: p.there, Coordinator: p.there, Learn: p.there.Learn})
		p.raw = p.net.Join(1, NewServer(Handlers{Replica: p.here, Coordinator: p.here, Learn: p.here.Learn}))
		there := p.net.Join(2, p.server)
		p.client = NewClient(Config{Self: 1, Local: p.here, Transport: p.raw})
		var cancel context.CancelFunc
		p.ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		fn(p)
		cancel()
		if err := errors.Join(p.raw.Close(), there.Close()); err != nil {
			t.Error(err)
		}
		p.server.Wait()
		p.client.Wait()
	})
}

// fetch and store make a call and wait for it.

func (p *pair) fetch(to kv.NodeID, req coordinator.FetchRequest) (reply coordinator.FetchReply, err error) {
	done := make(chan struct{})
	p.client.Fetch(p.ctx, to, req, func(got coordinator.FetchReply, failed error) {
		reply, err = got, failed
		close(done)
	})
	<-done
	return reply, err
}

func (p *pair) store(to kv.NodeID, req coordinator.StoreRequest) error {
	done := make(chan error, 1)
	p.client.Store(p.ctx, to, req, func(err error) { done <- err })
	return <-done
}

// calls makes one call of every kind and returns their errors.
func (p *pair) calls(to kv.NodeID, f coordinator.Fence) map[string]error {
	put := coordinator.Put{Key: key}
	put.N = 3
	_, fetch := p.fetch(to, coordinator.FetchRequest{Fence: f, Key: key})
	_, value := p.client.Value(p.ctx, to, coordinator.ValueRequest{Fence: f, Key: key, Dot: vclock.Dot{Actor: 1, Counter: 1}})
	store := p.store(to, coordinator.StoreRequest{Fence: f, Key: key})
	errs := map[string]error{"fetch": fetch, "value": value, "store": store}
	if to != 1 {
		_, errs["forward"] = p.client.Forward(p.ctx, to, coordinator.ForwardRequest{Fence: f, Put: put})
	}
	return errs
}

func TestCalls(t *testing.T) {
	meet(t, func(p *pair) {
		for to, want := range map[kv.NodeID]*stub{1: p.here, 2: p.there} {
			for name, err := range p.calls(to, coordinator.Fence{Digest: 5}) {
				if err != nil {
					t.Errorf("%s at %v: %v", name, to, err)
				}
			}
			asked := want.notes()
			if !slices.Equal(asked[:3], []string{"fetch k", "value k", "store k"}) || to == 2 && asked[3] != "forward k" {
				t.Errorf("%v was asked %q", to, asked)
			}
			if err := p.client.Reachable(p.ctx, to); err != nil || !p.client.Connected(to) {
				t.Errorf("%v cannot be reached: %v", to, err)
			}
		}
		got, err := p.fetch(2, coordinator.FetchRequest{Key: key})
		if err != nil || !got.Standing || got.Reap != 7 {
			t.Errorf("fetched %+v, %v", got, err)
		}
		b, err := p.client.Value(p.ctx, 2, coordinator.ValueRequest{Key: key, Dot: vclock.Dot{Actor: 1, Counter: 1}})
		if err != nil || string(b) != "value" {
			t.Errorf("value %q, %v", b, err)
		}
	})
}

// Every refusal arrives as what it was.
func TestRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		notRun bool
		same   func(error) bool
	}{
		"stale": {&coordinator.StaleViewError{}, true, func(err error) bool {
			_, ok := errors.AsType[*coordinator.StaleViewError](err)
			return ok
		}},
		"not owner": {coordinator.ErrNotOwner, true, func(err error) bool { return errors.Is(err, coordinator.ErrNotOwner) }},
		"values": {&coordinator.MissingBlobsError{Dots: []vclock.Dot{{Actor: 1, Counter: 2}}}, true, func(err error) bool {
			e, ok := errors.AsType[*coordinator.MissingBlobsError](err)
			return ok && len(e.Dots) == 1
		}},
		"full": {&kv.Error{Code: kv.CodeDiskFull, Outcome: kv.NotApplied, RetryAfter: time.Second}, false, func(err error) bool {
			e, ok := errors.AsType[*kv.Error](err)
			return ok && e.Code == kv.CodeDiskFull && e.Outcome == kv.NotApplied && e.RetryAfter == time.Second
		}},
		"other": {errors.New("input/output error"), false, func(err error) bool { return err.Error() == "input/output error" }},
	} {
		meet(t, func(p *pair) {
			p.there.err = tt.err
			for call, err := range p.calls(2, coordinator.Fence{}) {
				if err == nil || !tt.same(err) || coordinator.NotRun(err) != tt.notRun {
					t.Errorf("%s: %s: %v (not run: %v)", name, call, err, coordinator.NotRun(err))
				}
			}
		})
	}
}

// A call that certainly did nothing says so; one whose answer is lost does not.
func TestCallsThatFail(t *testing.T) {
	meet(t, func(p *pair) {
		p.net.SetDown(2, true)
		for call, err := range p.calls(2, coordinator.Fence{}) {
			if !coordinator.NotRun(err) {
				t.Errorf("%s at a node that is down: %v", call, err)
			}
		}
		if p.client.Connected(2) || p.client.Reachable(p.ctx, 2) == nil {
			t.Error("a node that is down can be reached")
		}
		p.net.SetDown(2, false)
		p.net.Cut(2, 1, true)
		for call, err := range p.calls(2, coordinator.Fence{}) {
			// The first call uses up the time; what comes later is not even sent.
			if err == nil || call == "fetch" && coordinator.NotRun(err) {
				t.Errorf("%s whose answer is lost: %v", call, err)
			}
		}
	})
}

// A view that comes along is learnt before the request is served; one that
// cannot be learnt keeps it from being served.
func TestViewsComeAlong(t *testing.T) {
	l, err := ring.Compute(ring.ClusterID{7}, 1, []ring.Member{{ID: 1, Name: "a", Address: "a:1", Weight: 1}}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	view, err := ring.View{}.With(l)
	if err != nil {
		t.Fatal(err)
	}
	f := coordinator.Fence{Digest: view.Digest(), Full: view.Append(nil)}
	meet(t, func(p *pair) {
		for call, err := range p.calls(2, f) {
			if err != nil {
				t.Errorf("%s: %v", call, err)
			}
		}
		if len(p.there.views) != 4 || p.there.views[0].Digest() != view.Digest() {
			t.Errorf("learnt %d views", len(p.there.views))
		}
	})
	refused := func(p *pair, f coordinator.Fence) {
		for call, err := range p.calls(2, f) {
			if e, ok := errors.AsType[*kv.Error](err); !ok || e.Outcome != kv.NotApplied {
				t.Errorf("%s: %v", call, err)
			}
		}
		if asked := p.there.notes(); len(asked) > 0 {
			t.Errorf("served %q all the same", asked)
		}
	}
	meet(t, func(p *pair) {
		p.there.learn = errors.New("no space left on device")
		refused(p, f)
	})
	meet(t, func(p *pair) { refused(p, coordinator.Fence{Full: []byte("no view")}) })
}

// What cannot be understood was not begun.
func TestForeignRequests(t *testing.T) {
	meet(t, func(p *pair) {
		for m := methodFetch; m <= methodForward; m++ {
			b, err := p.raw.Call(p.ctx, 2, m, []byte{9, 9})
			if err != nil || len(b) == 0 || b[0] != replyRefusal {
				t.Fatalf("method %d: %x, %v", m, b, err)
			}
			if e, ok := errors.AsType[*kv.Error](coordinator.DecodeError(b[1:])); !ok || e.Outcome != kv.NotApplied {
				t.Errorf("method %d: %v", m, e)
			}
		}
		if _, err := p.raw.Call(p.ctx, 2, 99, nil); !transport.NotRun(err) {
			t.Errorf("an unknown method: %v", err)
		}
		if asked := p.there.notes(); len(asked) > 0 {
			t.Errorf("served %q", asked)
		}
	})
}

func TestEmptyReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := transport.NewNetwork()
		a := net.Join(1, transport.HandlerFunc(func(context.Context, *transport.Request) {}))
		b := net.Join(2, transport.HandlerFunc(func(_ context.Context, req *transport.Request) { req.Reply(nil) }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := &pair{client: NewClient(Config{Self: 1, Local: &stub{}, Transport: a}), ctx: ctx}
		err := p.store(2, coordinator.StoreRequest{Key: key})
		if !errors.Is(err, errEmptyReply) || coordinator.NotRun(err) {
			t.Errorf("%v", err)
		}
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			t.Error(err)
		}
	})
}

// A fetch that waits holds up nothing behind it.
func TestSlowFetch(t *testing.T) {
	meet(t, func(p *pair) {
		p.there.wait, p.there.slow = make(chan bool), true
		var waiting sync.WaitGroup
		waiting.Go(func() {
			got, err := p.fetch(2, coordinator.FetchRequest{Key: key})
			if err != nil || got.Reap != 7 {
				t.Errorf("%+v, %v", got, err)
			}
		})
		synctest.Wait()
		if err := p.store(2, coordinator.StoreRequest{Key: key}); err != nil {
			t.Error(err)
		}
		if asked := p.there.notes(); !slices.Equal(asked, []string{"fetch k", "store k"}) {
			t.Errorf("asked %q", asked)
		}
		close(p.there.wait)
		waiting.Wait()
	})
}

// This node's own fetch that waits does not hold up who asked.
func TestSlowFetchHere(t *testing.T) {
	meet(t, func(p *pair) {
		p.here.wait, p.here.slow = make(chan bool), true
		done := make(chan coordinator.FetchReply, 1)
		p.client.Fetch(p.ctx, 1, coordinator.FetchRequest{Key: key}, func(got coordinator.FetchReply, err error) {
			if err != nil {
				t.Error(err)
			}
			done <- got
		})
		synctest.Wait()
		if len(done) > 0 {
			t.Error("it did not wait")
		}
		close(p.here.wait)
		if got := <-done; got.Reap != 7 {
			t.Errorf("%+v", got)
		}
	})
}

// What waits is bounded; beyond that requests are refused, and are told so.
func TestServerIsBounded(t *testing.T) {
	meet(t, func(p *pair) {
		p.there.wait = make(chan bool)
		ask := func() error {
			_, err := p.client.Value(p.ctx, 2, coordinator.ValueRequest{Key: key, Dot: vclock.Dot{Actor: 1, Counter: 1}})
			return err
		}
		var waiting sync.WaitGroup
		for range maxAside {
			waiting.Go(func() {
				if err := ask(); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if err := ask(); !coordinator.NotRun(err) {
			t.Errorf("request %d: %v", maxAside+1, err)
		}
		// What does not wait is served all the same.
		if _, err := p.fetch(2, coordinator.FetchRequest{Key: key}); err != nil {
			t.Error(err)
		}
		close(p.there.wait)
		waiting.Wait()
		if err := ask(); err != nil {
			t.Error(err)
		}
	})
}
