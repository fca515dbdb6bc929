package transport_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

const patience = 20 * time.Second

// Every mismatch is refused by name, and both sides learn the name.
func TestHandshakeRefusals(t *testing.T) {
	no := func(transport.Hello) error { return errors.New("not in the layout") }
	for _, test := range []struct {
		name   string
		want   transport.Reason
		remote bool // the accepter is who finds out
		dial   func(*transport.Options)
		accept func(*transport.Options)
	}{
		{"other cluster", transport.ReasonCluster, true, local(func(h *transport.Hello) { h.Cluster[0] = 9 }), nil},
		{"dialler without a cluster", transport.ReasonNoCluster, true, local(func(h *transport.Hello) { h.Cluster = [16]byte{} }), nil},
		{"accepter without a cluster", transport.ReasonNoCluster, true, nil, local(func(h *transport.Hello) { h.Cluster = [16]byte{} })},
		{"another node answers", transport.ReasonWrongNode, true, nil, local(func(h *transport.Hello) { h.Node = 9 })},
		{"the same id", transport.ReasonOwnID, true, local(func(h *transport.Hello) { h.Node = 2 }), nil},
		{"wrong secret", transport.ReasonSecret, false, func(o *transport.Options) { o.Secret = []byte("some other secret") }, nil},
		{"dialler not admitted", transport.ReasonNotAdmitted, true, nil, func(o *transport.Options) { o.Admit = no }},
		{"accepter not admitted", transport.ReasonNotAdmitted, false, func(o *transport.Options) { o.Admit = no }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			b := c.start(2, echoing, "127.0.0.1:0", test.accept)
			a := c.start(1, echoing, "127.0.0.1:0", test.dial)
			_, err := a.Call(within(t, patience), 2, 1, nil)
			var refused *transport.HandshakeError
			if !errors.As(err, &refused) || !errors.Is(err, transport.ErrHandshake) || !transport.NotRun(err) {
				t.Fatalf("call: %v", err)
			}
			if refused.Reason != test.want || refused.Remote != test.remote {
				t.Errorf("call: %v, want reason %v", err, test.want)
			}
			eventually(t, func() bool { return b.Stats().HandshakesRefused[test.want] > 0 })
			if a.Stats().HandshakesRefused[test.want] == 0 {
				t.Errorf("the dialler counted %v", a.Stats().HandshakesRefused)
			}
		})
	}
}

// local changes what a node says of itself.
func local(change func(*transport.Hello)) func(*transport.Options) {
	return func(o *transport.Options) {
		h := o.Local()
		change(&h)
		o.Local = func() transport.Hello { return h }
	}
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	ctx := within(t, patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("never came true")
		}
	}
}

func TestOtherVersionsAreToldWhoMustUpgrade(t *testing.T) {
	c := newCluster(t)
	b := c.start(2, echoing, "127.0.0.1:0", nil)
	for versions, remedy := range map[[2]uint16]string{
		{0, 0}: "upgrade the peer",
		{2, 7}: "upgrade " + kv.NodeID(2).String(),
	} {
		nc := dialRaw(t, b)
		write(t, nc, transport.RawHello(c.hello(1), 2, versions[0], versions[1]))
		var refused *transport.HandshakeError
		err := transport.RawRefusal(nc)
		if !errors.As(err, &refused) || refused.Reason != transport.ReasonVersion || !strings.Contains(refused.Text, remedy) {
			t.Errorf("versions %v: %v, want %q", versions, err, remedy)
		}
	}
}

// The identity of a node may change while it runs: it joins a cluster.
func TestLocalIsAskedForEachHandshake(t *testing.T) {
	c := newCluster(t)
	var mu sync.Mutex
	self := transport.Hello{Node: 1}
	a := c.start(1, echoing, "127.0.0.1:0", func(o *transport.Options) {
		o.Local = func() transport.Hello {
			mu.Lock()
			defer mu.Unlock()
			return self
		}
	})
	var views []uint64
	c.start(2, echoing, "127.0.0.1:0", func(o *transport.Options) {
		o.Admit = func(h transport.Hello) error {
			mu.Lock()
			defer mu.Unlock()
			views = append(views, h.View)
			return nil
		}
	})
	if err := a.Reachable(within(t, patience), 2); !errors.Is(err, transport.ErrHandshake) {
		t.Errorf("before it joined: %v", err)
	}
	mu.Lock()
	self = c.hello(1)
	self.View = 77
	mu.Unlock()
	if err := a.Reachable(within(t, patience), 2); err != nil {
		t.Errorf("after it joined: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(views) == 0 || views[0] != 77 {
		t.Errorf("views seen: %v", views)
	}
}

func dialRaw(t *testing.T, to *transport.TCP) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", to.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return nc
}

func write(t *testing.T, nc net.Conn, b []byte) {
	t.Helper()
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
}

