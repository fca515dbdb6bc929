package client

import (
	"errors"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
)

const listOfTwo = `{"siblings":[
	{"dot":"a.1","content_type":"text/plain","meta":{"author":"ann"},"value":"bWlsaw==",
		"checksum":"xxh64:0011223344556677","modified":"2026-11-21T10:00:00Z"},
	{"dot":"b.1","value":"","checksum":"xxh64:ef46db3751d8e999"}]}`

func TestGet(t *testing.T) {
	tests := []struct {
		name string
		step step
		want Object
	}{
		{
			"one value",
			step{status: 200, body: "milk", header: "Content-Type: text/plain"},
			Object{Siblings: []Sibling{{Value: Value{Data: []byte("milk"), ContentType: "text/plain"}}}},
		},
		{
			"an empty value",
			step{status: 200, header: "X-Starling-Context: c1"},
			Object{Siblings: []Sibling{{Value: Value{Data: []byte{}}}}, Context: "c1"},
		},
		{
			"a value that expires",
			step{status: 200, body: "milk", header: "X-Starling-Expires: 2026-11-21T10:00:00.125Z"},
			Object{Siblings: []Sibling{{
				Value: Value{Data: []byte("milk")}, Expires: time.Date(2026, 11, 21, 10, 0, 0, 125e6, time.UTC),
			}}},
		},
		{
			"metadata",
			step{status: 200, header: "X-Starling-Meta-Author: ann"},
			Object{Siblings: []Sibling{{Value: Value{Data: []byte{}, Meta: map[string]string{"author": "ann"}}}}},
		},
		{
			"siblings",
			step{status: 300, body: listOfTwo, header: "X-Starling-Context: c2"},
			Object{
				Siblings: []Sibling{
					{
						Value: Value{Data: []byte("milk"), ContentType: "text/plain", Meta: map[string]string{"author": "ann"}},
						Dot:   "a.1", Checksum: "xxh64:0011223344556677", Modified: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC),
					},
					{Value: Value{Data: []byte{}}, Dot: "b.1", Checksum: "xxh64:ef46db3751d8e999"},
				},
				Context: "c2",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, tr := scripted(t, tt.step)
			got, err := c.Get(t.Context(), key, Read{})
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tt.want)
			}
			if tr.asked[0].header.Get("Accept") != "application/json" {
				t.Error("did not ask for siblings as JSON")
			}
		})
	}
}

func TestHead(t *testing.T) {
	c, tr := scripted(t,
		step{status: 200, body: "milk", header: "X-Starling-Checksum: xxh64:0011223344556677"},
		step{status: 300, header: "X-Starling-Siblings: 3"},
		step{status: 404, header: "X-Starling-Context: c"},
	)
	got, err := c.Head(t.Context(), key, Read{})
	if want := (Summary{Siblings: 1, Length: 4, Checksum: "xxh64:0011223344556677"}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("one value: %+v, %v; want %+v", got, err, want)
	}
	got, err = c.Head(t.Context(), key, Read{})
	if want := (Summary{Siblings: 3}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("siblings: %+v, %v; want %+v", got, err, want)
	}
	if _, err = c.Head(t.Context(), key, Read{}); !IsNotFound(err) || ContextOf(err) != "c" {
		t.Errorf("no value: %v with context %q, want not_found with c", err, ContextOf(err))
	}
	if tr.asked[0].method != http.MethodHead {
		t.Errorf("asked with %s", tr.asked[0].method)
	}
}

