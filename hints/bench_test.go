package hints

import (
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

// What a client write pays for an owner that is away: the queue is emptied as
// often as it is full.
func BenchmarkMissed(b *testing.B) {
	l := NewLog(LogConfig{Now: time.Now, Log: zap.NewNop(), Mark: func(kv.NodeID, uint16) {}})
	keys := make([]kv.Key, queueLen)
	for i := range keys {
		keys[i] = key(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Missed(2, uint16(i%256), keys[i%queueLen])
		if len(l.queue) == flushLen {
			b.StopTimer()
			batch, _ := l.take()
			for _, m := range batch {
				l.growth.remove(m)
			}
			b.StartTimer()
		}
	}
}
