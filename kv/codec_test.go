package kv

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/vclock"
)

// goldenRecords are records whose encodings are pinned, by file name.
func goldenRecords() map[string]Record {
	typical := Record{NMax: 3, Mine: Mine{Actor: 3, Boot: 0x99}}
	typical.Clock = vclock.Clock{{Actor: 1, Counter: 12}, {Actor: 2, Counter: 7}, {Actor: 3, Counter: 300}}
	typical.Live = []Version{{Dot: vclock.Dot{Actor: 3, Counter: 300}, Value: Sibling{
		Kind: KindValue, N: 3, Stamp: 0x018bcfe5687b0000, WriteID: idOf(1_700_000_000_123), ContentType: "text/plain",
		Length: 5, Checksum: Checksum([]byte("hello")), Inline: []byte("hello"),
	}}}
	typical.IDs = []IssuedID{{idOf(1_700_000_000_123), []vclock.Dot{{Actor: 3, Counter: 300}}}}

	full := Record{NMax: 5, IDFloor: idOf(1)}
	full.Clock = vclock.Clock{{Actor: 0x0102030405060708, Counter: 2}, {Actor: math.MaxUint64, Counter: math.MaxUint64}}
	full.Live = []Version{
		{Dot: vclock.Dot{Actor: 0x0102030405060708, Counter: 2}, Value: Sibling{
			Kind: KindValue, N: 5, Stamp: 1, Expires: -1, WriteID: idOf(2), ContentType: "a/b",
			Meta:   []Meta{{"color", "red"}, {"size", ""}},
			Length: 1 << 20, Checksum: 0xfeed, External: true,
		}},
		{Dot: vclock.Dot{Actor: math.MaxUint64, Counter: 1}, Value: Sibling{Kind: KindTombstone, N: 1}},
	}
	full.IDs = []IssuedID{
		{idOf(2), []vclock.Dot{{Actor: 0x0102030405060708, Counter: 1}, {Actor: 0x0102030405060708, Counter: 2}}},
		{idOf(3), []vclock.Dot{{Actor: math.MaxUint64, Counter: 7}}},
	}
	return map[string]Record{"absent": {}, "typical": typical, "full": full}
}

// TestGolden pins the bytes of version 1, which lie on disks and travel between
// nodes of different builds. If it fails, the format has changed: that takes a
// new version byte and a decoder that still reads the old one.
func TestGolden(t *testing.T) {
	for name, r := range goldenRecords() {
		t.Run(name, func(t *testing.T) {
			want := readHex(t, filepath.Join("testdata", "record-v1-"+name+".hex"))
			if got := AppendLocal(nil, r); !bytes.Equal(got, want) {
				t.Errorf("encodes to\n%x\nwant\n%x", got, want)
			}
			got, err := DecodeLocal(want)
			if err != nil || !sameRecord(got, r) {
				t.Errorf("decodes to\n%+v, %v\nwant\n%+v", got, err, r)
			}
			r.Mine = Mine{}
			shared := want[len(want)-len(encoded(r)):]
			if got, err := DecodeRecord(shared); err != nil || !sameRecord(got, r) {
				t.Errorf("without mine it decodes to\n%+v, %v\nwant\n%+v", got, err, r)
			}
		})
	}
}

// readHex reads hexadecimal digits, less blanks and what follows a #.
func readHex(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return b
}

// sameRecord compares all fields, an empty slice being as good as none.
func sameRecord(a, b Record) bool {
	return a.Clock.Equal(b.Clock) && a.NMax == b.NMax && a.IDFloor == b.IDFloor && a.Mine == b.Mine &&
		slices.EqualFunc(a.Live, b.Live, func(v, w Version) bool { return v.Dot == w.Dot && sameSibling(v.Value, w.Value) }) &&
		slices.EqualFunc(a.IDs, b.IDs, func(i, j IssuedID) bool { return i.ID == j.ID && slices.Equal(i.Dots, j.Dots) })
}

