package ring

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/internal/wire"
)

// testLayouts returns count layouts of one cluster, each the child of the one
// before except the last two, which are siblings.
func testLayouts(tb testing.TB, count int) []*Layout {
	tb.Helper()
	all := make([]*Layout, 0, count)
	var prev *Layout
	for i := range count {
		if i == count-1 && count > 2 {
			prev = all[count-3]
		}
		prev = compute(tb, members(3+i), 4, prev)
		all = append(all, prev)
	}
	return all
}

// drawView draws a view of some of the layouts, some of these retired.
func drawView(t *rapid.T, layouts []*Layout, label string) View {
	var v View
	for i, l := range layouts {
		fate := rapid.IntRange(0, 3).Draw(t, fmt.Sprint(label, i))
		if fate == 0 {
			continue
		}
		v = must(t, v.With, l)
		if fate == 1 {
			v = must(t, v.Retire, l.Hash())
		}
	}
	return v
}

// must calls a method of a view that has to succeed.
func must[T any](t interface{ Fatal(args ...any) }, method func(T) (View, error), arg T) View {
	v, err := method(arg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func sameView(a, b View) bool {
	return a.Digest() == b.Digest() && bytes.Equal(a.Append(nil), b.Append(nil))
}

func TestMergeLaws(t *testing.T) {
	layouts := testLayouts(t, 5)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawView(t, layouts, "a"), drawView(t, layouts, "b"), drawView(t, layouts, "c")
		ab, ba := must(t, a.Merge, b), must(t, b.Merge, a)
		if !sameView(ab, ba) {
			t.Fatal("not commutative")
		}
		if !sameView(must(t, ab.Merge, c), must(t, a.Merge, must(t, b.Merge, c))) {
			t.Fatal("not associative")
		}
		if !sameView(must(t, ab.Merge, b), ab) || !sameView(must(t, a.Merge, a), a) {
			t.Fatal("not idempotent")
		}
		if !ab.Contains(a) || !ab.Contains(b) {
			t.Fatal("the union does not contain its parts")
		}
		if a.Contains(b) != sameView(ab, a) {
			t.Fatalf("Contains says %v", a.Contains(b))
		}
		if (a.Digest() == b.Digest()) != bytes.Equal(a.Append(nil), b.Append(nil)) {
			t.Fatal("the digests do not tell whether the views are equal")
		}
	})
}

// A view against sets of hashes.
func TestViewModel(t *testing.T) {
	layouts := testLayouts(t, 5)
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawView(t, layouts, "a"), drawView(t, layouts, "b")
		union := must(t, a.Merge, b)
		for _, l := range layouts {
			h := l.Hash()
			known := a.Knows(h) || b.Knows(h)
			retired := slices.Contains(a.Retired(), h) || slices.Contains(b.Retired(), h)
			if union.Knows(h) != known || slices.Contains(union.Retired(), h) != retired {
				t.Fatal("the union lost or gained a layout")
			}
			if slices.Contains(union.Active(), l) != (known && !retired) {
				t.Fatal("active is not known less retired")
			}
		}
	})
}

func TestViewRoundTrip(t *testing.T) {
	layouts := testLayouts(t, 5)
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t, layouts, "v")
		got, err := DecodeView(v.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if !sameView(got, v) || got.Cluster() != v.Cluster() {
			t.Fatal("another view came back")
		}
	})
}

func TestActiveIsNewestFirst(t *testing.T) {
	layouts := testLayouts(t, 5) // versions 1, 2, 3, 4 and, a sibling of the fourth, 4
	var v View
	for _, i := range []int{1, 4, 0, 3, 2, 4} {
		v = must(t, v.With, layouts[i])
	}
	versions := make([]uint64, 0, 5)
	for _, l := range v.Active() {
		versions = append(versions, l.Version())
	}
	if !slices.Equal(versions, []uint64{4, 4, 3, 2, 1}) {
		t.Fatal(versions)
	}
	a, b := v.Active()[0].Hash(), v.Active()[1].Hash()
	if compareHash(a, b) <= 0 {
		t.Error("of two heads the higher hash comes first")
	}
}

