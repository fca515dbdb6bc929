// Package membershiptest helps to test package membership and what is built on
// it: a network for gossip that lives in memory and obeys the virtual time of
// a testing/synctest bubble, a disk that outlives the node that uses it, and
// the suite that every real disk must pass too.
package membershiptest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of what waits at an endpoint: what comes beyond is dropped, as by a
// socket with a full buffer.
const (
	inboxPackets = 1024
	inboxStreams = 64
)

// Network joins the transports of one test. The zero Network has no latency
// and no cuts. It is safe for concurrent use.
type Network struct {
	// Latency delays packets and the making of streams, one way. Set it before
	// the first Listen. Nil: no delay.
	Latency func(from, to string) time.Duration

	mu   sync.Mutex
	ends map[string]*Transport
	cuts map[link]bool
	open map[*stream]bool
}

type link struct{ from, to string }

// Listen returns the transport of a node at addr, an IP address and a port. It
// fails if the address is taken by a transport that was not shut down.
func (n *Network) Listen(addr string) (*Transport, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ends[addr] != nil {
		return nil, fmt.Errorf("listen at %s: address already in use", addr)
	}
	if n.ends == nil {
		n.ends, n.cuts, n.open = map[string]*Transport{}, map[link]bool{}, map[*stream]bool{}
	}
	t := &Transport{
		net:     n,
		at:      at,
		packets: make(chan *memberlist.Packet, inboxPackets),
		streams: make(chan net.Conn, inboxStreams),
	}
	n.ends[addr] = t
	return t, nil
}

// Cut stops all traffic from one address to another, the other way not, and
// breaks the streams between them. Packets sent into a cut vanish, and dialling
// through one takes its whole timeout.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cuts == nil {
		n.cuts = map[link]bool{}
	}
	n.cuts[link{from, to}] = true
	for s := range n.open {
		if s.across(from, to) {
			s.end()
		}
	}
}

// Partition cuts every address of a off from every address of b, both ways.
func (n *Network) Partition(a, b []string) {
	for _, x := range a {
		for _, y := range b {
			n.Cut(x, y)
			n.Cut(y, x)
		}
	}
}

// Heal undoes all cuts.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
}

// at returns the transport at an address, nil if there is none.
func (n *Network) at(addr string) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ends[addr]
}

// cut reports whether traffic from one address to another is lost.
func (n *Network) cut(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cuts[link{from, to}]
}

func (n *Network) latency(from, to string) time.Duration {
	if n.Latency == nil {
		return 0
	}
	return n.Latency(from, to)
}

// Transport is one node's end of a [Network].
type Transport struct {
	net     *Network
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// FinalAdvertiseAddr returns the address given to [Network.Listen].
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.at.Addr().AsSlice(), int(t.at.Port()), nil
}

// WriteTo sends a packet. It never fails: what does not arrive is lost.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	from := t.at.String()
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(t.at)}
	if t.net.at(from) == t && !t.net.cut(from, addr) {
		time.AfterFunc(t.net.latency(from, addr), func() { t.net.deliver(packet, from, addr) })
	}
	return time.Now(), nil
}

func (n *Network) deliver(p *memberlist.Packet, from, to string) {
	end := n.at(to)
	if end == nil || n.cut(from, to) {
		return
	}
	p.Timestamp = time.Now()
	select {
	case end.packets <- p:
	default:
	}
}

// WriteToAddress sends a packet; see [Transport.WriteTo].
func (t *Transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, addr.Addr)
}

// PacketCh returns the packets that have arrived.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh returns the streams that others have opened.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// DialAddressTimeout opens a stream; see [Transport.DialTimeout].
func (t *Transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(addr.Addr, timeout)
}

// DialTimeout opens a stream. It is refused after a round trip where nobody
// listens, and takes the whole timeout where a cut or latency is in the way.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	from := t.at.String()
	trip := t.net.latency(from, addr) + t.net.latency(addr, from)
	if t.net.cut(from, addr) || t.net.cut(addr, from) || trip > timeout {
		<-time.After(timeout)
		return nil, dialError(addr, errTimeout)
	}
	<-time.After(trip)
	return t.connect(addr)
}

func (t *Transport) connect(to string) (net.Conn, error) {
	n, from := t.net, t.at.String()
	n.mu.Lock()
	defer n.mu.Unlock()
	end := n.ends[to]
	if n.ends[from] != t || end == nil || n.cuts[link{from, to}] || n.cuts[link{to, from}] {
		return nil, dialError(to, errRefused)
	}
	near, far := net.Pipe()
	s := &stream{net: n, from: from, to: to, near: near, far: far}
	select {
	case end.streams <- &conn{Conn: far, stream: s, remote: from}:
	default:
		return nil, dialError(to, errRefused)
	}
	n.open[s] = true
	return &conn{Conn: near, stream: s, remote: to}, nil
}

// Shutdown frees the address, breaks all its streams, and sends nothing any
// more: to the others it is the death of the process.
func (t *Transport) Shutdown() error {
	n, own := t.net, t.at.String()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ends[own] == t {
		delete(n.ends, own)
	}
	for s := range n.open {
		if s.from == own || s.to == own {
			s.end()
		}
	}
	return nil
}

// stream is an open connection: two ends of a pipe.
type stream struct {
	net       *Network
	from, to  string
	near, far net.Conn
}

func (s *stream) across(from, to string) bool {
	return s.from == from && s.to == to || s.from == to && s.to == from
}

// end closes both ends. The caller holds the network's lock.
func (s *stream) end() {
	s.near.Close()
	s.far.Close()
	delete(s.net.open, s)
}

// conn is one end of a stream.
type conn struct {
	net.Conn
	stream *stream
	remote string
}

func (c *conn) Close() error {
	c.stream.net.mu.Lock()
	defer c.stream.net.mu.Unlock()
	c.stream.end()
	return nil
}

func (c *conn) RemoteAddr() net.Addr { return address(c.remote) }

type address string

func (address) Network() string  { return "memory" }
func (a address) String() string { return string(a) }

var (
	errRefused = errors.New("connection refused")
	errTimeout = errors.New("timeout")
)

func dialError(addr string, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: address(addr), Err: err}
}
