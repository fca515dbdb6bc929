package api

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"github.com/starling-kv/starling/coordinator"
)

// ready is a KV that costs nothing.
type ready struct{ got coordinator.Got }

func (r *ready) Get(context.Context, coordinator.Get) (coordinator.Got, error) { return r.got, nil }

func (r *ready) Put(context.Context, coordinator.Put) (coordinator.PutDone, error) {
	return coordinator.PutDone{Token: token(7, 9), Siblings: 1, Acked: []string{"n1", "n2"}}, nil
}

// BenchmarkServer measures one request over loopback, many connections at
// once. The client allocates nothing, so that all allocations are the node's.
func BenchmarkServer(b *testing.B) {
	sealed := testKeyring().Seal(token(7, 9), "b", "key:0123456789")
	for _, c := range []struct{ name, request string }{
		{"get", request("GET", "/kv/b/key:0123456789")},
		{"get with options", request("GET", "/kv/b/key:0123456789?n=3&r=2&timeout=500ms", headerContext+": "+sealed)},
		{"put 100 B", request("PUT", "/kv/b/key:0123456789", "Content-Length: 100") + strings.Repeat("x", 100)},
		{"put 1 MiB", request("PUT", "/kv/b/key:0123456789", "Content-Length: 1048576") + strings.Repeat("x", 1<<20)},
		{"livez", request("GET", "/livez")},
	} {
		b.Run(c.name, func(b *testing.B) {
			addr := benchmarked(b)
			b.SetParallelism(8)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				in := bufio.NewReader(conn)
				sent := []byte(c.request)
				for pb.Next() {
					if err := roundTrip(conn, in, sent); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func benchmarked(b *testing.B) string {
	b.Helper()
	s := newServer(b, &ready{got(value(1, strings.Repeat("v", 100)))})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(ln) }()
	b.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			b.Error(err)
		}
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return ln.Addr().String()
}

// roundTrip sends a request and passes over its answer.
func roundTrip(conn net.Conn, in *bufio.Reader, sent []byte) error {
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	length := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if digits, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, d := range bytes.TrimSpace(digits) {
				length = 10*length + int(d-'0')
			}
		}
		if len(line) == len("\r\n") {
			_, err := in.Discard(length)
			return err
		}
	}
}
