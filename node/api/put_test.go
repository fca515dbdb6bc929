package api

import (
	"context"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// contextHeader is the header line that carries a token for b/k.
func contextHeader(t vclock.Token) string {
	return headerContext + ": " + testKeyring().Seal(t, "b", "k")
}

func mustWriteID(t *testing.T, text string) kv.WriteID {
	t.Helper()
	id, err := kv.ParseWriteID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestPutTranslates: what a PUT asks over HTTP is what the coordinator is asked.
func TestPutTranslates(t *testing.T) {
	key := kv.Key{Bucket: "b", Name: "k"}
	id := mustWriteID(t, testID)
	for _, c := range []struct {
		name, method, target, body string
		header                     []string
		want                       coordinator.Put
	}{
		{name: "blind", method: "PUT", target: "/kv/b/k", body: "milk", want: coordinator.Put{Key: key, Value: []byte("milk")}},
		{name: "empty", method: "PUT", target: "/kv/b/k", want: coordinator.Put{Key: key, Value: []byte{}}},
		{
			name: "all parameters", method: "PUT", body: "x",
			target: "/kv/b/k?n=5&r=2&w=all&sloppy=true&timeout=2s&sync=false&hedge=off&overwrite=true&ttl=90",
			want: coordinator.Put{
				Key: key, Value: []byte("x"), Overwrite: true, TTL: 90 * time.Second, Options: coordinator.Options{
					N: 5, R: coordinator.Exactly(2), W: coordinator.All, Sloppy: true, Timeout: 2 * time.Second,
					Durability: coordinator.DurabilityAsync, Hedge: coordinator.HedgeOff,
				},
			},
		},
		{
			name: "all headers", method: "PUT", target: "/kv/b/k", body: "{}",
			header: []string{
				"Content-Type: application/json; v=1", "x-starling-meta-Zeta: last", "X-STARLING-META-ALPHA: first \t",
				contextHeader(token(3, 4)), "X-Starling-Write-Id: " + strings.ToUpper(testID),
				`If-Match: "00000000000000aa"`, `If-Match: "00000000000000bb"`, `If-None-Match: *`,
			},
			want: coordinator.Put{
				Key: key, Value: []byte("{}"), ContentType: "application/json; v=1", Token: token(3, 4), WriteID: id,
				Meta:      []kv.Meta{{Name: "alpha", Value: "first"}, {Name: "zeta", Value: "last"}},
				Condition: coordinator.Condition{IfMatch: []uint64{0xaa, 0xbb}, IfAbsent: true},
			},
		},
		{
			name: "other conditions", method: "PUT", target: "/kv/b/k", header: []string{"If-Match: *", `If-None-Match: W/"00000000000000cc"`},
			want: coordinator.Put{Key: key, Value: []byte{}, Condition: coordinator.Condition{IfMatchAny: true, IfNoneMatch: []uint64{0xcc}}},
		},
		{
			name: "a condition that nothing meets", method: "PUT", target: "/kv/b/k", header: []string{`If-Match: "x"`},
			want: coordinator.Put{Key: key, Value: []byte{}, Condition: coordinator.Condition{IfMatch: []uint64{}}},
		},
		{
			name: "delete with a context", method: "DELETE", target: "/kv/b/k?w=1",
			header: []string{contextHeader(token(3, 4)), "Content-Type: x/y"},
			want:   coordinator.Put{Key: key, Tombstone: true, Token: token(3, 4), Options: coordinator.Options{W: coordinator.One}},
		},
		{
			name: "delete with overwrite", method: "DELETE", target: "/kv/b/k?overwrite=true",
			want: coordinator.Put{Key: key, Tombstone: true, Overwrite: true},
		},
		{
			name: "delete with a condition", method: "DELETE", target: "/kv/b/k", header: []string{`If-Match: "00000000000000aa"`},
			want: coordinator.Put{Key: key, Tombstone: true, Condition: coordinator.Condition{IfMatch: []uint64{0xaa}}},
		},
		{
			name: "delete with a length of zero", method: "DELETE", target: "/kv/b/k?overwrite=true", header: []string{"Content-Length: 0"},
			want: coordinator.Put{Key: key, Tombstone: true, Overwrite: true},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := new(scripted)
			n := start(t, store)
			a := n.do(c.method, c.target, c.body, c.header...)
			if a.status != 204 || a.body != "" {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if len(store.puts) != 1 || !reflect.DeepEqual(store.puts[0], c.want) {
				t.Errorf("asked %+v\nwant  %+v", store.puts, c.want)
			}
		})
	}
}

// TestPutAnswers: what the coordinator did is what the client is told.
func TestPutAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		done   coordinator.PutDone
		header []string
		want   map[string]string
	}{
		{
			name: "sole value",
			done: coordinator.PutDone{Token: token(1, 2), ETag: 0xaa, Siblings: 1, Acked: []string{"n1", "n3"}},
			want: map[string]string{
				headerContext: testKeyring().Seal(token(1, 2), "b", "k"), "Etag": `"00000000000000aa"`,
				headerAcked: "n1, n3", headerSiblings: "", headerWriteID: "", headerHinted: "", "Content-Length": "", "Content-Type": "",
			},
		},
		{
			name:   "beside others, with a stand-in, under an id",
			done:   coordinator.PutDone{Token: token(1, 2), Siblings: 3, Acked: []string{"n1"}, Hinted: []string{"n4 for n2"}},
			header: []string{headerWriteID + ": " + testID},
			want:   map[string]string{headerSiblings: "3", "Etag": "", headerHinted: "n4 for n2", headerWriteID: testID},
		},
		{
			name: "nothing left",
			done: coordinator.PutDone{Token: token(1, 2), Siblings: 0},
			want: map[string]string{"Etag": "", headerSiblings: "", headerAcked: ""},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, &scripted{put: func(context.Context, coordinator.Put) (coordinator.PutDone, error) { return c.done, nil }})
			a := n.do("PUT", "/kv/b/k", "x", c.header...)
			if a.status != 204 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			for name, want := range c.want {
				if got := a.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestPutOutlivesTheRequest: what the coordinator is handed is its own. It goes
// on sending to slow replicas while the connection serves other requests.
func TestPutOutlivesTheRequest(t *testing.T) {
	store := new(scripted)
	n := start(t, store)
	w := n.dial()
	for i := range 50 {
		text := strings.Repeat(string(rune('a'+i%26)), 100)
		w.send(request("PUT", "/kv/"+text+"/"+text, "Content-Type: "+text, "X-Starling-Meta-"+text[:5]+": "+text, "Content-Length: 100") + text)
		w.read("PUT")
	}
	for i, p := range store.puts {
		text := strings.Repeat(string(rune('a'+i%26)), 100)
		want := coordinator.Put{
			Key: kv.Key{Bucket: text, Name: text}, Value: []byte(text), ContentType: text, Meta: []kv.Meta{{Name: text[:5], Value: text}},
		}
		if !reflect.DeepEqual(p, want) {
			t.Fatalf("put %d is now %+v", i, p)
		}
	}
}

// TestWritesRefused: what is wrong with a write is said before anything is
// stored, as not_applied, with what to do about it.
func TestWritesRefused(t *testing.T) {
	other := headerContext + ": " + testKeyring().Seal(token(1, 1), "b", "other")
	sealed := testKeyring().Seal(token(1, 1), "b", "k")
	foreign := keyringOf("elsewhere", epoch).Seal(token(1, 1), "b", "k")
	old := keyringOf("cluster", epoch.AddDate(0, -4, 0)).Seal(token(1, 1), "b", "k")
	long := strings.Repeat("m", 8192)
	id := headerWriteID + ": " + testID
	date := "Sat, 29 Oct 1994 19:43:31 GMT"
	short := sealed[:len(sealed)-4]
	forged := []byte(sealed)
	forged[len(forged)/2] ^= 1
	for _, c := range []struct {
		name, method, target string
		header               []string
		status               int
		code, message        string
	}{
		{"n of 0", "PUT", "/kv/b/k?n=0", nil, 400, "bad_request", "use 1 to 16 replicas"},
		{"n beyond", "PUT", "/kv/b/k?n=17", nil, 400, "bad_request", "use 1 to 16 replicas"},
		{"n below w", "PUT", "/kv/b/k?n=2&w=3", nil, 400, "bad_request", "raise n, or lower w"},
		{"n below r", "PUT", "/kv/b/k?n=2&r=3", nil, 400, "bad_request", "raise n, or lower r"},
		{"unknown parameter", "PUT", "/kv/b/k?ww=3", nil, 400, "bad_request", "known here are n, r, w, sloppy"},
		{"delete that expires", "DELETE", "/kv/b/k?ttl=5", nil, 400, "bad_request", "a delete does not expire"},
		{"bad encoding", "PUT", "/kv/b/%zz", nil, 400, "bad_request", "percent-encoding"},
		{"empty key", "PUT", "/kv/b/", nil, 400, "bad_request", "the key is empty"},
		{"no key", "PUT", "/kv/b", nil, 400, "bad_request", "names no key"},
		{"bad bucket", "PUT", "/kv/b%2f/k", nil, 400, "bad_request", "use letters, digits"},
		{"oversized key", "PUT", "/kv/b/" + strings.Repeat("k", 2049), nil, 413, "too_large", "hash or shorten it"},
		{"oversized metadata", "PUT", "/kv/b/k", []string{"X-Starling-Meta-A: " + long}, 413, "too_large", "metadata has at most 8192 bytes"},
		{"oversized type", "PUT", "/kv/b/k", []string{"Content-Type: " + strings.Repeat("m", 1025)}, 413, "too_large", "Content-Type"},
		{"oversized value", "PUT", "/kv/b/k", []string{"Content-Length: 4194305"}, 413, "too_large", "at most 4194304 bytes"},
		{"metadata without a name", "PUT", "/kv/b/k", []string{"X-Starling-Meta-: x"}, 400, "bad_request", "needs a name"},
		{"metadata twice", "PUT", "/kv/b/k", []string{"X-Starling-Meta-A: x", "x-starling-meta-a: y"}, 400, "bad_request", "given twice"},
		{"unknown header", "PUT", "/kv/b/k", []string{"X-Starling-Contxt: x"}, 400, "bad_request", "unknown header X-Starling-Contxt"},
		{"context twice", "PUT", "/kv/b/k", []string{contextHeader(token(1, 1)), contextHeader(token(1, 1))}, 400, "bad_request", "given twice"},
		{"context empty", "PUT", "/kv/b/k", []string{headerContext + ":"}, 400, "bad_context", "malformed"},
		{"context garbage", "PUT", "/kv/b/k", []string{headerContext + ": !!"}, 400, "bad_context", "read the key again"},
		{"context truncated", "PUT", "/kv/b/k", []string{headerContext + ": " + short}, 400, "bad_context", "read the key again"},
		{"context forged", "PUT", "/kv/b/k", []string{headerContext + ": " + string(forged)}, 400, "bad_context", "read the key again"},
		{"context of another key", "PUT", "/kv/b/k", []string{other}, 400, "bad_context", "another key"},
		{"context of another cluster", "PUT", "/kv/b/k", []string{headerContext + ": " + foreign}, 400, "bad_context", "read the key again"},
		{"context expired", "PUT", "/kv/b/k", []string{headerContext + ": " + old}, 400, "context_expired", "read the key again"},
		{"write id no UUID", "PUT", "/kv/b/k", []string{headerWriteID + ": 7"}, 400, "bad_request", "UUID of version 7"},
		{"write id twice", "PUT", "/kv/b/k", []string{id, id}, 400, "bad_request", "given twice"},
		{"bad condition", "PUT", "/kv/b/k", []string{"If-Match: abc"}, 400, "bad_request", "If-Match"},
		{"condition by date", "PUT", "/kv/b/k", []string{"If-Unmodified-Since: " + date}, 400, "bad_request", "use If-Match"},
		{"part of a value", "PUT", "/kv/b/k", []string{"Content-Range: bytes 0-1/2"}, 400, "bad_request", "Content-Range"},
		{"encoded value", "PUT", "/kv/b/k", []string{"Content-Encoding: gzip"}, 415, "unsupported_media", "kept as they are sent"},
		{"type twice", "PUT", "/kv/b/k", []string{"Content-Type: a/b", "Content-Type: a/b"}, 400, "bad_request", "given twice"},
		{"delete without a context", "DELETE", "/kv/b/k", nil, 428, "context_required", "overwrite=true"},
		{"delete with only a condition of absence", "DELETE", "/kv/b/k", []string{"If-None-Match: *"}, 428, "context_required", "overwrite=true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := new(scripted)
			n := start(t, store)
			a := n.do(c.method, c.target, "", c.header...)
			e := a.error(t)
			if a.status != c.status || string(e.Code) != c.code || !strings.Contains(e.Message, c.message) {
				t.Errorf("%d %s: %s", a.status, e.Code, e.Message)
			}
			framed := c.name != "type twice" // a bad head is nobody's write
			if framed && e.Outcome != kv.NotApplied {
				t.Errorf("outcome %q", e.Outcome)
			}
			if len(store.puts) > 0 {
				t.Error("it reached the coordinator")
			}
		})
	}
}

// TestMetadataFits: the limit counts names and values, and nothing else.
func TestMetadataFits(t *testing.T) {
	n := start(t, new(scripted))
	for size, status := range map[int]int{maxMetaBytes: 204, maxMetaBytes + 1: 413} {
		header := []string{"X-Starling-Meta-A: " + strings.Repeat("m", 4095), "X-Starling-Meta-B: " + strings.Repeat("m", size-4097)}
		if a := n.do("PUT", "/kv/b/k", "", header...); a.status != status {
			t.Errorf("%d bytes: %d %s", size, a.status, a.body)
		}
	}
}

// TestValueLimit: by its length a value is refused at once, by chunks as soon
// as it is too long.
func TestValueLimit(t *testing.T) {
	n := start(t, new(scripted), limits(Limits{ValueBytes: 100_000}))
	for size, status := range map[int]int{99_999: 204, 100_000: 204, 100_001: 413} {
		body := strings.Repeat("v", size)
		if a := n.do("PUT", "/kv/b/k", body); a.status != status {
			t.Errorf("%d bytes: %d %s", size, a.status, a.body)
		}
		w := n.dial()
		w.send(request("PUT", "/kv/b/k", "Transfer-Encoding: chunked") + strconv.FormatInt(int64(size), 16) + "\r\n" + body + "\r\n0\r\n\r\n")
		if a := w.read("PUT"); a.status != status {
			t.Errorf("%d bytes in a chunk: %d %s", size, a.status, a.body)
		}
	}
}