func TestQueries(t *testing.T) {
	read := Read{N: 5, R: "2", Sloppy: true, Timeout: 1500 * ms, Hedge: "off", Monotonic: true, Context: "c"}
	write := Write{N: 5, W: "all", Sloppy: true, Timeout: 1500 * ms, Durability: Async, Overwrite: true, TTL: time.Minute, IfNoneMatch: "*"}
	c, tr := scripted(t, step{status: 200}, step{status: 204}, step{status: 204}, step{status: 200})
	if _, err := c.Get(t.Context(), key, read); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), key, Value{}, write); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Delete(t.Context(), key, Write{Durability: Sync, Context: "c", IfMatch: `"e"`}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Head(t.Context(), key, Read{}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"hedge=off&monotonic=true&n=5&r=2&sloppy=true&timeout=1.5s",
		"n=5&overwrite=true&sloppy=true&sync=false&timeout=1.5s&ttl=1m0s&w=all",
		"sync=true",
		"",
	}
	for i, a := range tr.asked {
		if a.query != want[i] {
			t.Errorf("request %d: query %s, want %s", i+1, a.query, want[i])
		}
	}
	if got := tr.asked[0].header.Get("X-Starling-Context"); got != "c" {
		t.Errorf("context of the read %q", got)
	}
	if got := tr.asked[1].header.Get("If-None-Match"); got != "*" {
		t.Errorf("If-None-Match %q", got)
	}
	if h := tr.asked[2].header; h.Get("If-Match") != `"e"` || h.Get("X-Starling-Context") != "c" {
		t.Errorf("headers of the delete: %v", h)
	}
}

// A write without a context gets that of a read just before it.
func TestWriteReadsItsContext(t *testing.T) {
	put := func(c *Client, w Write) (Written, error) { return c.Put(t.Context(), key, Value{}, w) }
	del := func(c *Client, w Write) (Written, error) { return c.Delete(t.Context(), key, w) }
	value := step{status: 200, header: "X-Starling-Context: seen"}
	gone := step{status: 404, header: "X-Starling-Context: gone"}
	tests := []struct {
		name    string
		do      func(*Client, Write) (Written, error)
		write   Write
		head    []step
		methods []string
		context string
	}{
		{"put", put, Write{}, []step{value}, []string{"HEAD", "PUT"}, "seen"},
		{"put over siblings", put, Write{}, []step{{status: 300, header: "X-Starling-Context: both"}}, []string{"HEAD", "PUT"}, "both"},
		{"put where a value was", put, Write{}, []step{gone}, []string{"HEAD", "PUT"}, "gone"},
		{"put where nothing ever was", put, Write{}, []step{{status: 404}}, []string{"HEAD", "PUT"}, ""},
		{"put with a context", put, Write{Context: "mine"}, nil, []string{"PUT"}, "mine"},
		{"blind put", put, Write{Blind: true}, nil, []string{"PUT"}, ""},
		{"overwriting put", put, Write{Overwrite: true}, nil, []string{"PUT"}, ""},
		{"delete", del, Write{}, []step{value}, []string{"HEAD", "DELETE"}, "seen"},
		{"delete with a context", del, Write{Context: "mine"}, nil, []string{"DELETE"}, "mine"},
		{"delete where nothing is", del, Write{}, []step{gone}, []string{"HEAD"}, ""},
		{"put whose read fails", put, Write{}, []step{{status: 400}}, []string{"HEAD"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, tr := scripted(t, append(tt.head, step{status: 204, header: "X-Starling-Context: after"})...)
			got, err := tt.do(c, tt.write)
			var methods []string
			for _, a := range tr.asked {
				methods = append(methods, a.method)
			}
			if !slices.Equal(methods, tt.methods) {
				t.Fatalf("asked %v, want %v", methods, tt.methods)
			}
			last := tr.asked[len(tr.asked)-1]
			if last.method == http.MethodHead {
				if err == nil || OutcomeOf(err) != kv.NotApplied {
					t.Errorf("error %v, want one that says not_applied", err)
				}
				return
			}
			if err != nil || got.Context != "after" || got.Siblings != 1 || got.WriteID.IsZero() {
				t.Errorf("got %+v, %v", got, err)
			}
			if sent := last.header.Get("X-Starling-Context"); sent != tt.context {
				t.Errorf("sent context %q, want %q", sent, tt.context)
			}
		})
	}
}

func TestPutSendsAll(t *testing.T) {
	id := kv.NewWriteID(time.UnixMilli(1), func() uint64 { return 7 })
	c, tr := scripted(t, step{status: 204, header: "X-Starling-Siblings: 2"})
	v := Value{Data: []byte("milk"), ContentType: "text/plain", Meta: map[string]string{"author": "ann", "x.y!": "żółw"}}
	got, err := c.Put(t.Context(), key, v, Write{Blind: true, WriteID: id})
	if err != nil || got.Siblings != 2 || got.WriteID != id {
		t.Errorf("got %+v, %v", got, err)
	}
	h := tr.asked[0].header
	if h.Get("X-Starling-Write-Id") != id.String() || h.Get("Content-Type") != "text/plain" || h.Get("X-Starling-Meta-Author") != "ann" ||
		h.Get("X-Starling-Meta-X.y!") != "żółw" {
		t.Errorf("headers %v", h)
	}
}

