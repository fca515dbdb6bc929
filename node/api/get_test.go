package api

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

func answering(g coordinator.Got) *scripted {
	return &scripted{get: func(context.Context, coordinator.Get) (coordinator.Got, error) { return g, nil }}
}

func TestGetTranslates(t *testing.T) {
	key := kv.Key{Bucket: "b", Name: "k"}
	for _, c := range []struct {
		name, method, target string
		header               []string
		want                 coordinator.Get
	}{
		{"plain", "GET", "/kv/b/k", nil, coordinator.Get{Key: key}},
		{"head", "HEAD", "/kv/b/k", nil, coordinator.Get{Key: key, NoValues: true}},
		{
			"all parameters", "GET", "/kv/b/k?n=5&r=all&w=2&sloppy=true&timeout=2s&sync=true&hedge=all&monotonic=true", nil,
			coordinator.Get{Key: key, Monotonic: true, Options: coordinator.Options{
				N: 5, R: coordinator.All, W: coordinator.Exactly(2), Sloppy: true, Timeout: 2 * time.Second,
				Durability: coordinator.DurabilitySync, Hedge: coordinator.HedgeAll,
			}},
		},
		{"floor", "GET", "/kv/b/k", []string{contextHeader(token(3, 4))}, coordinator.Get{Key: key, Floor: clock(3, 4)}},
		{"headers of writes do not matter", "GET", "/kv/b/k", []string{"Content-Encoding: gzip", "Range: bytes=0-1"}, coordinator.Get{Key: key}},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := new(scripted)
			n := start(t, store)
			if a := n.do(c.method, c.target, "", c.header...); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if len(store.gets) != 1 || !reflect.DeepEqual(store.gets[0], c.want) {
				t.Errorf("asked %+v\nwant  %+v", store.gets, c.want)
			}
		})
	}
}