func sameSibling(a, b Sibling) bool {
	if !bytes.Equal(a.Inline, b.Inline) || !slices.Equal(a.Meta, b.Meta) {
		return false
	}
	a.Inline, a.Meta, b.Inline, b.Meta = nil, nil, nil, nil
	return reflect.DeepEqual(a, b)
}

// records draws anything that a record may be, likely or not.
func records() *rapid.Generator[Record] {
	return rapid.Custom(func(t *rapid.T) Record {
		r := Record{NMax: rapid.Uint8().Draw(t, "n max")}
		dots := rapid.SliceOfNDistinct(anyDot(), 0, 8, rapid.ID).Draw(t, "dots")
		for i, d := range dots {
			r.Clock = r.Clock.With(d)
			if i%2 == 0 {
				r.Live = append(r.Live, Version{Dot: d, Value: siblings().Draw(t, "sibling")})
			}
		}
		slices.SortFunc(r.Live, func(a, b Version) int { return a.Dot.Compare(b.Dot) })
		if rapid.Bool().Draw(t, "has floor") {
			r.IDFloor = idOf(10)
		}
		for i, d := range dots {
			if i%3 > 0 {
				r.IDs = append(r.IDs, IssuedID{idOf(11 + i), uniteDots(dots[:i%2], []vclock.Dot{d})})
			}
		}
		if rapid.Bool().Draw(t, "has mine") {
			r.Mine = Mine{Actor: anyDot().Draw(t, "mine").Actor, Boot: rapid.Uint64().Draw(t, "boot")}
		}
		return r
	})
}

func anyDot() *rapid.Generator[vclock.Dot] {
	return rapid.Custom(func(t *rapid.T) vclock.Dot {
		return vclock.Dot{Actor: vclock.Actor(rapid.Uint64Min(1).Draw(t, "actor")), Counter: rapid.Uint64Min(1).Draw(t, "counter")}
	})
}

func siblings() *rapid.Generator[Sibling] {
	return rapid.Custom(func(t *rapid.T) Sibling {
		s := Sibling{
			Kind:        rapid.SampledFrom([]Kind{KindValue, KindTombstone}).Draw(t, "kind"),
			N:           rapid.Uint8().Draw(t, "n"),
			Stamp:       HLC(rapid.Uint64().Draw(t, "stamp")),
			Expires:     rapid.Int64().Draw(t, "expires"),
			ContentType: rapid.String().Draw(t, "type"),
			Length:      rapid.Uint64().Draw(t, "length"),
			Checksum:    rapid.Uint64().Draw(t, "checksum"),
			External:    rapid.Bool().Draw(t, "external"),
		}
		if rapid.Bool().Draw(t, "has id") {
			s.WriteID = writeIDs(1000).Draw(t, "id")
		}
		for name, v := range rapid.MapOfN(rapid.String(), rapid.String(), 0, 4).Draw(t, "meta") {
			s.Meta = append(s.Meta, Meta{name, v})
		}
		slices.SortFunc(s.Meta, CompareMeta)
		if !s.External {
			s.Inline = rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "inline")
			s.Length = uint64(len(s.Inline))
		}
		return s
	})
}

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := records().Draw(t, "record")
		local := AppendLocal(nil, r)
		if got, err := DecodeLocal(local); err != nil || !sameRecord(got, r) {
			t.Fatalf("%+v\ncame back as\n%+v, %v", r, got, err)
		}
		r.Mine = Mine{}
		shared := AppendRecord([]byte("before"), r)[len("before"):]
		if got := Canonical(local); !bytes.Equal(got, shared) {
			t.Fatalf("the canonical part of %x is %x, want %x", local, got, shared)
		}
		if got, err := DecodeRecord(shared); err != nil || !sameRecord(got, r) {
			t.Fatalf("%+v\ncame back as\n%+v, %v", r, got, err)
		}
		cut := rapid.IntRange(0, len(shared)-1).Draw(t, "cut")
		if got, err := DecodeRecord(shared[:cut]); err == nil {
			t.Fatalf("cut to %d of %d bytes it was read as\n%+v", cut, len(shared), got)
		}
	})
}

