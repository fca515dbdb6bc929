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
	var actor atomic.Uint64
	mint := func() vclock.Actor { return vclock.Actor(actor.Add(1)) }
	each(n, func(random *rand.Rand, next func() bool) {
		done := make(chan error, 1)
		value := make([]byte, size)
		for next() {
			u := storage.Update{
				Slot: benchSlot(random.Uint64N(benchKeys)), Sync: sync, Size: size,
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
