package antientropy

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
)

// leafOfKeys is a leaf as a map, which every key belongs to.
type leafOfKeys map[kv.Key]uint64

func (l leafOfKeys) Tree(uint16, uint8) (t merkle.Tree) { return t }

func (l leafOfKeys) ScanLeaf(_ uint16, _ uint8, fn func(kv.Key, kv.Record, uint64) error) error {
	for _, k := range slices.SortedFunc(maps.Keys(l), compareKeys) {
		if err := fn(k, kv.Record{NMax: 3}, l[k]); err != nil {
			return err
		}
	}
	return nil
}

func (l leafOfKeys) entries(p Part) []Entry {
	var out []Entry
	_ = scanPart(l, p, 3, func(e Entry) { out = append(out, e) })
	slices.SortFunc(out, compareEntries)
	return out
}

func leavesOfKeys(t *rapid.T, name string) leafOfKeys {
	return rapid.MapOf(
		rapid.Custom(func(t *rapid.T) kv.Key { return keyAt(rapid.IntRange(0, 40).Draw(t, "key")) }),
		rapid.Uint64Range(1, 3), // digests of different keys may be equal here: the worst case
	).Draw(t, name)
}

// TestDiscordsAreWhatDiffers has two leaves compared as an exchange does, in
// any number of slices, and holds the result against the leaves themselves.
func TestDiscordsAreWhatDiffers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mine, theirs := leavesOfKeys(t, "mine"), leavesOfKeys(t, "theirs")
		for k := range mine { // each digest speaks of its key, as real ones do
			mine[k] += 10 * uint64(len(k.Name)) * k.Hash()
		}
		for k := range theirs {
			theirs[k] += 10 * uint64(len(k.Name)) * k.Hash()
		}
		slicing := rapid.Uint8Range(0, 3).Draw(t, "bits")
		r := &Responder{ResponderConfig: ResponderConfig{Local: theirs}}
		got := make(map[kv.Key]discord)
		for i := range uint32(1) << slicing {
			p := Part{Bits: slicing, Index: i}
			own := mine.entries(p)
			room := maxExtraBytes
			c, err := r.contrast(listing(p, own), 3, &room, false)
			if err != nil || c.Cut {
				t.Fatal(c, err)
			}
			for _, d := range discords(place{part: p}, own, c) {
				if _, twice := got[d.key]; twice {
					t.Fatalf("%v is in two slices", d.key)
				}
				got[d.key] = d
			}
		}
		want := make(map[kv.Key]bool)
		for i := range 41 {
			if k := keyAt(i); mine[k] != theirs[k] {
				want[k] = true
				if d := got[k]; d.here != mine[k] || d.there != theirs[k] {
					t.Fatalf("%v differs: %x here, %x there; found as %+v", k, mine[k], theirs[k], d)
				}
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d keys differ, %d were found", len(want), len(got))
		}
	})
}

func TestContrastIsCutWhereTheMessageEnds(t *testing.T) {
	theirs := make(leafOfKeys)
	for i := range 100 {
		theirs[keyAt(i)] = uint64(i + 1)
	}
	r := &Responder{ResponderConfig: ResponderConfig{Local: theirs}}
	room := 10 * (entryOverhead + len("b") + len("key10"))
	c, err := r.contrast(Listing{Digests: []uint64{1000}}, 3, &room, false)
	if err != nil || !c.Cut || len(c.Extra) < 9 || len(c.Extra) > 10 || !slices.Equal(c.Unknown, []uint32{0}) {
		t.Errorf("%d entries, cut: %v, unknown: %v, %v", len(c.Extra), c.Cut, c.Unknown, err)
	}
	c, err = r.contrast(Listing{Part: Part{Leaf: 1}}, 3, &room, false)
	if err != nil || !c.Cut || len(c.Extra) > 0 {
		t.Errorf("the next part of a full message: %+v, %v", c, err)
	}
	if c, _ := r.contrast(Listing{}, 4, &room, false); c.Cut {
		t.Error("records of a smaller n_max were compared")
	}
}

func TestDiscordsThatLast(t *testing.T) {
	for _, c := range []struct {
		what        string
		here, there uint64
		held        []uint64 // by the peer, by now
		lasts       bool
	}{
		{"nothing changed", 1, 2, []uint64{2}, true},
		{"the peer got what is here", 1, 2, []uint64{1}, false},
		{"this node got what is there", 2, 2, []uint64{2}, false},
		{"the peer got something else", 1, 2, nil, false},
		{"the peer lacks it still", 1, 0, nil, true},
		{"the peer has it now", 1, 0, []uint64{1}, false},
		{"this node lacks it still", 0, 2, []uint64{2}, true},
		{"this node lacks what the peer replaced", 0, 2, nil, false},
		{"gone on both sides", 0, 0, nil, false},
	} {
		d := discord{here: c.here, there: c.there}
		if got := d.lasts(func(digest uint64) bool { return slices.Contains(c.held, digest) }); got != c.lasts {
			t.Errorf("%s: lasts is %v", c.what, got)
		}
	}
}

func TestListingsOfDiscords(t *testing.T) {
	at := func(leaf uint8) place { return place{part: Part{Leaf: leaf}} }
	list := []discord{{at: at(1), here: 9, there: 4}, {at: at(1), there: 6}, {at: at(2), here: 1}}
	want := []Listing{{at(1).part, []uint64{4, 6, 9}}, {at(2).part, []uint64{1}}}
	if got := listings(list); !reflect.DeepEqual(got, want) {
		t.Errorf("%v is asked about as %v", list, got)
	}
	many := slices.Repeat(list, looksParts)
	if n := batchOfDiscords(many); len(listings(many[:n])) != looksParts || many[n-1].at == many[n].at {
		t.Errorf("a message asks about %d of %d discords", n, len(many))
	}
	if n := batchOfDiscords(list); n != len(list) {
		t.Errorf("%d of %d discords in a message", n, len(list))
	}
}

func TestLargeLeavesAreSliced(t *testing.T) {
	for records, slicing := range map[int]uint8{
		0: 0, 1000: 0, partRecords: 0, partRecords + 1: 1, 10 * partRecords: 4, 1000 * partRecords: 10,
	} {
		list := site{share: share{partition: 5, least: 2}, leaf: 9, here: records, there: 3}.places()
		if len(list) != 1<<slicing {
			t.Errorf("%d records are listed in %d parts", records, len(list))
		}
		for i, p := range list {
			if p.part != (Part{5, 9, slicing, uint32(i)}) || p.least != 2 || p.records > partRecords {
				t.Errorf("part %d of %d records: %+v", i, records, p)
			}
		}
	}
}

func TestMessagesAreFilled(t *testing.T) {
	list := make([]place, 3*looksParts)
	if n := batch(list); n != looksParts {
		t.Errorf("%d empty parts in a message", n)
	}
	for i := range list {
		list[i].records = looksRecords/2 + 1
	}
	if n := batch(list); n != 1 {
		t.Errorf("%d parts in a message, each of more than half of what it holds", n)
	}
	sites := []site{{there: streamRecords}, {there: 1}, {there: 1}}
	if n := batchOfLeaves(sites); n != 1 {
		t.Errorf("%d leaves in a stream of which the first fills it", n)
	}
	if n := batchOfLeaves(sites[1:]); n != 2 {
		t.Errorf("%d of two small leaves in a stream", n)
	}
}