func TestGetAnswers(t *testing.T) {
	milk := got(value(1, "milk", typed("text/plain"), withMeta(kv.Meta{Name: "shelf", Value: "3 \xff"})))
	tag := `"` + hexWord(milk.ETag) + `"`
	sealed := testKeyring().Seal(milk.Token, "b", "k")
	empty := coordinator.Got{}
	deleted := coordinator.Got{Deleted: true, Token: token(7, 9)}
	// large was stored outside its record: for a HEAD its bytes are not fetched.
	large := got(value(1, "12345"))
	large.Values[0].Data = nil
	large.Values[0].Value.Length = 5000

	for _, c := range []struct {
		name, method string
		got          coordinator.Got
		header       []string
		status       int
		body         string
		want         map[string]string
	}{
		{"value", "GET", milk, nil, 200, "milk", map[string]string{
			"Content-Type": "text/plain", "X-Starling-Meta-Shelf": "3 \xff", "Etag": tag, headerContext: sealed, "Content-Length": "4",
			headerChecksum: "xxh64:" + hexWord(kv.Checksum([]byte("milk"))), "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT",
			"Cache-Control": "no-cache", "Connection": "", "Server": "", "Transfer-Encoding": "",
		}},
		{"expiring", "GET", got(value(1, "milk", func(s *kv.Sibling) { s.Expires = 1795341600125 })), nil, 200, "milk", map[string]string{
			headerExpires: "2026-11-22T10:00:00.125Z",
		}},
		{"untyped", "GET", got(value(1, "milk")), nil, 200, "milk", map[string]string{"Content-Type": "application/octet-stream"}},
		{"empty value", "GET", got(value(1, "")), nil, 200, "", map[string]string{"Content-Length": "0", "Content-Type": typeUnknown}},
		{"tombstone beside", "GET", func() coordinator.Got { g := milk; g.Deleted = true; return g }(), nil, 200, "milk", nil},
		{"head", "HEAD", large, nil, 200, "", map[string]string{
			"Content-Length": "5000", "Content-Type": typeUnknown, headerContext: sealed,
		}},
		{"head of nothing stored", "HEAD", got(value(1, "")), nil, 200, "", map[string]string{"Content-Length": "0"}},

		{"never heard of", "GET", empty, nil, 404, "the key has no value", map[string]string{
			headerContext: "", "Etag": "", "Cache-Control": "no-cache",
		}},
		{"deleted", "GET", deleted, nil, 404, "the key was deleted", map[string]string{headerContext: sealed}},
		{"deleted, head", "HEAD", deleted, nil, 404, "", map[string]string{headerContext: sealed}},

		{"known already", "GET", milk, []string{"If-None-Match: " + tag}, 304, "", map[string]string{
			"Etag": tag, headerContext: sealed, "Content-Length": "",
		}},
		{"known weakly", "GET", milk, []string{`If-None-Match: "x", W/` + tag}, 304, "", nil},
		{"known already, head", "HEAD", milk, []string{"If-None-Match: *"}, 304, "", nil},
		{"another known", "GET", milk, []string{`If-None-Match: "00000000000000aa"`}, 200, "milk", nil},
		{"nothing to know", "GET", deleted, []string{"If-None-Match: *"}, 404, "deleted", nil},
		{"as expected", "GET", milk, []string{"If-Match: " + tag}, 200, "milk", nil},
		{"not as expected", "GET", milk, []string{`If-Match: "00000000000000aa"`}, 412, "precondition", map[string]string{headerContext: sealed}},
		{"strong comparison", "GET", milk, []string{"If-Match: W/" + tag}, 412, "precondition", nil},
		{"any expected, none there", "GET", deleted, []string{"If-Match: *"}, 412, "precondition", map[string]string{headerContext: sealed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, answering(c.got))
			a := n.do(c.method, "/kv/b/k", "", c.header...)
			if a.status != c.status || !strings.Contains(a.body, c.body) || c.body == "" && a.body != "" {
				t.Fatalf("%d %q", a.status, a.body)
			}
			for name, want := range c.want {
				if got := a.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestContextGoesRound: the context of an answer is understood in the next
// request, as what it said.
func TestContextGoesRound(t *testing.T) {
	store := new(scripted)
	n := start(t, store)
	a := n.do("GET", "/kv/b/k", "")
	n.do("PUT", "/kv/b/k", "bread", headerContext+": "+a.Header.Get(headerContext))
	if want := token(7, 9); !reflect.DeepEqual(store.puts[0].Token, want) {
		t.Errorf("token %+v, want %+v", store.puts[0].Token, want)
	}
}

// TestLargestContext: a token of nearly 64 KiB fits into a request beside the
// longest key and all the metadata there may be.
func TestLargestContext(t *testing.T) {
	store := new(scripted)
	n := start(t, store)
	var big vclock.Token
	for actor := uint64(1); actor <= 4_900; actor++ { // ten bytes each, and a third more as text
		big.Seen = append(big.Seen, clock(actor, 1)...)
		big.Floor = append(big.Floor, clock(actor, 1)...)
	}
	sealed := testKeyring().Seal(big, "b", strings.Repeat("\xff", kv.MaxKeyBytes))
	if len(sealed) < 65_300 || len(sealed) > 64<<10 {
		t.Fatalf("the context has %d bytes", len(sealed))
	}
	w := n.dial()
	for range 2 {
		w.send(request("PUT", "/kv/b/"+strings.Repeat("%FF", kv.MaxKeyBytes), headerContext+": "+sealed,
			"X-Starling-Meta-A: "+strings.Repeat("m", maxMetaBytes-1), "Content-Length: 4") + "milk")
		if a := w.read("PUT"); a.status != 204 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if !reflect.DeepEqual(store.puts[1].Token, big) || string(store.puts[1].Value) != "milk" {
		t.Error("the token came out changed")
	}
	w.send("GET /" + strings.Repeat("x", maxHeadBytes))
	if a := w.read("GET"); a.status != 431 {
		t.Errorf("over the limit: %d", a.status)
	}
}