// closed waits until the other side has closed the connection.
func closed(t *testing.T, nc net.Conn) {
	t.Helper()
	var timeout net.Error
	if _, err := io.Copy(io.Discard, nc); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the connection was left open")
	}
}

// taping keeps what is written to a connection.
type taping struct {
	net.Conn

	tape []byte
}

func (c *taping) Write(b []byte) (int, error) {
	c.tape = append(c.tape, b...)
	return c.Conn.Write(b)
}

func TestAReplayedHandshakeIsRefused(t *testing.T) {
	c := newCluster(t)
	c.setAddr(1, "nowhere")
	b := c.start(2, echoing, "127.0.0.1:0", nil)
	genuine := &taping{Conn: dialRaw(t, b)}
	if err := transport.RawDial(genuine, c.hello(1), secret, 2, 1, 0); err != nil {
		t.Fatal(err)
	}
	replayed := dialRaw(t, b)
	write(t, replayed, genuine.tape)
	closed(t, replayed)
	if n := b.Stats().HandshakesRefused[transport.ReasonSecret]; n != 1 {
		t.Errorf("%d handshakes refused for the secret", n)
	}
}

// A node that sends back what it is sent knows nothing of the secret.
func TestAReflectedHandshakeIsRefused(t *testing.T) {
	c := newCluster(t)
	a := c.start(1, echoing, "127.0.0.1:0", nil)
	mirror, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mirror.Close()
	c.setAddr(2, mirror.Addr().String())
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := mirror.Accept()
		if err == nil {
			_, _ = io.Copy(nc, nc)
			nc.Close()
		}
	}()
	if err := a.Reachable(within(t, patience), 2); !errors.Is(err, transport.ErrHandshake) {
		t.Errorf("reachable: %v", err)
	}
	<-done
}

func TestASlowHandshakeIsClosed(t *testing.T) {
	c := newCluster(t)
	b := c.start(2, echoing, "127.0.0.1:0", func(o *transport.Options) { o.HandshakeTimeout = 50 * time.Millisecond })
	hello := transport.RawHello(c.hello(1), 2, 1, 1)
	for _, sent := range [][]byte{nil, hello[:2], hello[:len(hello)-1], hello} {
		nc := dialRaw(t, b)
		write(t, nc, sent)
		closed(t, nc)
	}
	if n := b.Stats().HandshakesRefused[transport.ReasonTimeout]; n != 4 {
		t.Errorf("%d handshakes refused for their time", n)
	}
}

// Whoever holds the slots of unfinished handshakes is turned away at the door,
// and keeps nobody out for longer than a handshake may take.
func TestUnfinishedHandshakesAreBounded(t *testing.T) {
	c := newCluster(t)
	b := c.start(2, echoing, "127.0.0.1:0", func(o *transport.Options) { o.HandshakeTimeout = 500 * time.Millisecond })
	for range 300 {
		dialRaw(t, b)
	}
	a := c.start(1, echoing, "127.0.0.1:0", nil)
	ctx := within(t, patience)
	eventually(t, func() bool { return a.Reachable(ctx, 2) == nil })
}

func TestGarbageInPlaceOfAHandshake(t *testing.T) {
	c := newCluster(t)
	b := c.start(2, echoing, "127.0.0.1:0", nil)
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
		"\x01\xff\xff",
		"\x01\x00\x04STRX",
		"\x01\x00\x00",
		"\x03\x00\x00",
		strings.Repeat("\x00", 4096),
	} {
		nc := dialRaw(t, b)
		write(t, nc, []byte(garbage))
		closed(t, nc)
	}
	eventually(t, func() bool { return b.Stats().HandshakesRefused[transport.ReasonMalformed] == 6 })
	if n := b.Stats().Connections; n != 0 {
		t.Errorf("%d connections stand", n)
	}
}

// A dialler whose context ends waits no longer; the attempt goes on for others.
func TestAnAttemptOutlivesItsCaller(t *testing.T) {
	c := newCluster(t)
	dialling, dial := make(chan struct{}, 2), make(chan struct{})
	a := c.start(1, echoing, "127.0.0.1:0", func(o *transport.Options) {
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialling <- struct{}{}
			<-dial
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	})
	c.start(2, echoing, "127.0.0.1:0", nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	gone := make(chan error, 1)
	go func() {
		_, err := a.Call(ctx, 2, 1, nil)
		gone <- err
	}()
	<-dialling
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) || !transport.NotRun(err) {
		t.Errorf("the caller that left: %v", err)
	}
	close(dial)
	if _, err := a.Call(within(t, patience), 2, 1, nil); err != nil {
		t.Errorf("the caller that stayed: %v", err)
	}
	if n := a.Stats().Dials; n != 2 {
		t.Errorf("%d dials for the two lanes of one link", n)
	}
}
