package transport_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/starling-kv/starling/node/transport"
)

// BenchmarkCall makes calls of 116 bytes over loopback, client and server in
// one process; an op is one call there and back.
func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 4, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			benchmarkCalls(b, callers, 116, false)
		})
	}
	b.Run("callers=64/context-each", func(b *testing.B) { benchmarkCalls(b, 64, 116, true) })
	b.Run("callers=64/1KiB", func(b *testing.B) { benchmarkCalls(b, 64, 1<<10, false) })
	b.Run("callers=4/1MiB", func(b *testing.B) { benchmarkCalls(b, 4, 1<<20, false) })
}

func benchmarkCalls(b *testing.B, callers, size int, contextEach bool) {
	b.Helper()
	c := newCluster(b)
	from := c.start(1, echoing, "127.0.0.1:0", nil)
	c.start(2, echoing, "127.0.0.1:0", nil)
	ctx := within(b, time.Hour)
	if err := from.Reachable(ctx, 2); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	var all sync.WaitGroup
	var made atomic.Int64
	for range callers {
		all.Go(func() {
			body := make([]byte, size)
			for made.Add(1) <= int64(b.N) {
				if err := benchmarkCall(ctx, from, body, contextEach); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// cpuTime returns what this process has used of the processors, which says more
// than the rate on a machine that does other work too.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkCall(ctx context.Context, from transport.Transport, body []byte, contextEach bool) error {
	if contextEach {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	_, err := from.Call(ctx, 2, 1, body)
	return err
}
