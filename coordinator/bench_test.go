package coordinator

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// bare is a cluster that answers at once, to see what a coordinator costs: one
// record a node, all of it in step.
type bare struct {
	view   ring.View
	mu     sync.Mutex
	record kv.Record
}

func (b *bare) View() ring.View                            { return b.view }
func (b *bare) Learn(ring.View) error                      { return nil }
func (b *bare) Alive(kv.NodeID) bool                       { return true }
func (b *bare) Connected(kv.NodeID) bool                   { return true }
func (b *bare) Reachable(context.Context, kv.NodeID) error { return nil }

func (b *bare) Store(_ context.Context, _ kv.NodeID, _ StoreRequest, done func(error)) { done(nil) }

func (b *bare) Fetch(_ context.Context, _ kv.NodeID, _ FetchRequest, done func(FetchReply, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	done(FetchReply{Record: b.record, Standing: true}, nil)
}

func (b *bare) Value(context.Context, kv.NodeID, ValueRequest) ([]byte, error) { return nil, nil }

func (b *bare) Forward(context.Context, kv.NodeID, ForwardRequest) (PutDone, error) {
	return PutDone{}, nil
}

func (b *bare) Assign(req AssignRequest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next, _, err := req.Decide(Held{Record: b.record, Boot: 1, Standing: true})
	if err == nil {
		b.record = next
	}
	req.Done(err)
	return nil
}

func (b *bare) Read(kv.Slot) (kv.Record, uint64, error)     { return b.record, 0, nil }
func (b *bare) Raise(context.Context, uint16, uint64) error { return nil }

func benchmark(b *testing.B, run func(ctx context.Context, c *Coordinator)) {
	b.Helper()
	members := []ring.Member{member(0), member(1), member(2), member(3), member(4)}
	world := &bare{view: viewOf(b, layoutOf(b, 1, nil, members...))}
	l := world.view.Active()[0]
	random := uint64(0)
	c := New(Config{
		Self: l.Owners(l.Partition(key.Hash()))[0], Cluster: world, Replicas: world, Local: world, Now: time.Now, Log: zap.NewNop(),
		Random: func() uint64 { random += 0x9e3779b97f4a7c15; return random }, Defaults: Defaults{N: 3, Timeout: time.Second},
	})
	defer c.Close()
	if _, err := c.Put(b.Context(), Put{Key: key, Value: []byte("value"), ContentType: "text/plain"}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		run(b.Context(), c)
	}
}

func BenchmarkGet(b *testing.B) {
	benchmark(b, func(ctx context.Context, c *Coordinator) {
		if _, err := c.Get(ctx, Get{Key: key}); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkPut(b *testing.B) {
	value := make([]byte, 1<<10)
	benchmark(b, func(ctx context.Context, c *Coordinator) {
		if _, err := c.Put(ctx, Put{Key: key, Value: value, ContentType: "text/plain", Overwrite: true}); err != nil {
			b.Fatal(err)
		}
	})
}
