package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/starling-kv/starling/client"
)

var site = map[string]string{
	"index.html":      "<html>",
	"empty":           "",
	"style/main.css":  "body {}",
	"a b/../c d":      "never made",
	"deep/er/.hidden": "x",
	"na\xffme":        "not UTF-8",
}

// newSite is a directory of five files, a link and a socket-like oddity less.
func newSite(t *testing.T) string {
	t.Helper()
	files := map[string]string{}
	for name, data := range site {
		if !strings.Contains(name, "..") {
			files[name] = data
		}
	}
	dir := writeFiles(t, files)
	if err := os.Symlink("index.html", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func serveText(t *testing.T, text string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }))
	t.Cleanup(server.Close)
	return server.URL
}

func TestImport(t *testing.T) {
	f := newFakeCluster(t, 1)
	dir := newSite(t)
	r := starling(t, "", "import", dir, "--parallel=2", "--n=3", "--w=all")
	if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	golden(t, "import", r.out)
	stored := f.stored()
	for _, name := range []string{"index.html", "empty", "style/main.css", "deep/er/.hidden", "na\xffme"} {
		if got, ok := stored["/my-site/"+client.Escape(name)]; !ok || got != site[name] {
			t.Errorf("%q: stored %q, %v", name, got, ok)
		}
	}
	if len(stored) != 5 {
		t.Errorf("stored %q", stored)
	}
	if got := f.keys["/my-site/style/main.css"].values[0].contentType; got != "text/css; charset=utf-8" {
		t.Errorf("content type of a style sheet: %q", got)
	}
	if q := f.query(http.MethodPut).Encode(); q != "n=3&w=all" {
		t.Errorf("query %s", q)
	}
}

// A second import stores only what has changed.
func TestImportGoesOn(t *testing.T) {
	f := newFakeCluster(t, 1)
	dir := newSite(t)
	starling(t, "", "import", dir)
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("<HTML>"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.use(nil)
	r := starling(t, "", "import", dir, "-o", "json")
	var got imported
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || got.Stored != 1 || got.Already != 4 || got.Files != 5 || got.Symlinks != 1 {
		t.Errorf("%v: %+v", err, r)
	}
	if f.count(http.MethodPut) != 1 || f.stored()["/my-site/index.html"] != "<HTML>" {
		t.Errorf("%d writes, %q", f.count(http.MethodPut), f.stored()["/my-site/index.html"])
	}
}

// Attempts that fail are repeated at the other node, and counted.
func TestImportRetries(t *testing.T) {
	f := newFakeCluster(t, 2)
	var faults atomic.Int32
	f.use(func(node string, r *http.Request) int {
		if node == "n1" && strings.HasPrefix(r.URL.Path, "/kv/") && faults.Add(1) <= 3 {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	r := starling(t, "", "import", newSite(t), "--endpoint", f.nodes[0].URL, "--endpoint", f.nodes[1].URL, "-o", "json", "--parallel=1")
	var got imported
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != 0 || got.Stored != 5 || got.Retried != 3 {
		t.Errorf("%v: %+v", err, r)
	}
}

func TestImportFailures(t *testing.T) {
	f := newFakeCluster(t, 1)
	f.use(func(_ string, r *http.Request) int {
		if r.Method == http.MethodPut && strings.Contains(r.RequestURI, "index") {
			return http.StatusRequestEntityTooLarge
		}
		if r.Method == http.MethodHead && strings.Contains(r.RequestURI, "css") {
			return http.StatusBadRequest
		}
		return 0
	})
	dir := newSite(t)
	if err := os.WriteFile(filepath.Join(dir, strings.Repeat("k", 200)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := starling(t, "", "import", dir, "--parallel=1")
	if r.code != exitFailure || !strings.Contains(r.err, "the same command tries them again") {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
	golden(t, "import-failures", r.out)
}

func TestImportInterrupted(t *testing.T) {
	f := newFakeCluster(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	f.use(func(_ string, r *http.Request) int {
		if r.Method == http.MethodPut {
			cancel()
		}
		return 0
	})
	r := starlingIn(ctx, &world{}, "import", newSite(t), "--parallel=1")
	if r.code != exitFailure || !strings.Contains(r.err, "the same command goes on") {
		t.Errorf("%+v", r)
	}
}

func TestImportOnATerminal(t *testing.T) {
	newFakeCluster(t, 1)
	r := starlingIn(t.Context(), &world{terminal: true}, "import", newSite(t))
	if r.code != 0 || !strings.Contains(r.err, "stored") {
		t.Errorf("no bar in %q", r.err)
	}
}

func TestImportWithoutATerminal(t *testing.T) {
	newFakeCluster(t, 1)
	files := map[string]string{}
	for name := range strings.SplitSeq("abcdefghijkl", "") {
		files[name] = "x"
	}
	r := starling(t, "", "import", writeFiles(t, files), "--parallel=1")
	if want := "stored: 4 of 12 files, 4 B\nstored: 9 of 12 files, 9 B\n"; r.err != want {
		t.Errorf("progress %q, want %q", r.err, want)
	}
}

func TestVerify(t *testing.T) {
	f := newFakeCluster(t, 3)
	dir := newSite(t)
	starling(t, "", "import", dir)
	r := starling(t, "", "verify", dir, "--parallel=3")
	if r.code != 0 {
		t.Errorf("%+v", r)
	}
	golden(t, "verify", r.out)
	if got := f.query(http.MethodGet).Get("r"); got != "2" {
		t.Errorf("r=%s", got)
	}
}

func TestVerifyFindsEverything(t *testing.T) {
	f := newFakeCluster(t, 3)
	dir := newSite(t)
	starling(t, "", "import", dir)
	starling(t, "", "put", "my-site/index.html", "changed")
	starling(t, "", "put", "my-site/empty", "--blind", "second")
	starling(t, "", "delete", "my-site/style/main.css")
	f.use(func(node string, r *http.Request) int {
		if node == "n2" && strings.Contains(r.RequestURI, "hidden") {
			return http.StatusBadRequest
		}
		return 0
	})
	r := starling(t, "", "verify", dir)
	if r.code != exitFailure || !strings.Contains(r.err, "not what the directory holds") {
		t.Errorf("%+v", r)
	}
	golden(t, "verify-failures", f.anonymous(r.out))
}

func TestVerifyWithoutNodes(t *testing.T) {
	server := serveText(t, `{"node":"n1","nodes":[],"layout":null}`)
	if r := starling(t, "", "verify", newSite(t), "--endpoint", server); r.code != exitNoAnswer {
		t.Errorf("%+v", r)
	}
	t.Setenv("STARLING_ENDPOINT", "")
}

func TestBucketFor(t *testing.T) {
	for name, want := range map[string]string{
		"src": "src", "my site": "my-site", "żółw": "---w", "a_b-c.d": "a_b-c.d", strings.Repeat("x", 200): strings.Repeat("x", 128),
	} {
		if got := bucketFor(name); got != want {
			t.Errorf("bucketFor(%q) = %q, want %q", name, got, want)
		}
	}
	if _, err := scan(t.Context(), "/", ""); err == nil {
		t.Error("the root directory got a bucket without --bucket")
	}
}
