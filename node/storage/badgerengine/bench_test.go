package badgerengine

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/vclock"
)

const benchKeys = 100_000

func benchStore(b *testing.B) *storage.Store {
	b.Helper()
	d := newDisk(b)
	e, err := d.open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	s, err := storage.Open(e, storage.Options{Random: random.Uint64, Now: time.Now, Free: d.live.dir.Free, LowWater: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func benchSlot(n uint64) kv.Slot {
	k := kv.Key{Bucket: "bench", Name: fmt.Sprintf("key-%012d", n)}
	return kv.Slot{Partition: uint16(k.Hash() >> 54), Key: k}
}

// overwrite replaces what is there, as a client with a token does.
func overwrite(value []byte, mint func() vclock.Actor) func(kv.Record, uint64) (storage.Change, error) {
	return func(old kv.Record, boot uint64) (storage.Change, error) {
		s := kv.Sibling{Kind: kv.KindValue, N: 3, Length: uint64(len(value)), Inline: value}
		next, _ := old.Put(s, old.Clock, boot, mint, time.Time{})
		return storage.Change{Record: next}, nil
	}
}

// BenchmarkUpdate has 64 submitters, each with one update under way.
func BenchmarkUpdate(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, sync := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dB/sync=%v", size, sync), func(b *testing.B) {
				s := benchStore(b)
				before, cpu := s.Stats(), cpuTime(b)
				b.ResetTimer()
				update(b, s, b.N, size, sync)
				b.StopTimer()
				n, after := float64(b.N), s.Stats()
				b.ReportMetric(n/b.Elapsed().Seconds(), "updates/s")
				b.ReportMetric(n/float64(after.Batches-before.Batches), "updates/batch")
				b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/n, "cpu-µs/op")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// update submits n updates of random keys.
func update(b *testing.B, s *storage.Store, n, size int, sync bool) {
	b.Helper()
	updateFor(b, s, 0, n, size, sync)
}

// updateFor does so with records that are held for target, 0 for the node's own.
func updateFor(b *testing.B, s *storage.Store, target kv.NodeID, n, size int, sync bool) {
	b.Helper()
	var actor atomic.Uint64
	mint := func() vclock.Actor { return vclock.Actor(actor.Add(1)) }
	each(n, func(random *rand.Rand, next func() bool) {
		done := make(chan error, 1)
		value := make([]byte, size)
		for next() {
			at := benchSlot(random.Uint64N(benchKeys))
			at.Target = target
			u := storage.Update{
				Slot: at, Sync: sync, Size: size,
				Apply: overwrite(value, mint), Done: func(err error) { done <- err },
			}
			err := s.Submit(u)
			if err == nil {
				err = <-done
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkTrees compares updates of the node's own records, which trees follow,
// with updates of hints, which are the same but for the trees: turn by turn, on
// a store each. The ratios are of throughput and of CPU time, own to hints, in
// percent.
func BenchmarkTrees(b *testing.B) {
	const turn = 20_000
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("100B/sync=%v", sync), func(b *testing.B) {
			stores := [2]*storage.Store{benchStore(b), benchStore(b)}
			for target, s := range stores {
				updateFor(b, s, kv.NodeID(target), benchKeys, 100, false)
			}
			var wall, cpu [2]time.Duration
			b.ResetTimer()
			for n := 0; n < b.N; n += turn {
				for target, s := range stores {
					start, used := time.Now(), cpuTime(b)
					updateFor(b, s, kv.NodeID(target), turn, 100, sync)
					wall[target] += time.Since(start)
					cpu[target] += cpuTime(b) - used
				}
			}
			b.ReportMetric(100*float64(wall[1])/float64(wall[0]), "%-throughput")
			b.ReportMetric(100*float64(cpu[0])/float64(cpu[1]), "%-cpu")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkMissed notes, 1,000 at a time, that a node misses writes of ever new
// keys.
func BenchmarkMissed(b *testing.B) {
	const batch = 1000
	s, n := benchStore(b), uint64(0)
	update(b, s, benchKeys, 100, false)
	b.ReportAllocs()
	before := cpuTime(b)
	b.ResetTimer()
	for left := b.N; left > 0; left -= batch {
		add := make([]storage.Missed, min(left, batch))
		for i := range add {
			at := benchSlot(n)
			add[i] = storage.Missed{Target: 7, Partition: at.Partition, Key: at.Key, Since: time.UnixMilli(1)}
			n++
		}
		done := make(chan error, 1)
		if err := s.SubmitMissed(add, nil, func(_ []bool, err error) { done <- err }); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// BenchmarkStart opens the store of a node that ended after a million keys of
// 100 B without a last checkpoint, as if killed. Engine is what badger takes.
func BenchmarkStart(b *testing.B) {
	const keys = 1_000_000
	d := newDisk(b)
	s, _ := reopen(b, d)
	var n, actor atomic.Uint64
	each(keys, func(_ *rand.Rand, next func() bool) {
		done := make(chan error, 1)
		mint := func() vclock.Actor { return vclock.Actor(actor.Add(1)) }
		for next() {
			u := storage.Update{Slot: benchSlot(n.Add(1)), Apply: overwrite(make([]byte, 100), mint), Done: func(err error) { done <- err }}
			err := s.Submit(u)
			if err == nil {
				err = <-done
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	abandon(b, d, s)
	var engine, store time.Duration
	for b.Loop() {
		start := time.Now()
		s, opened := reopen(b, d)
		engine += opened.Sub(start)
		store += time.Since(opened)
		if count := s.Trees(0)[0].Count; count < keys/1024/2 || s.Stats().Rebuilt > 0 {
			b.Errorf("%d keys in a partition, %d leaves were rebuilt", count, s.Stats().Rebuilt)
		}
		abandon(b, d, s)
	}
	b.ReportMetric(float64(engine.Milliseconds())/float64(b.N), "engine-ms")
	b.ReportMetric(float64(store.Milliseconds())/float64(b.N), "store-ms")
	b.ReportMetric(0, "ns/op")
}

// abandon closes the engine of a store before the store.
func abandon(b *testing.B, d *disk, s *storage.Store) {
	b.Helper()
	if err := d.live.Close(); err != nil {
		b.Fatal(err)
	}
	_ = s.Close() // it finds the engine closed
}

// reopen opens a store and says when its engine was open.
func reopen(b *testing.B, d *disk) (*storage.Store, time.Time) {
	b.Helper()
	e, err := d.open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	opened := time.Now()
	s, err := storage.Open(e, storage.Options{Random: rand.New(rand.NewPCG(1, 2)).Uint64, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	return s, opened
}

// each runs fn in 64 goroutines; next returns true n times in all.
func each(n int, fn func(random *rand.Rand, next func() bool)) {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for worker := range uint64(64) {
		wg.Go(func() {
			fn(rand.New(rand.NewPCG(worker, 0)), func() bool { return left.Add(-1) >= 0 })
		})
	}
	wg.Wait()
}

// cpuTime returns what the process has used, background work of badger's
// included. It says more than the clock on a machine with other work.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkGet has 64 readers of keys that were overwritten a few times.
func BenchmarkGet(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			s := benchStore(b)
			update(b, s, 3*benchKeys, size, false)
			b.ResetTimer()
			each(b.N, func(random *rand.Rand, next func() bool) {
				for next() {
					if _, err := s.Get(benchSlot(random.Uint64N(benchKeys))); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
		})
	}
}
