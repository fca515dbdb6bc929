package storage

import (
	"bytes"
	"cmp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

var allSpaces = []space{
	spaceRecord, spaceHint, spaceMissed, spaceValue, spaceHintValue,
	spacePart, spaceJournal, spacePage, spaceMeta, spaceStore,
}

// addresses draws addresses of the spaces given, close to one another so that
// they collide if they can.
func addresses(spaces ...space) *rapid.Generator[address] {
	return rapid.Custom(func(t *rapid.T) address {
		number := func(label string, most int) int { return rapid.IntRange(0, most).Draw(t, label) }
		a := address{space: rapid.SampledFrom(spaces).Draw(t, "space")}
		if a.space.hasTarget() {
			a.slot.Target = kv.NodeID(1 + number("target", 2))
		}
		switch a.space {
		case spaceRecord, spaceHint, spaceMissed:
			a.slot.Partition = uint16(number("partition", 2))
			a.slot.Key = kv.Key{Bucket: drawText(t, "bucket", kv.MaxBucketBytes), Name: drawText(t, "name", kv.MaxKeyBytes)}
		case spaceValue, spaceHintValue:
			a.slot.Partition = uint16(number("partition", 2))
			a.dot = vclock.Dot{Actor: vclock.Actor(1 + number("actor", 2)), Counter: uint64(1 + number("counter", 2))}
			a.number = uint16(number("chunk", 3))
		case spacePart:
			a.id, a.number = uint64(number("id", 2)), uint16(number("part", 3))
		case spaceJournal:
			a.id = uint64(number("number", 2))
		case spacePage:
			a.slot.Partition, a.nmax = uint16(number("partition", 2)), uint8(number("n", 2))
		case spaceMeta, spaceStore:
			a.name = drawText(t, "name", maxMetaName)
		}
		return a
	})
}

func drawText(t *rapid.T, label string, most int) string {
	if rapid.IntRange(0, 9).Draw(t, label+" is long") == 0 {
		return strings.Repeat("x", most)
	}
	return rapid.StringOfN(rapid.RuneFrom([]rune("ab\x00")), 1, 3, -1).Draw(t, label)
}

func TestAddressRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := addresses(allSpaces...).Draw(t, "address")
		got, err := parseAddress(a.bytes())
		if err != nil || got != a {
			t.Fatalf("parsed %+v, %v, want %+v", got, err, a)
		}
	})
}

func TestAddressesHaveDistinctKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := addresses(allSpaces...).Draw(t, "a"), addresses(allSpaces...).Draw(t, "b")
		if bytes.Equal(a.bytes(), b.bytes()) != (a == b) {
			t.Fatalf("%+v and %+v have keys %q and %q", a, b, a.bytes(), b.bytes())
		}
	})
}

// Records are ordered by partition, leaf, bucket length, bucket and name; hints
// and notes of what was missed by target first.
func TestAddressOrder(t *testing.T) {
	order := func(a, b address) int {
		return cmp.Or(
			cmp.Compare(a.slot.Target, b.slot.Target),
			cmp.Compare(a.slot.Partition, b.slot.Partition),
			cmp.Compare(a.slot.Key.Leaf(), b.slot.Key.Leaf()),
			cmp.Compare(len(a.slot.Key.Bucket), len(b.slot.Key.Bucket)),
			cmp.Compare(a.slot.Key.Bucket, b.slot.Key.Bucket),
			cmp.Compare(a.slot.Key.Name, b.slot.Key.Name),
		)
	}
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]space{spaceRecord, spaceHint, spaceMissed}).Draw(t, "kind")
		a, b := addresses(kind).Draw(t, "a"), addresses(kind).Draw(t, "b")
		if bytes.Compare(a.bytes(), b.bytes()) != order(a, b) {
			t.Fatalf("%+v and %+v are out of order", a, b)
		}
	})
}

func TestRangesHoldTheirOwn(t *testing.T) {
	inside := func(a address, from, to []byte) bool {
		key := a.bytes()
		return bytes.Compare(from, key) <= 0 && bytes.Compare(key, to) < 0
	}
	rapid.Check(t, func(t *rapid.T) {
		a := addresses(allSpaces...).Draw(t, "address")
		partition := rapid.SampledFrom([]uint16{0, 1, 2, 255, 65535}).Draw(t, "partition")
		from, to := partitionRange(partition)
		if inside(a, from, to) != (a.space == spaceRecord && a.slot.Partition == partition) {
			t.Fatalf("range of partition %d and %+v", partition, a)
		}
		target := rapid.SampledFrom([]kv.NodeID{1, 2, 1<<64 - 1}).Draw(t, "target")
		from, to = targetRange(spaceHint, target)
		if inside(a, from, to) != (a.space == spaceHint && a.slot.Target == target) {
			t.Fatalf("range of target %v and %+v", target, a)
		}
		from, to = metaRange("a")
		if inside(a, from, to) != (a.space == spaceMeta && strings.HasPrefix(a.name, "a")) {
			t.Fatalf("range of facts and %+v", a)
		}
	})
}

func TestLastPartitionHasAnEnd(t *testing.T) {
	a := slotAddress(kv.Slot{Partition: 65535, Key: kv.Key{Bucket: "b", Name: "\xff\xff"}}).bytes()
	if from, to := partitionRange(65535); bytes.Compare(a, from) < 0 || bytes.Compare(a, to) >= 0 {
		t.Errorf("%q is not between %q and %q", a, from, to)
	}
}

func TestParseAddressRefuses(t *testing.T) {
	record := slotAddress(kv.Slot{Partition: 1, Key: kv.Key{Bucket: "b", Name: "n"}}).bytes()
	otherGeneration := bytes.Clone(record)
	otherGeneration[7] = 1
	otherLeaf := bytes.Clone(record)
	otherLeaf[3]++
	tests := map[string][]byte{
		"another leaf":       otherLeaf,
		"nothing":            {},
		"unknown space":      []byte("x123"),
		"short record":       record[:5],
		"record, no name":    record[:len(record)-1],
		"other generation":   otherGeneration,
		"hint for no node":   append([]byte{'h', 0, 0, 0, 0, 0, 0, 0, 0}, record[1:]...),
		"value without dot":  append([]byte{'v'}, make([]byte, 20)...),
		"trailing byte":      append(partAddress(1).bytes(), 0),
		"fact without name":  []byte("m"),
		"overlong fact name": append([]byte("m"), make([]byte, maxMetaName+1)...),
		"overlong name":      append(bytes.Clone(record), make([]byte, kv.MaxKeyBytes)...),
	}
	for name, b := range tests {
		if a, err := parseAddress(b); err == nil {
			t.Errorf("%s: parsed as %v", name, a)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add(slotAddress(kv.Slot{Partition: 1, Key: kv.Key{Bucket: "b", Name: "n"}}).bytes())
	f.Add(valueAddress(kv.Slot{Target: 7, Partition: 1}, vclock.Dot{Actor: 1, Counter: 2}).piece(3).bytes())
	f.Add(metaAddress("fact").bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAddress(b)
		if err != nil {
			return
		}
		if !bytes.Equal(a.bytes(), b) {
			t.Errorf("%q parsed as %+v, whose key is %q", b, a, a.bytes())
		}
		_ = a.String()
	})
}
