package standing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// record returns a record that was written by actor 1 count times, each time
// replacing what was there, and holds the last value.
func record(count int, n uint8) (r kv.Record) {
	for range count {
		r, _ = r.Put(kv.Sibling{Kind: kv.KindValue, N: n}, r.Clock, 1, func() vclock.Actor { return 1 }, time.Time{})
	}
	return r
}

func TestJudge(t *testing.T) {
	beside, _ := record(2, 3).Put(kv.Sibling{Kind: kv.KindValue, N: 3}, nil, 1, func() vclock.Actor { return 2 }, time.Time{})
	for _, c := range []struct {
		name                 string
		quarantined, present kv.Record
		then, now            uint64
		want                 Verdict
	}{
		{"the same", record(2, 3), record(2, 3), 5, 5, Drop},
		{"replaced since", record(2, 3), record(4, 3), 5, 5, Drop},
		{"replaced since, and something was reaped", record(2, 3), record(4, 3), 5, 9, Drop},
		{"nobody else has it", record(2, 3), kv.Record{}, 5, 5, Restore},
		{"nobody else has it, perhaps because it was reaped", record(2, 3), kv.Record{}, 5, 6, Keep},
		{"newer than what others have", record(3, 3), record(2, 3), 5, 5, Restore},
		{"newer than what others have, perhaps reaped", record(3, 3), record(2, 3), 5, 6, Keep},
		{"one sibling of two is new", beside, record(2, 3), 5, 5, Restore},
		{"one sibling of two is new, perhaps reaped", beside, record(2, 3), 5, 6, Keep},
		{"no number is taken for a lower one", record(2, 3), kv.Record{}, 6, 5, Keep},
		{"nothing", kv.Record{}, kv.Record{}, 5, 6, Drop},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Judge(c.quarantined, c.present, c.then, c.now); got != c.want {
				t.Errorf("verdict %d, want %d", got, c.want)
			}
		})
	}
}

// shelves are records in memory.
type shelves struct {
	records map[kv.Slot]kv.Record
	numbers map[uint16]uint64
	batches []int
	fail    int // PutAway fails once so many batches are put away
}

func newShelves() *shelves {
	return &shelves{records: make(map[kv.Slot]kv.Record), numbers: make(map[uint16]uint64), fail: -1}
}

// slots returns those for which want holds, in the order of a disk.
func (s *shelves) slots(want func(kv.Slot) bool) []kv.Slot {
	all := slices.DeleteFunc(slices.Collect(maps.Keys(s.records)), func(slot kv.Slot) bool { return !want(slot) })
	slices.SortFunc(all, func(a, b kv.Slot) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Key.Name, b.Key.Name))
	})
	return all
}

// Held implements [Shelves].
func (s *shelves) Held(fn func(kv.Slot) error) error {
	for _, slot := range s.slots(func(slot kv.Slot) bool { return slot.Target != kv.Quarantine }) {
		if err := fn(slot); err != nil {
			return err
		}
	}
	return nil
}

// PutAway implements [Shelves].
func (s *shelves) PutAway(_ context.Context, slots []kv.Slot) error {
	if len(s.batches) == s.fail {
		return errDisk
	}
	s.batches = append(s.batches, len(slots))
	for _, slot := range slots {
		away := slot
		away.Target = kv.Quarantine
		s.records[away] = s.records[away].Merge(s.records[slot])
		delete(s.records, slot)
	}
	return nil
}

// Quarantined implements [Shelves].
func (s *shelves) Quarantined(partition uint16, fn func(kv.Key) error) error {
	for _, slot := range s.slots(func(slot kv.Slot) bool { return slot.Target == kv.Quarantine && slot.Partition == partition }) {
		if err := fn(slot.Key); err != nil {
			return err
		}
	}
	return nil
}

// Settle implements [Shelves].
func (s *shelves) Settle(_ context.Context, partition uint16, key kv.Key, judge func(_, _ kv.Record, _ uint64) Verdict) error {
	own := kv.Slot{Partition: partition, Key: key}
	away := kv.Slot{Target: kv.Quarantine, Partition: partition, Key: key}
	switch judge(s.records[away], s.records[own], s.numbers[partition]) {
	case Restore:
		s.records[own] = s.records[own].Merge(s.records[away])
		delete(s.records, away)
	case Drop:
		delete(s.records, away)
	case Keep:
	}
	return nil
}

// Number implements [Shelves].
func (s *shelves) Number(partition uint16) (uint64, error) { return s.numbers[partition], nil }

// put stores a record that was written count times.
func (s *shelves) put(target kv.NodeID, partition uint16, name string, count int, n uint8) {
	s.records[kv.Slot{Target: target, Partition: partition, Key: kv.Key{Bucket: "b", Name: name}}] = record(count, n)
}

// holds checks where the records of a key are.
func (s *shelves) holds(t *testing.T, name string, targets ...kv.NodeID) {
	t.Helper()
	got := s.slots(func(slot kv.Slot) bool { return slot.Key.Name == name })
	if !slices.EqualFunc(got, targets, func(slot kv.Slot, id kv.NodeID) bool { return slot.Target == id }) {
		t.Errorf("%s is held in %v, want it held for %v", name, got, targets)
	}
}

