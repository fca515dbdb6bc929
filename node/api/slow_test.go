package api

import (
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

const moment = 50 * time.Millisecond

// impatient are limits that a client meets who stops in the middle.
var impatient = limits(Limits{IdleTimeout: moment, HeadTimeout: moment, Grace: moment, MinRate: 100 << 20})

func TestSlowHead(t *testing.T) {
	n := start(t, new(scripted), impatient)
	for _, sent := range []string{"G", "GET /kv/b/k HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 3*firstHead)} {
		w := n.dial()
		w.send(sent)
		if a := w.read("GET"); a.status != 408 || a.error(t).Code != codeTooSlow {
			t.Errorf("%d %s", a.status, a.body)
		}
		w.closed()
	}
}

func TestSlowBody(t *testing.T) {
	store := new(scripted)
	n := start(t, store, impatient)
	for name, sent := range map[string]string{
		"nothing of it": request("PUT", "/kv/b/k", "Content-Length: 100"),
		"a little":      request("PUT", "/kv/b/k", "Content-Length: 100") + "x",
		"much":          request("PUT", "/kv/b/k", "Content-Length: 1000000") + strings.Repeat("x", 999_999),
		"in chunks":     request("PUT", "/kv/b/k", "Transfer-Encoding: chunked") + "5\r\nhel",
		"no last chunk": request("PUT", "/kv/b/k", "Transfer-Encoding: chunked") + "5\r\nhello\r\n",
		"no end":        request("PUT", "/kv/b/k", "Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n",
	} {
		w := n.dial()
		w.send(sent)
		if a := w.read("PUT"); a.status != 408 || a.error(t).Outcome != kv.NotApplied {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		w.closed()
	}
	if len(store.puts) > 0 {
		t.Error("half a body was stored")
	}
}

// TestSteadyBody: a client that sends slowly, but at the rate that is asked
// for, may take longer than any fixed timeout.
func TestSteadyBody(t *testing.T) {
	l, err := Limits{Grace: time.Second, MinRate: 1000}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if got := l.transfer(5000); got != 6*time.Second {
		t.Errorf("5000 bytes may take %v", got)
	}
}

func TestIdle(t *testing.T) {
	n := start(t, new(scripted), impatient)
	n.dial().closed()
	w := n.dial()
	w.send(request("GET", "/livez"))
	w.read("GET")
	w.closed()
}

// TestSlowReader: a client that does not take its answer is cut off, and what
// was held for it is given back, which start checks.
func TestSlowReader(t *testing.T) {
	big := got(value(1, strings.Repeat("x", 8<<20)))
	n := start(t, answering(big), limits(Limits{Grace: moment, MinRate: 1 << 30}))
	w := n.dial()
	w.send(request("GET", "/kv/b/k"))
	n.await("the answer to begin", func() bool { return n.held.used.Load() > 0 })
	n.await("the end of patience", func() bool { return n.held.used.Load() == 0 })
	if _, err := io.Copy(io.Discard, w.in); err == nil {
		if a, _ := w.tryRead("GET"); len(a.body) == 8<<20 {
			t.Error("everything was sent")
		}
	}
}

// heapInUse is the memory of live objects and stacks, in bytes.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// crowd opens many connections, sends the same on each, and leaves them.
func (n *node) crowd(count int, sent string) (leave func()) {
	n.t.Helper()
	conns := make([]net.Conn, count)
	for i := range conns {
		c, err := net.Dial("tcp", n.data)
		if err != nil {
			n.t.Fatal(err)
		}
		conns[i] = c
		if _, err := io.WriteString(c, sent); err != nil {
			n.t.Fatal(err)
		}
	}
	return func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
}

// TestSlowCrowds: three hundred clients that promise much and send or take
// little cost little, and the others are served.
func TestSlowCrowds(t *testing.T) {
	const count = 300
	store := &scripted{get: func(context.Context, coordinator.Get) (coordinator.Got, error) { return got(value(1, "milk")), nil }}
	for _, c := range []struct {
		name, sent string
		most       int64 // bytes a connection, of client and node together
		there      func(n *node) bool
	}{
		{"nothing", "", 24 << 10, nil},
		{"heads", "GET /kv/b/k HTTP/1.1\r\nX: ", 24 << 10, nil},
		{"bodies", request("PUT", "/kv/b/k", "Content-Length: 4000000") + "x", 36 << 10, nil},
		{"chunks", request("PUT", "/kv/b/k", "Transfer-Encoding: chunked") + "400000\r\nx", 36 << 10, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, store)
			n.do("GET", "/kv/b/k", "")
			before := heapInUse()
			leave := n.crowd(count, c.sent)
			defer leave()
			n.await("the crowd", func() bool { return len(n.openConns()) >= count })
			for range 20 {
				if a := n.do("PUT", "/kv/b/k", "bread"); a.status != 204 {
					t.Fatalf("others: %d %s", a.status, a.body)
				}
			}
			grown := (heapInUse() - before) / count
			t.Logf("%d bytes a connection", grown)
			if grown > c.most {
				t.Errorf("%d bytes a connection, want at most %d", grown, c.most)
			}
		})
	}
}

// TestHeldBytesAreBounded: when bodies on their way fill the budget, large ones
// are refused at once, small ones pass, and room comes back.
func TestHeldBytesAreBounded(t *testing.T) {
	const size = 4 << 20
	large := strings.Repeat("x", size)
	store := new(scripted)
	n := start(t, store, limits(Limits{ValueBytes: size, HeldBytes: 4 * size}))
	slow := []*wire{n.dial(), n.dial(), n.dial(), n.dial()}
	for _, w := range slow {
		w.send(request("PUT", "/kv/b/k", "Content-Length: "+itoa(size)) + large[1:])
	}
	n.await("full budget", func() bool { return n.held.used.Load() == 4*(size-freeBytes) })

	a := n.do("PUT", "/kv/b/k", large)
	if e := a.error(t); a.status != 503 || e.Code != kv.CodeOverloaded || e.Outcome != kv.NotApplied {
		t.Errorf("large PUT: %d %s", a.status, a.body)
	}
	if a := n.do("PUT", "/kv/b/k", "small"); a.status != 204 {
		t.Errorf("small PUT: %d %s", a.status, a.body)
	}
	store.get = answering(got(value(1, large))).get
	if a := n.do("GET", "/kv/b/k", ""); a.status != 503 {
		t.Errorf("large GET: %d %s", a.status, a.body)
	}
	if a := n.do("GET", "/"+strings.Repeat("x", 40<<10), ""); a.status != 503 {
		t.Errorf("large head: %d %s", a.status, a.body)
	}

	slow[0].send("y")
	if a := slow[0].read("PUT"); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	n.await("room", func() bool { return n.held.used.Load() == 3*(size-freeBytes) })
	if a := n.do("GET", "/kv/b/k", ""); len(a.body) != size {
		t.Errorf("large GET, with room: %d", a.status)
	}
}
