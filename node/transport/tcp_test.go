package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/starling-kv/starling/node/transport"
)

// counting notes the bodies of the requests that it answers.
type counting struct {
	mu   sync.Mutex
	seen map[string]int
}

func (c *counting) Handle(_ context.Context, req *transport.Request) {
	c.mu.Lock()
	if c.seen == nil {
		c.seen = make(map[string]int)
	}
	c.seen[string(req.Body)]++
	c.mu.Unlock()
	req.Reply(req.Body)
}

func (c *counting) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, seen := range c.seen {
		n += seen
	}
	return n
}

// dialled returns a raw socket that has shaken hands with b as node 1.
func dialled(t *testing.T, c *cluster, b *transport.TCP, link uint64, lane uint8) net.Conn {
	t.Helper()
	nc := dialRaw(t, b)
	if err := transport.RawDial(nc, c.hello(1), secret, 2, link, lane); err != nil {
		t.Fatal(err)
	}
	return nc
}

func request(body string) []byte {
	return transport.RawFrame{Kind: transport.RawRequest, Method: 1, ID: 1, Budget: 1e6, Body: []byte(body)}.Encode()
}

// Whatever is wrong with a frame, nothing of it is delivered, and its connection
// ends.
func TestDamagedFramesDeliverNothing(t *testing.T) {
	c := newCluster(t)
	var handler counting
	b := c.start(2, &handler, "127.0.0.1:0", nil)
	whole := request("damaged")
	streams := make([][]byte, 0, 2*len(whole))
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		streams = append(streams, flipped)
	}
	streams = append(streams,
		[]byte("garbage that is no frame at all, and long enough to be one"),
		[]byte("\xff\xff\xff\xff"),
		transport.RawFrame{Kind: 99}.Encode(),
		transport.RawFrame{Kind: transport.RawReply, ID: 1}.Encode(),
	)
	for i, stream := range streams {
		nc := dialled(t, c, b, uint64(i), 0)
		write(t, nc, stream)
		// A length that became larger has the reader wait for more.
		if half, ok := nc.(*net.TCPConn); !ok || half.CloseWrite() != nil {
			t.Fatal("cannot end the stream")
		}
		closed(t, nc)
	}
	if n := handler.total(); n != 0 {
		t.Errorf("%d requests were delivered", n)
	}
	eventually(t, func() bool { return b.Stats().CorruptFrames >= uint64(len(streams)-8) })
}

func TestTruncatedFramesDeliverNothing(t *testing.T) {
	c := newCluster(t)
	var handler counting
	b := c.start(2, &handler, "127.0.0.1:0", nil)
	whole := request("truncated")
	for cut := range whole {
		nc := dialled(t, c, b, uint64(cut), 0)
		write(t, nc, whole[:cut])
		nc.Close()
	}
	eventually(t, func() bool { return b.Stats().Connections == 0 })
	if n := handler.total(); n != 0 || b.Stats().CorruptFrames != 0 {
		t.Errorf("%d requests delivered, %d corrupt frames", n, b.Stats().CorruptFrames)
	}
}

func TestARequestIDUsedTwiceEndsTheConnection(t *testing.T) {
	c := newCluster(t)
	b := c.start(2, transport.HandlerFunc(func(context.Context, *transport.Request) {}), "127.0.0.1:0", nil)
	nc := dialled(t, c, b, 1, 0)
	write(t, nc, append(request("once"), request("twice")...))
	closed(t, nc)
}

// A large reply takes the bulk lane of its link, so that it does not stand in
// the way of small ones; without one it takes the lane that there is.
func TestLargeRepliesTakeTheBulkLane(t *testing.T) {
	c := newCluster(t)
	b := c.start(2, transport.HandlerFunc(func(_ context.Context, req *transport.Request) {
		req.Reply(make([]byte, 100_000))
	}), "127.0.0.1:0", nil)
	alone := dialled(t, c, b, 1, 0)
	write(t, alone, request(""))
	if f, err := transport.RawFrames(alone)(); err != nil || len(f.Body) != 100_000 {
		t.Fatalf("one lane: %d bytes, error %v", len(f.Body), err)
	}
	small, bulk := dialled(t, c, b, 2, 0), dialled(t, c, b, 2, 1)
	eventually(t, func() bool { return b.Stats().Connections == 3 })
	write(t, small, request(""))
	if f, err := transport.RawFrames(bulk)(); err != nil || len(f.Body) != 100_000 || f.ID != 1 {
		t.Fatalf("two lanes: %d bytes, error %v", len(f.Body), err)
	}
}

// rawNode is node 2 on raw sockets: it shakes hands and leaves the rest to the
// test.
func rawNode(t *testing.T, c *cluster) <-chan net.Conn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.setAddr(2, listener.Addr().String())
	lanes := make(chan net.Conn, 16)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := transport.RawAccept(nc, c.hello(2), secret); err != nil {
				nc.Close() // the other side closes while it connects anew
				continue
			}
			lanes <- nc
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
		close(lanes)
		for nc := range lanes {
			nc.Close()
		}
	})
	return lanes
}

