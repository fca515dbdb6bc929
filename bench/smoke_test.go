package bench_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/starling-kv/starling/bench"
	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/node"
)

func awaitReady(t *testing.T, admin string) {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	for range 1000 {
		resp, err := http.Get(admin + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("the node does not become ready")
}

// A second of load on a real node, in both kinds of loop: nothing fails, every
// read finds what was written, and no write makes a sibling unless two
// connections met on a key.
func TestSmoke(t *testing.T) {
	n, err := node.Start(t.Context(), node.Config{
		Name: "n1", Dir: t.TempDir(), Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0", Gossip: "127.0.0.1:0",
		Secret: []byte("0123456789abcdef0123456789abcdef"), Bootstrap: true, Expect: 1, Partitions: 64, Async: true,
		Defaults: coordinator.Defaults{N: 1, R: coordinator.One, W: coordinator.One, Timeout: 5 * time.Second},
	}, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	awaitReady(t, n.AdminURL())
	tokens := bench.NewTokens(1000)
	link := bench.HTTP{
		Endpoints: []string{n.ClientURL()}, Bucket: "bench", Timeout: 5 * time.Second, WriteQuery: url.Values{"overwrite": {"true"}},
	}
	p := bench.Preload{
		Keys: 1000, Set: bench.DefaultSet, KeySize: 16, ValueSize: 100, Overwrites: 1, Connections: 4, Tokens: tokens, Dial: link.Dial,
	}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	link.WriteQuery = nil
	for _, rate := range []float64{0, 200} {
		load, err := bench.ParseWorkload("f")
		if err != nil {
			t.Fatal(err)
		}
		load.Keys = bench.Uniform
		r, err := bench.Run(t.Context(), bench.Config{
			Workload: load, Keys: 1000, Set: bench.DefaultSet, KeySize: 16, ValueSize: 100, Connections: 4, Rate: rate,
			Duration: time.Second, Seed: 1, Tokens: tokens, Dial: link.Dial,
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.Done == 0 || r.Missing+r.Failed() != 0 || r.Latency.P50 <= 0 || len(r.Timeline) == 0 {
			t.Errorf("rate %g: %+v", rate, r)
		}
		if r.Conflicts > r.Done/10 {
			t.Errorf("rate %g: %d of %d answers told of siblings", rate, r.Conflicts, r.Done)
		}
	}
}
