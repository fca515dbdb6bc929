package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/starling-kv/starling/client"
)

func TestPutGetDelete(t *testing.T) {
	f := newFakeCluster(t, 1)
	if r := starling(t, "", "put", "carts/ann", "milk"); r != (result{out: "stored carts/ann, 4 B\n"}) {
		t.Errorf("put: %+v", r)
	}
	if r := starling(t, "", "get", "carts/ann"); r != (result{out: "milk"}) {
		t.Errorf("get: %+v", r)
	}
	if r := starling(t, "eggs\n", "put", "carts/ann", "-"); r.code != 0 {
		t.Errorf("put of standard input: %+v", r)
	}
	if got := f.stored()["/carts/ann"]; got != "eggs\n" {
		t.Errorf("stored %q: a put without --blind replaces what it finds", got)
	}
	if r := starling(t, "", "delete", "carts/ann"); r != (result{out: "deleted carts/ann\n"}) {
		t.Errorf("delete: %+v", r)
	}
	if r := starling(t, "", "get", "carts/ann"); r.code != exitNotFound || !strings.Contains(r.err, "the key has no value") {
		t.Errorf("get of a deleted key: %+v", r)
	}
	if r := starling(t, "", "delete", "carts/ann"); r.code != exitNotFound {
		t.Errorf("delete of a deleted key: %+v", r)
	}
}

func TestSiblings(t *testing.T) {
	newFakeCluster(t, 1)
	for _, item := range []string{"milk", "eggs and\x1b[31m more than a line of a table has room for"} {
		starling(t, "", "put", "carts/ann", "--blind", item)
	}
	if r := starling(t, "", "put", "carts/ann", "--blind", "flour"); !strings.Contains(r.err, "3 values") || r.code != 0 {
		t.Errorf("third value: %+v", r)
	}
	r := starling(t, "", "get", "carts/ann")
	if r.code != exitSiblings || r.out != "" {
		t.Errorf("get: exit %d, standard output %q", r.code, r.out)
	}
	golden(t, "siblings", r.err)

	r = starling(t, "", "get", "carts/ann", "-o", "json")
	var o object
	err := json.Unmarshal([]byte(r.out), &o)
	if err != nil || r.code != exitSiblings || len(o.Values) != 3 || string(o.Values[0].Value) != "milk" {
		t.Fatalf("get as JSON: %v: %+v", err, r)
	}
	// A context that saw one of the three resolves that one.
	starling(t, "", "put", "carts/ann", "--context", "1", "butter")
	if r := starling(t, "", "get", "carts/ann"); r.code != exitSiblings || strings.Contains(r.err, "milk") {
		t.Errorf("after a write that saw milk: %+v", r)
	}
	starling(t, "", "put", "carts/ann", "all of it")
	if r := starling(t, "", "get", "carts/ann"); r != (result{out: "all of it"}) {
		t.Errorf("after a write that saw all: %+v", r)
	}
}

