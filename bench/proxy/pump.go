package proxy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// What the proxy knows of the protocol between nodes, which package transport
// describes: a handshake of messages with a kind and a length of two bytes, then
// frames with a length of four bytes, a kind, a method and an id.
const (
	messageHead = 3
	kindProof   = 2 // the dialler's last message
	kindWelcome = 3 // the accepter's last message

	frameLength  = 4
	frameHead    = frameLength + 1 + 1 + 8
	kindRequest  = 1
	kindReply    = 2
	kindRefuse   = 3
	maxFrame     = 64 << 20 // bytes
	pumpBuffer   = 64 << 10
	maxOpenCalls = 1 << 14
)

var errFrame = errors.New("proxy: what passes is not the protocol between nodes")

// pump reads one direction of a connection.
type pump struct {
	proxy *Proxy
	in    *bufio.Reader
	flush func() error // has what was written leave
	rng   *rand.Rand
	frame []byte
}

func newPump(p *Proxy, from net.Conn, seed uint64, flush func() error) *pump {
	return &pump{proxy: p, in: bufio.NewReaderSize(from, pumpBuffer), flush: flush, rng: rand.New(rand.NewPCG(seed, 0))}
}

// handshake passes messages on until the one of the last kind.
func (p *pump) handshake(to io.Writer, last byte) error {
	for {
		var head [messageHead]byte
		if _, err := io.ReadFull(p.in, head[:]); err != nil {
			return err
		}
		message := make([]byte, messageHead+int(binary.BigEndian.Uint16(head[1:])))
		copy(message, head[:])
		if _, err := io.ReadFull(p.in, message[messageHead:]); err != nil {
			return err
		}
		if _, err := to.Write(message); err != nil {
			return err
		}
		if head[0] == last {
			return nil
		}
	}
}

// next reads the next frame that is not dropped. It is valid until the call
// after.
func (p *pump) next() ([]byte, error) {
	for {
		if err := p.read(); err != nil {
			return nil, err
		}
		p.proxy.frames.Add(1)
		if p.rng.Float64() >= p.proxy.fault.Load().Drop {
			return p.frame, nil
		}
		p.proxy.dropped.Add(1)
	}
}

// read reads a frame. Before it waits for one, what was written leaves.
func (p *pump) read() error {
	if err := p.await(frameLength); err != nil {
		return err
	}
	head, err := p.in.Peek(frameLength)
	if err != nil {
		return err
	}
	size := frameLength + int(binary.BigEndian.Uint32(head))
	if size < frameHead || size > maxFrame {
		return fmt.Errorf("%w: a frame of %d bytes", errFrame, size)
	}
	if err := p.await(size); err != nil {
		return err
	}
	p.frame = slices.Grow(p.frame[:0], size)[:size]
	_, err = io.ReadFull(p.in, p.frame)
	return err
}

// await has what was written leave unless n bytes are here already.
func (p *pump) await(n int) error {
	if p.in.Buffered() >= n {
		return nil
	}
	return p.flush()
}

// pair is the two directions of one connection.
type pair struct {
	proxy         *Proxy
	dialler, node net.Conn

	requests *bufio.Writer // to the node

	mu      sync.Mutex
	answers *bufio.Writer        // to the dialler
	asks    map[uint64]time.Time // when requests that are to be slow passed, by id
	held    sync.WaitGroup       // answers that are held back
}

func newPair(p *Proxy, dialler, node net.Conn) *pair {
	return &pair{
		proxy: p, dialler: dialler, node: node, asks: map[uint64]time.Time{},
		requests: bufio.NewWriterSize(node, pumpBuffer), answers: bufio.NewWriterSize(dialler, pumpBuffer),
	}
}

// toNode carries requests.
func (c *pair) toNode(seed uint64) error {
	p := newPump(c.proxy, c.dialler, seed, c.requests.Flush)
	if err := p.handshake(c.node, kindProof); err != nil {
		return err
	}
	for {
		frame, err := p.next()
		if err != nil {
			return err
		}
		if c.proxy.fault.Load().Slow > 1 && frame[frameLength] == kindRequest {
			c.asked(frameID(frame))
		}
		if _, err := c.requests.Write(frame); err != nil {
			return err
		}
	}
}

func frameID(frame []byte) uint64 { return binary.BigEndian.Uint64(frame[frameLength+2:]) }

// asked keeps when a request passed. Requests whose answer went another way, or
// never came, are forgotten all at once when they are many.
func (c *pair) asked(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asks) >= maxOpenCalls {
		clear(c.asks)
	}
	c.asks[id] = time.Now()
}

// toDialler carries answers.
func (c *pair) toDialler(seed uint64) error {
	p := newPump(c.proxy, c.node, seed, c.flush)
	if err := p.handshake(c.dialler, kindWelcome); err != nil {
		return err
	}
	for {
		frame, err := p.next()
		if err != nil {
			return err
		}
		if wait := c.holdFor(frame); wait > 0 {
			c.release(append([]byte(nil), frame...), wait)
			continue
		}
		if err := c.answer(frame); err != nil {
			return err
		}
	}
}

// holdFor is how long an answer is to be held back.
func (c *pair) holdFor(frame []byte) time.Duration {
	kind, slow := frame[frameLength], c.proxy.fault.Load().Slow
	if kind != kindReply && kind != kindRefuse {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	asked, ok := c.asks[frameID(frame)]
	delete(c.asks, frameID(frame))
	if !ok || slow <= 1 {
		return 0
	}
	return min(time.Duration((slow-1)*float64(time.Since(asked))), slowest)
}

// release has the answer leave after a time.
func (c *pair) release(frame []byte, after time.Duration) {
	c.held.Add(1)
	time.AfterFunc(after, func() {
		defer c.held.Done()
		_, _ = c.answer(frame), c.flush() // on a connection that is gone there is nobody to answer
	})
}

func (c *pair) answer(frame []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.answers.Write(frame)
	return err
}

func (c *pair) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers.Flush()
}
