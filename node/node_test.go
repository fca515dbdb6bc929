package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) {
	// fasthttp keeps one clock for the process.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode")) // the last one ends by itself
}

// startCluster starts k nodes on loopback and waits until all are ready.
func startCluster(t *testing.T, k int) []*Node {
	t.Helper()
	nodes := make([]*Node, k)
	seeds := make([]string, 0, len(nodes))
	for i := range nodes {
		nodes[i] = startNode(t, configOf(t, i, k, seeds))
		seeds = append(seeds, nodes[i].gossip.Address())
	}
	for _, n := range nodes {
		waitReady(t, n)
	}
	return nodes
}

func configOf(t *testing.T, i, k int, seeds []string) Config {
	t.Helper()
	return Config{
		Name: fmt.Sprintf("n%d", i+1), Dir: t.TempDir(),
		Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0", Gossip: "127.0.0.1:0",
		Seeds: seeds, Secret: bytes.Repeat([]byte{7}, 32), Bootstrap: i == 0, Expect: k, Partitions: 64, MinFree: 1 << 20,
	}
}

func startNode(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := Start(t.Context(), cfg, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", cfg.Name, err)
		}
	})
	return n
}

// waitReady polls the node as a load balancer would.
func waitReady(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		res := request(t, http.MethodGet, n.ClientURL()+"/readyz?verbose", nil, nil)
		if res.status == http.StatusOK {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s is not ready: %s", n.cfg.Name, res.body)
		case <-poll.C:
		}
	}
}

type response struct {
	status int
	body   string
	header http.Header
}

func request(t *testing.T, method, url string, header map[string]string, body io.Reader) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res.StatusCode, string(b), res.Header}
}

// TestClusterServes is the path of a user over real sockets and disks: write
// at one node, read at each, collide, resolve, delete; with a node gone too.
func TestClusterServes(t *testing.T) {
	nodes := startCluster(t, 4)
	url := func(i int, key, query string) string { return nodes[i].ClientURL() + "/kv/cart/" + key + query }
	const context = "X-Starling-Context"

	large := strings.Repeat("x", 1<<20)
	for i := range nodes {
		for key, value := range map[string]string{fmt.Sprintf("small%d", i): "milk", fmt.Sprintf("large%d", i): large} {
			if res := request(t, http.MethodPut, url(i, key, ""), nil, strings.NewReader(value)); res.status != http.StatusNoContent {
				t.Fatalf("put %s: %d %s", key, res.status, res.body)
			}
			for j := range nodes {
				if res := request(t, http.MethodGet, url(j, key, ""), nil, nil); res.status != http.StatusOK || res.body != value {
					t.Fatalf("get %s at %d: %d, %d bytes", key, j, res.status, len(res.body))
				}
			}
		}
	}

	request(t, http.MethodPut, url(0, "ann", ""), nil, strings.NewReader("milk"))
	request(t, http.MethodPut, url(1, "ann", ""), nil, strings.NewReader("eggs"))
	both := request(t, http.MethodGet, url(2, "ann", ""), map[string]string{"Accept": "application/json"}, nil)
	if both.status != http.StatusMultipleChoices {
		t.Fatalf("two blind writes: %d %s", both.status, both.body)
	}
	put := request(t, http.MethodPut, url(3, "ann", ""), map[string]string{context: both.header.Get(context)}, strings.NewReader("milk, eggs"))
	if put.status != http.StatusNoContent {
		t.Fatalf("resolve: %d %s", put.status, put.body)
	}

	if err := nodes[3].Close(); err != nil {
		t.Fatal(err)
	}
	for i := range nodes[:3] {
		got := request(t, http.MethodGet, url(i, "ann", ""), nil, nil)
		if got.status != http.StatusOK || got.body != "milk, eggs" {
			t.Fatalf("resolved value at %d: %d %q", i, got.status, got.body)
		}
	}
	del := request(t, http.MethodDelete, url(0, "ann", ""), map[string]string{context: put.header.Get(context)}, nil)
	if del.status != http.StatusNoContent {
		t.Fatalf("delete: %d %s", del.status, del.body)
	}
	if gone := request(t, http.MethodGet, url(1, "ann", ""), nil, nil); gone.status != http.StatusNotFound || gone.header.Get(context) == "" {
		t.Fatalf("deleted key: %d %s, token %q", gone.status, gone.body, gone.header.Get(context))
	}
	res := request(t, http.MethodPut, url(0, "all", "?n=4&w=4"), nil, strings.NewReader("x"))
	if res.status != http.StatusServiceUnavailable || !strings.Contains(res.body, `"not_applied"`) || !strings.Contains(res.body, "n4") {
		t.Fatalf("w=4 with three nodes: %d %s", res.status, res.body)
	}
}