func TestCanonicalOfTooLittle(t *testing.T) {
	for _, b := range [][]byte{nil, {0}, {1}, append([]byte{1}, make([]byte, 15)...)} {
		if got := Canonical(b); len(got) != 0 {
			t.Errorf("%x has the canonical part %x, want none", b, got)
		}
	}
}

func TestDecodeRefusesTruncated(t *testing.T) {
	for name, r := range goldenRecords() {
		shared, local := encoded(r), AppendLocal(nil, r)
		for i := range shared {
			if got, err := DecodeRecord(shared[:i]); err == nil {
				t.Errorf("%s cut to %d of %d bytes was read as\n%+v", name, i, len(shared), got)
			}
		}
		for i := range local {
			if got, err := DecodeLocal(local[:i]); err == nil {
				t.Errorf("%s with mine cut to %d of %d bytes was read as\n%+v", name, i, len(local), got)
			}
		}
	}
}

// TestDecodeRefuses encodes records that break one rule each.
func TestDecodeRefuses(t *testing.T) {
	dot := func(a vclock.Actor, n uint64) vclock.Dot { return vclock.Dot{Actor: a, Counter: n} }
	for name, spoil := range map[string]func(*Record){
		"live dot not covered":   func(r *Record) { r.Live[0].Dot.Counter++ },
		"live dot zero":          func(r *Record) { r.Live[0].Dot = vclock.Dot{} },
		"live dots not in order": func(r *Record) { r.Live = append(r.Live, Version{Dot: dot(1, 1), Value: r.Live[0].Value}) },
		"live dot twice":         func(r *Record) { r.Live = append(r.Live, r.Live[0]) },
		"no kind":                func(r *Record) { r.Live[0].Value.Kind = 0 },
		"unknown kind":           func(r *Record) { r.Live[0].Value.Kind = 3 },
		"inline value over the limit": func(r *Record) {
			r.Live[0].Value.Inline = make([]byte, InlineLimit+1)
			r.Live[0].Value.Length = InlineLimit + 1
		},
		"meta not in order":           func(r *Record) { r.Live[0].Value.Meta = []Meta{{"b", ""}, {"a", ""}} },
		"meta name twice":             func(r *Record) { r.Live[0].Value.Meta = []Meta{{"a", "1"}, {"a", "2"}} },
		"content type over the limit": func(r *Record) { r.Live[0].Value.ContentType = strings.Repeat("x", maxFieldBytes+1) },
		"more metadata than fields allowed": func(r *Record) {
			for n := range maxMetaFields + 1 {
				r.Live[0].Value.Meta = append(r.Live[0].Value.Meta, Meta{Name: string(rune(n + 1))})
			}
		},
		"id without dots": func(r *Record) {
			r.IDs = []IssuedID{{idOf(1), nil}, {idOf(2), []vclock.Dot{dot(1, 1), dot(2, 1)}}} // of bytes there are enough
		},
		"id with dots not in order": func(r *Record) { r.IDs[0].Dots = []vclock.Dot{dot(2, 1), dot(1, 1)} },
		"id with one dot twice":     func(r *Record) { r.IDs[0].Dots = []vclock.Dot{dot(2, 1), dot(2, 1)} },
		"id with a dot not covered": func(r *Record) { r.IDs[0].Dots = []vclock.Dot{dot(9, 1)} },
		"ids not in order":          func(r *Record) { r.IDs = append(r.IDs, IssuedID{idOf(1), []vclock.Dot{dot(1, 1)}}) },
		"id twice":                  func(r *Record) { r.IDs = append(r.IDs, r.IDs[0]) },
		"id zero":                   func(r *Record) { r.IDs[0].ID = WriteID{} },
		"id at the floor":           func(r *Record) { r.IDFloor = r.IDs[0].ID },
		"id below the floor":        func(r *Record) { r.IDFloor[0] = 0xff },
		"more ids than are kept": func(r *Record) {
			r.IDs = nil
			for n := range MaxIDs + 1 {
				r.IDs = append(r.IDs, IssuedID{idOf(n + 1), []vclock.Dot{dot(1, 1)}})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := goldenRecords()["typical"]
			if _, err := DecodeRecord(encoded(r)); err != nil {
				t.Fatal(err)
			}
			spoil(&r)
			if got, err := DecodeRecord(encoded(r)); err == nil {
				t.Errorf("read as %+v", got)
			}
		})
	}
}

