package transport_test

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/starling-kv/starling/node/transport"
)

// impatient gives dead links up quickly.
func impatient(o *transport.Options) {
	o.PingEvery, o.DeadAfter = 10*time.Millisecond, 50*time.Millisecond
}

// A peer that vanished without a word, as in a partition or a power cut.
func TestADeadLinkIsNoticed(t *testing.T) {
	c := newCluster(t)
	lanes := rawNode(t, c)
	a := c.start(1, echoing, "127.0.0.1:0", impatient)
	_, err := a.Call(within(t, patience), 2, 1, []byte("anybody?"))
	if !errors.Is(err, transport.ErrLost) || transport.NotRun(err) || !strings.Contains(err.Error(), "nothing heard") {
		t.Errorf("call: %v", err)
	}
	(<-lanes).Close()
	(<-lanes).Close()
}

// Calls that nobody waits for do not gather while a node answers no handshake, and
// go through again once it does.
func TestCallsDoNotGatherBeforeASilentNode(t *testing.T) {
	c := newCluster(t)
	stopped, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.setAddr(2, stopped.Addr().String())
	a := c.start(1, echoing, "127.0.0.1:0", func(o *transport.Options) {
		o.HandshakeTimeout, o.RedialMin, o.RedialMax = 100*time.Millisecond, time.Millisecond, time.Millisecond
	})
	call := func() error {
		done := make(chan error, 1)
		a.Go(within(t, patience), 2, 1, nil, func(_ []byte, err error) { done <- err })
		return <-done
	}
	if err := call(); !transport.NotRun(err) || !errors.Is(err, transport.ErrHandshake) {
		t.Fatalf("the first call: %v", err)
	}
	const calls = 1000 // which are nothing, unless they wait
	begun := time.Now()
	for range calls {
		if err := call(); !transport.NotRun(err) || !errors.Is(err, transport.ErrHandshake) {
			t.Fatalf("a later call: %v", err)
		}
	}
	if took := time.Since(begun); took > calls*10*time.Millisecond {
		t.Errorf("%d calls took %v", calls, took)
	}
	if err := stopped.Close(); err != nil {
		t.Fatal(err)
	}
	c.start(2, echoing, stopped.Addr().String(), nil)
	eventually(t, func() bool { return call() == nil })
}

// A peer that is alive but takes no more bytes: what the kernel still took may
// run, what it never took did not.
func TestAStalledPeerIsGivenUp(t *testing.T) {
	c := newCluster(t)
	lanes := rawNode(t, c)
	a := c.start(1, echoing, "127.0.0.1:0", func(o *transport.Options) {
		o.PingEvery, o.DeadAfter = 100*time.Millisecond, time.Second
		o.MaxQueued = 256 << 20
	})
	const calls, size = 40, 1 << 20 // more than kernels buffer
	errs := make(chan error, calls)
	for range calls {
		go func() {
			_, err := a.Call(within(t, patience), 2, 1, make([]byte, size))
			errs <- err
		}()
	}
	stop := make(chan struct{})
	var pinging sync.WaitGroup
	for range 2 {
		nc := <-lanes
		defer nc.Close()
		pinging.Go(func() { pingUntil(stop, nc) })
	}
	notRun := 0
	for range calls {
		err := <-errs
		if !errors.Is(err, transport.ErrLost) || !strings.Contains(err.Error(), "no more bytes") {
			t.Errorf("call: %v", err)
		}
		if transport.NotRun(err) {
			notRun++
		}
	}
	if notRun == 0 || notRun == calls {
		t.Errorf("%d of %d calls are known not to have run", notRun, calls)
	}
	close(stop)
	pinging.Wait()
}

func pingUntil(stop <-chan struct{}, nc net.Conn) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			_, _ = nc.Write(transport.RawFrame{Kind: transport.RawPing}.Encode())
		}
	}
}

// An idle link between two living nodes stays.
func TestPingsKeepAnIdleLink(t *testing.T) {
	c := newCluster(t)
	a := c.start(1, echoing, "127.0.0.1:0", func(o *transport.Options) {
		o.PingEvery, o.DeadAfter = 10*time.Millisecond, 300*time.Millisecond
	})
	b := c.start(2, echoing, "127.0.0.1:0", func(o *transport.Options) {
		o.PingEvery, o.DeadAfter = 10*time.Millisecond, 300*time.Millisecond
	})
	if err := a.Reachable(within(t, patience), 2); err != nil {
		t.Fatal(err)
	}
	const pings = 100 // each way, on either lane: a second
	eventually(t, func() bool { return b.Stats().BytesIn > 2*pings*transport.FrameExtra })
	if dials := a.Stats().Dials; dials != 2 || a.Stats().Connections != 2 {
		t.Errorf("%d dials, %d connections", dials, a.Stats().Connections)
	}
}
