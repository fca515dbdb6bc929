package sim

import (
	"math/rand/v2"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// Every choice of a run is a function of the seed and of what the choice is
// about, never of how many choices were made before it by whom. So a run stays
// much the same when a fault or an operation is taken out of it, and goroutines
// that draw at the same time cannot disturb one another.

// What choices are about, so that no two kinds of them are alike.
const (
	saltPlan uint64 = iota + 1
	saltNode
	saltID
	saltDelay
	saltLoss
	saltCopy
	saltReset
	saltDisk
	saltExchange
	saltAim
	saltAges
	saltScene
)

// mix returns 64 bits that depend on all parts (splitmix64, Steele and others
// 2014, chained).
func mix(parts ...uint64) uint64 {
	var x uint64
	for _, p := range parts {
		x += p + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}

// unit maps a choice to [0, 1).
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }

func hashOf(s string) uint64 { return xxhash.Sum64String(s) }

// generator returns a source for what is drawn by one goroutine before a run.
func generator(seed, salt uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, salt)) }

// stream is randomness of one life of a node: its i-th draw is a function of
// what the stream was made of and of i. It is safe for concurrent use.
type stream struct {
	seed  uint64
	drawn atomic.Uint64
}

func newStream(parts ...uint64) *stream {
	return &stream{seed: mix(parts...)}
}

func (s *stream) next() uint64 { return mix(s.seed, s.drawn.Add(1)) }