func TestViewErrors(t *testing.T) {
	l := compute(t, members(3), 4, nil)
	foreign, err := Compute(ClusterID{9}, 1, members(3), 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := must(t, View{}.With, l)

	var mismatch *ClusterError
	if _, err := v.With(foreign); !errors.As(err, &mismatch) || mismatch.Want != testCluster || mismatch.Got != (ClusterID{9}) {
		t.Errorf("a foreign layout: %v", err)
	}
	if _, err := must(t, View{}.With, foreign).Merge(v); !errors.As(err, &mismatch) {
		t.Errorf("a foreign view: %v", err)
	}
	if _, err := v.Retire(foreign.Hash()); !errors.Is(err, ErrUnknownLayout) {
		t.Errorf("a layout that is not there: %v", err)
	}
	if v.Digest() == (View{}).Digest() || (View{}).Digest() != 0 {
		t.Error("digest of nothing")
	}
	if got := must(t, View{}.Merge, v); !sameView(got, v) || got.Cluster() != testCluster {
		t.Error("merging into nothing")
	}
}

func TestViewFull(t *testing.T) {
	ms := members(1)
	layouts := make([]*Layout, MaxActive+1)
	for i := range layouts {
		layouts[i], _ = Compute(testCluster, uint64(i+1), ms, 1, nil)
	}
	full, err := newView(testCluster, slices.Clone(layouts[:MaxActive]), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := full.With(layouts[MaxActive]); !errors.Is(err, ErrViewFull) {
		t.Errorf("one too many: %v", err)
	}
	room := must(t, full.Retire, layouts[0].Hash())
	must(t, room.With, layouts[MaxActive])
}

// Nothing that is done to a view, or to what it was made from, changes it.
func TestViewsAreImmutable(t *testing.T) {
	layouts := testLayouts(t, 3)
	v := must(t, View{}.With, layouts[0])
	before := v.Append(nil)
	w := must(t, v.With, layouts[1])
	must(t, w.Retire, layouts[0].Hash())
	must(t, v.Merge, w)
	if !bytes.Equal(v.Append(nil), before) {
		t.Error("the view changed")
	}
}

func TestDecodeViewRefuses(t *testing.T) {
	layouts := testLayouts(t, 3)
	encode := func(cluster ClusterID, active []*Layout, retired ...Hash) []byte {
		return View{cluster: cluster, active: active, retired: retired}.Append(nil)
	}
	newest := []*Layout{layouts[1], layouts[0]}
	good := encode(testCluster, newest, Hash{1}, Hash{2})
	if _, err := DecodeView(good); err != nil {
		t.Fatal(err)
	}
	var mismatch *ClusterError
	for _, tc := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, wire.ErrShort},
		{"truncated", good[:len(good)-1], wire.ErrShort},
		{"more after the end", append(slices.Clone(good), 0), wire.ErrTrailing},
		{"unknown encoding", append([]byte{9}, good[1:]...), ErrEncoding},
		{"oldest first", encode(testCluster, layouts[:2]), wire.ErrBadValue},
		{"layout twice", encode(testCluster, []*Layout{layouts[0], layouts[0]}), wire.ErrBadValue},
		{"active and retired", encode(testCluster, newest, layouts[0].Hash()), wire.ErrBadValue},
		{"retired out of order", encode(testCluster, newest, Hash{2}, Hash{1}), wire.ErrBadValue},
		{"retired twice", encode(testCluster, newest, Hash{1}, Hash{1}), wire.ErrBadValue},
		{"retired of no cluster", encode(ClusterID{}, nil, Hash{1}), wire.ErrBadValue},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := DecodeView(tc.in); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if _, err := DecodeView(encode(ClusterID{9}, newest)); !errors.As(err, &mismatch) {
		t.Errorf("layouts of another cluster: %v", err)
	}
}

func FuzzDecodeView(f *testing.F) {
	layouts := testLayouts(f, 3)
	v := must(f, View{}.With, layouts[0])
	f.Add(v.Append(nil))
	v = must(f, v.With, layouts[1])
	f.Add(v.Append(nil))
	f.Add(must(f, v.Retire, layouts[0].Hash()).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := DecodeView(b)
		if err != nil {
			return
		}
		if !bytes.Equal(v.Append(nil), b) {
			t.Fatal("one view, two encodings")
		}
		if !v.Contains(v) || !sameView(must(t, v.Merge, v), v) {
			t.Fatal("a view that is not equal to itself")
		}
	})
}
