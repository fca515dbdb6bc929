package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-kv/starling/bench/proxy"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// behind starts node 2 behind a proxy, and node 1, which it returns.
func behind(t *testing.T, h transport.HandlerFunc) (*transport.TCP, *proxy.Proxy) {
	t.Helper()
	node := listen(t)
	p, err := proxy.Listen(t.Context(), "127.0.0.1:0", node.Addr().String(), 1)
	if err != nil {
		t.Fatal(err)
	}
	start := func(id kv.NodeID, ln net.Listener) *transport.TCP {
		tr, err := transport.NewTCP(transport.Options{
			Listener: ln, Handler: h, Secret: []byte("0123456789abcdef"),
			Local:   func() transport.Hello { return transport.Hello{Cluster: [16]byte{1}, Node: id, Incarnation: 1} },
			Resolve: func(kv.NodeID) (string, bool) { return p.Addr().String(), true },
			Rand:    func() float64 { return 0.5 },
		})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	one, two := start(1, listen(t)), start(2, node)
	t.Cleanup(func() {
		if err := errors.Join(one.Close(), two.Close(), p.Close()); err != nil {
			t.Error(err)
		}
		if p.Strange() != 0 {
			t.Errorf("%d connections were not understood", p.Strange())
		}
	})
	return one, p
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func echo(_ context.Context, req *transport.Request) { req.Reply(req.Body) }

func call(t *testing.T, from *transport.TCP, body []byte, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	got, err := from.Call(ctx, 2, 1, body)
	if err == nil && !bytes.Equal(got, body) {
		t.Errorf("%d bytes were sent, %d others came back", len(body), len(got))
	}
	return err
}

func TestWithoutFaultAllPasses(t *testing.T) {
	one, p := behind(t, echo)
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			for _, size := range []int{0, 10, 1000, 60 << 10, 1 << 20} {
				if err := call(t, one, bytes.Repeat([]byte{byte(i)}, size), patience); err != nil {
					t.Errorf("%d bytes: %v", size, err)
				}
			}
		})
	}
	callers.Wait()
	if all, dropped := p.Frames(); all < 160 || dropped != 0 {
		t.Errorf("%d frames, %d dropped", all, dropped)
	}
}

// What is lost is not answered, and the link stays up: to lose a frame is not to
// lose a connection.
func TestDrop(t *testing.T) {
	one, p := behind(t, echo)
	if err := call(t, one, []byte("before"), patience); err != nil {
		t.Fatal(err)
	}
	p.Set(proxy.Fault{Drop: 1})
	if err := call(t, one, []byte("lost"), 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call that is lost: %v", err)
	}
	p.Set(proxy.Fault{Drop: 0.05})
	lost := 0
	const calls = 400
	var mu sync.Mutex
	var callers sync.WaitGroup
	for range calls {
		callers.Go(func() {
			if err := call(t, one, []byte("perhaps"), time.Second); err != nil {
				mu.Lock()
				lost++
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	if lost < calls/40 || lost > calls/4 {
		t.Errorf("%d of %d calls were lost: two frames of each, one in twenty dropped", lost, calls)
	}
	p.Set(proxy.Fault{})
	if err := call(t, one, []byte("after"), patience); err != nil {
		t.Error(err)
	}
	if s := one.Stats(); s.Dials != 2 {
		t.Errorf("%d dials: the link did not stay", s.Dials)
	}
}

func TestSlow(t *testing.T) {
	const works = 5 * time.Millisecond
	one, p := behind(t, func(_ context.Context, req *transport.Request) {
		time.AfterFunc(works, func() { req.Reply(req.Body) })
	})
	if err := call(t, one, nil, patience); err != nil { // connect
		t.Fatal(err)
	}
	p.Set(proxy.Fault{Slow: 10})
	began := time.Now()
	if err := call(t, one, []byte("slow"), patience); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 10*works {
		t.Errorf("%v: no slower than %v", took, 10*works)
	}
}

// A connection that speaks something else is cut.
func TestStrangeConnection(t *testing.T) {
	ln := listen(t)
	p, err := proxy.Listen(t.Context(), "127.0.0.1:0", ln.Addr().String(), 1)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	node, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write([]byte{2, 0, 0, 0, 0, 0, 1, 9}); err != nil { // a proof, then a frame too short
		t.Fatal(err)
	}
	if _, err := bytes.NewBuffer(nil).ReadFrom(nc); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Log(err) // reset or end, as the kernel likes
	}
	if p.Strange() != 1 {
		t.Errorf("%d", p.Strange())
	}
	if err := errors.Join(nc.Close(), node.Close(), ln.Close(), p.Close()); err != nil {
		t.Error(err)
	}
}
