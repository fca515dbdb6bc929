package replica

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/vclock"
)

// A value that the disk lost is noticed by who reads it, and is as it was once
// another node's copy is stored.
func TestLostValue(t *testing.T) {
	r := newRig(t, storage.Options{})
	big := bytes.Repeat([]byte("big"), kv.InlineLimit)
	rec, blob := written(kv.Record{}, 1, string(big), 3)
	if err := r.put(coordinator.StoreRequest{Blobs: []kv.Blob{blob}}, rec); err != nil {
		t.Fatal(err)
	}
	req := coordinator.ValueRequest{Fence: r.fence(), Key: key, Dot: blob.Dot, Length: uint64(len(big)), Checksum: kv.Checksum(big)}
	other := req
	other.Dot.Counter++
	if _, err := r.Value(other); !errors.Is(err, storage.ErrNotFound) || len(r.suspects) > 0 {
		t.Errorf("a value that it never had: %v, suspects %v", err, r.suspects)
	}
	r.disk.Flip("v", 0, 777)
	if _, err := r.Value(req); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("a damaged value: %v", err)
	}
	if want := [2]int{int(r.partition()), int(key.Leaf())}; len(r.suspects) != 1 || r.suspects[0] != want {
		t.Errorf("suspects %v, want %v", r.suspects, want)
	}
	if r.ledger.Doubted(r.partition(), key.Leaf()) {
		t.Error("records are doubted for a value")
	}
	if err := r.MendValue(t.Context(), key, rec.Live[0], big[1:]); err == nil {
		t.Error("another value was taken")
	}
	if err := r.MendValue(t.Context(), key, rec.Live[0], big); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Value(req); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}

	// One that was replaced meanwhile is of no use.
	next, _ := rec.Put(kv.Sibling{Kind: kv.KindTombstone, N: 3}, rec.Clock, 1, func() vclock.Actor { return 3 }, time.Time{})
	if err := r.put(coordinator.StoreRequest{}, next); err != nil {
		t.Fatal(err)
	}
	if err := r.MendValue(t.Context(), key, rec.Live[0], big); err != nil {
		t.Error(err)
	}
	if got := r.fetch(false); len(got.Live) != 1 || got.Live[0].Value.Kind != kv.KindTombstone {
		t.Errorf("the old value came back: %v", got)
	}
	if _, err := r.Value(req); !errors.Is(err, storage.ErrNotFound) || len(r.suspects) != 1 {
		t.Errorf("a value that was replaced: %v, suspects %v", err, r.suspects)
	}
}