// TestDecodeLimits: as many of a kind as may be are read, and one more is not.
func TestDecodeLimits(t *testing.T) {
	one := func(s Sibling) Record {
		return put(Record{}, s, nil, 1)
	}
	for _, tt := range []struct {
		name string
		most int
		of   func(n int) Record
	}{
		{"siblings", 1 << 16, func(n int) Record { return smallest(n, 0) }},
		{"write ids", 128, func(n int) Record { return smallest(0, n) }},
		{"attempts at a write", 1 << 10, func(n int) Record {
			r := smallest(n, 0)
			r.IDs = []IssuedID{{ID: idOf(1)}}
			for _, v := range r.Live {
				r.IDs[0].Dots = append(r.IDs[0].Dots, v.Dot)
			}
			return r
		}},
		{"fields of metadata", 1 << 10, func(n int) Record {
			s := Sibling{Kind: KindTombstone}
			for i := range n {
				s.Meta = append(s.Meta, Meta{Name: fmt.Sprintf("%04d", i)})
			}
			return one(s)
		}},
		{"bytes of a content type", 64 << 10, func(n int) Record {
			return one(Sibling{Kind: KindValue, ContentType: strings.Repeat("x", n)})
		}},
		{"inline bytes", 4 << 10, func(n int) Record { return one(value(strings.Repeat("x", n), WriteID{})) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := DecodeRecord(encoded(tt.of(tt.most))); err != nil {
				t.Errorf("%d: %v", tt.most, err)
			}
			if _, err := DecodeRecord(encoded(tt.of(tt.most + 1))); !errors.Is(err, wire.ErrTooLarge) {
				t.Errorf("%d: %v, want %v", tt.most+1, err, wire.ErrTooLarge)
			}
		})
	}
}

// smallest returns a record whose siblings and ids, as many as given, take as
// few bytes as any can.
func smallest(siblings, ids int) Record {
	r := Record{}
	for n := range max(siblings, ids) {
		d := vclock.Dot{Actor: 1, Counter: uint64(n + 1)}
		r.Clock = vclock.Clock{d}
		if n < siblings {
			r.Live = append(r.Live, Version{Dot: d, Value: Sibling{Kind: KindTombstone}})
		}
		if n < ids {
			r.IDs = append(r.IDs, IssuedID{idOf(n + 1), []vclock.Dot{d}})
		}
	}
	return r
}

// TestDecodeBelievesSmallCounts: a count is refused if less is left than so many
// items take at least, and only then.
func TestDecodeBelievesSmallCounts(t *testing.T) {
	for name, r := range map[string]Record{"siblings": smallest(100, 0), "ids": smallest(0, 100)} {
		if got, err := DecodeRecord(encoded(r)); err != nil || !sameRecord(got, r) {
			t.Errorf("%s: came back as\n%+v, %v", name, got, err)
		}
	}
}

// TestDecodeRefusesBytes changes single bytes of the typical record.
func TestDecodeRefusesBytes(t *testing.T) {
	typical := AppendLocal(nil, goldenRecords()["typical"])
	const local = 1 + 8 + 8 // mine
	for _, tt := range []struct {
		name string
		at   int
		to   byte
		want string
	}{
		{"mine neither there nor not", 0, 2, "out of range"},
		{"another version", local, 2, "record format 2 is not known"},
		{"no version", local, 0, "record format 0 is not known"},
		{"unknown flag", local + 2 + 1 + 3*8 + 4 + 1 + 8 + 2 + 1, siblingHasID | siblingHasType | 1<<4, "out of range"},
		{"floor neither there nor not", len(typical) - 1, 2, "out of range"},
		{"floor announced and missing", len(typical) - 1, 1, "truncated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(typical)
			b[tt.at] = tt.to
			if got, err := DecodeLocal(b); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v, want %q", got, err, tt.want)
			}
		})
	}
	mineless := bytes.Clone(typical)
	clear(mineless[1:9])
	if got, err := DecodeLocal(mineless); err == nil {
		t.Errorf("mine without an actor was read as %+v", got)
	}
	floor := slices.Concat(typical[:len(typical)-1], []byte{1}, make([]byte, len(WriteID{})))
	if got, err := DecodeLocal(floor); err == nil {
		t.Errorf("a floor of zero was read as %+v", got)
	}
	if got, err := DecodeLocal(append(bytes.Clone(typical), 0)); err == nil {
		t.Errorf("a byte too many was read as %+v", got)
	}
}

