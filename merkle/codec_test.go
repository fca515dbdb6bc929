package merkle

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/internal/wire"
)

func TestTreeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := drawTree(t)
		got, err := DecodeTree(AppendTree(nil, tree))
		if err != nil || got != *tree {
			t.Fatalf("decoded %v, %v, want %v", got, err, tree)
		}
	})
}

func TestDeltasRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		deltas := rapid.SliceOf(rapid.Custom(drawDelta)).Draw(t, "deltas")
		b := AppendDeltas(nil, deltas)
		if most := MaxDeltasHeader + len(deltas)*MaxDeltaBytes; len(b) > most {
			t.Fatalf("%d deltas take %d bytes, the bound is %d", len(deltas), len(b), most)
		}
		got, err := DecodeDeltas(b)
		if err != nil || !slices.Equal(got, deltas) {
			t.Fatalf("decoded %v, %v, want %v", got, err, deltas)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	tree := AppendTree(nil, &Tree{3: {Sum: 1, Count: 1}})
	empty := append(bytes.Clone(tree[:33]), make([]byte, 9)...)
	huge := append(bytes.Clone(tree[:41]), 0xff, 0xff, 0xff, 0xff, 0x1f)
	deltas := AppendDeltas(nil, []Delta{{Leaf: 1, Count: math.MinInt32}})
	other := func(b []byte) []byte { return append([]byte{HashVersion + 1}, b[1:]...) }
	for _, c := range []struct {
		name string
		in   []byte
		tree bool
		want error
	}{
		{"tree of nothing", nil, true, wire.ErrShort},
		{"tree of another version", other(tree), true, ErrVersion},
		{"tree cut", tree[:len(tree)-1], true, wire.ErrShort},
		{"tree with more", append(bytes.Clone(tree), 0), true, wire.ErrTrailing},
		{"tree with an empty leaf", empty, true, wire.ErrBadValue},
		{"tree with a huge count", huge, true, wire.ErrBadValue},
		{"deltas of nothing", nil, false, wire.ErrShort},
		{"deltas of another version", other(deltas), false, ErrVersion},
		{"deltas cut", deltas[:len(deltas)-1], false, wire.ErrShort},
		{"deltas with more", append(bytes.Clone(deltas), 0), false, wire.ErrTrailing},
		{"more deltas than bytes", []byte{HashVersion, 200, 1}, false, wire.ErrShort},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			if c.tree {
				_, err = DecodeTree(c.in)
			} else {
				_, err = DecodeDeltas(c.in)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func FuzzDecodeTree(f *testing.F) {
	f.Add(AppendTree(nil, &Tree{}))
	f.Add(AppendTree(nil, &Tree{0: {Sum: 1, Count: 1}, 255: {Count: math.MaxUint32}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := DecodeTree(b)
		if err != nil {
			return
		}
		if again := AppendTree(nil, &tree); !bytes.Equal(again, b) {
			t.Errorf("%x decodes to a tree that encodes to %x", b, again)
		}
	})
}

func FuzzDecodeDeltas(f *testing.F) {
	f.Add(AppendDeltas(nil, nil))
	f.Add(AppendDeltas(nil, []Delta{{Tree: ID{Partition: 1, NMax: 3}, Leaf: 9, Sum: 7, Count: -1}, {Count: math.MinInt32}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		deltas, err := DecodeDeltas(b)
		if err != nil {
			return
		}
		if again := AppendDeltas(nil, deltas); !bytes.Equal(again, b) {
			t.Errorf("%x decodes to deltas that encode to %x", b, again)
		}
	})
}
