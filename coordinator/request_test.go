package coordinator

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
)

func TestCount(t *testing.T) {
	for _, tt := range []struct {
		text string
		of   []int // n = 1, 2, 3, 4, 5, 16
	}{
		{"one", []int{1, 1, 1, 1, 1, 1}},
		{"quorum", []int{1, 2, 2, 3, 3, 9}},
		{"all", []int{1, 2, 3, 4, 5, 16}},
		{"1", []int{1, 1, 1, 1, 1, 1}},
		{"3", []int{3, 3, 3, 3, 3, 3}},
		{"16", []int{16, 16, 16, 16, 16, 16}},
	} {
		c, err := ParseCount(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range []int{1, 2, 3, 4, 5, 16} {
			if got := c.Of(n); got != tt.of[i] {
				t.Errorf("%s of %d: %d, want %d", tt.text, n, got, tt.of[i])
			}
		}
		if again, err := ParseCount(c.String()); err != nil || again != c {
			t.Errorf("%s prints as %s, which reads as %v, %v", tt.text, c, again, err)
		}
	}
	if (Count{}).Of(5) != 3 || (Count{}).String() != "quorum" {
		t.Error("without a default, a count is a quorum")
	}
	for _, text := range []string{"", "0", "-1", "17", "two", "1.5", "ALL", " 1", "99999999999999999999"} {
		if c, err := ParseCount(text); err == nil {
			t.Errorf("%q reads as %v", text, c)
		}
	}
}

// Any two quorums of n meet.
func TestQuorumsMeet(t *testing.T) {
	for n := 1; n <= kv.MaxN; n++ {
		if q := Quorum.Of(n); 2*q <= n || 2*(q-1) > n {
			t.Errorf("a quorum of %d is %d", n, q)
		}
	}
}

func TestHedgeText(t *testing.T) {
	for text, want := range map[string]Hedge{"auto": HedgeAuto, "off": HedgeOff, "all": HedgeAll} {
		if got, err := ParseHedge(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "on", "Auto"} {
		if got, err := ParseHedge(text); err == nil {
			t.Errorf("%q reads as %v", text, got)
		}
	}
}

// What a request chooses wins over the defaults of the node, and what it leaves
// open is taken from them, once.
func TestResolve(t *testing.T) {
	c := New(Config{Defaults: Defaults{N: 5, R: One, W: All, Timeout: time.Second}})
	defer c.Close()
	for _, tt := range []struct {
		name string
		ask  Options
		want Options
	}{
		{"nothing", Options{}, Options{N: 5, R: Exactly(1), W: Exactly(5), Timeout: time.Second}},
		{"n", Options{N: 2}, Options{N: 2, R: Exactly(1), W: Exactly(2), Timeout: time.Second}},
		{"quorums", Options{R: Quorum, W: Quorum}, Options{N: 5, R: Exactly(3), W: Exactly(3), Timeout: time.Second}},
		{"numbers", Options{N: 3, R: Exactly(2), W: Exactly(3)}, Options{N: 3, R: Exactly(2), W: Exactly(3), Timeout: time.Second}},
		{"time", Options{Timeout: time.Minute}, Options{N: 5, R: Exactly(1), W: Exactly(5), Timeout: time.Minute}},
	} {
		got, err := c.resolve(key, tt.ask)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
		if again, err := c.resolve(key, got); err != nil || again != got {
			t.Errorf("%s: resolved twice: %+v, %v", tt.name, again, err)
		}
	}
}

func TestSortedMeta(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var meta []kv.Meta //nolint:prealloc // a handful
		seen, inOrder := map[string]bool{}, true
		for _, name := range rapid.SliceOfN(rapid.StringMatching("[a-c]?"), 0, 4).Draw(t, "names") {
			if len(meta) > 0 && meta[len(meta)-1].Name > name || seen[name] {
				inOrder = false
			}
			seen[name] = true
			meta = append(meta, kv.Meta{Name: name})
		}
		if sorted(meta) != inOrder {
			t.Fatalf("%v: sorted %v", meta, !inOrder)
		}
	})
}