// TestSetback puts away what a disk holds, hints too, and releases a partition
// after others have told what they know.
func TestSetback(t *testing.T) {
	v := viewOf(t, upTo(3))
	s, d := newShelves(), newDisk()
	b := Setback{Self: 1, Shelves: s, Facts: d, View: func() ring.View { return v }, Now: time.Now}
	last := uint16(0) // a partition whose last owner is the node
	for v.Active()[0].Owners(ring.Partition(last))[2] != 1 {
		last++
	}
	other := (last + 1) % partitions
	s.numbers = map[uint16]uint64{last: 5, other: 6}
	for i := range 3 * batchLen {
		s.put(0, other, fmt.Sprint("many ", i), 1, 3)
	}
	s.put(0, last, "seen", 2, 3)
	s.put(0, last, "new", 2, 3)
	s.put(2, last, "new", 3, 3)
	s.put(0, last, "replaced here", 1, 3)
	s.put(2, last, "held for another", 1, 1) // of n = 1, the node is no owner

	moved, err := b.PutAway(t.Context())
	if err != nil || moved != 3*batchLen+5 || slices.Max(s.batches) > batchLen {
		t.Fatalf("moved %d in %v, %v", moved, s.batches, err)
	}
	if left := s.slots(func(slot kv.Slot) bool { return slot.Target != kv.Quarantine }); len(left) > 0 {
		t.Fatalf("left where it was: %v", left)
	}
	if got, err := b.Partitions(); err != nil || len(got) != 2 || !slices.Contains(got, last) || !slices.Contains(got, other) {
		t.Errorf("in quarantine are records of %v, %v", got, err)
	}

	s.put(0, last, "seen", 3, 3)
	s.put(0, last, "replaced here", 1, 3)
	got, err := b.Release(t.Context(), last)
	if want := (Released{Dropped: 2, Restored: 1, Kept: 1}); err != nil || got != want {
		t.Errorf("released %+v, %v; want %+v", got, err, want)
	}
	s.holds(t, "seen", 0)
	s.holds(t, "replaced here", 0)
	s.holds(t, "new", 0)
	s.holds(t, "held for another", kv.Quarantine)
	if r := s.records[kv.Slot{Partition: last, Key: kv.Key{Bucket: "b", Name: "new"}}]; len(r.Live) != 1 || r.Live[0].Dot.Counter != 3 {
		t.Errorf("restored %+v, want record and hint merged", r)
	}

	s.numbers[other]++ // something was reaped meanwhile
	got, err = b.Release(t.Context(), other)
	if want := (Released{Kept: 3 * batchLen}); err != nil || got != want {
		t.Errorf("released %+v, %v; want %+v", got, err, want)
	}
}

// TestReleaseEnds: once nothing is left, nothing is asked again.
func TestReleaseEnds(t *testing.T) {
	v := viewOf(t, upTo(3))
	s, d := newShelves(), newDisk()
	b := Setback{Self: 1, Shelves: s, Facts: d, View: func() ring.View { return v }, Now: time.Now}
	s.put(0, 4, "k", 1, 3)
	if _, err := b.PutAway(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []Released{{Restored: 1}, {}} {
		if got, err := b.Release(t.Context(), 4); err != nil || got != want {
			t.Errorf("released %+v, %v; want %+v", got, err, want)
		}
		if got, err := b.Partitions(); err != nil || len(got) > 0 {
			t.Errorf("still in quarantine: %v, %v", got, err)
		}
	}
}

// TestPuttingAwayTwice: after an interruption the rest follows, and of two
// numbers the lower one stays, so that nothing comes back which was reaped
// between them.
func TestPuttingAwayTwice(t *testing.T) {
	v := viewOf(t, upTo(3))
	s, d := newShelves(), newDisk()
	b := Setback{Self: 1, Shelves: s, Facts: d, View: func() ring.View { return v }, Now: time.Now}
	for i := range 2 * batchLen {
		s.put(0, 4, strconv.Itoa(i), 1, 3)
	}
	s.numbers[4], s.fail = 5, 1
	if moved, err := b.PutAway(t.Context()); !errors.Is(err, errDisk) || moved != batchLen {
		t.Fatalf("moved %d, %v", moved, err)
	}
	began, _ := b.Quarantine(4)
	if began.Number != 5 || time.Since(began.Since) > time.Minute {
		t.Errorf("noted %+v", began)
	}
	b.Now = func() time.Time { return began.Since.Add(time.Hour) }
	s.numbers[4], s.fail = 6, -1
	if moved, err := b.PutAway(t.Context()); err != nil || moved != batchLen {
		t.Fatalf("moved %d, %v", moved, err)
	}
	if got, err := b.Quarantine(4); err != nil || got != began {
		t.Errorf("noted %+v, %v, want %+v still", got, err, began)
	}
	if got, err := b.Release(t.Context(), 4); err != nil || got.Kept != 2*batchLen {
		t.Errorf("released %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Release(ctx, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("released after the end: %v", err)
	}
	d.breakDown(prefixQuarantine)
	s.put(0, 4, "more", 1, 3)
	if moved, err := b.PutAway(t.Context()); !errors.Is(err, errDisk) || moved != 0 {
		t.Errorf("moved %d without a note of the number, %v", moved, err)
	}
}
