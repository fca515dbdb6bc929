package replica

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/vclock"
)

// fill stores a record with one value of size bytes under each of count keys of
// the partition of key, and returns the keys by leaf, in the order of the store.
func (r *rig) fill(count, size int, n uint8) []kv.Key {
	r.tb.Helper()
	keys := make([]kv.Key, 0, count)
	for i := 0; len(keys) < count; i++ {
		k := kv.Key{Bucket: "b", Name: fmt.Sprintf("k%d", i)}
		if r.slot(k).Partition != r.partition() {
			continue
		}
		rec, _ := written(kv.Record{}, vclock.Actor(i+1), string(bytes.Repeat([]byte{'v'}, size)), n)
		if err := r.put(coordinator.StoreRequest{Key: k}, rec); err != nil {
			r.tb.Fatal(err)
		}
		keys = append(keys, k)
	}
	slices.SortFunc(keys, byLeaf)
	return keys
}

func byLeaf(a, b kv.Key) int {
	if d := int(a.Leaf()) - int(b.Leaf()); d != 0 {
		return d
	}
	return compareStored(a, b)
}

// compareStored orders keys of a leaf as the store scans them.
func compareStored(a, b kv.Key) int {
	return cmp.Or(cmp.Compare(len(a.Bucket), len(b.Bucket)), strings.Compare(a.Bucket, b.Bucket), strings.Compare(a.Name, b.Name))
}

func allLeaves() []uint8 {
	leaves := make([]uint8, 256)
	for i := range leaves {
		leaves[i] = uint8(i)
	}
	return leaves
}

func keysOf(parcels []kv.Parcel) []kv.Key {
	keys := make([]kv.Key, 0, len(parcels))
	for _, p := range parcels {
		keys = append(keys, p.Key)
	}
	return keys
}

func TestParcels(t *testing.T) {
	r := newRig(t, storage.Options{})
	own, _ := written(kv.Record{}, 1, "own", 3)
	hint, _ := written(kv.Record{}, 2, "for 2", 3)
	if err := errors.Join(r.put(coordinator.StoreRequest{}, own), r.put(coordinator.StoreRequest{Target: 2}, hint)); err != nil {
		t.Fatal(err)
	}
	r.raiseTo(4)
	absent := kv.Key{Bucket: "b", Name: "absent"}
	for standIn, want := range map[bool]kv.Record{false: own, true: own.Merge(hint)} {
		got, taken, err := r.Parcels(r.view.Digest(), []kv.Key{absent, key}, standIn)
		if err != nil || taken != 2 || !slices.Equal(keysOf(got), []kv.Key{absent, key}) {
			t.Fatalf("%v, %d, %v", got, taken, err)
		}
		if len(got[0].Record) != 0 || got[0].Reap != 0 || got[1].Reap != 4 || !bytes.Equal(got[1].Record, kv.AppendRecord(nil, want)) {
			t.Errorf("stand-in %v: %v", standIn, got)
		}
	}
	// It serves before it is registered, but only under its own view.
	r.ledger.set(func() { r.ledger.unregistered = true })
	if _, _, err := r.Parcels(r.view.Digest(), []kv.Key{key}, false); err != nil {
		t.Error(err)
	}
	_, _, byKey := r.Parcels(1, []kv.Key{key}, false)
	page, _, _, byLeaf := r.LeafParcels(1, 2, 0, []uint8{0}, kv.Key{})
	if len(page) > 0 {
		t.Errorf("told of %v", page)
	}
	for _, err := range []error{byKey, byLeaf} {
		if stale, ok := errors.AsType[*coordinator.StaleViewError](err); !ok || stale.View.Digest() != r.view.Digest() {
			t.Error(err)
		}
	}
}

func TestPagesOfKeys(t *testing.T) {
	r := newRig(t, storage.Options{})
	keys := r.fill(700, 4000, 3) // 2.8 MB
	var sizes []int
	for left := keys; len(left) > 0; {
		got, taken, err := r.Parcels(r.view.Digest(), left, false)
		if err != nil || !slices.Equal(keysOf(got), left[:taken]) {
			t.Fatal(taken, err)
		}
		sizes = append(sizes, taken)
		left = left[taken:]
	}
	if len(sizes) != 3 || sizes[0] < 250 || sizes[0] > 263 {
		t.Errorf("pages of %v", sizes)
	}
}

func TestPagesOfLeaves(t *testing.T) {
	r := newRig(t, storage.Options{})
	keys := r.fill(700, 4000, 3)
	r.raiseTo(9)
	var got []kv.Key
	var after kv.Key
	pages := 0
	for leaves, more := allLeaves(), true; more; pages++ {
		var page []kv.Parcel
		var err error
		page, more, _, err = r.LeafParcels(r.view.Digest(), 2, r.partition(), leaves, after)
		if err != nil || page[0].Reap != 9 {
			t.Fatal(err)
		}
		got = append(got, keysOf(page)...)
		after = got[len(got)-1]
		leaves = leaves[slices.Index(leaves, after.Leaf()):]
	}
	if pages != 3 || !slices.Equal(got, keys) {
		t.Errorf("%d keys on %d pages, want %d on 3, in order", len(got), pages, len(keys))
	}
	only := keys[100].Leaf()
	page, more, damaged, err := r.LeafParcels(r.view.Digest(), 2, r.partition(), []uint8{only}, kv.Key{})
	if err != nil || more || damaged || slices.ContainsFunc(page, func(p kv.Parcel) bool { return p.Key.Leaf() != only }) || len(page) == 0 {
		t.Errorf("%d records of one leaf, more %v, damaged %v, %v", len(page), more, damaged, err)
	}
}

