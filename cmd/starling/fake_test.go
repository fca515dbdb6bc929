package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node"
	"github.com/starling-kv/starling/node/api"
)

// fakeCluster is a cluster in memory: nodes n1, n2 … that share one store. A
// context is the number of writes that its reader has seen.
type fakeCluster struct {
	t     *testing.T
	nodes []*httptest.Server

	mu      sync.Mutex
	keys    map[string]*fakeKey // by the raw path of a request
	asked   map[string]int      // requests by method
	queries map[string]string   // the last query by method
	held    map[string]string   // by node: the lines of /replica
	apart   map[string][]string // by node: the records of /quarantine, as JSON
	became  map[string][]string // by the path of a key: what restoring makes of its siblings in quarantine
	// fault, if set, may answer a request in place of the cluster, with a status;
	// 0 lets it pass.
	fault func(node string, r *http.Request) int
}

type fakeKey struct {
	writes int
	values []fakeValue
}

type fakeValue struct {
	number      int // of its write
	data        []byte
	contentType string
	writeID     string
}

// fakeTime is when everything in a fake cluster happens.
var fakeTime = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func newFakeCluster(t *testing.T, nodes int) *fakeCluster {
	t.Helper()
	f := &fakeCluster{t: t, keys: map[string]*fakeKey{}, asked: map[string]int{}, queries: map[string]string{}}
	for i := range nodes {
		name := fmt.Sprintf("n%d", i+1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.serve(name, w, r) }))
		t.Cleanup(server.Close)
		f.nodes = append(f.nodes, server)
	}
	t.Setenv("STARLING_ENDPOINT", f.nodes[0].URL)
	return f
}

func (f *fakeCluster) serve(name string, w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	path, query, _ := strings.Cut(r.RequestURI, "?")
	f.asked[r.Method]++
	f.queries[r.Method] = query
	if f.fault != nil {
		if status := f.fault(name, r); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	switch {
	case path == "/cluster":
		f.answer(w, f.cluster(name))
	case path == "/replica":
		f.dump(w, r, f.held[name])
	case path == "/quarantine":
		f.quarantine(w, r, name)
	case strings.HasPrefix(path, "/quarantine/"):
		f.settle(w, name, strings.TrimPrefix(path, "/quarantine"), query)
	case path == "/repair", path == "/repairs":
		f.repair(w, r, name)
	case strings.HasPrefix(path, "/explain/"):
		f.answer(w, f.explain(name, strings.TrimPrefix(path, "/explain")))
	case r.Method == http.MethodPut, r.Method == http.MethodDelete:
		f.write(w, r, strings.TrimPrefix(path, "/kv"), body)
	default:
		f.read(w, strings.TrimPrefix(path, "/kv"))
	}
}

func (f *fakeCluster) answer(w io.Writer, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeCluster) write(w http.ResponseWriter, r *http.Request, path string, body []byte) {
	k := f.keys[path]
	if k == nil {
		k = &fakeKey{}
		f.keys[path] = k
	}
	id := r.Header.Get("X-Starling-Write-Id")
	again := slices.ContainsFunc(k.values, func(v fakeValue) bool { return v.writeID == id })
	if !again {
		seen, _ := strconv.Atoi(r.Header.Get("X-Starling-Context"))
		if r.URL.Query().Get("overwrite") == "true" {
			seen = k.writes
		}
		k.values = slices.DeleteFunc(k.values, func(v fakeValue) bool { return v.number <= seen })
		k.writes++
		if r.Method == http.MethodPut {
			k.values = append(k.values, fakeValue{k.writes, body, r.Header.Get("Content-Type"), id})
		}
	}
	w.Header().Set("X-Starling-Context", strconv.Itoa(k.writes))
	w.Header().Set("X-Starling-Siblings", strconv.Itoa(len(k.values)))
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeCluster) read(w http.ResponseWriter, path string) {
	k := cmp.Or(f.keys[path], &fakeKey{})
	w.Header().Set("X-Starling-Context", strconv.Itoa(k.writes))
	w.Header().Set("X-Starling-Siblings", strconv.Itoa(len(k.values)))
	switch len(k.values) {
	case 0:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		f.answer(w, kv.Error{Code: kv.CodeNotFound, Message: "the key has no value"})
	case 1:
		w.Header().Set("Content-Type", k.values[0].contentType)
		w.Header().Set("X-Starling-Checksum", fakeSum(k.values[0].data))
		w.Header().Set("Content-Length", strconv.Itoa(len(k.values[0].data)))
		_, _ = w.Write(k.values[0].data)
	default:
		list := make([]map[string]any, len(k.values))
		for i, v := range k.values {
			list[i] = map[string]any{
				"dot": fmt.Sprintf("a:%d", v.number), "content_type": v.contentType, "value": v.data, "modified": fakeTime,
			}
		}
		w.WriteHeader(http.StatusMultipleChoices)
		f.answer(w, map[string]any{"siblings": list})
	}
}

func fakeSum(data []byte) string { return fmt.Sprintf("xxh64:%016x", xxhash.Sum64(data)) }

// cluster has four partitions; the last node of several is down.
func (f *fakeCluster) cluster(name string) api.Cluster {
	c := api.Cluster{Node: name, ID: "c0ffee", Layout: &api.Layout{Version: 1, Hash: "abcd", Partitions: [][]string{
		{"n1", "n2"}, {"n2", "n1"}, {"n1", "n2"}, {"n2", "n1"},
	}}}
	for i, s := range f.nodes {
		n := api.Node{
			Name: fmt.Sprintf("n%d", i+1), Zone: "z1", Member: true, Alive: i == 0 || i < len(f.nodes)-1,
			ClientAddr: strings.TrimPrefix(s.URL, "http://"), Partitions: 4,
		}
		if n.Name == name {
			n.AdminAddr = n.ClientAddr
		}
		c.Nodes = append(c.Nodes, n)
	}
	return c
}

func (f *fakeCluster) explain(name, path string) any {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	held := ownedState{Dot: "a:1", Kind: "value", N: 3, Length: 4, Checksum: "xxh64:0011223344556677"}
	deleted := ownedState{Dot: "b:1", Kind: "tombstone", N: 3, Checksum: "xxh64:ef46db3751d8e999"}
	return explanation{
		Node: name, Bucket: bucket, Key: key, KeyHash: "00000000deadbeef", Partition: 3, N: 3, Preference: []holding{
			{Node: "n2", Owner: true, Alive: true, Standing: true, Hash: "1", Siblings: []ownedState{held, deleted}},
			{Node: "n1", Owner: true, Alive: true, Standing: true, Behind: true},
			{Node: "n3", Owner: true, Error: "no answer within 1s"},
			{Node: "n4", Owner: true, Alive: true},
			{Node: "n5", Alive: true, Standing: true, Hash: "1", Siblings: []ownedState{held}},
			{Node: "n6"},
		},
	}
}

// stored returns the values by path of request, keys without a value left out.
func (f *fakeCluster) stored() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]string{}
	for path, k := range f.keys {
		for _, v := range k.values {
			all[path] += string(v.data)
		}
	}
	return all
}

