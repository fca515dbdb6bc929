package api

import (
	"bufio"
	"context"
	"io"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/starling-kv/starling/kv"
)

// An exchange is one request and its answer. Handlers may not keep it, nor
// anything that points into it: it is used again for the next request.
type exchange struct {
	server  *Server
	conn    *conn
	http    fasthttp.RequestCtx
	framing framing
	began   time.Time

	path  []byte // of the target, after the path of the route
	query []byte // of the target, raw

	// synced says that the body has been read to its end: the next byte belongs
	// to the next request.
	synced bool
	large  bool // the head was large, and so are the buffers of http now
	gone   bool // the client hung up
	// attempted says that the request went to the coordinator, which alone
	// knows from then on what became of it.
	attempted bool
	writeID   kv.WriteID
	taken     int // bytes held, given back at the end
	received  int // bytes of the body

	// body, if set, writes the body of the answer: bodyLength bytes, or an
	// unknown number if that is chunkedLength. An error cuts the connection.
	body       func(w io.Writer) error
	bodyLength int
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func (s *Server) newExchange(c *conn) *exchange {
	x, _ := exchanges.Get().(*exchange)
	x.server, x.conn, x.began = s, c, time.Now()
	x.http.Init2(c, logger{s.log}, false)
	x.resetAnswer()
	return x
}

// recycle gives back what the exchange holds. Large buffers go to the garbage
// collector, so that one large request does not make all later ones large.
func (x *exchange) recycle() {
	x.server.held.give(int64(max(0, x.taken-freeBytes)))
	if x.large {
		return
	}
	x.http.Request.Reset()
	x.http.Response.Reset()
	x.server, x.conn, x.body = nil, nil, nil
	x.path, x.query = nil, nil
	x.framing, x.writeID = framing{}, kv.WriteID{}
	x.synced, x.gone, x.attempted = false, false, false
	x.taken, x.received, x.bodyLength = 0, 0, 0
	exchanges.Put(x)
}

// freeBytes is what every exchange may hold without asking: small requests must
// get through while large ones fill the budget. It is bounded by the number of
// connections.
const freeBytes = 8 << 10

// hold counts n more bytes of bodies as held until the end of the exchange.
func (x *exchange) hold(n int) error {
	more := max(0, x.taken+n-freeBytes) - max(0, x.taken-freeBytes)
	if more > 0 && !x.server.held.take(int64(more)) {
		x.server.metrics.shed("bytes")
		return overloaded("the bodies on their way fill the memory set aside for them")
	}
	x.taken += n
	return nil
}

// The request.

func (x *exchange) method() []byte { return x.http.Request.Header.Method() }

func (x *exchange) target() []byte { return x.http.Request.Header.RequestURI() }

func (x *exchange) isHead() bool { return x.http.Request.Header.IsHead() }

func (x *exchange) isWrite() bool {
	return x.http.Request.Header.IsPut() || x.http.Request.Header.IsDelete()
}

// outcome is what became of a write that failed, as far as this package knows.
func (x *exchange) outcome() kv.Outcome {
	if x.attempted {
		return kv.Unknown
	}
	return kv.NotApplied
}

// context returns the context in which the node is asked about itself.
func (x *exchange) context(timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(x.server.base, timeout)
}

// skipBody passes over a body that nobody read, if all of it has come, and
// reports whether the next byte belongs to the next request.
func (x *exchange) skipBody() bool {
	n := x.framing.length
	if !x.synced && n > 0 && n <= int64(x.conn.in.Buffered()) {
		_, err := x.conn.in.Discard(int(n))
		x.synced = err == nil
	}
	return x.synced
}

// The answer.

func (x *exchange) setStatus(status int) { x.http.Response.SetStatusCode(status) }

func (x *exchange) status() int { return x.http.Response.StatusCode() }

// setHeader sets a field. The name is one of ours, in the form in which it is sent.
func (x *exchange) setHeader(name, value string) { x.setHeaderBytes(name, []byte(value)) }

func (x *exchange) setHeaderBytes(name string, value []byte) {
	x.http.Response.Header.SetCanonical([]byte(name), value)
}

// resetAnswer forgets what was answered so far. Whatever the answer will be, no
// cache on the way may give it again without asking: it would undo r + w > n.
func (x *exchange) resetAnswer() {
	x.http.Response.Reset()
	x.http.Response.Header.DisableNormalizing()
	x.setHeader(fasthttp.HeaderCacheControl, "no-cache")
	x.body, x.bodyLength = nil, 0
}

// answerBytes answers with b, which must not change until it is sent.
func (x *exchange) answerBytes(status int, contentType string, b []byte) {
	x.setStatus(status)
	x.http.Response.Header.SetContentType(contentType)
	x.http.Response.SetBodyRaw(b)
}

const typeJSON = "application/json"

func (x *exchange) answerJSON(status int, v any) {
	x.answerBytes(status, typeJSON, appendJSON(nil, v))
}

// answerWith answers with the length bytes that write will write.
func (x *exchange) answerWith(status int, contentType string, length int, write func(w io.Writer) error) {
	x.setStatus(status)
	x.http.Response.Header.SetContentType(contentType)
	x.body, x.bodyLength = write, length
}

// writeAnswer sends status, header fields and body.
func (x *exchange) writeAnswer(w *bufio.Writer) error {
	if x.body == nil {
		x.http.Response.SkipBody = x.isHead()
		if err := x.http.Response.Write(w); err != nil {
			return err
		}
		return w.Flush()
	}
	header := &x.http.Response.Header
	length := x.bodyLength
	if length == chunkedLength && x.framing.old {
		length = closeEndsBody
	}
	header.SetContentLength(length)
	if _, err := w.Write(header.Header()); err != nil {
		return err
	}
	if !x.isHead() {
		if err := x.writeBody(w, length); err != nil {
			return err
		}
	}
	return w.Flush()
}

// closeEndsBody is how fasthttp is told that the body goes on until the
// connection closes.
const closeEndsBody = -2

func (x *exchange) writeBody(w *bufio.Writer, length int) error {
	if length != chunkedLength {
		return x.body(w)
	}
	chunks := httputil.NewChunkedWriter(w)
	buffered := bufio.NewWriterSize(chunks, writeBuffer)
	if err := x.body(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if err := chunks.Close(); err != nil {
		return err
	}
	_, err := w.Write(crlf)
	return err
}

func itoa(n int) string { return strconv.Itoa(n) }
