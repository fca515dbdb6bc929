package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// tape is a connection whose client has sent everything and hung up.
type tape struct {
	net.Conn

	sent io.Reader
	got  bytes.Buffer
}

func (t *tape) Read(b []byte) (int, error)       { return t.sent.Read(b) }
func (t *tape) Write(b []byte) (int, error)      { return t.got.Write(b) }
func (t *tape) Close() error                     { return nil }
func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }
func (t *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (t *tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }

// validating is a KV that refuses what the door should have refused.
type validating struct{ t *testing.T }

func (v *validating) check(key kv.Key, o coordinator.Options) {
	if err := key.Validate(); err != nil {
		v.t.Errorf("the key %q came through: %v", key, err)
	}
	if o.N < 0 || o.N > kv.MaxN || o.Timeout < 0 || o.Timeout > coordinator.MaxTimeout {
		v.t.Errorf("the options %+v came through", o)
	}
}

func (v *validating) Get(_ context.Context, g coordinator.Get) (coordinator.Got, error) {
	v.check(g.Key, g.Options)
	return got(value(1, "milk"), value(2, "bread")), nil
}

func (v *validating) Put(_ context.Context, p coordinator.Put) (coordinator.PutDone, error) {
	v.check(p.Key, p.Options)
	if len(p.Value) > 4<<20 {
		v.t.Errorf("%d bytes came through", len(p.Value))
	}
	return coordinator.PutDone{Token: token(1, 1), Siblings: 1}, nil
}

// FuzzConnection sends any bytes to a node: it answers in HTTP, none of the
// answers is a fault of its own, and nothing bad comes through to the store.
func FuzzConnection(f *testing.F) {
	for _, c := range smugglings {
		if len(c.sent) < 1000 {
			f.Add([]byte(c.sent))
		}
	}
	f.Add([]byte(request("PUT", "/kv/b/%00?n=3&w=2&timeout=1s", "Content-Length: 2", "X-Starling-Meta-A: b", `If-Match: "x"`) + "hi" +
		request("GET", "/kv/b/k", "Accept: application/json") + request("HEAD", "/cluster")))
	store := new(validating)
	s := newServer(f, store)
	f.Fuzz(func(t *testing.T, sent []byte) {
		store.t = t
		wire := &tape{sent: bytes.NewReader(sent)}
		newConn(s, wire, dataPort).serve()
		if s.held.used.Load() != 0 || s.requests.underWay() != 0 {
			t.Error("something was not given back")
		}
		checkAnswers(t, wire.got.Bytes())
	})
}

// checkAnswers reads answers without knowing to what: one that may belong to a
// HEAD is the last that is looked at.
func checkAnswers(t *testing.T, b []byte) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(b))
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
		if err != nil {
			t.Fatalf("%v in %q", err, b)
		}
		if resp.StatusCode >= http.StatusInternalServerError && resp.StatusCode != http.StatusHTTPVersionNotSupported {
			t.Fatalf("answered %d: %q", resp.StatusCode, b)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if errors.Is(err, io.ErrUnexpectedEOF) || strings.HasPrefix(string(body), "HTTP/1.1 ") || bytes.Contains(body, []byte("\nHTTP/1.1 ")) {
			return
		}
		if err != nil {
			t.Fatalf("%v in %q", err, b)
		}
	}
}
