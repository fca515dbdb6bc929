package membership

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// pipes is a transport whose streams a test makes.
type pipes struct {
	memberlist.NodeAwareTransport
	streams chan net.Conn
	dialled time.Duration // timeout of the last dial
	far     net.Conn
	shut    int
}

func (p *pipes) StreamCh() <-chan net.Conn { return p.streams }

func (p *pipes) DialAddressTimeout(_ memberlist.Address, timeout time.Duration) (net.Conn, error) {
	p.dialled = timeout
	near, far := net.Pipe()
	p.far = far
	return near, nil
}

func (p *pipes) Shutdown() error { p.shut++; return nil }

func TestGuardBoundsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{streams: make(chan net.Conn)}
		g := newGuard(p)
		defer g.Shutdown()
		taken := make([]net.Conn, 0, maxStreams)
		for range maxStreams {
			_, far := net.Pipe()
			p.streams <- far
			taken = append(taken, <-g.StreamCh())
		}
		near, far := net.Pipe()
		p.streams <- far
		if _, err := near.Read(make([]byte, 1)); err == nil || g.refused.Load() != 1 {
			t.Errorf("one more stream: read %v, %d refused", err, g.refused.Load())
		}
		for range 2 { // closing it twice frees one place
			taken[0].Close()
		}
		for _, ok := range []bool{true, false} {
			near, far := net.Pipe()
			p.streams <- far
			if ok {
				<-g.StreamCh()
			} else if _, err := near.Read(make([]byte, 1)); err == nil {
				t.Error("a place was freed twice")
			}
		}
	})
}

func TestGuardEndsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{streams: make(chan net.Conn)}
		g := newGuard(p)
		near, far := net.Pipe()
		p.streams <- far // relayed to nobody
		own, err := g.DialTimeout("x", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if p.dialled != connectTimeout {
			t.Errorf("dialled for %v, want %v", p.dialled, connectTimeout)
		}
		for range 2 {
			if err := g.Shutdown(); err != nil {
				t.Fatal(err)
			}
		}
		if p.shut != 1 {
			t.Errorf("the transport was shut down %d times", p.shut)
		}
		for _, c := range []net.Conn{near, own} {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a stream is still open")
			}
		}
		if _, err := g.DialTimeout("x", time.Minute); !errors.Is(err, errClosed) {
			t.Errorf("dialling after Shutdown: %v", err)
		}
	})
}
