package storage_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/hints"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
)

// away is the one other node. While it is not there, it misses everything.
type away struct {
	mu    sync.Mutex
	there bool
	took  map[kv.Key]int
}

func (a *away) Connected(kv.NodeID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.there
}

func (a *away) Nudge(_ context.Context, _, _ kv.NodeID, keys []kv.Key, _ bool) ([]bool, int, time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := make([]bool, len(keys))
	for i, k := range keys {
		held[i] = true
		a.took[k]++
	}
	return held, 100, 0, nil
}

func (a *away) Owners(uint16, int) []kv.NodeID { return []kv.NodeID{1, 9} }
func (a *away) Digest() uint64                 { return 1 }

// replaying runs the hints of node 1 over a store, until stop is called.
func replaying(t *testing.T, s *storage.Store, a *away) (l *hints.Log, r *hints.Replayer, stop func()) {
	t.Helper()
	l = hints.NewLog(hints.LogConfig{Store: s, Mark: func(kv.NodeID, uint16) {}, Now: time.Now, Log: zap.NewNop()})
	r = hints.NewReplayer(hints.ReplayConfig{
		Self: 1, Hints: l, Store: s, Copies: s, Peers: a, Places: a, Now: time.Now,
		Random: rand.New(rand.NewPCG(1, 1)).Uint64, Log: zap.NewNop(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	running.Go(func() { r.Run(ctx) })
	return l, r, func() {
		cancel()
		running.Wait()
	}
}

// The store keeps hints as package hints expects: over a restart, counted, and
// until each was taken.
func TestHintsOverTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		disk, mint, other := memory.New(), minter(), &away{took: make(map[kv.Key]int)}
		s := open(t, disk, options(1))
		l, _, stop := replaying(t, s, other)
		for i := range n {
			at := slot(strconv.Itoa(i))
			mustSubmit(t, s, at, false, put(mint, []byte("x"), all))
			l.Missed(9, at.Partition, at.Key)
			l.Missed(9, at.Partition, at.Key)
			mustSubmit(t, s, hint(9, "copy"+strconv.Itoa(i)), false, put(mint, []byte("x"), all))
		}
		stop()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, disk, options(2))
		_, r, stop := replaying(t, s, other)
		time.Sleep(10 * time.Second)
		if owed := r.Stats().Owed; len(owed) != 1 || owed[0].Missed.Count != n || owed[0].Copies.Count != n {
			t.Errorf("owed %+v", owed)
		}
		other.mu.Lock()
		other.there = true
		other.mu.Unlock()
		time.Sleep(10 * time.Second)
		if owed := r.Stats().Owed; len(owed) > 0 {
			t.Errorf("still owed: %+v", owed)
		}
		stop()
		if len(other.took) != 2*n {
			t.Errorf("%d keys were taken", len(other.took))
		}
		for _, targets := range []func() ([]kv.NodeID, error){s.MissedTargets, s.HintTargets} {
			if left, err := targets(); err != nil || len(left) > 0 {
				t.Errorf("left for %v, %v", left, err)
			}
		}
	})
}
