package api

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Sizes of the buffers of a connection, in bytes. Most heads are far smaller
// than firstHead; a larger one grows the buffer up to maxHeadBytes.
const (
	firstHead   = 4 << 10
	writeBuffer = 8 << 10
)

// A conn serves the requests of one client, one after the other.
type conn struct {
	net.Conn

	server *Server
	port   port
	in     *bufio.Reader
	state  atomic.Int32
}

// The states of a connection. A server that closes may take an idle one from
// its goroutine; a busy one ends by itself after its answer.
const (
	busy int32 = iota
	idle
	taken
)

var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, firstHead) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writeBuffer) }}
)

func newConn(s *Server, nc net.Conn, p port) *conn { return &conn{server: s, Conn: nc, port: p} }

// Write gives the client time in proportion to what it must take.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.server.limits.transfer(len(b)))); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	c.server.metrics.sent.Add(float64(n))
	return n, err
}

func (c *conn) serve() {
	defer c.server.forget(c)
	defer func() { _ = c.Conn.Close() }()
	c.in = smallReader(c.Conn)
	for c.awaitRequest() && c.exchange() {
		if c.in.Buffered() == 0 {
			c.shrink()
		}
	}
	c.shrink()
	c.in.Reset(nil)
	readers.Put(c.in)
}

// awaitRequest waits for the first byte of a request.
func (c *conn) awaitRequest() bool {
	c.state.Store(idle)
	// A server that began to close before the line above has not seen this
	// connection idle; one that begins after it has.
	if c.server.closing.Load() {
		return false
	}
	if err := c.SetReadDeadline(time.Now().Add(c.server.limits.IdleTimeout)); err != nil {
		return false
	}
	_, err := c.in.Peek(1)
	return err == nil && c.state.CompareAndSwap(idle, busy)
}

// closeIfIdle ends a connection that waits for a request.
func (c *conn) closeIfIdle() {
	if c.state.CompareAndSwap(idle, taken) {
		_ = c.Conn.Close()
	}
}

// exchange reads a request, answers it, and reports whether another may follow.
func (c *conn) exchange() bool {
	x := c.server.newExchange(c)
	defer x.recycle()
	switch err := c.readHead(x); {
	case err == nil:
		c.server.dispatch(x)
	case errors.Is(err, errHangup):
		return false
	default:
		// Where this request ends is not known, whatever was read of it.
		x.framing = framing{last: true}
		c.server.fail(x, err)
		c.server.metrics.answered(noRoute, otherMethod, x, time.Since(x.began))
	}
	return !x.gone && c.answer(x)
}

// readHead reads the head of the next request twice: strictly, for where the
// request ends, and by fasthttp, for what it says. The two must agree.
func (c *conn) readHead(x *exchange) error {
	head, err := c.awaitHead(x)
	if err != nil {
		return err
	}
	if x.framing, err = parseHead(head); err != nil {
		return err
	}
	header := &x.http.Request.Header
	if err := header.Read(c.in); err != nil {
		return badHead("the head of the request is malformed")
	}
	if bodyLength(header) != x.framing.length {
		return badHead("the length of the body is not certain")
	}
	x.synced = x.framing.length == 0
	return nil
}

// bodyLength is what fasthttp takes for the length of the body.
func bodyLength(header *fasthttp.RequestHeader) int64 {
	if n := header.ContentLength(); n != noLength {
		return int64(n)
	}
	return 0
}

// noLength is how fasthttp says that a head announces no body.
const noLength = -2

// awaitHead returns the bytes of a head once all of them have come. They stay
// in the buffer.
func (c *conn) awaitHead(x *exchange) ([]byte, error) {
	var scan headScanner
	for waited := false; ; waited = true {
		b, _ := c.in.Peek(c.in.Buffered())
		if n, err := scan.end(b); n > 0 || err != nil {
			return b[:n], err
		}
		if len(b) == c.in.Size() {
			if err := c.grow(x, b); err != nil {
				return nil, err
			}
		}
		if !waited {
			if err := c.SetReadDeadline(time.Now().Add(c.server.limits.HeadTimeout)); err != nil {
				return nil, errHangup
			}
		}
		if _, err := c.in.Peek(len(b) + 1); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errTooSlow
		} else if err != nil {
			return nil, errHangup
		}
	}
}

// grow doubles the buffer, which is full of an unfinished head.
func (c *conn) grow(x *exchange, b []byte) error {
	size := min(2*len(b), maxHeadBytes)
	if size == len(b) {
		return headTooLarge("shorten the key, the context or the metadata")
	}
	if !c.server.held.take(int64(size - len(b))) {
		c.server.metrics.shed("bytes")
		return overloaded("too many large requests are being received")
	}
	c.in = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(b)), c.Conn), size)
	x.large = true
	_, err := c.in.Peek(len(b))
	return err
}

// shrink returns to a small buffer, which must hold nothing that is needed.
func (c *conn) shrink() {
	if size := c.in.Size(); size > firstHead {
		c.in = smallReader(c.Conn)
		c.server.held.give(int64(size - firstHead))
	}
}

func smallReader(r io.Reader) *bufio.Reader {
	b, _ := readers.Get().(*bufio.Reader)
	b.Reset(r)
	return b
}

// answer sends the answer of the exchange and reports whether the connection
// can go on.
func (c *conn) answer(x *exchange) bool {
	synced := x.skipBody()
	last := x.framing.last || !synced || c.server.closing.Load()
	if last {
		x.http.Response.Header.SetConnectionClose()
	}
	w, _ := writers.Get().(*bufio.Writer)
	w.Reset(c)
	err := x.writeAnswer(w)
	w.Reset(nil)
	writers.Put(w)
	if err == nil && last {
		c.linger()
	}
	return err == nil && !last
}

// Bounds of lingering.
const (
	lingerTime  = time.Second
	lingerBytes = 8 << 20
)

// linger waits for the client to close, and takes in a little of what it is
// still sending: to close with unread bytes resets the connection, and a reset
// can overtake the answer.
func (c *conn) linger() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
}

// turnAway refuses a connection that is one too many.
func (c *conn) turnAway() {
	const body = `{"code":"overloaded","message":"too many connections: try again later"}` + "\n"
	_ = c.SetDeadline(time.Now().Add(10 * time.Millisecond))
	_, _ = io.WriteString(c.Conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"+
		"Retry-After: 1\r\nConnection: close\r\nContent-Length: "+itoa(len(body))+"\r\n\r\n"+body)
	_ = c.Conn.Close()
}
