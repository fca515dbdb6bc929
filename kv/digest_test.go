package kv

import "testing"

func TestDigestTellsApart(t *testing.T) {
	a, b := Key{Bucket: "b", Name: "a"}, Key{Bucket: "b", Name: "b"}
	record := AppendRecord(nil, Record{NMax: 3})
	other := AppendRecord(nil, Record{NMax: 4})
	if again := Digest(a, AppendRecord(nil, Record{NMax: 3})); Digest(a, record) != again {
		t.Error("one record has two digests")
	}
	if Digest(a, record) == Digest(b, record) || Digest(a, record) == Digest(a, other) {
		t.Error("another key or record has the same digest")
	}
	if a.Leaf() != uint8(a.Hash()) {
		t.Error("the leaf is not the low end of the hash")
	}
}
