package api

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

func TestOptionsRefused(t *testing.T) {
	good := Options{
		KV: new(scripted), Inspector: &inspector{}, Repairs: &repairs{}, Keyring: noKeyring,
		Registry: prometheus.NewRegistry(), Log: zap.NewNop(),
	}
	for message, change := range map[string]func(*Options){
		"KV is not set":        func(o *Options) { o.KV = nil },
		"Inspector is not set": func(o *Options) { o.Inspector = nil },
		"Repairs is not set":   func(o *Options) { o.Repairs = nil },
		"Keyring is not set":   func(o *Options) { o.Keyring = nil },
		"Registry is not set":  func(o *Options) { o.Registry = nil },
		"Log is not set":       func(o *Options) { o.Log = nil },
		"limit is negative":    func(o *Options) { o.Limits.MinRate = -1 },
		"set it to 67108864":   func(o *Options) { o.Limits = Limits{ValueBytes: 32 << 20, HeldBytes: 48 << 20} },
		"set it to 16777216":   func(o *Options) { o.Limits = Limits{ValueBytes: 1, HeldBytes: 2} },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%v, want %q", err, message)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	if _, err := New(good); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

// blocking is a KV whose requests wait until they are let go, or until their
// context or their timeout ends.
type blocking struct {
	entered chan struct{}
	release chan struct{}
}

func newBlocking() *blocking {
	return &blocking{entered: make(chan struct{}, 100), release: make(chan struct{})}
}

func (b *blocking) wait(ctx context.Context, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	b.entered <- struct{}{}
	select {
	case <-b.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *blocking) Get(ctx context.Context, g coordinator.Get) (coordinator.Got, error) {
	return got(value(1, "milk")), b.wait(ctx, g.Timeout)
}

func (b *blocking) Put(ctx context.Context, p coordinator.Put) (coordinator.PutDone, error) {
	return coordinator.PutDone{Siblings: 1}, b.wait(ctx, p.Timeout)
}

func TestCloseDrains(t *testing.T) {
	store := newBlocking()
	n := start(t, store)
	idle, used, active := n.dial(), n.dial(), n.dial()
	used.send(request("GET", "/livez"))
	used.read("GET")
	active.send(request("GET", "/kv/b/k"))
	<-store.entered

	closed := make(chan error)
	go func() { closed <- n.Close(context.Background()) }()
	idle.closed()
	used.closed()
	if _, err := net.Dial("tcp", n.data); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error("still listening: ", err)
	}
	select {
	case err := <-closed:
		t.Error("did not wait for the request under way: ", err)
	default:
	}
	close(store.release)
	if a := active.read("GET"); a.status != 200 || !a.Close || a.body != "milk" {
		t.Errorf("%d close=%v %q", a.status, a.Close, a.body)
	}
	active.closed()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := n.Close(context.Background()); err != nil {
		t.Error("again: ", err)
	}
}

func TestCloseIsBounded(t *testing.T) {
	store := newBlocking()
	n := start(t, store)
	w := n.dial()
	w.send(request("PUT", "/kv/b/k", "Content-Length: 0"))
	<-store.entered
	ctx, cancel := context.WithCancelCause(context.Background())
	late := errors.New("no more time")
	cancel(late)
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(func() {
			if err := n.Close(ctx); !errors.Is(err, late) && err != nil {
				t.Error(err)
			}
		})
	}
	closers.Wait()
	if _, err := w.in.ReadByte(); err == nil {
		t.Error("answered after the time was up")
	}
}

func TestServeAfterClose(t *testing.T) {
	n := start(t, new(scripted))
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Serve(ln); err != nil {
		t.Error(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("the listener was left open")
	}
}

// failingListener fails to accept as told.
type failingListener struct {
	net.Listener

	errs chan error
}

func (l *failingListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, err
	default:
		return l.Listener.Accept()
	}
}

func TestAcceptErrors(t *testing.T) {
	n := start(t, new(scripted))
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &failingListener{inner, make(chan error, 3)}
	ln.errs <- syscall.EMFILE
	ln.errs <- syscall.EMFILE
	served := make(chan error)
	go func() { served <- n.Serve(ln) }()
	if a := do(t, inner.Addr().String(), "GET", "/livez", ""); a.status != 200 {
		t.Errorf("after running out of files: %d", a.status)
	}
	ln.errs <- errBroken
	dial(t, inner.Addr().String()) // ends the Accept under way
	if err := <-served; !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

func TestTimeoutReachesTheCoordinator(t *testing.T) {
	n := start(t, newBlocking())
	a := n.do("PUT", "/kv/b/k?timeout=20ms", "x")
	if e := a.error(t); a.status != 504 || e.Code != kv.CodeTimeout || e.Outcome != kv.Unknown {
		t.Errorf("%d %+v", a.status, e)
	}
}

// TestRequestsAreBounded: at the limit, a request is refused before its body is
// read, and the connection goes on.
func TestRequestsAreBounded(t *testing.T) {
	store := newBlocking()
	n := start(t, store, limits(Limits{Requests: 2}))
	busy := []*wire{n.dial(), n.dial()}
	for _, w := range busy {
		w.send(request("GET", "/kv/b/k"))
		<-store.entered
	}
	w := n.dial()
	for method, text := range map[string]string{
		"GET":    request("GET", "/kv/b/k"),
		"PUT":    request("PUT", "/kv/b/k", "Content-Length: 4") + "milk",
		"DELETE": request("DELETE", "/kv/b/k?overwrite=true"),
	} {
		w.send(text)
		a := w.read(method)
		if e := a.error(t); a.status != 503 || e.Code != kv.CodeOverloaded || a.Header.Get("Retry-After") != "1" || a.Close {
			t.Errorf("%s: %d %+v close=%v", method, a.status, e, a.Close)
		}
	}
	w.send(request("PUT", "/kv/b/k", "Content-Length: 1000", "Expect: 100-continue"))
	if a := w.read("PUT"); a.status != 503 {
		t.Errorf("the body was asked for: %d", a.status)
	}
	if a := n.do("GET", "/livez", ""); a.status != 200 {
		t.Errorf("livez: %d", a.status)
	}
	close(store.release)
	for _, w := range busy {
		if a := w.read("GET"); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if a := n.do("GET", "/kv/b/k", ""); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// TestCrampedNode: with room for one request at a time, each of many is either
// carried out or refused, and the room is never lost, which start checks.
func TestCrampedNode(t *testing.T) {
	store := &lastWrite{values: map[kv.Key]string{}}
	n := start(t, store, limits(Limits{Requests: 1}))
	var done, refused atomic.Int64
	var clients sync.WaitGroup
	for i := range 20 {
		w := n.dial()
		clients.Go(func() {
			for range 50 {
				w.send(request("PUT", "/kv/b/"+itoa(i), "Content-Length: 4") + "milk")
				switch a := w.read("PUT"); a.status {
				case 204:
					done.Add(1)
				case 503:
					refused.Add(1)
				default:
					t.Errorf("%d %q", a.status, a.body)
				}
			}
		})
	}
	clients.Wait()
	t.Logf("%d carried out, %d refused", done.Load(), refused.Load())
	if done.Load() == 0 {
		t.Error("nothing was carried out")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	n := start(t, new(scripted), limits(Limits{Connections: 2}))
	first, second := n.dial(), n.dial()
	for _, w := range []*wire{first, second} {
		w.send(request("GET", "/livez"))
		w.read("GET")
	}
	third := n.dial()
	a := third.read("GET")
	if e := a.error(t); a.status != 503 || e.Code != kv.CodeOverloaded || a.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %+v", a.status, e)
	}
	third.closed()
	first.send(request("GET", "/livez", "Connection: close"))
	first.read("GET")
	first.closed()
	n.await("a free place", func() bool {
		w := n.dial()
		defer w.Close()
		_, err := w.Write([]byte(request("GET", "/livez")))
		a, errRead := w.tryRead("GET")
		return err == nil && errRead == nil && a.status == 200
	})
}

// await tries until something holds that the node is on its way to.
func (n *node) await(what string, holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			n.t.Fatal("waited in vain for ", what)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	store := new(scripted)
	n := start(t, store)
	w := n.dial()
	for range 2 {
		w.send(request("PUT", "/kv/b/k", "Content-Length: 4", "Expect: 100-continue"))
		if line, _ := w.in.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q", line)
		}
		if line, _ := w.in.ReadString('\n'); line != "\r\n" {
			t.Fatalf("%q", line)
		}
		w.send("milk")
		if a := w.read("PUT"); a.status != 204 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	// A client that does not wait is not told to go on.
	w.send(request("PUT", "/kv/b/k", "Content-Length: 4", "Expect: 100-continue") + "milk")
	if a := w.read("PUT"); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if len(store.puts) != 3 {
		t.Errorf("%d puts", len(store.puts))
	}
	// Refused before the body: it is never asked for.
	w.send(request("PUT", "/kv/b/k", "Content-Length: 99999999", "Expect: 100-continue"))
	if a := w.read("PUT"); a.status != 413 || !a.Close {
		t.Errorf("%d close=%v", a.status, a.Close)
	}
	w.closed()
}

// TestAnswerBeforeReset: a client that is refused in the middle of a large body
// reads why.
func TestAnswerBeforeReset(t *testing.T) {
	n := start(t, new(scripted), limits(Limits{ValueBytes: 1000}))
	for range 20 {
		w := n.dial()
		w.send(request("PUT", "/kv/b/k", "Transfer-Encoding: chunked") + "40000\r\n" + strings.Repeat("x", 0x40000))
		if a := w.read("PUT"); a.status != 413 {
			t.Fatalf("%d", a.status)
		}
	}
}

// TestManyRequestsAtOnce: requests sent without waiting are answered in order.
func TestManyRequestsAtOnce(t *testing.T) {
	n := start(t, &lastWrite{values: map[kv.Key]string{}})
	w := n.dial()
	go func() {
		for i := range 200 {
			body := strings.Repeat("x", i*50)
			_, _ = w.Write([]byte(request("PUT", "/kv/b/k", "Content-Length: "+itoa(len(body))) + body + request("GET", "/kv/b/k")))
		}
	}()
	for i := range 200 {
		if a := w.read("PUT"); a.status != 204 {
			t.Fatalf("%d: %d %s", i, a.status, a.body)
		}
		if a := w.read("GET"); len(a.body) != i*50 {
			t.Fatalf("%d: %d bytes", i, len(a.body))
		}
	}
}

// TestLoad runs many clients at once, for the race detector and the leaks.
func TestLoad(t *testing.T) {
	n := start(t, &lastWrite{values: map[kv.Key]string{}})
	var clients sync.WaitGroup
	for i := range 20 {
		w := n.dial()
		key := "/kv/b/" + itoa(i)
		clients.Go(func() {
			for j := range 50 {
				body := strings.Repeat(itoa(j%10), j*200)
				w.send(request("PUT", key, "Content-Length: "+itoa(len(body))) + body)
				w.read("PUT")
				w.send(request("GET", key))
				if a := w.read("GET"); a.body != body {
					t.Errorf("client %d: got %d bytes, want %d", i, len(a.body), len(body))
				}
			}
		})
	}
	clients.Wait()
}