func TestChoicesReachTheCluster(t *testing.T) {
	f := newFakeCluster(t, 1)
	file := filepath.Join(t.TempDir(), "cat.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	const id = "01890a5d-ac96-774b-bcce-b302099a8057"
	r := starling(t, "", "put", "b/k", "--file", file, "--n=5", "--w=all", "--r=1", "--sloppy", "--timeout=2s", "--no-sync",
		"--write-id="+id, "--overwrite", "--ttl=90s", "-o", "json")
	var w written
	if err := json.Unmarshal([]byte(r.out), &w); err != nil || w.WriteID != id || w.Bytes != 2 || w.Key != "k" {
		t.Fatalf("%v: %+v", err, r)
	}
	want := map[string]string{
		"n": "5", "w": "all", "r": "1", "sloppy": "true", "timeout": "2s", "sync": "false", "overwrite": "true", "ttl": "1m30s",
	}
	if got := f.query(http.MethodPut); len(got) != len(want) {
		t.Errorf("query %v", got)
	}
	for name, value := range want {
		if got := f.query(http.MethodPut).Get(name); got != value {
			t.Errorf("%s=%q, want %q", name, got, value)
		}
	}
	if f.keys["/b/k"].values[0].contentType != "application/json" {
		t.Errorf("content type %q", f.keys["/b/k"].values[0].contentType)
	}
	starling(t, "", "get", "b/k", "--hedge=all", "--monotonic", "--r=one")
	if got := f.query(http.MethodGet).Encode(); got != "hedge=all&monotonic=true&r=one" {
		t.Errorf("query of the get: %s", got)
	}
}

func TestHostileKeys(t *testing.T) {
	f := newFakeCluster(t, 1)
	for _, name := range []string{"..", "a//b", "../../cluster", "\xff\n", "?n=1", "-"} {
		if r := starling(t, "", "put", "--", "b/"+name, "v"); r.code != 0 {
			t.Errorf("put %q: %+v", name, r)
		}
		if _, ok := f.stored()["/b/"+client.Escape(name)]; !ok {
			t.Errorf("%q was stored elsewhere: %q", name, f.stored())
		}
		if r := starling(t, "", "get", "--", "b/"+name); r.out != "v" {
			t.Errorf("get %q: %+v", name, r)
		}
	}
}

// What can go wrong, its exit code, and what tells the remedy.
func TestErrors(t *testing.T) {
	f := newFakeCluster(t, 1)
	const nobody, one = "--endpoint=http://127.0.0.1:1", "--attempts=1"
	tests := []struct {
		args   []string
		fault  int // status of every request on a key
		code   int
		remedy string
	}{
		{[]string{"frobnicate"}, 0, exitUsage, "frobnicate"},
		{[]string{"get"}, 0, exitUsage, "<key>"},
		{[]string{"get", "carts"}, 0, exitUsage, "BUCKET/KEY"},
		{[]string{"get", "my carts/ann"}, 0, exitUsage, "letters, digits"},
		{[]string{"get", "carts/"}, 0, exitUsage, "the key is empty"},
		{[]string{"put", "carts/ann"}, 0, exitUsage, "--file"},
		{[]string{"put", "carts/ann", "v", "--file=/etc/hosts"}, 0, exitUsage, "give the value once"},
		{[]string{"put", "carts/ann", "v", "--write-id=7"}, 0, exitUsage, "UUID of version 7"},
		{[]string{"get", "carts/ann", "-o", "xml"}, 0, exitUsage, "table"},
		{[]string{"get", "carts/ann", "--endpoint=localhost:8701"}, 0, exitUsage, "http://host:port"},
		{[]string{"get", "carts/ann"}, 400, exitUsage, "400"},
		{[]string{"get", "carts/ann"}, 404, exitNotFound, "404"},
		{[]string{"delete", "--blind", "carts/ann"}, 428, exitUsage, "428"},
		{[]string{"put", "--blind", "carts/ann", "v", one}, 507, exitUnknown, "write id"},
		{[]string{"put", "--blind", "carts/ann", "v"}, 412, exitFailure, "412"},
		{[]string{"get", "carts/ann", nobody, one}, 0, exitNoAnswer, "127.0.0.1:1"},
		{[]string{"status", nobody, one}, 0, exitNoAnswer, "starling dev"},
		{[]string{"import", t.TempDir(), "--parallel=0"}, 0, exitUsage, "--parallel"},
		{[]string{"verify", t.TempDir(), "--parallel=0"}, 0, exitUsage, "--parallel"},
		{[]string{"import", t.TempDir(), "--bucket=a/b"}, 0, exitUsage, "--bucket"},
		{[]string{"import", "/no/such/directory"}, 0, exitUsage, "/no/such/directory"},
		{[]string{"serve"}, 0, exitUsage, "--name n1"},
		{[]string{"dev", "--nodes=100"}, 0, exitUsage, "use 1 to 99"},
		{[]string{"dev", "--port-base=65500"}, 0, exitUsage, "--port-base"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			f.use(func(_ string, r *http.Request) int {
				if strings.HasPrefix(r.URL.Path, "/kv/") {
					return tt.fault
				}
				return 0
			})
			r := starling(t, "", tt.args...)
			if r.code != tt.code || !strings.Contains(r.err, tt.remedy) || !strings.HasPrefix(r.err, "starling: ") {
				t.Errorf("exit %d, %q; want %d and %q", r.code, r.err, tt.code, tt.remedy)
			}
			if strings.Count(r.err, "\n") != 1 {
				t.Errorf("more than a line: %q", r.err)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	r := starling(t, "", "--help")
	if r.code != 0 || r.err != "" {
		t.Errorf("exit %d, standard error %q", r.code, r.err)
	}
	golden(t, "help", r.out)
	for _, command := range []string{"dev", "serve", "put", "get", "delete", "status", "repair", "quarantine", "import", "verify", "bench"} {
		if r := starling(t, "", command, "--help"); r.code != 0 || !strings.Contains(r.out, "Examples:\n\n    starling "+command) {
			t.Errorf("help of %s: %+v", command, r)
		}
	}
}

func TestStatus(t *testing.T) {
	f := newFakeCluster(t, 3)
	r := starling(t, "", "status")
	golden(t, "status", f.anonymous(r.out))
	if r := starling(t, "", "status", "-o", "json"); r.code != 0 || !strings.Contains(r.out, `"cluster_id":"c0ffee"`) {
		t.Errorf("as JSON: %+v", r)
	}
	r = starling(t, "", "status", "--key", "carts/a n/../n", "--n", "3")
	golden(t, "status-key", r.out)
	if f.query(http.MethodGet).Get("n") != "3" {
		t.Errorf("query %v", f.query(http.MethodGet))
	}
	r = starling(t, "", "status", "--key", "carts/ann", "-o", "json", "--admin", f.nodes[1].URL)
	if r.code != 0 || !strings.Contains(r.out, `"node":"n2"`) || !strings.Contains(r.out, `"partition":3`) {
		t.Errorf("by its own admin address, as JSON: %+v", r)
	}
}

func TestStatusBeforeTheCluster(t *testing.T) {
	server := serveText(t, `{"node":"n1","layout":null,"nodes":[
		{"name":"n10","id":"0000000000000001","alive":true},{"name":"n2","id":"0000000000000002"}]}`)
	golden(t, "status-joining", starling(t, "", "status", "--endpoint", server).out)
}