// TestRestartKeepsAll stops all nodes and starts them again on their directories.
func TestRestartKeepsAll(t *testing.T) {
	nodes := startCluster(t, 3)
	for i := range 20 {
		url := fmt.Sprintf("%s/kv/b/k%d", nodes[i%3].ClientURL(), i)
		if res := request(t, http.MethodPut, url, nil, strings.NewReader("v")); res.status != http.StatusNoContent {
			t.Fatalf("put: %d %s", res.status, res.body)
		}
	}
	configs := make([]Config, len(nodes))
	for i, n := range nodes {
		configs[i] = n.cfg
		configs[i].Seeds = nil
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	seeds := make([]string, 0, len(nodes))
	for i := range nodes {
		configs[i].Seeds = seeds
		before := nodes[i].ID()
		nodes[i] = startNode(t, configs[i])
		seeds = append(seeds, nodes[i].gossip.Address())
		if nodes[i].ID() != before {
			t.Errorf("%s changed its id", configs[i].Name)
		}
		if got := nodes[i].store.Starts(); got != 2 {
			t.Errorf("%s: start %d, want 2", configs[i].Name, got)
		}
	}
	for _, n := range nodes {
		waitReady(t, n)
	}
	for _, n := range nodes {
		for i := range 20 {
			if res := request(t, http.MethodGet, fmt.Sprintf("%s/kv/b/k%d", n.ClientURL(), i), nil, nil); res.body != "v" {
				t.Fatalf("k%d after the restart: %d %s", i, res.status, res.body)
			}
		}
	}
}

// TestStartRefuses starts nodes that must not serve, and reads why.
func TestStartRefuses(t *testing.T) {
	running := startCluster(t, 1)[0]
	base := running.cfg
	base.Dir, base.Name, base.Bootstrap = t.TempDir(), "other", false
	base.Listen, base.Admin, base.Peer, base.Gossip = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"port in use":          {func(c *Config) { c.Listen = running.listeners.client.Addr().String() }, "address already in use"},
		"directory in use":     {func(c *Config) { c.Dir, c.Name = running.cfg.Dir, running.cfg.Name }, "in use"},
		"short secret":         {func(c *Config) { c.Secret = c.Secret[:8] }, "secret"},
		"no name":              {func(c *Config) { c.Name = "" }, "needs a name"},
		"no directory":         {func(c *Config) { c.Dir = "" }, "data directory"},
		"listening everywhere": {func(c *Config) { c.Peer, c.AdvertiseHost = "0.0.0.0:0", "" }, "advertise-host"},
		"huge values":          {func(c *Config) { c.MaxValue = 1 << 30 }, "largest value"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := base
			c.change(&cfg)
			n, err := Start(t.Context(), cfg, zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)))
			if err == nil {
				_ = n.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

// TestTakenName starts a second node under the name of a first, with a
// directory of its own: it must notice by itself and stop.
func TestTakenName(t *testing.T) {
	first := startCluster(t, 1)[0]
	cfg := configOf(t, 1, 1, []string{first.gossip.Address()})
	cfg.Name = first.cfg.Name
	second := startNode(t, cfg)
	ended := make(chan error, 1)
	go func() { ended <- second.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "belongs to node") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("still running after 20 s")
	}
}

// TestPartitionsAreDumped: a range of partitions is one answer, partition by
// partition, and holds what the answers for each of them hold.
func TestPartitionsAreDumped(t *testing.T) {
	n := startCluster(t, 1)[0]
	for i := range 40 {
		target := fmt.Sprintf("%s/kv/b/k%d?n=1", n.ClientURL(), i)
		if res := request(t, http.MethodPut, target, nil, strings.NewReader("milk")); res.status != http.StatusNoContent {
			t.Fatalf("%d %s", res.status, res.body)
		}
	}
	var each strings.Builder
	for p := range 64 {
		each.WriteString(request(t, http.MethodGet, fmt.Sprintf("%s/replica?partition=%d&brief=true", n.AdminURL(), p), nil, nil).body)
	}
	all := request(t, http.MethodGet, n.AdminURL()+"/replica?partition=0-63&brief=true", nil, nil).body
	if all != each.String() || strings.Count(all, "\n") != 40 {
		t.Errorf("all partitions:\n%s\none after the other:\n%s", all, each.String())
	}
}
