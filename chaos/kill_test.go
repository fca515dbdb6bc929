package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/starling-kv/starling/client"
	"github.com/starling-kv/starling/kv"
)

// TestKillOne kills one node after another under load. With w=2 of n=3 every
// write must succeed, and be read with r=2 through every live node.
func TestKillOne(t *testing.T) {
	rounds, rng := settings(t)
	c := startCluster(t, 5)
	l := startLoad(t, c, client.Config{Attempts: 20})
	for range rounds {
		victim := fmt.Sprintf("n%d", 1+rng.IntN(5))
		l.until(l.count() + 200)
		c.kill(victim)
		l.until(l.count() + 200)
		c.restart(victim)
	}
	l.stop()
	if l.failed > 0 {
		t.Errorf("%d of %d writes failed, the first with %v", l.failed, l.failed+len(l.acked), l.failure)
	}
	l.check(c.endpoints(), client.Read{R: "2"})
}

// TestKillAll kills all nodes at once under load, and starts them again. What
// was acknowledged was synced by w nodes, so it is all there.
func TestKillAll(t *testing.T) {
	rounds, _ := settings(t)
	c := startCluster(t, 5)
	for range rounds {
		l := startLoad(t, c, client.Config{Attempts: 1})
		l.until(400)
		c.kill(c.names()...)
		l.stop()
		c.restart(c.names()...)
		l.check(c.endpoints(), client.Read{R: "2"})
	}
}

// settings reads rounds and seed from the environment.
func settings(t *testing.T) (rounds int, rng *rand.Rand) {
	t.Helper()
	number := func(name string, preset int64) int64 {
		if v, err := strconv.ParseInt(os.Getenv(name), 10, 64); err == nil {
			return v
		}
		return preset
	}
	seed := number("CHAOS_SEED", time.Now().UnixNano())
	rounds = int(number("CHAOS_ROUNDS", 1))
	t.Logf("repeat with: CHAOS_SEED=%d CHAOS_ROUNDS=%d go test ./chaos -run '^%s$'", seed, rounds, t.Name())
	return rounds, rand.New(rand.NewPCG(uint64(seed), 0))
}

// load writes distinct keys from several writers until it is stopped, and
// remembers the truth about each.
type load struct {
	t       *testing.T
	client  *client.Client
	cancel  context.CancelFunc
	writers sync.WaitGroup
	grown   chan struct{} // a token for each key that is done

	mu      sync.Mutex
	acked   []string
	applied map[string]bool // false: reported as not applied
	failed  int
	failure error
}

const writers = 8

func startLoad(t *testing.T, c *cluster, cfg client.Config) *load {
	t.Helper()
	cl, err := client.New(c.endpoints(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, client: cl, cancel: cancel, grown: make(chan struct{}, 1), applied: make(map[string]bool)}
	run := rand.Uint64()
	for w := range writers {
		l.writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.write(ctx, fmt.Sprintf("%x-%d-%d", run, w, i))
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) write(ctx context.Context, name string) {
	_, err := l.client.Put(ctx, key(name), client.Value{Data: value(name)}, client.Write{W: "2", Blind: true})
	if err != nil && ctx.Err() != nil {
		return // nobody knows, and nobody claims to
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.acked = append(l.acked, name)
	} else {
		l.failed++
		if l.failure == nil {
			l.failure = err
		}
		if client.OutcomeOf(err) == kv.NotApplied {
			l.applied[name] = false
		}
	}
	select {
	case l.grown <- struct{}{}:
	default:
	}
}

func key(name string) kv.Key { return kv.Key{Bucket: "chaos", Name: name} }

// value is long for some keys, so that it is stored beside the record.
func value(name string) []byte {
	b := []byte(name)
	for i := 0; len(name)%4 == 0 && i < 10; i++ {
		b = append(b, b...)
	}
	return b
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// until waits for the load to have so many writes acknowledged.
func (l *load) until(acked int) {
	l.t.Helper()
	deadline := time.After(60 * time.Second)
	for l.count() < acked {
		select {
		case <-l.grown:
		case <-deadline:
			l.mu.Lock()
			defer l.mu.Unlock()
			l.t.Fatalf("%d writes acknowledged, %d failed, after 60 s; the first failure: %v", len(l.acked), l.failed, l.failure)
		}
	}
}

func (l *load) stop() {
	l.cancel()
	l.writers.Wait()
}

// check reads all that was acknowledged through every endpoint, and all that
// was reported as not applied.
func (l *load) check(endpoints []string, r client.Read) {
	l.t.Helper()
	for _, e := range endpoints {
		cl, err := client.New([]string{e}, client.Config{Attempts: 5})
		if err != nil {
			l.t.Fatal(err)
		}
		lost := 0
		for _, name := range l.acked {
			got, err := cl.Get(l.t.Context(), key(name), r)
			if err != nil || len(got.Siblings) != 1 || string(got.Siblings[0].Data) != string(value(name)) {
				if lost++; lost <= 3 {
					l.t.Errorf("%s through %s: %d siblings, %v", name, e, len(got.Siblings), err)
				}
			}
		}
		for name := range l.applied {
			if _, err := cl.Get(l.t.Context(), key(name), r); !client.IsNotFound(err) {
				l.t.Errorf("%s was reported as not applied, and is there through %s: %v", name, e, err)
			}
		}
		if lost > 0 {
			l.t.Errorf("%d of %d acknowledged writes are lost through %s", lost, len(l.acked), e)
		}
		cl.Close()
	}
	l.t.Logf("%d writes acknowledged, %d failed, of which %d not applied", len(l.acked), l.failed, len(l.applied))
}
