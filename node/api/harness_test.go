package api

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// fasthttp keeps one goroutine for the Date header as long as the process lives.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

var update = flag.Bool("update", false, "write the golden files anew")

// The times and names of the tests are fixed, so that answers can be pinned.
var (
	epoch  = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	testID = "019abc00-0000-7000-8000-000000000001"
)

func testKeyring() *vclock.Keyring { return keyringOf("cluster", epoch) }

func keyringOf(cluster string, now time.Time) *vclock.Keyring {
	return vclock.NewKeyring([]byte("secret"), []byte(cluster), func() time.Time { return now })
}

func clock(actor, counter uint64) vclock.Clock {
	return vclock.Clock{{Actor: vclock.Actor(actor), Counter: counter}}
}

func token(actor, counter uint64) vclock.Token {
	return vclock.Token{Seen: clock(actor, counter), Floor: clock(actor, counter)}
}

// value is a sibling as a coordinator returns it.
func value(actor uint64, data string, change ...func(*kv.Sibling)) coordinator.Value {
	s := kv.Sibling{
		Kind: kv.KindValue, N: 3, Stamp: kv.HLC(0).Next(epoch),
		Length: uint64(len(data)), Checksum: kv.Checksum([]byte(data)), Inline: []byte(data),
	}
	for _, f := range change {
		f(&s)
	}
	return coordinator.Value{
		Version: kv.Version{Dot: vclock.Dot{Actor: vclock.Actor(actor), Counter: 1}, Value: s}, Data: s.Inline,
	}
}

func typed(contentType string) func(*kv.Sibling) {
	return func(s *kv.Sibling) { s.ContentType = contentType }
}

func withMeta(meta ...kv.Meta) func(*kv.Sibling) {
	return func(s *kv.Sibling) { s.Meta = meta }
}

// got is the answer of a coordinator that found these values.
func got(values ...coordinator.Value) coordinator.Got {
	g := coordinator.Got{Values: values, Token: token(7, 9)}
	versions := make([]kv.Version, 0, len(values))
	for _, v := range values {
		versions = append(versions, v.Version)
	}
	if len(versions) > 0 {
		g.ETag = kv.ETag(versions)
	}
	return g
}

// scripted is a KV whose answers a test writes; it notes what it was asked.
type scripted struct {
	get func(context.Context, coordinator.Get) (coordinator.Got, error)
	put func(context.Context, coordinator.Put) (coordinator.PutDone, error)

	mu   sync.Mutex
	gets []coordinator.Get
	puts []coordinator.Put
}

func (k *scripted) Get(ctx context.Context, g coordinator.Get) (coordinator.Got, error) {
	k.mu.Lock()
	k.gets = append(k.gets, g)
	k.mu.Unlock()
	if k.get == nil {
		return got(value(1, "milk")), nil
	}
	return k.get(ctx, g)
}

func (k *scripted) Put(ctx context.Context, p coordinator.Put) (coordinator.PutDone, error) {
	k.mu.Lock()
	k.puts = append(k.puts, p)
	k.mu.Unlock()
	if k.put == nil {
		return coordinator.PutDone{Token: token(7, 10), ETag: 5, Siblings: 1, Acked: []string{"n1", "n2"}}, nil
	}
	return k.put(ctx, p)
}

// touched lists the requests that came through, in order of kind.
func (k *scripted) touched() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]string, 0, len(k.puts)+len(k.gets))
	for _, p := range k.puts {
		out = append(out, fmt.Sprintf("put %v=%q", p.Key, p.Value))
	}
	for _, g := range k.gets {
		out = append(out, "get "+g.Key.String())
	}
	return out
}

// node is a server under test on both its ports.
type node struct {
	*Server

	t           *testing.T
	data, admin string
}

func newServer(tb testing.TB, store KV, change ...func(*Options)) *Server {
	tb.Helper()
	keyring := testKeyring()
	o := Options{
		KV: store, Inspector: &inspector{}, Repairs: &repairs{}, Keyring: func() *vclock.Keyring { return keyring },
		Registry: prometheus.NewRegistry(), Log: zap.NewNop(),
	}
	for _, f := range change {
		f(&o)
	}
	s, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func start(t *testing.T, store KV, change ...func(*Options)) *node {
	t.Helper()
	s := newServer(t, store, change...)
	n := &node{Server: s, t: t}
	var serving sync.WaitGroup
	for _, p := range []struct {
		serve func(net.Listener) error
		addr  *string
	}{{s.Serve, &n.data}, {s.ServeAdmin, &n.admin}} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*p.addr = ln.Addr().String()
		serving.Go(func() {
			if err := p.serve(ln); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error("close:", err)
		}
		serving.Wait()
		if used := s.held.used.Load(); used != 0 {
			t.Errorf("%d bytes of the budget were never given back", used)
		}
		if used := s.requests.underWay(); used != 0 {
			t.Errorf("%d requests were never counted out", used)
		}
	})
	return n
}

func limits(l Limits) func(*Options) { return func(o *Options) { o.Limits = l } }

// wire is a raw connection to a node.
type wire struct {
	net.Conn

	t  *testing.T
	in *bufio.Reader
}

func (n *node) dial() *wire { return dial(n.t, n.data) }

func dial(t *testing.T, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &wire{Conn: c, t: t, in: bufio.NewReader(c)}
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Fatal(err)
	}
}

// answer is an answer read whole.
type answer struct {
	*http.Response

	status int
	body   string
}

