package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/node/api"
)

// lineOf is a line of /replica.
func lineOf(partition int, key, hash, target string) string {
	return fmt.Sprintf(`{"bucket":"b","key":%q,"partition":%d,"target":%q,"hash":%q,"n_max":2}`+"\n", key, partition, target, hash)
}

// TestStatusReplicas compares nodes that differ in everything that is told apart,
// with few requests.
func TestStatusReplicas(t *testing.T) {
	f := newFakeCluster(t, 2)
	f.held = map[string]string{
		"n1": lineOf(0, "same", "1", "") + lineOf(0, "here", "1", "") + lineOf(2, "differs", "1", "") + lineOf(3, "hint", "1", "n2"),
		"n2": lineOf(0, "same", "1", "") + lineOf(2, "differs", "2", "") + lineOf(3, "there", "1", ""),
	}
	r := starling(t, "", "status", "--replicas", "-o", "json")
	var got replicaReport
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != exitFailure {
		t.Fatalf("%v: %+v", err, r)
	}
	if got.Keys != 4 || got.Divergent != 1 || got.Missing != 2 || got.Hints != 1 || got.Leftover != 0 || len(got.Examples) != 3 {
		t.Errorf("%+v", got)
	}
	if asked, most := f.count(http.MethodGet), 1+2*(2+rangesAtOnce+1); asked > most {
		t.Errorf("%d requests, at most %d are enough", asked, most)
	}
	r = starling(t, "", "status", "--replicas")
	golden(t, "replicas", r.out)
	if !strings.Contains(r.err, "see starling repair") {
		t.Errorf("%+v", r)
	}

	f.held["n2"] = strings.ReplaceAll(f.held["n1"], `"target":"n2"`, `"target":"n1"`)
	if r := starling(t, "", "status", "--replicas"); r.code != 0 {
		t.Errorf("equal replicas: %+v", r)
	}
}

// Answers that are no dump of all that was asked for are not taken for one.
func TestDumpsAreChecked(t *testing.T) {
	for _, c := range []struct{ name, lines, want string }{
		{"cut off", lineOf(0, "k", "1", "") + `{"bucket":`, "see its log"},
		{"out of order", lineOf(1, "k", "1", "") + lineOf(0, "k", "1", ""), "follows a later one"},
		{"not asked for", lineOf(0, "k", "1", "") + lineOf(9, "k", "1", ""), "of which it was not asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(c.lines)) }))
			defer server.Close()
			l := &api.Layout{Partitions: [][]string{{"n1"}, {"n1"}}}
			_, err := compareRange(t.Context(), l, []operator{{name: "n1", url: server.URL}}, 0, 1, func() {})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "what n1 holds") {
				t.Errorf("%v", err)
			}
		})
	}
}

// stuck answers, then says nothing more until the end.
type stuck struct{ began string }

func (s stuck) RoundTrip(r *http.Request) (*http.Response, error) {
	body := &stuckBody{stuck: s, r: r}
	if s.began == "" {
		_, err := body.Read(nil)
		return nil, err
	}
	body.rest = strings.NewReader(s.began)
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: body, Request: r}, nil
}

type stuckBody struct {
	stuck

	r    *http.Request
	rest *strings.Reader
}

func (b *stuckBody) Read(p []byte) (int, error) {
	if b.rest != nil && b.rest.Len() > 0 {
		return b.rest.Read(p)
	}
	<-b.r.Context().Done()
	return 0, b.r.Context().Err()
}

func (*stuckBody) Close() error { return nil }

