package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
)

// Distribution says how often which key is used.
type Distribution string

// The distributions, as YCSB has them: all keys alike; few keys often, spread
// over the key space; the newest keys most often.
const (
	Uniform Distribution = "uniform"
	Zipf    Distribution = "zipf"
	Latest  Distribution = "latest"
)

// chooser draws indexes of keys. It may be used by many goroutines at once.
type chooser struct {
	dist Distribution
	keys int64
	zipf zipf // of the ranks, unless uniform
}

func newChooser(d Distribution, keys int64) *chooser {
	c := &chooser{dist: d, keys: keys}
	if d != Uniform {
		c.zipf = newZipf(keys)
	}
	return c
}

// next draws one of the indexes [0, size); size is at least the number of keys
// that the chooser was made for. Those added since are only drawn by Latest.
func (c *chooser) next(r *rand.Rand, size int64) int64 {
	switch c.dist {
	case Latest:
		return size - 1 - c.zipf.rank(r.Float64())
	case Zipf:
		// The popular keys must not be neighbours.
		return int64(mix(uint64(c.zipf.rank(r.Float64()))) % uint64(c.keys))
	case Uniform:
	}
	return r.Int64N(c.keys)
}

// mix is the finalizer of splitmix64: a bijection that leaves no pattern.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// theta is the exponent of YCSB.
const theta = 0.99

// zipf draws ranks: rank i is (i+1)^theta times rarer than rank 0. The method
// is that of Gray et al., "Quickly Generating Billion-Record Synthetic
// Databases" (SIGMOD 1994), which needs no table. Ranks 0 and 1 are exact.
type zipf struct {
	n, zeta, eta, alpha, second float64
}

// newZipf takes time in proportion to n: 10 million take a third of a second.
func newZipf(n int64) zipf {
	z := zipf{n: float64(n), alpha: 1 / (1 - theta), second: 1 + math.Pow(0.5, theta)}
	for i := int64(1); i <= n; i++ {
		z.zeta += math.Pow(float64(i), -theta)
	}
	z.eta = (1 - math.Pow(2/z.n, 1-theta)) / (1 - z.second/z.zeta)
	return z
}

// rank returns the rank that u, uniform in [0, 1), stands for.
func (z *zipf) rank(u float64) int64 {
	switch uz := u * z.zeta; {
	case uz < 1 || z.n < 2:
		return 0
	case uz < z.second || z.n < 3:
		return 1
	}
	return min(int64(z.n)-1, int64(z.n*math.Pow(z.eta*u-z.eta+1, z.alpha)))
}

// DefaultSet is the letter with which names of keys begin, unless a load uses
// another set beside it.
const DefaultSet = 'k'

// appendKey appends the name of key i of a set: size bytes, or more if i does
// not fit.
func appendKey(dst []byte, set byte, i int64, size int) []byte {
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], i, 10)
	dst = append(dst, set)
	for n := 1 + len(text); n < size; n++ {
		dst = append(dst, '0')
	}
	return append(dst, text...)
}

// checkKeySize reports a size that the names of so many keys do not fit.
func checkKeySize(keys int64, size int) error {
	if least := len(appendKey(nil, DefaultSet, keys-1, 0)); size < least {
		return fmt.Errorf("a key of %d bytes: %d keys need %d or more", size, keys, least)
	}
	return nil
}
