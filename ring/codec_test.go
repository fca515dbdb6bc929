package ring

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/internal/wire"
)

func TestLayoutRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, err := Compute(testCluster, rapid.Uint64Range(1, 1<<63).Draw(t, "version"), drawMembers(t, 20), 32, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "second") {
			if l, err = Compute(testCluster, l.Version()+1, drawMembers(t, 20), 32, l); err != nil {
				t.Fatal(err)
			}
		}
		encoded := l.Append([]byte("before"))[len("before"):]
		got, err := DecodeLayout(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if got.Hash() != l.Hash() || !slices.Equal(got.owners, l.owners) || !slices.Equal(got.Members(), l.Members()) ||
			!slices.Equal(got.Ancestors(), l.Ancestors()) || got.Version() != l.Version() || got.Cluster() != l.Cluster() {
			t.Fatal("another layout came back")
		}
		if !bytes.Equal(got.Append(nil), encoded) {
			t.Fatal("another encoding came back")
		}
	})
}

// The format is what nodes have on disk and what hashes are taken over: it
// changes only with its version byte.
func TestLayoutFormat(t *testing.T) {
	l := compute(t, []Member{
		{ID: 2, Name: "b", Address: "b:2", Zone: "z", Weight: 300, State: StateDown},
		{ID: 1, Name: "a", Address: "a:1", Weight: 300},
	}, 2, nil)
	want := "01" + // version of the encoding
		"c1000000000000000000000000000005" + // cluster
		"01" + "00" + // version, no ancestors
		"02" + // members
		"0000000000000001" + "0161" + "03613a31" + "00" + "ac02" + "00" +
		"0000000000000002" + "0162" + "03623a32" + "017a" + "ac02" + "01" +
		"01" + // two partitions
		"00000001" + "00010000"
	if got := hex.EncodeToString(l.Append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := l.Hash().String(), "8241a674fb6a4d576f63047cd83c616f"; got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
}

// A layout of 1,000 nodes and as many partitions as there may be.
func TestLayoutSize(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("SKIPPED under -short or -race: the largest layout")
	}
	l := compute(t, members(1000, 1, 1, 1), MaxPartitions, nil)
	b := l.Append(nil)
	t.Logf("%d bytes", len(b))
	if len(b) > 2_500_000 || len(b) > maxLayoutLen {
		t.Errorf("%d bytes", len(b))
	}
	if _, err := DecodeLayout(b); err != nil {
		t.Error(err)
	}
}

// rawLayout is what an encoding is put together from, to put in what Compute
// never would.
type rawLayout struct {
	encoding   byte
	cluster    ClusterID
	version    uint64
	ancestors  []Hash
	members    []Member
	log        byte
	slots      []uint16
	afterwards []byte
}

func validRaw() rawLayout {
	ms := []Member{member(0, "", 1), member(1, "", 2), member(2, "", 0)}
	slices.SortFunc(ms, byID)
	heavy := slices.IndexFunc(ms, func(m Member) bool { return m.Weight == 2 })
	light := slices.IndexFunc(ms, func(m Member) bool { return m.Weight == 1 })
	a, b := uint16(heavy), uint16(light)
	return rawLayout{
		encoding: 1, cluster: testCluster, version: 7, ancestors: []Hash{{1}, {2}},
		members: ms, log: 1, slots: []uint16{a, b, b, a},
	}
}

func (r rawLayout) encode() []byte {
	b := append([]byte{r.encoding}, r.cluster[:]...)
	b = binary.AppendUvarint(b, r.version)
	b = appendHashes(b, r.ancestors)
	b = binary.AppendUvarint(b, uint64(len(r.members)))
	for _, m := range r.members {
		b = appendMember(b, m)
	}
	b = append(b, r.log)
	for _, s := range r.slots {
		b = binary.BigEndian.AppendUint16(b, s)
	}
	return append(b, r.afterwards...)
}

func TestDecodeLayoutRefuses(t *testing.T) {
	if _, err := DecodeLayout(validRaw().encode()); err != nil {
		t.Fatal(err)
	}
	idle := uint16(slices.IndexFunc(validRaw().members, func(m Member) bool { return m.Weight == 0 }))
	for _, tc := range []struct {
		name string
		edit func(*rawLayout)
		want error
	}{
		{"unknown encoding", func(r *rawLayout) { r.encoding = 2 }, ErrEncoding},
		{"no cluster", func(r *rawLayout) { r.cluster = ClusterID{} }, ErrInvalid},
		{"version 0", func(r *rawLayout) { r.version = 0 }, ErrInvalid},
		{"ancestor twice", func(r *rawLayout) { r.ancestors = []Hash{{1}, {1}} }, wire.ErrBadValue},
		{"too many ancestors", func(r *rawLayout) { r.ancestors = make([]Hash, MaxAncestors+1) }, wire.ErrTooLarge},
		{"no members", func(r *rawLayout) { r.members, r.slots = nil, nil }, ErrInvalid},
		{"members not sorted", func(r *rawLayout) { slices.Reverse(r.members) }, wire.ErrBadValue},
		{"member twice", func(r *rawLayout) { r.members[0].ID = r.members[1].ID }, ErrInvalid},
		{"name twice", func(r *rawLayout) { r.members[0].Name = r.members[1].Name }, ErrInvalid},
		{"bad name", func(r *rawLayout) { r.members[0].Name = "a/b" }, ErrInvalid},
		{"bad address", func(r *rawLayout) { r.members[0].Address = "x" }, ErrInvalid},
		{"bad state", func(r *rawLayout) { r.members[0].State = 9 }, ErrInvalid},
		{"too many partitions", func(r *rawLayout) { r.log = 17 }, ErrInvalid},
		{"absurd partitions", func(r *rawLayout) { r.log = 255 }, ErrInvalid},
		{"table too short", func(r *rawLayout) { r.slots = r.slots[1:] }, wire.ErrBadValue},
		{"table too long", func(r *rawLayout) { r.slots = append(r.slots, 0) }, wire.ErrBadValue},
		{"half a slot more", func(r *rawLayout) { r.afterwards = []byte{0} }, wire.ErrBadValue},
		{"owner out of range", func(r *rawLayout) { r.slots[3] = 3 }, wire.ErrBadValue},
		{"owner without weight", func(r *rawLayout) { r.slots[3] = idle }, wire.ErrBadValue},
		{"owner twice", func(r *rawLayout) { r.slots[3] = r.slots[2] }, wire.ErrBadValue},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := validRaw()
			tc.edit(&r)
			if _, err := DecodeLayout(r.encode()); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestDecodeLayoutTruncated(t *testing.T) {
	whole := validRaw().encode()
	for n := range whole {
		if _, err := DecodeLayout(whole[:n]); err == nil {
			t.Errorf("read %d of %d bytes", n, len(whole))
		}
	}
}

func FuzzDecodeLayout(f *testing.F) {
	f.Add(validRaw().encode())
	f.Add(compute(f, members(5, 1, 1, 1), 8, nil).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLayout(b)
		if err != nil {
			return
		}
		if !bytes.Equal(l.Append(nil), b) {
			t.Fatal("one layout, two encodings")
		}
		for p := range l.Partitions() {
			l.Owners(Partition(p))
		}
		if _, err := Compute(l.Cluster(), l.Version(), l.Members(), l.Partitions(), nil); err != nil {
			t.Fatalf("read what Compute refuses: %v", err)
		}
	})
}