// An update changes what is there when its write is accepted, and stores once.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := scripted(t,
			step{status: 404, header: "X-Starling-Context: none"},
			step{status: 412, body: `{"code":"precondition","outcome":"not_applied"}`},
			step{status: 200, body: "eggs", header: "ETag: \"e\""},
			step{status: 204},
		)
		var seen []int
		_, err := c.Update(t.Context(), key, func(o Object) (Value, error) {
			seen = append(seen, len(o.Siblings))
			v := Value{Data: []byte("milk")}
			for _, s := range o.Siblings {
				v.Data = append(append(v.Data, ' '), s.Data...)
			}
			return v, nil
		}, Write{})
		if err != nil || !slices.Equal(seen, []int{0, 1}) {
			t.Fatalf("saw %v, %v", seen, err)
		}
		first, last := tr.asked[1], tr.asked[3]
		if first.header.Get("If-None-Match") != "*" || first.header.Get("X-Starling-Context") != "none" || first.body != "milk" {
			t.Errorf("first write: %+v", first)
		}
		if last.header.Get("If-Match") != `"e"` || last.header.Get("If-None-Match") != "" || last.body != "milk eggs" {
			t.Errorf("last write: %+v", last)
		}
		if first.header.Get("X-Starling-Write-Id") == last.header.Get("X-Starling-Write-Id") {
			t.Error("two writes of different values under one id")
		}
	})
}

func TestUpdateEnds(t *testing.T) {
	enough := errors.New("enough")
	tests := []struct {
		name   string
		steps  []step
		change error
		want   func(error) bool
	}{
		{"by the caller", []step{{status: 200}}, enough, func(err error) bool { return errors.Is(err, enough) }},
		{"by a failed read", []step{{status: 400}}, nil, func(err error) bool { return CodeOf(err) == kv.CodeBadRequest }},
		{
			"by a write that may have happened",
			[]step{{status: 200}, {err: errors.New("reset")}, {status: 412}},
			nil,
			func(err error) bool { return OutcomeOf(err) == kv.Unknown },
		},
		{
			"by too many collisions", slices.Repeat([]step{{status: 200}, {status: 412}}, maxRounds), nil,
			func(err error) bool { return CodeOf(err) == kv.CodePrecondition },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, tr := scripted(t, tt.steps...)
				_, err := c.Update(t.Context(), key, func(Object) (Value, error) { return Value{}, tt.change }, Write{})
				if err == nil || !tt.want(err) || len(tr.asked) != len(tt.steps) {
					t.Errorf("after %d requests: %v", len(tr.asked), err)
				}
			})
		})
	}
}

func TestAnswersOfStrangers(t *testing.T) {
	tests := []struct {
		step step
		want string
		code kv.Code
	}{
		{step{status: 400, body: "<html>\n  no  </html>"}, "status 400: <html> no </html>", kv.CodeBadRequest},
		{step{status: 413}, "status 413 Request Entity Too Large", kv.CodeTooLarge},
		{step{status: 428, body: `{"error":"x"}`}, `status 428: {"error":"x"}`, kv.CodeContextRequired},
		{step{status: 302, header: "Location: http://elsewhere"}, "status 302 Found", kv.CodeBadRequest},
		{step{status: 304}, "status 304 Not Modified", kv.CodeBadRequest},
	}
	for _, tt := range tests {
		c, tr := scripted(t, tt.step)
		_, err := c.Get(t.Context(), key, Read{})
		var answered *kv.Error
		if !errors.As(err, &answered) || answered.Message != tt.want || answered.Code != tt.code || len(tr.asked) != 1 {
			t.Errorf("%d: %v, want %q", tt.step.status, err, tt.want)
		}
	}
	c, _ := scripted(t, step{status: 300, body: `{"siblings":`})
	if _, err := c.Get(t.Context(), key, Read{}); err == nil {
		t.Error("a cut list of siblings was accepted")
	}
}
