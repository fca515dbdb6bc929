package api

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
	"pgregory.net/rapid"
)

func TestParseHead(t *testing.T) {
	for _, c := range []struct {
		name, head string
		want       framing
	}{
		{"get", "GET /kv/b/k HTTP/1.1\r\nHost: a\r\n\r\n", framing{}},
		{"length", "PUT /kv/b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n", framing{length: 12}},
		{"leading zeros", "PUT / HTTP/1.1\r\nHost: a\r\ncontent-length: 007\r\n\r\n", framing{length: 7}},
		{"chunks", "PUT / HTTP/1.1\r\nhost: a\r\nTRANSFER-ENCODING: \tChunked \r\n\r\n", framing{length: chunkedLength}},
		{"close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Close\r\n\r\n", framing{last: true}},
		{"close in either of two", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: te\r\n\r\n", framing{last: true}},
		{"old", "GET / HTTP/1.0\r\n\r\n", framing{old: true, last: true}},
		{"old with keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", framing{old: true, last: true}},
		{"expect", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n", framing{length: 1, expect: true}},
		{"expect without a body", "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", framing{}},
		{"high bytes", "GET /kv/b/\xff HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n", framing{}},
		{"empty value", "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", framing{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseHead([]byte(c.head))
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

// TestHeadScanner: however a head is cut into pieces, its end is found at the
// same place, and nothing before it.
func TestHeadScanner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.StringMatching(`[A-Z][a-z: ]{0,9}`), 1, 9).Draw(t, "lines")
		head := []byte(strings.Join(lines, "\r\n") + "\r\n\r\n")
		all := slices.Concat(head, []byte("GET / HTTP/1.1\r\n\r\n"))
		var scan headScanner
		for n := 0; n <= len(all); n += rapid.IntRange(1, 5).Draw(t, "step") {
			end, err := scan.end(all[:n])
			switch {
			case err != nil:
				t.Fatal(err)
			case end == 0 && n >= len(head):
				t.Fatalf("end of %q not found in %d bytes", head, n)
			case end > 0:
				if end != len(head) {
					t.Fatalf("end of %q at %d", head, end)
				}
				return
			}
		}
	})
}

func TestHeadScannerRefuses(t *testing.T) {
	for name, head := range map[string]string{
		"lower case":       "get / HTTP/1.1\r\n",
		"TLS":              "\x16\x03\x01",
		"empty line first": "\r\nGET / HTTP/1.1\r\n\r\n",
		"bare line feed":   "GET / HTTP/1.1\n",
		"bare in a field":  "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
		"too many lines":   "GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", maxHeadLines) + "\r\n",
	} {
		var scan headScanner
		if _, err := scan.end([]byte(head)); err == nil {
			t.Errorf("%s: %.40q was taken", name, head)
		}
	}
}

// FuzzHead: what the strict parser takes, fasthttp and net/http take too, and
// all three agree where the request ends.
func FuzzHead(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"PUT /kv/b/%2f?n=3 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var scan headScanner
		n, err := scan.end(b)
		if err != nil || n == 0 {
			return
		}
		ours, err := parseHead(b[:n])
		if err != nil {
			return
		}
		rest := []byte("and what follows")
		r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(b[:n]), bytes.NewReader(rest)), len(b)+100)
		var theirs fasthttp.RequestHeader
		if err := theirs.Read(r); err != nil {
			t.Fatalf("fasthttp refuses %q: %v", b[:n], err)
		}
		if left, _ := io.ReadAll(r); !bytes.Equal(left, rest) {
			t.Fatalf("fasthttp leaves %q of %q", left, b[:n])
		}
		if bodyLength(&theirs) != ours.length || theirs.IsHTTP11() == ours.old {
			t.Fatalf("fasthttp reads %q as %d bytes, we as %+v", b[:n], theirs.ContentLength(), ours)
		}
		agreeWithNetHTTP(t, b[:n], ours)
	})
}

func agreeWithNetHTTP(t *testing.T, head []byte, ours framing) {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return // it is stricter about hosts and targets
	}
	if req.ContentLength != ours.length {
		t.Fatalf("net/http reads the body of %q as %d bytes, we as %d", head, req.ContentLength, ours.length)
	}
	if req.Close && !ours.last {
		t.Fatalf("net/http closes after %q, we do not", head)
	}
}