// TestSilenceEnds: a node that is stopped, before its answer or within it, is
// given up in time, with a code of its own.
func TestSilenceEnds(t *testing.T) {
	was := lookClient
	t.Cleanup(func() { lookClient = was })
	for _, began := range []string{"", lineOf(0, "k", "1", "")} {
		for name, call := range map[string]func(context.Context) error{
			"look": func(ctx context.Context) error { return look(ctx, "http://n1:1/cluster", new(api.Cluster)) },
			"dump": func(ctx context.Context) error {
				d, err := openDump(ctx, operator{name: "n1", url: "http://n1:1"}, "partition=0-1")
				if err != nil {
					return err
				}
				defer d.close()
				return d.each(func(heldLine) {})
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				lookClient = &http.Client{Transport: stuck{began: began}}
				start := time.Now()
				err := call(t.Context())
				if exitCode(err) != exitNoAnswer || !strings.Contains(err.Error(), "http://n1:1 does not answer: silent for 5s") {
					t.Errorf("%s: exit %d, %v", name, exitCode(err), err)
				}
				if waited := time.Since(start); waited != lookTimeout {
					t.Errorf("%s: given up after %v", name, waited)
				}
			})
		}
	}
}

// An address for operators is believed only if the node itself answers there.
func TestOperatorURL(t *testing.T) {
	f := newFakeCluster(t, 2)
	at := func(i int) string { return strings.TrimPrefix(f.nodes[i].URL, "http://") }
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c := f.cluster("n1")
		c.Nodes[0].AdminAddr = at(1)
		_ = json.NewEncoder(w).Encode(c)
	}))
	defer liar.Close()
	_, err := operatorURL(t.Context(), api.Node{Name: "n1", ClientAddr: strings.TrimPrefix(liar.URL, "http://")})
	if err == nil || !strings.Contains(err.Error(), "there answers n2") || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("another node answers: %v", err)
	}
	if url, err := operatorURL(t.Context(), api.Node{Name: "n2", ClientAddr: at(1)}); err != nil || url != f.nodes[1].URL {
		t.Errorf("%s, %v", url, err)
	}
	if _, err := operatorURL(t.Context(), api.Node{Name: "n3"}); exitCode(err) != exitNoAnswer {
		t.Errorf("a node that was never seen: %v", err)
	}
	for listen, want := range map[string]string{
		"0.0.0.0:8801": "192.0.2.1:8801", "[::]:8801": "192.0.2.1:8801", "127.0.0.1:8801": "127.0.0.1:8801", "n1.example:8801": "n1.example:8801",
	} {
		if got := reachable(listen, "192.0.2.1:8701"); got != want {
			t.Errorf("%s is reached at %s, want %s", listen, got, want)
		}
	}
}

func TestRepair(t *testing.T) {
	newFakeCluster(t, 2)
	r := starling(t, "", "repair", "--bucket", "carts")
	golden(t, "repair", r.out)
	if r.code != 0 || strings.Contains(r.err, " B") {
		t.Errorf("%+v", r)
	}
}

// With a node down, the others are asked, and the command fails.
func TestRepairWithANodeDown(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.nodes[2].Close()
	r := starling(t, "", "repair")
	if r.code != exitNoAnswer || !strings.Contains(r.err, "repair at n3") || strings.Count(r.out, "done") != 2 {
		t.Errorf("%+v", r)
	}
	r = starling(t, "", "status", "--replicas")
	if r.code != exitNoAnswer || !strings.Contains(r.err, "n3") || !strings.Contains(r.err, "all members must be up") {
		t.Errorf("%+v", r)
	}
}

func TestRepairRefuses(t *testing.T) {
	f := newFakeCluster(t, 2)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--partition=5000"}, "they are 0 to 3"},
		{[]string{"--partition=-1"}, "they are 0 to 3"},
		{[]string{"--partition=x"}, "--partition"},
		{[]string{"--node=nope"}, "no member is named nope"},
		{[]string{"--bucket=a/b"}, "letters, digits"},
	} {
		r := starling(t, "", append([]string{"repair"}, c.args...)...)
		if r.code != exitUsage || !strings.Contains(r.err, c.want) || r.out != "" {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
	if f.count(http.MethodPost) > 0 {
		t.Error("a repair began")
	}
}

// TestProgressLines: bytes are shown of what has some.
func TestProgressLines(t *testing.T) {
	for _, c := range []struct {
		bytes int
		want  string
	}{{0, "x: 2 of 1,000 things"}, {512, "x: 2 of 1,000 things, 1.0 KiB"}} {
		p := newProgress(&world{now: time.Now}, "x", "things", 1000)
		p.add(c.bytes)
		p.add(c.bytes)
		if got := p.line(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
