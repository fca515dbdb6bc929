package vclock

import (
	"testing"
	"time"
)

// threeActors is the clock of a key with three replicas, each of which wrote.
func threeActors() Clock { return Clock{{1 << 40, 12}, {2 << 50, 7}, {3 << 60, 300}} }

func BenchmarkClockMerge(b *testing.B) {
	c := threeActors()
	behind := Clock{c[0], {c[1].Actor, 6}}
	crossed := Clock{{c[0].Actor, 13}, c[1]}
	for name, o := range map[string]Clock{"equal": c, "behind": behind, "crossed": crossed} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Merge(o)
			}
		})
	}
}

func BenchmarkSetMerge(b *testing.B) {
	c := threeActors()
	one := set(c, c[2])
	behind := set(c[:2], c[1])
	crossed := set(Clock{{c[0].Actor, 13}, c[1]}, Dot{c[0].Actor, 13})
	for name, o := range map[string]Set[int]{"equal": one, "behind": behind, "crossed": crossed} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				one.Merge(o)
			}
		})
	}
}

func BenchmarkSetWrite(b *testing.B) {
	c := threeActors()
	s := set(c, c[2])
	b.ReportAllocs()
	for b.Loop() {
		s.Write(c, c[0].Actor, 1)
	}
}

func BenchmarkKeyring(b *testing.B) {
	token := Token{Seen: threeActors(), Floor: threeActors()}
	now := keyring(midEpoch)
	text := now.Seal(token, "carts", "user-1234")
	old := keyring(midEpoch.Add(-30*24*time.Hour)).Seal(token, "carts", "user-1234")
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			now.Seal(token, "carts", "user-1234")
		}
	})
	open := func(b *testing.B, text string) {
		b.Helper()
		if _, err := now.Open(text, "carts", "user-1234"); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			open(b, text)
		}
	})
	b.Run("open of two epochs in turn", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			open(b, text)
			open(b, old)
		}
	})
}
