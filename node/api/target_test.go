package api

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

func TestParseKey(t *testing.T) {
	for _, c := range []struct{ path, bucket, name string }{
		{"b/k", "b", "k"},
		{"b/a/b/c", "b", "a/b/c"},
		{"b//", "b", "/"},
		{"b/../x", "b", "../x"},
		{"b/%2e%2e%2fx", "b", "../x"},
		{"b/./x", "b", "./x"},
		{"b/a%2Fb", "b", "a/b"},
		{"b/%00", "b", "\x00"},
		{"b/%ff%FE", "b", "\xff\xfe"},
		{"b/\xff", "b", "\xff"},
		{"b/a+b", "b", "a+b"},
		{"b/%25252f", "b", "%252f"},
		{"b/%3F%23", "b", "?#"},
		{"b/http://x/", "b", "http://x/"},
		{"b/ü", "b", "ü"},
		{"%62/k", "b", "k"},
		{"b/" + strings.Repeat("%41", kv.MaxKeyBytes), "b", strings.Repeat("A", kv.MaxKeyBytes)},
	} {
		got, err := parseKey([]byte(c.path))
		if want := (kv.Key{Bucket: c.bucket, Name: c.name}); err != nil || got != want {
			t.Errorf("%.40q: got %.40q, %v", c.path, got, err)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for _, c := range []struct{ path, message string }{
		{"", "names no key"},
		{"b", "names no key"},
		{"b/", "the key is empty"},
		{"/k", "a bucket has 1 to 128"},
		{"../k", "not allowed"},
		{"%2e%2e/k", "not allowed"},
		{"a%2fb/k", "use letters"},
		{"b%00/k", "use letters"},
		{strings.Repeat("b", 129) + "/k", "a bucket has 1 to 128"},
		{"b/%", "bad percent-encoding \"%\""},
		{"b/%4", "bad percent-encoding \"%4\""},
		{"b/%4g", "bad percent-encoding \"%4g\""},
		{"b/%%41", "bad percent-encoding \"%%4\""},
		{"b/%u0041", "bad percent-encoding \"%u0\""},
		{"b/" + strings.Repeat("x", kv.MaxKeyBytes+1), "at most 2048 bytes"},
	} {
		if _, err := parseKey([]byte(c.path)); err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%.40q: %v, want %q", c.path, err, c.message)
		}
	}
}

func TestEscape(t *testing.T) {
	for name, want := range map[string]string{
		"a/b.c":   "a/b.c",
		"~-_09Zz": "~-_09Zz",
		"a b+c%":  "a%20b%2Bc%25",
		"\xff":    "%FF",
		"a//b":    "a%2F%2Fb",
		"a/../b":  "a%2F%2E%2E%2Fb",
		"./a.b":   "%2E%2Fa%2Eb",
		"a/":      "a%2F",
		"..a/b..": "..a/b..",
	} {
		if got := escape(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// encode writes a key as clients may: each byte as itself, where that is
// possible, or percent-encoded with digits of either case.
func encode(name string, choose func(n int) int) string {
	digits := [2]string{"0123456789abcdef", "0123456789ABCDEF"}
	out := make([]byte, 0, 3*len(name))
	for i := range len(name) {
		c := name[i]
		format := choose(3)
		if format == 2 && c > ' ' && c != 0x7f && c != '%' && c != '?' && c != '#' {
			out = append(out, c)
		} else {
			out = append(out, '%', digits[format%2][c>>4], digits[format%2][c&15])
		}
	}
	return string(out)
}

// TestEveryKeyRoundTrips: whatever bytes a key has and however a client encodes
// them, the same key comes out, and the target parts before the query.
func TestEveryKeyRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := string(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "name"))
		target := "/kv/b/" + encode(name, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "format") }) + "?n=3"
		path, query, err := splitTarget([]byte(target))
		if err != nil || string(query) != "n=3" {
			t.Fatalf("%q: query %q, %v", target, query, err)
		}
		for _, path := range []string{strings.TrimPrefix(string(path), "/kv/"), "b/" + escape(name)} {
			if got, err := parseKey([]byte(path)); err != nil || got != (kv.Key{Bucket: "b", Name: name}) {
				t.Fatalf("%q: got %q, %v, want %q", path, got, err, name)
			}
		}
	})
}