// read reads one answer to a request of the given method.
func (w *wire) read(method string) answer {
	w.t.Helper()
	a, err := w.tryRead(method)
	if err != nil {
		w.t.Fatal("no answer: ", err)
	}
	return a
}

func (w *wire) tryRead(method string) (answer, error) {
	resp, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, resp.StatusCode, string(body)}, err
}

// closed fails the test unless the node closes the connection without another
// byte.
func (w *wire) closed() {
	w.t.Helper()
	if b, err := io.ReadAll(w.in); err != nil || len(b) > 0 {
		w.t.Errorf("connection not closed: %q, %v", b, err)
	}
	_ = w.Close()
}

// do sends one request with the given header lines and body, on a connection
// of its own.
func (n *node) do(method, target, body string, header ...string) answer {
	n.t.Helper()
	return do(n.t, n.data, method, target, body, header...)
}

func do(t *testing.T, addr, method, target, body string, header ...string) answer {
	t.Helper()
	w := dial(t, addr)
	defer w.Close()
	if method == "PUT" && !strings.Contains(strings.Join(header, "\n"), "Content-Length") {
		header = append(header, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	w.send(request(method, target, header...) + body)
	return w.read(method)
}

func request(method, target string, header ...string) string {
	return method + " " + target + " HTTP/1.1\r\n" + strings.Join(append([]string{"Host: starling"}, header...), "\r\n") + "\r\n\r\n"
}

// golden compares text with a file under testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
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
		t.Errorf("%s differs; run with -update and look at the difference. Got:\n%s\nwant:\n%s", path, text, want)
	}
}

var errBroken = errors.New("the disk is on fire")

func noKeyring() *vclock.Keyring { return nil }

// inspector is an Inspector with fixed answers.
type inspector struct {
	noLayout bool
	checks   []Check
	held     []Held
	explain  coordinator.Explanation
	err      error
}

func (i *inspector) Cluster() Cluster {
	c := Cluster{
		Node: "n1", ID: "6f1e", View: "00000000000000ab",
		Nodes: []Node{
			{
				Name: "n1", ID: 0xa1, Zone: "z1", ClientAddr: "127.0.0.1:8701", AdminAddr: "127.0.0.1:8801", PeerAddr: "127.0.0.1:8901",
				Alive: true, Member: true, Incarnation: 1, Partitions: 2,
			},
			{Name: "n2", ID: 0xa2, Member: true, Incarnation: 4, Partitions: 1},
		},
		Layout: &Layout{Version: 1, Hash: "beef", Partitions: [][]string{{"n1", "n2"}, {"n2", "n1"}}},
	}
	if i.noLayout {
		c.Layout = nil
	}
	return c
}

func (i *inspector) Checks() []Check { return i.checks }

func (i *inspector) Replica(context.Context, kv.Key, bool) ([]Held, error) { return i.held, i.err }

func (i *inspector) Partitions(_ context.Context, _, _ int, hints bool, fn func(Held) error) error {
	for _, h := range i.held {
		if (h.Target != "") != hints {
			continue
		}
		if err := fn(h); err != nil {
			return err
		}
	}
	return i.err
}

func (i *inspector) Explain(context.Context, kv.Key, int) (coordinator.Explanation, error) {
	return i.explain, i.err
}

// repairs are Repairs that note what they were asked.
type repairs struct {
	asked       []Selection
	quarantined []Quarantined
	settled     []string // what was done, to which key and hash
	err         error
}

func (r *repairs) Repairs() RepairState {
	age := 12.5
	return RepairState{
		Node: "n1", Standing: StandingState{Registered: true, Fallen: 3, Partitions: 64, Cause: "emptied", Pulled: 7},
		Hints: []HintState{{Node: "n2", Count: 2, Bytes: 80, Oldest: 1.5}}, Found: 9, Healed: 8, OldestClean: &age,
		Run: &RepairRun{Done: 1, Total: 2, Keys: 3, Heal: 3, Bytes: 900},
	}
}

func (r *repairs) Repair(s Selection) error {
	r.asked = append(r.asked, s)
	return r.err
}

// Quarantine finds places by their partition.
func (r *repairs) Quarantine(_ context.Context, after Place, limit int) ([]Quarantined, bool, error) {
	from := 0
	if after != (Place{}) {
		from = 1 + slices.IndexFunc(r.quarantined, func(q Quarantined) bool { return q.Place == after })
	}
	rest := r.quarantined[from:]
	return rest[:min(limit, len(rest))], limit < len(rest), r.err
}

func (r *repairs) Restore(_ context.Context, key kv.Key, hash string) (Settled, error) {
	return r.settle("restore", key, hash, BecameRestored, BecameDelete, BecameThere)
}

func (r *repairs) Discard(_ context.Context, key kv.Key, hash string) (Settled, error) {
	return r.settle("discard", key, hash, BecameDiscarded, BecameDiscarded, BecameDiscarded)
}

// settle finds the record by its key.
func (r *repairs) settle(what string, key kv.Key, hash string, became ...string) (Settled, error) {
	r.settled = append(r.settled, fmt.Sprintf("%s %q %s", what, key.Name, hash))
	out := Settled{Removed: true}
	if i := slices.IndexFunc(r.quarantined, func(q Quarantined) bool { return q.Key == key }); i >= 0 {
		out.Record = r.quarantined[i].Record
	}
	out.Became = became[:len(out.Record.Live)]
	return out, r.err
}
