package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func source(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// The ranks come as often as the law says: rank i in proportion to
// (i+1)^-theta; the method is off by a sixth at the ranks after the second.
func TestZipfFollowsItsLaw(t *testing.T) {
	const n, draws = 1000, 2_000_000
	z := newZipf(n)
	counts := make([]float64, n)
	r := source(1)
	for range draws {
		counts[z.rank(r.Float64())]++
	}
	for _, span := range [][2]int{{0, 1}, {1, 2}, {2, 4}, {4, 10}, {10, 30}, {30, 100}, {100, 300}, {300, 1000}} {
		var got, want float64
		for i := span[0]; i < span[1]; i++ {
			got += counts[i] / draws
			want += math.Pow(float64(i+1), -theta) / z.zeta
		}
		if math.Abs(got-want) > 0.2*want {
			t.Errorf("ranks %d to %d: share %.4f, want %.4f", span[0], span[1], got, want)
		}
	}
}

func TestChooserStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.Int64Range(1, 300).Draw(t, "keys")
		size := keys + rapid.Int64Range(0, 50).Draw(t, "added")
		dist := rapid.SampledFrom([]Distribution{Uniform, Zipf, Latest}).Draw(t, "distribution")
		c := newChooser(dist, keys)
		r := source(rapid.Uint64().Draw(t, "seed"))
		for range 100 {
			key := c.next(r, size)
			if key < 0 || key >= size || dist != Latest && key >= keys {
				t.Fatalf("key %d of %d, %d at first", key, size, keys)
			}
		}
	})
}

func TestLatestPrefersTheNewest(t *testing.T) {
	c := newChooser(Latest, 1000)
	r := source(1)
	newest := 0
	for range 1000 {
		if c.next(r, 1500) >= 1490 {
			newest++
		}
	}
	if newest < 300 {
		t.Errorf("%d of 1000 draws are of the ten newest keys", newest)
	}
}

// Popular keys must not be neighbours: those of Zipf are spread.
func TestZipfIsSpread(t *testing.T) {
	c := newChooser(Zipf, 1000)
	r := source(1)
	counts := make([]int, 1000)
	for range 100_000 {
		counts[c.next(r, 1000)]++
	}
	top := slices.Index(counts, slices.Max(counts))
	if top < 10 {
		t.Errorf("the most popular key is number %d", top)
	}
}

func TestKeyNames(t *testing.T) {
	for _, tt := range []struct {
		i    int64
		size int
		want string
	}{{0, 5, "k0000"}, {42, 5, "k0042"}, {123456, 5, "k123456"}, {7, 0, "k7"}} {
		if got := string(appendKey(nil, DefaultSet, tt.i, tt.size)); got != tt.want {
			t.Errorf("key %d of %d bytes: %q, want %q", tt.i, tt.size, got, tt.want)
		}
	}
	if checkKeySize(10_000, 5) != nil || checkKeySize(10_001, 5) == nil {
		t.Error("k9999 fits in 5 bytes, k10000 does not")
	}
}

func TestCoprimeVisitsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 2000).Draw(t, "n")
		stride, seen := coprime(n), make(map[int64]bool)
		for i := range n {
			seen[i*stride%n] = true
		}
		if int64(len(seen)) != n {
			t.Fatalf("stride %d visits %d of %d", stride, len(seen), n)
		}
	})
}