// hostile are pieces of keys that normalise, decode or route elsewhere where
// servers are careless.
var hostile = []string{
	"..", ".", "/", "//", "%2f", "%2F", "%252f", "%00", "\x00", "\xff", "\xc0\xaf", "\\", "?", "#", "&", ";", " ", "+", "%",
	"livez", "readyz", "cluster", "metrics", "replica", "kv", "a", "A", "ä", "http:", "\r\n", "\t", "%0d%0a", "Host: x", "~", "*",
}

// TestMillionHostileKeys: a million keys come out as themselves, so that no two
// of them collide.
func TestMillionHostileKeys(t *testing.T) {
	const seed = 20261122
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 1_000_000 {
		name := hostileKey(rnd)
		path := "b/" + encode(name, rnd.IntN)
		got, err := parseKey([]byte(path))
		if err != nil || got != (kv.Key{Bucket: "b", Name: name}) {
			t.Fatalf("seed %d: %q: got %q, %v, want %q", seed, path, got, err, name)
		}
	}
}

func hostileKey(rnd *rand.Rand) string {
	var out strings.Builder
	for range 1 + rnd.IntN(6) {
		if rnd.IntN(3) == 0 {
			out.WriteByte(byte(rnd.IntN(256)))
		} else {
			out.WriteString(hostile[rnd.IntN(len(hostile))])
		}
	}
	return out.String()
}

// lastWrite is a KV that keeps the last value of each key.
type lastWrite struct {
	mu     sync.Mutex
	values map[kv.Key]string
}

func (l *lastWrite) Get(_ context.Context, g coordinator.Get) (coordinator.Got, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.values[g.Key]
	if !ok {
		return coordinator.Got{}, nil
	}
	return got(value(1, v)), nil
}

func (l *lastWrite) Put(_ context.Context, p coordinator.Put) (coordinator.PutDone, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values[p.Key] = string(p.Value)
	return coordinator.PutDone{Token: vclock.Token{}, Siblings: 1}, nil
}

// TestHostileKeysOverTheWire writes hostile keys through a socket, each with a
// value of its own, and reads them back: none collides with another and none
// reaches another route.
func TestHostileKeysOverTheWire(t *testing.T) {
	n := start(t, &lastWrite{values: map[kv.Key]string{}})
	const seed = 26
	rnd := rand.New(rand.NewPCG(seed, 0))
	keys := map[string]string{}
	w := n.dial()
	for len(keys) < 5_000 {
		name := hostileKey(rnd)
		keys[name] = fmt.Sprintf("value %d", len(keys))
		w.send(request("PUT", "/kv/b/"+encode(name, rnd.IntN), fmt.Sprintf("Content-Length: %d", len(keys[name]))) + keys[name])
		if a := w.read("PUT"); a.status != 204 {
			t.Fatalf("seed %d: PUT %q: %d %s", seed, name, a.status, a.body)
		}
	}
	for name, want := range keys {
		w.send(request("GET", "/kv/b/"+encode(name, rnd.IntN)))
		if a := w.read("GET"); a.status != 200 || a.body != want {
			t.Fatalf("seed %d: GET %q: %d %q, want %q", seed, name, a.status, a.body, want)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{"b/k", "b/%2e%2e/%00", "b//%zz", "%2e%2e/k", "b/%25%32%66"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		key, err := parseKey(path)
		if err != nil {
			return
		}
		if err := key.Validate(); err != nil {
			t.Fatalf("%q became the invalid key %q: %v", path, key, err)
		}
		if again, err := parseKey([]byte(key.Bucket + "/" + escape(key.Name))); err != nil || again != key {
			t.Fatalf("%q: %q became %q, %v", path, key, again, err)
		}
	})
}