// TestDecodeCannotBeMadeToAllocate announces as much as the bounds allow, and
// then ends.
func TestDecodeCannotBeMadeToAllocate(t *testing.T) {
	for name, b := range map[string][]byte{
		"clock":    {recordVersion, 3, 0xff, 0xff, 0x03},
		"siblings": {recordVersion, 3, 0, 0xff, 0xff, 0x03},
		"ids":      {recordVersion, 3, 0, 0, MaxIDs & 0x7f, 1},
	} {
		if _, err := DecodeRecord(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
		checkAllocation(t, len(b), func() { _, _ = DecodeRecord(b) })
	}
}

// FuzzDecodeRecord: what is accepted is the one encoding of what was read, and
// reading costs little more memory than the input has bytes.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range goldenRecords() {
		b := encoded(r)
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkAllocation(t, len(b), func() { _, _ = DecodeRecord(b) })
		r, err := DecodeRecord(b)
		if err != nil {
			return
		}
		if again := AppendRecord(nil, r); !bytes.Equal(again, b) {
			t.Fatalf("%x was read as\n%+v\nwhich is %x", b, r, again)
		}
		if !r.Merge(Record{}).Covers(r) {
			t.Fatalf("%+v\ndoes not cover itself", r)
		}
	})
}

func FuzzDecodeLocal(f *testing.F) {
	for _, r := range goldenRecords() {
		f.Add(AppendLocal(nil, r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeLocal(b)
		if err != nil {
			return
		}
		if again := AppendLocal(nil, r); !bytes.Equal(again, b) {
			t.Fatalf("%x was read as\n%+v\nwhich is %x", b, r, again)
		}
		r.Put(Sibling{Kind: KindValue}, r.Clock, r.Mine.Boot, by(1), time.Time{})
		r.Visible(time.Time{})
	})
}

// checkAllocation fails if decode allocates more than a small multiple of the
// size of its input. The dearest field is metadata: 32 bytes for each of three.
func checkAllocation(t *testing.T, size int, decode func()) {
	t.Helper()
	limit := uint64(32*size + 4096)
	var before, after runtime.MemStats
	for range 3 { // others may allocate meanwhile
		runtime.ReadMemStats(&before)
		decode()
		runtime.ReadMemStats(&after)
		if after.TotalAlloc-before.TotalAlloc <= limit {
			return
		}
	}
	t.Errorf("decoding %d bytes allocated %d", size, after.TotalAlloc-before.TotalAlloc)
}

// A usual record is encoded in one allocation, of which little is left over.
func TestSizeHint(t *testing.T) {
	r := Record{NMax: 3, IDFloor: idOf(1)}
	for i := range uint64(4) {
		d := vclock.Dot{Actor: vclock.Actor(i + 1), Counter: 5000}
		r.Clock = r.Clock.With(d)
		r.Live = append(r.Live, Version{Dot: d, Value: Sibling{
			N: 3, WriteID: idOf(int(i) + 2), ContentType: "text/plain", Inline: make([]byte, 100), Length: 100, Meta: []Meta{{"name", "value"}},
		}})
		r.IDs = append(r.IDs, IssuedID{idOf(int(i) + 2), []vclock.Dot{d}})
		size := len(AppendRecord(nil, r))
		if hint := SizeHint(r); hint < size || hint > size+size/4 {
			t.Errorf("%d siblings: the hint is %d for %d bytes", i+1, hint, size)
		}
	}
}
