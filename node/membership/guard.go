package membership

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxStreams bounds the streams that others have open to this node. memberlist
// has no such bound, and buffers up to 20 MiB of a stream before it can tell
// whether its sender knows the secret.
const maxStreams = 64

// guard stands between memberlist and its transport. It bounds the streams of
// others, bounds the time to connect, and ends all streams at Shutdown, so that
// whoever waits for one does not wait longer.
type guard struct {
	memberlist.NodeAwareTransport
	incoming chan net.Conn
	refused  atomic.Uint64

	done    chan struct{}
	relayed sync.WaitGroup

	mu      sync.Mutex
	open    map[*guarded]bool
	inbound int
	closed  bool
}

func newGuard(inner memberlist.NodeAwareTransport) *guard {
	g := &guard{
		NodeAwareTransport: inner,
		incoming:           make(chan net.Conn),
		done:               make(chan struct{}),
		open:               make(map[*guarded]bool),
	}
	g.relayed.Go(g.relay)
	return g
}

// relay passes on the streams that the bound allows.
func (g *guard) relay() {
	for {
		select {
		case c := <-g.NodeAwareTransport.StreamCh():
			guarded, ok := g.admit(c, true)
			if !ok {
				g.refused.Add(1)
				_ = c.Close()
				continue
			}
			select {
			case g.incoming <- guarded:
			case <-g.done:
				_ = guarded.Close()
				return
			}
		case <-g.done:
			return
		}
	}
}

func (g *guard) admit(c net.Conn, inbound bool) (*guarded, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || inbound && g.inbound >= maxStreams {
		return nil, false
	}
	guarded := &guarded{Conn: c, guard: g, inbound: inbound}
	g.open[guarded] = true
	if inbound {
		g.inbound++
	}
	return guarded, true
}

// StreamCh returns the streams that others opened, within the bounds.
func (g *guard) StreamCh() <-chan net.Conn { return g.incoming }

// DialTimeout opens a stream to addr; see DialAddressTimeout.
func (g *guard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

var errClosed = errors.New("gossip is closed")

// DialAddressTimeout opens a stream within connectTimeout, if not sooner.
func (g *guard) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	c, err := g.NodeAwareTransport.DialAddressTimeout(addr, min(timeout, connectTimeout))
	if err != nil {
		return nil, err
	}
	guarded, ok := g.admit(c, false)
	if !ok {
		_ = c.Close()
		return nil, errClosed
	}
	return guarded, nil
}

// Shutdown ends the transport and all its streams. It may be called again.
func (g *guard) Shutdown() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	open := make([]*guarded, 0, len(g.open))
	for c := range g.open {
		open = append(open, c)
	}
	g.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // whatever becomes of them, they are at an end
	}
	// The listeners may wait for relay to take a last stream, so it ends last.
	err := g.NodeAwareTransport.Shutdown()
	close(g.done)
	g.relayed.Wait()
	return err
}

// guarded is a stream that the guard knows of until it is closed.
type guarded struct {
	net.Conn
	guard   *guard
	inbound bool
}

func (c *guarded) Close() error {
	c.guard.mu.Lock()
	if c.guard.open[c] {
		delete(c.guard.open, c)
		if c.inbound {
			c.guard.inbound--
		}
	}
	c.guard.mu.Unlock()
	return c.Conn.Close()
}