// use makes the fake clusters' next requests go wrong as fault says.
func (f *fakeCluster) use(fault func(node string, r *http.Request) int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
	clear(f.asked)
}

func (f *fakeCluster) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[method]
}

func (f *fakeCluster) query(method string) url.Values {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := url.ParseQuery(f.queries[method])
	if err != nil {
		f.t.Error(err)
	}
	return q
}

// anonymous replaces the addresses of the nodes by their names.
func (f *fakeCluster) anonymous(text string) string {
	for i, s := range f.nodes {
		text = strings.ReplaceAll(text, strings.TrimPrefix(s.URL, "http://"), fmt.Sprintf("127.0.0.1:8700%d", i+1))
	}
	return text
}

// result is what a command left behind.
type result struct {
	code     int
	out, err string
}

// starling runs a command with that standard input, in a world whose clock
// moves by a second each time it is read.
func starling(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return starlingIn(t.Context(), &world{stdin: strings.NewReader(stdin)}, args...)
}

func starlingIn(ctx context.Context, w *world, args ...string) result {
	var out, errOut bytes.Buffer
	w.stdout, w.stderr = &out, &errOut
	if w.getenv == nil {
		w.getenv = os.Getenv
	}
	var mu sync.Mutex
	now := fakeTime
	w.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
	code := run(ctx, w, args)
	return result{code, out.String(), errOut.String()}
}

var update = flag.Bool("update", false, "write the golden files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s\n(go test -update accepts it)", path, text, want)
	}
}

// writeFiles makes a directory of these files, by path.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "my site")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// roleVar makes the test binary play a node for starling dev, or be starling.
const roleVar = "CMD_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVar) == "node" {
		w := &world{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, now: time.Now, getenv: os.Getenv, startNode: startFakeNode}
		os.Exit(run(context.Background(), w, os.Args[1:]))
	}
	if os.Getenv(roleVar) == "real" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// fakeNode is a node that is ready and does nothing.
type fakeNode struct {
	server *http.Server
	ended  chan error
}

func startFakeNode(_ context.Context, cfg node.Config, _ *zap.Logger) (running, error) {
	n := &fakeNode{&http.Server{Addr: cfg.Admin, Handler: http.NotFoundHandler()}, make(chan error, 1)}
	n.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(cfg) //nolint:errchkjson,musttag // the test that reads it would see
	})
	go func() { n.ended <- n.server.ListenAndServe() }()
	return n, nil
}

func (n *fakeNode) Rejoin(failed error) error { return failed }

func (n *fakeNode) Wait() error {
	if err := <-n.ended; err != http.ErrServerClosed { //nolint:errorlint // as documented
		return err
	}
	return nil
}

func (n *fakeNode) Close() error { return n.server.Close() }

// dump answers with the lines of a node, or with its hints.
func (f *fakeCluster) dump(w io.Writer, r *http.Request, lines string) {
	var first, last int
	if _, err := fmt.Sscanf(r.URL.Query().Get("partition"), "%d-%d", &first, &last); err != nil {
		f.t.Error(err)
	}
	for line := range strings.Lines(lines) {
		var h heldLine
		if err := json.Unmarshal([]byte(line), &h); err != nil {
			f.t.Error(err)
		}
		if h.Partition >= first && h.Partition <= last && (h.Target != "") == (r.URL.Query().Get("hints") == "true") {
			_, _ = io.WriteString(w, line)
		}
	}
}

// repair is over at the second look.
func (f *fakeCluster) repair(w http.ResponseWriter, r *http.Request, name string) {
	run := &api.RepairRun{Done: 1, Total: 4}
	if r.Method == http.MethodPost {
		w.WriteHeader(http.StatusAccepted)
	} else {
		run.Done, run.Keys, run.Heal, run.Bytes, run.Ended = 4, 2, 2, 900, true
	}
	clean := 12.5
	f.answer(w, api.RepairState{
		Node: name, Standing: api.StandingState{Registered: true, Partitions: 4, Fallen: 1},
		Hints: []api.HintState{{Node: "n3", Count: 2, Oldest: 1.5}}, Found: 3, Healed: 2, OldestClean: &clean, Run: run,
	})
}
