package client

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
)

func TestEscape(t *testing.T) {
	tests := []struct{ name, want string }{
		{"a", "a"},
		{"src/net/http.go", "src/net/http.go"},
		{"a b", "a%20b"},
		{"50%", "50%25"},
		{"a+b?c=d&e#f", "a%2Bb%3Fc%3Dd%26e%23f"},
		{"żółw", "%C5%BC%C3%B3%C5%82w"},
		{"\x00\xff", "%00%FF"},
		{".", "%2E"},
		{"..", "%2E%2E"},
		{"../admin", "%2E%2E%2Fadmin"},
		{"a/./b.go", "a%2F%2E%2Fb%2Ego"},
		{"a//b", "a%2F%2Fb"},
		{"/a", "%2Fa"},
		{"a/", "a%2F"},
		{"...", "..."},
		{".gitignore", ".gitignore"},
		{"%2e%2e", "%252e%252e"},
	}
	for _, tt := range tests {
		if got := Escape(tt.name); got != tt.want {
			t.Errorf("Escape(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
}

// An escaped name is the name, and no path cleaner has a reason to touch it.
func TestEscapeIsFaithful(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := string(rapid.SliceOfN(rapid.OneOf(rapid.Byte(), rapid.SampledFrom([]byte("./%"))), 1, 64).Draw(t, "name"))
		got := Escape(name)
		back, err := url.PathUnescape(got)
		if err != nil || back != name {
			t.Fatalf("Escape(%q) = %q, which reads as %q, %v", name, got, back, err)
		}
		for segment := range strings.SplitSeq(got, "/") {
			if segment == "" || segment == "." || segment == ".." {
				t.Fatalf("Escape(%q) = %q has the segment %q", name, got, segment)
			}
		}
	})
}

// What the server reads off the wire is what Escape made, byte for byte.
func TestTargetOnTheWire(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RequestURI }))
	defer server.Close()
	c := open(t, Config{}, server.URL)
	names := []string{
		"..", ".", "a//b", "/", "//", "../../cluster", "\x00", "a\r\nb", "\xff/é", "?n=1", "#", "%2e%2e", strings.Repeat("/", 2048),
	}
	for _, name := range names {
		if _, err := c.Get(t.Context(), kv.Key{Bucket: "b", Name: name}, Read{N: 3}); err != nil {
			t.Fatalf("get %q: %v", name, err)
		}
		if want := "/kv/b/" + Escape(name) + "?n=3"; got != want {
			t.Errorf("get %q asked for %q, want %q", name, got, want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for _, bad := range []string{"", "localhost:8701", "ftp://a", "http://", "http://a/kv", "http://a?n=1", "http://u@a", "http://a:b"} {
		if _, err := New([]string{bad}, Config{}); err == nil || !strings.Contains(err.Error(), "http://host:port") {
			t.Errorf("endpoint %q: error %v, want one that says how to write it", bad, err)
		}
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("no endpoint was accepted")
	}
	if _, err := New([]string{"http://[::1]:8701/", "https://node.example"}, Config{}); err != nil {
		t.Error(err)
	}
}

// What HTTP cannot carry is refused before anything is sent.
func TestUnsendable(t *testing.T) {
	c := open(t, Config{}, "http://127.0.0.1:1")
	for _, v := range []Value{
		{Meta: map[string]string{"two words": "x"}},
		{Meta: map[string]string{"naïve": "x"}},
		{Meta: map[string]string{"a": "x\r\nX-Evil: y"}},
		{ContentType: "text/plain\n"},
	} {
		_, err := c.Put(t.Context(), kv.Key{Bucket: "b", Name: "k"}, v, Write{Blind: true})
		if err == nil || !strings.Contains(err.Error(), "header field") || OutcomeOf(err) != kv.NotApplied {
			t.Errorf("put %+v: %v, want an error about a header field", v, err)
		}
	}
	for _, key := range []kv.Key{{}, {Bucket: "b"}, {Bucket: "a b", Name: "k"}, {Bucket: "b", Name: strings.Repeat("k", 3000)}} {
		if _, err := c.Get(t.Context(), key, Read{}); err == nil {
			t.Errorf("key %v was accepted", key)
		}
	}
}

// open returns a client that is closed with the test.
func open(t *testing.T, c Config, endpoints ...string) *Client {
	t.Helper()
	cl, err := New(endpoints, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// refused returns the URL of a port where nobody listens.
func refused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}