// Of leaves that are read together, those are told that were asked for, and
// those are doubted that hold damage, also where the page ends after it.
func TestRunsOfLeaves(t *testing.T) {
	r := newRig(t, storage.Options{})
	keys := r.fill(60, 100, 3)
	some := []uint8{keys[0].Leaf(), keys[2].Leaf(), keys[3].Leaf(), keys[9].Leaf()}
	page, more, damaged, err := r.LeafParcels(r.view.Digest(), 2, r.partition(), slices.Compact(some), kv.Key{})
	want := slices.DeleteFunc(slices.Clone(keys), func(k kv.Key) bool { return !slices.Contains(some, k.Leaf()) })
	if err != nil || more || damaged || !slices.Equal(keysOf(page), want) {
		t.Errorf("%v, more %v, damaged %v, %v; want %v", keysOf(page), more, damaged, err, want)
	}
	r.rot(keys[4], false)
	page, _, damaged, err = r.LeafParcels(r.view.Digest(), 2, r.partition(), allLeaves(), kv.Key{})
	if err != nil || !damaged || len(page) != len(keys)-1 {
		t.Errorf("%d records of %d, damaged %v, %v", len(page), len(keys), damaged, err)
	}
	for leaf := range 256 {
		if r.ledger.Doubted(r.partition(), uint8(leaf)) != (uint8(leaf) == keys[4].Leaf()) {
			t.Errorf("leaf %d is doubted, or the one of %v is not", leaf, keys[4])
		}
	}
}

// Who asks for leaves gets what it owns of them.
func TestLeavesForAnOwner(t *testing.T) {
	r := newRig(t, storage.Options{})
	owners := r.view.Active()[0].Owners(0)
	first := r.keyOwned(0)
	rec, _ := written(kv.Record{}, 1, "v", 1)
	if err := r.put(coordinator.StoreRequest{Key: first}, rec); err != nil || len(owners) != 3 {
		t.Fatal(owners, err)
	}
	for _, id := range r.view.Active()[0].Owners(r.view.Active()[0].Partition(first.Hash())) {
		got, _, _, err := r.LeafParcels(r.view.Digest(), id, r.slot(first).Partition, allLeaves(), kv.Key{})
		if err != nil || (len(got) == 1) != (id == self) {
			t.Errorf("node %v gets %v, %v", id, got, err)
		}
	}
}

// rot does to the stored record of a key what a bad disk does: the engine finds
// it no more, or it is not what was written.
func (r *rig) rot(key kv.Key, hidden bool) {
	r.tb.Helper()
	var batch storage.Batch
	err := r.engine.Scan([]byte{'r'}, []byte{'s'}, func(k, v []byte) error {
		switch {
		case !bytes.HasSuffix(k, []byte("b"+key.Name)):
		case hidden:
			batch.Delete(bytes.Clone(k))
		default:
			v = bytes.Clone(v)
			v[len(v)/2] ^= 4
			batch.Set(bytes.Clone(k), v)
		}
		return nil
	})
	if err == nil && batch.Len() == 1 {
		err = r.engine.Commit(&batch, true)
	}
	if err != nil || batch.Len() != 1 {
		r.tb.Fatal(batch.Len(), err)
	}
}

// What this node cannot read it does not show as absent, neither to readers nor
// to those who pull; and it knows from then on.
func TestDamagedRecords(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		t.Run(fmt.Sprintf("hidden %v", hidden), func(t *testing.T) {
			r := newRig(t, storage.Options{})
			rec, _ := written(kv.Record{}, 1, "v", 3)
			if err := r.put(coordinator.StoreRequest{}, rec); err != nil {
				t.Fatal(err)
			}
			r.rot(key, hidden)
			got, err := r.Fetch(coordinator.FetchRequest{Fence: r.fence(), Key: key})
			if got.Standing || hidden == errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("fetched %+v, %v", got, err)
			}
			if !r.ledger.Doubted(r.partition(), key.Leaf()) {
				t.Error("the leaf is not doubted")
			}
			if hidden {
				return
			}
			parcels, taken, err := r.Parcels(r.view.Digest(), []kv.Key{key}, false)
			if len(parcels) != 0 || taken != 1 || err != nil {
				t.Errorf("told of %v, %d, %v", parcels, taken, err)
			}
			parcels, _, damaged, err := r.LeafParcels(r.view.Digest(), 2, r.partition(), []uint8{key.Leaf()}, kv.Key{})
			if len(parcels) != 0 || !damaged || err != nil {
				t.Errorf("told of %v, damaged %v, %v", parcels, damaged, err)
			}
		})
	}
}

// beside returns another key of the same leaf.
func (r *rig) beside(key kv.Key) kv.Key {
	other := kv.Key{Bucket: "b"}
	for i := 0; other.Name == "" || r.slot(other).Partition != r.slot(key).Partition || other.Leaf() != key.Leaf(); i++ {
		other.Name = strconv.Itoa(i)
	}
	return other
}

// Another key of the leaf that is not there does not count as absent either.
func TestAbsentBesideDamage(t *testing.T) {
	r := newRig(t, storage.Options{})
	rec, _ := written(kv.Record{}, 1, "v", 3)
	if err := r.put(coordinator.StoreRequest{}, rec); err != nil {
		t.Fatal(err)
	}
	r.rot(key, true)
	got, err := r.Fetch(coordinator.FetchRequest{Fence: r.fence(), Key: r.beside(key)})
	if err != nil || got.Standing || !r.ledger.Doubted(r.partition(), key.Leaf()) {
		t.Errorf("%+v, %v", got, err)
	}
}
