package enginetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/starling-kv/starling/node/storage"
)

func testClose(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	closeEngine(t, e)
	closeEngine(t, e)
	if _, err := e.Get([]byte("a")); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("get after close: %v, want ErrClosed", err)
	}
	if err := e.Scan(nil, nil, func(_, _ []byte) error { return nil }); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("scan after close: %v, want ErrClosed", err)
	}
	var b storage.Batch
	b.Set([]byte("a"), nil)
	if err := e.Commit(&b, false); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("commit after close: %v, want ErrClosed", err)
	}
}

func testCloseWaits(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	for i := range 100 {
		Commit(t, e, false, fmt.Sprintf("%03d", i), "value")
	}
	var wg sync.WaitGroup
	reading := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			seen := 0
			err := e.Scan(nil, nil, func(_, value []byte) error {
				if seen++; seen == 1 {
					reading <- struct{}{}
				}
				if string(value) != "value" {
					return fmt.Errorf("value %q", value)
				}
				return nil
			})
			if err != nil || seen != 100 {
				t.Errorf("scan during close saw %d of 100 keys: %v", seen, err)
			}
		})
	}
	for range 4 {
		<-reading
	}
	closeEngine(t, e)
	wg.Wait()
}

func testReopen(t *testing.T, d Disk) {
	t.Helper()
	for i := range 3 {
		e := d.Open(t)
		for j := range i {
			want(t, e, fmt.Sprintf("synced %d", j), "1")
			want(t, e, fmt.Sprintf("not synced %d", j), "2")
		}
		Commit(t, e, true, fmt.Sprintf("synced %d", i), "1")
		Commit(t, e, false, fmt.Sprintf("not synced %d", i), "2")
		closeEngine(t, e)
	}
}

// testAtomicReads writes one number to all of several keys, again and again. A
// scan must see one number only, and a later scan no smaller one.
func testAtomicReads(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	defer closeEngine(t, e)
	commit := func(n int) {
		value := fmt.Sprintf("%06d", n)
		Commit(t, e, n%8 == 0, "a", value, "b", value, "c", value)
	}
	commit(0)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			last := ""
			for n := 0; !isClosed(done) || n == 0; n++ {
				got := pairs(t, e, nil, nil)
				value := got[0][2:]
				if !slices.Equal(got, []string{"a=" + value, "b=" + value, "c=" + value}) || value < last {
					t.Errorf("scan saw %q after %s", got, last)
					return
				}
				last = value
			}
		})
	}
	for n := 1; n <= 500; n++ {
		commit(n)
	}
	close(done)
	wg.Wait()
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func testKill(t *testing.T, d Disk) {
	t.Helper()
	killer, ok := d.(Killer)
	if !ok {
		t.Skip("the engine of this disk cannot be killed in a test")
	}
	for i := range 3 {
		e := d.Open(t)
		for j := range i {
			want(t, e, strconv.Itoa(j), "kept")
		}
		Commit(t, e, i%2 == 0, strconv.Itoa(i), "kept")
		killer.Kill(t)
	}
}

// testCrash commits batches of two keys. After a crash a batch is there wholly
// or not at all, and all up to the last synced one are there.
func testCrash(t *testing.T, d Disk) {
	t.Helper()
	crasher, ok := d.(Crasher)
	if !ok {
		t.Skip("the power of this disk cannot be cut in a test")
	}
	const batches = 40
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		e := d.Open(t)
		name := func(side string, i int) string { return fmt.Sprintf("%d %s %d", seed, side, i) }
		durable := -1
		for i := range batches {
			sync := random.IntN(8) == 0
			Commit(t, e, sync, name("left", i), "1", name("right", i), "1")
			if sync {
				durable = i
			}
		}
		crasher.Crash(t, seed)
		e = d.Open(t)
		for i := range batches {
			left, right := get(t, e, name("left", i)), get(t, e, name("right", i))
			if left != right || left == none && i <= durable {
				t.Errorf("seed %d: batch %d holds %q and %q, synced up to %d", seed, i, left, right, durable)
			}
		}
		closeEngine(t, e)
	}
}

// testModel compares the engine with a map through random commits and reopens.
func testModel(t *testing.T, newDisk func(testing.TB) Disk) {
	t.Helper()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			d, random, model := newDisk(t), rand.New(rand.NewPCG(seed, 0)), map[string]string{}
			e := d.Open(t)
			for range 100 {
				if random.IntN(20) == 0 {
					closeEngine(t, e)
					e = d.Open(t)
				}
				b := randomBatch(random, model)
				if err := e.Commit(b, random.IntN(4) == 0); err != nil {
					t.Fatal(err)
				}
				compare(t, e, model)
			}
			closeEngine(t, e)
		})
	}
}

// randomBatch returns a batch and does to model what it does.
func randomBatch(random *rand.Rand, model map[string]string) *storage.Batch {
	var b storage.Batch
	for range random.IntN(8) {
		key := string([]byte("ab\x00\xff")[random.IntN(4):][:1]) + strconv.Itoa(random.IntN(6))
		if random.IntN(4) == 0 {
			b.Delete([]byte(key))
			delete(model, key)
			continue
		}
		value := make([]byte, random.IntN(20))
		for i := range value {
			value[i] = byte(random.Uint32())
		}
		b.Set([]byte(key), value)
		model[key] = string(value)
	}
	return &b
}

func compare(t *testing.T, e storage.Engine, model map[string]string) {
	t.Helper()
	all := make([]string, 0, len(model))
	for _, key := range slices.Sorted(maps.Keys(model)) {
		want(t, e, key, model[key])
		all = append(all, key+"="+model[key])
	}
	if got := pairs(t, e, nil, nil); !slices.Equal(got, all) {
		t.Fatalf("scan %q, want %q", got, all)
	}
}