func TestLargeRequestsTakeTheBulkLane(t *testing.T) {
	c := newCluster(t)
	lanes := rawNode(t, c)
	a := c.start(1, echoing, "127.0.0.1:0", nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	for _, size := range []int{64 << 10, 64<<10 + 1} {
		calls.Go(func() { _, _ = a.Call(ctx, 2, 1, make([]byte, size)) })
	}
	for _, size := range []int{64 << 10, 64<<10 + 1} {
		nc := <-lanes // in the order in which they were dialled
		defer nc.Close()
		if f, err := transport.RawFrames(nc)(); err != nil || len(f.Body) != size {
			t.Errorf("%d bytes came where %d belong, error %v", len(f.Body), size, err)
		}
	}
}

// A node that comes back at its old address is found again within a second,
// also by callers who kept calling all the while.
func TestARestartedPeerIsFoundAgain(t *testing.T) {
	c := newCluster(t)
	a := c.start(1, echoing, "127.0.0.1:0", nil)
	b := c.start(2, echoing, "127.0.0.1:0", nil)
	addr := b.Addr().String()
	ctx := within(t, patience)
	if _, err := a.Call(ctx, 2, 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for started := time.Now(); time.Since(started) < time.Second; {
		if _, err := a.Call(ctx, 2, 1, nil); err == nil {
			t.Fatal("a closed node answered")
		}
	}
	c.start(2, echoing, addr, nil)
	back := time.Now()
	eventually(t, func() bool {
		_, err := a.Call(ctx, 2, 1, nil)
		return err == nil
	})
	if took := time.Since(back); took > time.Second {
		t.Errorf("found again after %v", took)
	}
	if dials := a.Stats().Dials; dials > 20 {
		t.Errorf("%d dials", dials)
	}
}

// Connecting to a node behind a partition takes until a deadline; soon after
// that it is known, and costs nothing.
func TestAnUnreachablePeer(t *testing.T) {
	c := newCluster(t)
	c.setAddr(2, "192.0.2.1:1")
	a := c.start(1, echoing, "127.0.0.1:0", func(o *transport.Options) {
		o.DialTimeout, o.RedialMin, o.RedialMax = 100*time.Millisecond, time.Hour, time.Hour
		o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	_, err := a.Call(within(t, 10*time.Millisecond), 2, 1, nil)
	if !errors.Is(err, context.DeadlineExceeded) || !transport.NotRun(err) {
		t.Errorf("impatient call: %v", err)
	}
	for range 2 {
		if _, err := a.Call(within(t, patience), 2, 1, nil); !errors.Is(err, transport.ErrUnreachable) || !transport.NotRun(err) {
			t.Errorf("call: %v", err)
		}
	}
	if dials := a.Stats().Dials; dials != 1 {
		t.Errorf("%d dials", dials)
	}
	if err := a.Reachable(within(t, patience), 2); !errors.Is(err, transport.ErrUnreachable) || a.Stats().Dials != 2 {
		t.Errorf("reachable: %v, %d dials", err, a.Stats().Dials)
	}
}

func TestManyCallersShareOneLink(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(1, echoing, "127.0.0.1:0", nil), c.start(2, echoing, "127.0.0.1:0", nil)
	ctx := within(t, patience)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := a.Call(ctx, 2, 1, []byte("body")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s := a.Stats()
	if s.Dials != 2 || s.Connections != 2 || s.Calls != 50 || s.BytesOut != 50*(transport.FrameExtra+4) || s.BytesOut != b.Stats().BytesIn {
		t.Errorf("stats: %+v", s)
	}
}

// Answers given before a close still arrive.
func TestCloseLetsAnswersLeave(t *testing.T) {
	c := newCluster(t)
	replied := make(chan struct{})
	b := c.start(2, transport.HandlerFunc(func(_ context.Context, req *transport.Request) {
		req.Reply(bytes.Repeat([]byte("x"), 1<<20))
		close(replied)
	}), "127.0.0.1:0", nil)
	a := c.start(1, echoing, "127.0.0.1:0", nil)
	done := make(chan error, 1)
	go func() {
		got, err := a.Call(within(t, patience), 2, 1, nil)
		if err == nil && len(got) != 1<<20 {
			err = fmt.Errorf("%d bytes", len(got))
		}
		done <- err
	}()
	<-replied
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("call: %v", err)
	}
}

// failing is a listener that cannot accept at first, as without descriptors.
type failing struct {
	net.Listener

	left int
}

func (l *failing) Accept() (net.Conn, error) {
	if l.left > 0 {
		l.left--
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

func TestAcceptSurvivesErrors(t *testing.T) {
	c := newCluster(t)
	c.start(2, echoing, "127.0.0.1:0", func(o *transport.Options) { o.Listener = &failing{o.Listener, 3} })
	a := c.start(1, echoing, "127.0.0.1:0", nil)
	if err := a.Reachable(within(t, patience), 2); err != nil {
		t.Error(err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	c := newCluster(t)
	for name, breakIt := range map[string]func(*transport.Options){
		"Handler": func(o *transport.Options) { o.Handler = nil },
		"secret":  func(o *transport.Options) { o.Secret = []byte("short") },
		"TLS":     func(o *transport.Options) { o.DialTLS, _ = selfSigned(t) },
		"name":    local(func(h *transport.Hello) { h.Name = strings.Repeat("n", 256) }),
	} {
		opts := c.opts
		opts.Listener, opts.Handler = &failing{}, echoing
		opts.Local = func() transport.Hello { return transport.Hello{} }
		breakIt(&opts)
		if tr, err := transport.NewTCP(opts); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, tr, err)
		}
	}
}

// A handler's panic ends the process, so that it cannot go on with broken state.
func TestAPanicEndsTheProcess(t *testing.T) {
	if os.Getenv("TRANSPORT_TEST_PANIC") != "" {
		c := newCluster(t)
		c.start(2, transport.HandlerFunc(func(context.Context, *transport.Request) { panic("handler broke") }), "127.0.0.1:0", nil)
		_, err := c.start(1, echoing, "127.0.0.1:0", nil).Call(within(t, patience), 2, 1, nil)
		t.Logf("survived, call: %v", err)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAPanicEndsTheProcess$")
	cmd.Env = append(os.Environ(), "TRANSPORT_TEST_PANIC=1")
	if out, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("handler broke")) {
		t.Errorf("error %v, output %s", err, out)
	}
}
