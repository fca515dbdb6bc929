package replica

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/ring"
)

// ledger is what a node knows of its standing: all is well, until a test says
// otherwise.
type ledger struct {
	mu           sync.Mutex
	unregistered bool
	behind       bool
	unsynced     int         // calls of BeforeUnsynced
	refusal      error       // and their answer
	asked        []kv.NodeID // the owners that Standing was last asked for
	doubts       map[leafOf]bool
}

type leafOf struct {
	partition uint16
	leaf      uint8
}

func newLedger() *ledger { return &ledger{doubts: make(map[leafOf]bool)} }

func (l *ledger) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *ledger) Registered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.unregistered
}

func (l *ledger) Standing(_ uint16, owners []kv.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = slices.Clone(owners)
	return !l.behind
}

func (l *ledger) Doubted(partition uint16, leaf uint8) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.doubts[leafOf{partition, leaf}]
}

func (l *ledger) Doubt(partition uint16, leaf uint8) {
	l.set(func() { l.doubts[leafOf{partition, leaf}] = true })
}

func (l *ledger) BeforeUnsynced() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsynced++
	return l.refusal
}

// slot is the node's own slot of key.
func (r *rig) slot(key kv.Key) kv.Slot { return slotOf(r.view, key, 0) }

// notReady reports whether err is the refusal of a node that is not registered.
func notReady(err error) bool {
	e, ok := errors.AsType[*kv.Error](err)
	return ok && e.Code == kv.CodeNotReady && e.Outcome == kv.NotApplied && e.RetryAfter > 0
}

// A node of which the cluster does not know that it started takes nothing and
// its answers do not count; what it has it shows.
func TestUnregistered(t *testing.T) {
	r := newRig(t, storage.Options{})
	rec, _ := written(kv.Record{}, 1, "v", 3)
	if err := r.put(coordinator.StoreRequest{}, rec); err != nil {
		t.Fatal(err)
	}
	r.ledger.set(func() { r.ledger.unregistered = true })
	for name, err := range map[string]error{
		"store":  r.put(coordinator.StoreRequest{}, rec),
		"hint":   r.put(coordinator.StoreRequest{Target: 2}, rec),
		"assign": r.assign(nil),
		"raise":  r.Raise(t.Context(), r.slot(key).Partition, 1),
		"merge":  r.MergeParcels(t.Context(), r.view.Digest(), []kv.Parcel{{Key: key}}, nil)[0],
	} {
		if !notReady(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := r.Fetch(coordinator.FetchRequest{Fence: r.fence(), Key: key})
	if err != nil || got.Standing || got.Record.Absent() {
		t.Errorf("fetched %+v, %v", got, err)
	}
	if r.Room() != 0 {
		t.Errorf("has room for %d keys", r.Room())
	}
}

func TestStandingOfAFetch(t *testing.T) {
	absent := kv.Key{Bucket: "b", Name: "absent"}
	for _, tt := range []struct {
		name   string
		key    kv.Key
		change func(r *rig)
		stands bool
	}{
		{"all is well", key, func(*rig) {}, true},
		{"nothing is there", absent, func(*rig) {}, true},
		{"it is catching up", key, func(r *rig) { r.ledger.behind = true }, false},
		{"the leaf is doubted", key, func(r *rig) { r.ledger.Doubt(r.slot(key).Partition, key.Leaf()) }, false},
		{"another leaf is", key, func(r *rig) { r.ledger.Doubt(r.slot(key).Partition, key.Leaf()+1) }, true},
		{"that of another partition is", key, func(r *rig) { r.ledger.Doubt(r.slot(key).Partition+1, key.Leaf()) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, storage.Options{})
			rec, _ := written(kv.Record{}, 1, "v", 3)
			if err := r.put(coordinator.StoreRequest{}, rec); err != nil {
				t.Fatal(err)
			}
			tt.change(r)
			got, err := r.Fetch(coordinator.FetchRequest{Fence: r.fence(), Key: tt.key})
			if err != nil || got.Standing != tt.stands || got.Record.Absent() != (tt.key == absent) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// Standing is asked for all owners, of all layouts: a record may have been
// written wider than the request reads.
func TestStandingIsOfAllOwners(t *testing.T) {
	r := newRig(t, storage.Options{})
	r.view = viewOf(t, 6, 1)
	before := r.view.Active()[0]
	next, err := r.view.With(layoutOf(t, 4, 2, before))
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]ring.View{"one layout": r.view, "two": next} {
		r.view = v
		if _, err := r.Fetch(coordinator.FetchRequest{Fence: r.fence(), Key: key}); err != nil {
			t.Fatal(err)
		}
		var want []kv.NodeID
		for _, l := range v.Active() {
			for _, id := range l.Owners(l.Partition(key.Hash())) {
				if !slices.Contains(want, id) {
					want = append(want, id)
				}
			}
		}
		if !slices.Equal(r.ledger.asked, want) {
			t.Errorf("%s: asked for %v, want %v", name, r.ledger.asked, want)
		}
	}
}

// A fetch waits only where it has to.
func TestFetchNow(t *testing.T) {
	r := newRig(t, storage.Options{})
	rec, _ := written(kv.Record{}, 1, "v", 3)
	if err := r.put(coordinator.StoreRequest{}, rec); err != nil {
		t.Fatal(err)
	}
	beside := r.beside(key)
	elsewhere := kv.Key{Bucket: "b", Name: "elsewhere"}
	for _, tt := range []struct {
		name   string
		req    coordinator.FetchRequest
		behind bool
		waits  bool
	}{
		{"found", coordinator.FetchRequest{Key: key}, false, false},
		{"a number to be learnt", coordinator.FetchRequest{Key: key, Reap: 1}, false, true},
		{"not found, in an empty leaf", coordinator.FetchRequest{Key: elsewhere}, false, false},
		{"not found, in another", coordinator.FetchRequest{Key: beside}, false, true},
		{"which does not count anyway", coordinator.FetchRequest{Key: beside}, true, false},
		{"nor for a stand-in", coordinator.FetchRequest{Key: beside, StandIn: true}, false, false},
	} {
		r.ledger.set(func() { r.ledger.behind = tt.behind })
		tt.req.Fence = r.fence()
		got, waits, err := r.FetchNow(tt.req)
		if err != nil || waits != tt.waits || !waits && got.Standing == tt.behind {
			t.Errorf("%s: %+v, waits %v, %v", tt.name, got, waits, err)
		}
		if got, err := r.Fetch(tt.req); err != nil || got.Standing == tt.behind || got.Reap < tt.req.Reap {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
}
