package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// HTTP is how connections speak Starling's interface, which the skeleton and
// the echo server speak as far as they have it.
type HTTP struct {
	Endpoints []string // http://host:port; connections are dealt to them in turn
	Bucket    string
	// Query goes with every request: n, r, w, sync and the like. WriteQuery goes
	// with writes besides.
	Query, WriteQuery url.Values
	Timeout           time.Duration // of one request
	// WriteID, if set, returns the id of the next write.
	WriteID func() string
}

const (
	headerContext  = "X-Starling-Context"
	headerSiblings = "X-Starling-Siblings"
	headerWriteID  = "X-Starling-Write-Id"

	statusSiblings = fasthttp.StatusMultipleChoices

	clientBuffer = 16 << 10
	maxAnswer    = 64 << 20
)

// Dial is a [Dial]: it opens connection i.
func (h *HTTP) Dial(ctx context.Context, i int) (Conn, error) {
	endpoint := h.Endpoints[i%len(h.Endpoints)]
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("endpoint %q: write it as http://host:port", endpoint)
	}
	nc, err := (&net.Dialer{Timeout: h.Timeout}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	c := &httpConn{
		HTTP: h, conn: nc, in: bufio.NewReaderSize(nc, clientBuffer),
		path: " /kv/" + h.Bucket + "/", read: tail(u.Host, h.Query), write: tail(u.Host, h.Query, h.WriteQuery),
	}
	return c, nil
}

// tail is what follows the key in a request line, up to the fields that differ
// from request to request.
func tail(host string, queries ...url.Values) string {
	var parts []string
	for _, q := range queries {
		if len(q) > 0 {
			parts = append(parts, q.Encode())
		}
	}
	query := strings.Join(parts, "&")
	if query != "" {
		query = "?" + query
	}
	return query + " HTTP/1.1\r\nHost: " + host + "\r\n"
}

// httpConn writes requests by hand, which costs next to nothing, and reads
// answers as fasthttp's client does: the load generator runs on the cores that
// it measures.
type httpConn struct {
	*HTTP

	conn              net.Conn
	in                *bufio.Reader
	out               []byte
	path, read, write string
	answer            fasthttp.Response
	deadline          time.Time
}

func (c *httpConn) Get(key []byte) (Answer, error) {
	c.begin("GET", key, c.read)
	c.out = append(c.out, "\r\n"...)
	status, err := c.exchange()
	switch {
	case err != nil:
		return Answer{}, err
	case status == fasthttp.StatusOK, status == statusSiblings, status == fasthttp.StatusNotFound:
		return c.told(status != fasthttp.StatusNotFound), nil
	}
	return Answer{}, c.refused(status)
}

func (c *httpConn) Put(key, value, token []byte) (Answer, error) {
	c.begin("PUT", key, c.write)
	if len(token) > 0 {
		c.field(headerContext, token)
	}
	if c.WriteID != nil {
		c.out = append(append(append(c.out, headerWriteID+": "...), c.WriteID()...), "\r\n"...)
	}
	c.out = append(c.out, "Content-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(value)), 10)
	c.out = append(append(c.out, "\r\n\r\n"...), value...)
	status, err := c.exchange()
	switch {
	case err != nil:
		return Answer{}, err
	case status == fasthttp.StatusNoContent, status == fasthttp.StatusOK:
		return c.told(true), nil
	}
	return Answer{}, c.refused(status)
}

func (c *httpConn) Close() error { return c.conn.Close() }

func (c *httpConn) begin(method string, key []byte, tail string) {
	c.out = append(append(c.out[:0], method...), c.path...)
	c.out = append(append(c.out, key...), tail...)
}

func (c *httpConn) field(name string, value []byte) {
	c.out = append(append(c.out, name...), ": "...)
	c.out = append(append(c.out, value...), "\r\n"...)
}

var errClosing = errors.New("the server closes the connection")

func (c *httpConn) exchange() (status int, err error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, err
	}
	if err := c.answer.ReadLimitBody(c.in, maxAnswer); err != nil {
		return 0, err
	}
	if c.answer.ConnectionClose() {
		return 0, fmt.Errorf("%w after status %d", errClosing, c.answer.StatusCode())
	}
	return c.answer.StatusCode(), nil
}

// extend moves the deadline on, which costs a timer, not for every request: one
// gets between one and two times its timeout.
func (c *httpConn) extend() error {
	now := time.Now()
	if c.deadline.Sub(now) > c.Timeout {
		return nil
	}
	c.deadline = now.Add(2 * c.Timeout)
	return c.conn.SetDeadline(c.deadline)
}

func (c *httpConn) told(found bool) Answer {
	a := Answer{Found: found, Siblings: 1, Token: c.answer.Header.Peek(headerContext)}
	if s := c.answer.Header.Peek(headerSiblings); len(s) > 0 {
		a.Siblings, _ = strconv.Atoi(string(s)) // of our own server
	}
	return a
}

// refused names an answer by its status and the code in its body.
func (c *httpConn) refused(status int) error {
	text := strconv.Itoa(status)
	if code := errorCode(c.answer.Body()); code != "" {
		text += " " + code
	}
	return &StatusError{text}
}

func errorCode(body []byte) string {
	var told struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(body, &told) // not every server explains itself
	return told.Code
}
