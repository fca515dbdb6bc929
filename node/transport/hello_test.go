package transport

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
)

func aHello(t *rapid.T) hello {
	var h hello
	copy(h.Cluster[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "cluster"))
	copy(h.nonce[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "nonce"))
	h.Node = kv.NodeID(rapid.Uint64().Draw(t, "node"))
	h.Name = rapid.StringN(0, -1, maxName).Draw(t, "name")
	h.Incarnation = rapid.Uint64().Draw(t, "incarnation")
	h.View = rapid.Uint64().Draw(t, "view")
	h.oldest = rapid.Uint16().Draw(t, "oldest")
	h.newest = rapid.Uint16Min(h.oldest).Draw(t, "newest")
	h.want = kv.NodeID(rapid.Uint64().Draw(t, "want"))
	h.link = rapid.Uint64().Draw(t, "link")
	h.lane = rapid.Byte().Draw(t, "lane")
	return h
}

func TestHelloRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := aHello(t)
		later := rapid.SliceOf(rapid.Byte()).Draw(t, "fields of a later version")
		b := want.encode()
		if got, err := decodeHello(append(b, later...)); err != nil || got != want {
			t.Fatalf("%+v, error %v, want %+v", got, err, want)
		}
		short := b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]
		if _, err := decodeHello(short); err == nil {
			t.Fatalf("decoded from %d of %d bytes", len(short), len(b))
		}
	})
}

func TestHelloFitsAMessage(t *testing.T) {
	h := hello{Hello: Hello{Name: strings.Repeat("n", 1000)}, newest: 1}
	b := h.encode()
	if len(b) > maxMessage {
		t.Errorf("%d bytes, at most %d", len(b), maxMessage)
	}
	if got, err := decodeHello(b); err != nil || len(got.Name) != maxName {
		t.Errorf("name of %d bytes, error %v", len(got.Name), err)
	}
}

// FuzzHello feeds the decoder anything: no panic, and what it accepts is what
// was encoded, up to fields of later versions.
func FuzzHello(f *testing.F) {
	f.Add([]byte("STRL"))
	f.Add(hello{newest: 1, Hello: Hello{Node: 1, Name: "a"}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err == nil && !bytes.HasPrefix(b, h.encode()) {
			t.Fatalf("% x decoded to %+v", b, h)
		}
	})
}

// FuzzHandshakeMessage feeds the reader of handshake messages anything.
func FuzzHandshakeMessage(f *testing.F) {
	f.Add(appendMessage(nil, messageHello, []byte("hello")))
	f.Add(appendHandshakeRefusal(nil, &HandshakeError{Reason: ReasonCluster, Text: "no"}))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readMessage(bytes.NewReader(b), messageHello)
		if err == nil && !bytes.HasPrefix(b, appendMessage(nil, messageHello, got)) {
			t.Fatalf("% x read as %x", b, got)
		}
	})
}

func TestJudge(t *testing.T) {
	const a, b = kv.NodeID(0xa), kv.NodeID(0xb)
	for _, test := range []struct {
		name   string
		change func(self, other *hello)
		want   Reason // 0: they fit
		text   string
	}{
		{"they fit", func(_, _ *hello) {}, 0, ""},
		{"newer, but still speaks ours", func(_, o *hello) { o.newest = 9 }, 0, ""},
		{"peer too old", func(s, _ *hello) { s.oldest, s.newest = 2, 3 }, ReasonVersion, "upgrade the peer"},
		{"we are too old", func(_, o *hello) { o.oldest, o.newest = 2, 3 }, ReasonVersion, "upgrade 000000000000000a"},
		{"we have no cluster", func(s, _ *hello) { s.Cluster = [16]byte{} }, ReasonNoCluster, "node 000000000000000a"},
		{"peer has no cluster", func(_, o *hello) { o.Cluster = [16]byte{} }, ReasonNoCluster, "node 000000000000000b"},
		{"neither has one", func(s, o *hello) { s.Cluster, o.Cluster = [16]byte{}, [16]byte{} }, ReasonNoCluster, ""},
		{"another cluster", func(_, o *hello) { o.Cluster[15] = 9 }, ReasonCluster, "never merge"},
		{"ourselves", func(_, o *hello) { o.Node = a }, ReasonOwnID, "both ends"},
		{"another node answers", func(_, o *hello) { o.Node = 0xc }, ReasonWrongNode, "dialled node 000000000000000b"},
		{"another node was meant", func(_, o *hello) { o.want = 0xc }, ReasonWrongNode, "this is node 000000000000000a"},
	} {
		self := hello{Hello: Hello{Cluster: [16]byte{1}, Node: a}, oldest: 1, newest: 1, want: b}
		other := hello{Hello: Hello{Cluster: [16]byte{1}, Node: b}, oldest: 1, newest: 1, want: a}
		test.change(&self, &other)
		err := judge(self, other)
		var got HandshakeError
		if refused, ok := errors.AsType[*HandshakeError](err); ok {
			got = *refused
		}
		if got.Reason != test.want || !strings.Contains(got.Text, test.text) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestProofsAreBoundToEverything(t *testing.T) {
	key, err := proofKey([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	proof := prove(key, roleDialler, []byte("ab"), []byte("c"))
	for name, other := range map[string][]byte{
		"role":     prove(key, roleAccepter, []byte("ab"), []byte("c")),
		"order":    prove(key, roleDialler, []byte("c"), []byte("ab")),
		"boundary": prove(key, roleDialler, []byte("a"), []byte("bc")),
		"key":      prove([]byte("other"), roleDialler, []byte("ab"), []byte("c")),
	} {
		if bytes.Equal(proof, other) {
			t.Errorf("the proof does not depend on the %s", name)
		}
	}
}
