package readrepair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

// world is a cluster whose nodes hold records, and do as they are told.
type world struct {
	*Repairer

	mu      sync.Mutex
	holds   map[kv.NodeID]map[kv.Key]kv.Record
	surveys []survey
	flying  map[kv.Key]int // surveys and nudges under way
	most    int            // keys at once
	slow    time.Duration  // every call
	failing error          // of surveys
	busy    kv.NodeID      // takes nothing
}

type survey struct {
	key kv.Key
	n   int
	at  time.Duration
}

var begin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func lives(t *testing.T, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{holds: make(map[kv.NodeID]map[kv.Key]kv.Record), flying: make(map[kv.Key]int)}
		for id := kv.NodeID(1); id < 6; id++ {
			w.holds[id] = make(map[kv.Key]kv.Record)
		}
		w.Repairer = New(Config{Owners: w, Peers: w, Log: zap.NewNop()})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			w.Run(ctx)
			close(ended)
		}()
		fn(w)
		cancel()
		<-ended
	})
}

func key(i int) kv.Key { return kv.Key{Bucket: "b", Name: fmt.Sprintf("k%d", i)} }

// change does fn while nobody looks.
func (w *world) change(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

// fly counts what is under way.
func (w *world) fly(k kv.Key) (land func()) {
	w.change(func() {
		w.flying[k]++
		w.most = max(w.most, len(w.flying))
		if w.flying[k] > 1 {
			panic("two repairs of one key at once")
		}
	})
	time.Sleep(w.slow)
	return func() { w.change(func() { delete(w.flying, k) }) }
}

func (w *world) Survey(ctx context.Context, k kv.Key, n int) ([]Reply, error) {
	if _, ok := ctx.Deadline(); !ok {
		return nil, errors.New("no deadline")
	}
	defer w.fly(k)()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.surveys = append(w.surveys, survey{k, n, time.Since(begin)})
	if w.failing != nil {
		return nil, w.failing
	}
	var replies []Reply
	for id := range kv.NodeID(n) {
		replies = append(replies, Reply{From: id + 1, Record: w.holds[id+1][k], Standing: true})
	}
	return replies, nil
}

func (w *world) Nudge(ctx context.Context, to, from kv.NodeID, keys []kv.Key, standIn bool) ([]bool, int, time.Duration, error) {
	if _, ok := ctx.Deadline(); !ok || standIn || len(keys) != 1 {
		return nil, 0, 0, errors.New("a strange request")
	}
	defer w.fly(keys[0])()
	w.mu.Lock()
	defer w.mu.Unlock()
	if to == w.busy {
		return []bool{false}, 0, time.Second, nil
	}
	w.holds[to][keys[0]] = w.holds[to][keys[0]].Merge(w.holds[from][keys[0]])
	return []bool{true}, 10, 0, nil
}

func (w *world) surveyed() []survey {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.surveys
	w.surveys = nil
	return list
}

func (w *world) expect(t *testing.T, want Stats) {
	t.Helper()
	if got := w.Stats(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A key is looked at a while after the read, once for all reads that come till
// then, and healed wherever it is behind.
func TestRepair(t *testing.T) {
	lives(t, func(w *world) {
		w.change(func() {
			w.holds[1][key(1)] = wrote(1)
			w.holds[3][key(1)] = wrote(2)
		})
		for range 10 {
			w.Behind(key(1), 3)
			time.Sleep(settleTime / 20)
		}
		if len(w.surveyed()) > 0 {
			t.Error("the owners were asked while writes may be under way")
		}
		time.Sleep(settleTime)
		if got := w.surveyed(); len(got) != 1 || got[0] != (survey{key(1), 3, settleTime}) {
			t.Errorf("asked %v", got)
		}
		synctest.Wait()
		for id := kv.NodeID(1); id < 4; id++ {
			if !w.holds[id][key(1)].Covers(wrote(1, 2)) {
				t.Errorf("node %d is behind", id)
			}
		}
		w.expect(t, Stats{Surveys: 1, Behind: 3, Healed: 3})
		w.Behind(key(1), 3) // nothing differs any more
		time.Sleep(2 * settleTime)
		w.expect(t, Stats{Surveys: 2, Behind: 3, Healed: 3})
	})
}

// A record that is for more owners than the read asked is repaired on all.
func TestRepairOfWideRecord(t *testing.T) {
	lives(t, func(w *world) {
		w.change(func() {
			r := wrote(1)
			r.NMax = 5
			w.holds[2][key(1)] = r
		})
		w.Behind(key(1), 2)
		w.Behind(key(1), 3)
		w.Behind(key(1), 1)
		time.Sleep(time.Second)
		if got := w.surveyed(); len(got) != 2 || got[0].n != 3 || got[1].n != 5 {
			t.Errorf("asked %v", got)
		}
		w.expect(t, Stats{Surveys: 1, Behind: 4, Healed: 4})
	})
}

// A key of which more is heard while it is repaired is looked at once more
// afterwards, and never twice at once; some keys are repaired at a time.
func TestSingleFlight(t *testing.T) {
	lives(t, func(w *world) {
		w.change(func() { w.slow = time.Second })
		for range 20 {
			for i := range 2 * workers {
				w.Behind(key(i), 3)
			}
			time.Sleep(settleTime)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.surveyed()); n < 2*workers || n > 6*workers || w.most != workers {
			t.Errorf("%d surveys of %d keys, %d at once", n, 2*workers, w.most)
		}
		if len(w.keys) > 0 {
			t.Errorf("%d keys are remembered", len(w.keys))
		}
	})
}

// What is too much is dropped; the reader never waits.
func TestQueueIsBounded(t *testing.T) {
	lives(t, func(w *world) {
		for i := range queueLen + 5 {
			w.Behind(key(i), 3)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("took %v", took)
		}
		w.expect(t, Stats{Waiting: queueLen, Dropped: 5})
		time.Sleep(time.Second)
		w.expect(t, Stats{Dropped: 5, Surveys: queueLen})
	})
}

// What fails is counted, and left to the next read.
func TestRepairFails(t *testing.T) {
	lives(t, func(w *world) {
		w.change(func() { w.failing = errors.New("no layout") })
		w.Behind(key(1), 3)
		time.Sleep(time.Second)
		w.expect(t, Stats{Surveys: 1, Failed: 1})
		w.change(func() {
			w.failing, w.busy = nil, 2
			w.holds[1][key(1)] = wrote(1)
		})
		w.Behind(key(1), 3)
		time.Sleep(time.Second)
		w.expect(t, Stats{Surveys: 2, Behind: 2, Healed: 1, Failed: 2})
	})
}

// The end waits for what is under way, which it cuts short.
func TestRepairEnds(t *testing.T) {
	lives(t, func(w *world) {
		w.change(func() { w.slow = time.Minute })
		for i := range 2 * workers {
			w.Behind(key(i), 3)
		}
		time.Sleep(time.Second)
	})
}
