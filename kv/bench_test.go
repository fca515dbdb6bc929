package kv

import (
	"fmt"
	"testing"

	"github.com/starling-kv/starling/vclock"
)

// benchRecord is what most keys are: one small value, three replicas that have
// each written, a few write ids that are not yet forgotten.
func benchRecord() Record {
	var r Record
	for n := 1; n <= 4; n++ {
		s := value("a value of some thirty-two bytes", idOf(n))
		s.ContentType = "application/json"
		r = put(r, s, r.Clock, vclock.Actor(n%3+1)<<60)
	}
	return r
}

func BenchmarkMerge(b *testing.B) {
	r := benchRecord()
	crowded := r
	for n := range MaxIDs {
		crowded = put(crowded, value("v", idOf(n+10)), crowded.Clock, 1)
	}
	later := put(r, value("v", idOf(9)), r.Clock, 9)
	for _, bm := range []struct {
		name string
		a, b Record
	}{
		{"equal", r, r},
		{"equal, 128 ids", crowded, crowded},
		{"with an older", later, r},
		{"with a newer", r, later},
		{"with nothing", r, Record{}},
		{"into nothing", Record{}, r},
		{"siblings", later, put(r, value("w", idOf(10)), r.Clock, 10)},
		{"siblings, 128 ids", crowded, put(r, value("w", idOf(10)), r.Clock, 10)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bm.a.Merge(bm.b)
			}
		})
	}
}

func BenchmarkCovers(b *testing.B) {
	r := benchRecord()
	b.ReportAllocs()
	for b.Loop() {
		r.Covers(r)
	}
}

func BenchmarkPut(b *testing.B) {
	r := benchRecord()
	s := value("v", idOf(9))
	for _, id := range []WriteID{{}, idOf(9)} {
		b.Run(fmt.Sprintf("id=%v", !id.IsZero()), func(b *testing.B) {
			s.WriteID = id
			b.ReportAllocs()
			for b.Loop() {
				r.Put(s, r.Clock, boot, by(1), never)
			}
		})
	}
}

func BenchmarkCodec(b *testing.B) {
	r := benchRecord()
	buf := AppendLocal(nil, r)
	b.Run("append", func(b *testing.B) {
		b.SetBytes(int64(len(buf)))
		b.ReportAllocs()
		for b.Loop() {
			buf = AppendLocal(buf[:0], r)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(buf)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeLocal(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkVisible(b *testing.B) {
	r := benchRecord()
	b.ReportAllocs()
	for b.Loop() {
		values, _ := r.Visible(never)
		ETag(values)
	}
}
