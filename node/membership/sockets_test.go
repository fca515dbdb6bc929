package membership_test

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/membership/membershiptest"
)

func loopback(name string, id kv.NodeID, seeds ...string) membership.Config {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(uint64(id), 0))
	return membership.Config{
		Name: name, ID: id, Incarnation: 1, Weight: 1,
		Bind:        "127.0.0.1:0",
		PeerAddress: "127.0.0.1:" + map[string]string{"n1": "9001", "n2": "9002", "n3": "9003"}[name],
		Seeds:       seeds,
		Secret:      secret,
		Random: func() uint64 {
			mu.Lock()
			defer mu.Unlock()
			return rng.Uint64()
		},
		Peers: new(membershiptest.Disk),
	}
}

func startReal(t *testing.T, cfg membership.Config) (*membership.Gossip, *membership.Views) {
	t.Helper()
	disk := new(membershiptest.Disk)
	views, err := membership.OpenViews(disk, disk)
	if err != nil {
		t.Fatal(err)
	}
	g, err := membership.Start(cfg, views)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g, views
}

func TestRealSockets(t *testing.T) {
	cfg := loopback("n1", 1)
	cfg.Bootstrap, cfg.Expect, cfg.Partitions = true, 3, 64
	first, firstViews := startReal(t, cfg)
	all := map[*membership.Gossip]*membership.Views{first: firstViews}
	for name, id := range map[string]kv.NodeID{"n2": 2, "n3": 3} {
		g, views := startReal(t, loopback(name, id, "localhost:"+port(first.Address())))
		all[g] = views
	}
	eventually(t, "all know one layout and see all alive", func() bool {
		for g, views := range all {
			ready, _ := g.Ready()
			if !ready || views.Durable().Digest() != firstViews.Durable().Digest() || !g.Alive(1) || !g.Alive(2) || !g.Alive(3) {
				return false
			}
		}
		return true
	})

	stranger := loopback("n9", 9, first.Address())
	stranger.PeerAddress = "127.0.0.1:9009"
	stranger.Secret = []byte(strings.Repeat("wrong", 10))
	g, _ := startReal(t, stranger)
	eventually(t, "it is told of the wrong secret", func() bool {
		_, why := g.Ready()
		return strings.Contains(why, "another cluster secret")
	})
	if first.Alive(9) {
		t.Error("it was let in nevertheless")
	}
}

func TestAddressInUse(t *testing.T) {
	first, _ := startReal(t, loopback("n1", 1))
	cfg := loopback("n2", 2)
	cfg.Bind = first.Address()
	disk := new(membershiptest.Disk)
	views, err := membership.OpenViews(disk, disk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := membership.Start(cfg, views); err == nil || !strings.Contains(err.Error(), "is another node running there") {
		t.Errorf("Start at an address in use: %v", err)
	}
}

func TestAdvertisedAddress(t *testing.T) {
	cfg := loopback("n1", 1)
	cfg.Advertise = "192.0.2.1:4711"
	g, _ := startReal(t, cfg)
	if got := g.Address(); got != cfg.Advertise {
		t.Errorf("advertises %s, want %s", got, cfg.Advertise)
	}
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// eventually waits for cond in real time.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !cond(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
