package storage_test

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
)

func TestTreesHoldOwnRecordsOnly(t *testing.T) {
	disk := memory.New()
	s, mint := open(t, disk, options(1)), minter()
	for i := range 100 {
		mustSubmit(t, s, slot(strconv.Itoa(i)), false, put(mint, []byte("x"), all))
		mustSubmit(t, s, hint(7, strconv.Itoa(i)), false, put(mint, []byte("x"), all))
		mustSubmit(t, s, hint(kv.Quarantine, strconv.Itoa(i)), false, put(mint, []byte("x"), all))
	}
	for i := range 10 {
		mustSubmit(t, s, slot(strconv.Itoa(i)), false, remove)
	}
	checkTrees(t, s, 3)
	roots := s.Trees(3)
	if len(roots) != 1 || roots[0].NMax != 1 || roots[0].Count != 90 {
		t.Fatalf("trees %+v, want one of n 1 with 90 records", roots)
	}
	tree := s.Tree(3, 1)
	if tree.Root() != roots[0].Root || tree.Count() != 90 {
		t.Errorf("tree with root %x of %d records", tree.Root(), tree.Count())
	}
	if got := s.Trees(4); got != nil {
		t.Errorf("trees %+v of an empty partition", got)
	}
}

func TestScanLeafFollowsTheTree(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	for i := range 1000 {
		mustSubmit(t, s, slot(strconv.Itoa(i)), false, put(mint, []byte("x"), all))
	}
	want := s.Tree(3, 1)
	for leaf := range merkle.Leaves {
		var got merkle.Leaf
		err := s.ScanLeaf(3, uint8(leaf), func(k kv.Key, r kv.Record, digest uint64) error {
			if k.Leaf() != uint8(leaf) || digest != kv.Digest(k, kv.AppendRecord(nil, r)) {
				t.Errorf("leaf %d holds %v with digest %x", leaf, k, digest)
			}
			got = got.Apply(merkle.Delta{Sum: digest, Count: 1})
			return nil
		})
		if err != nil || got != want[leaf] {
			t.Fatalf("leaf %d makes %+v, %v, the tree has %+v", leaf, got, err, want[leaf])
		}
		if empty := s.LeafEmpty(3, uint8(leaf)); empty != (got.Count == 0) || !s.LeafEmpty(4, uint8(leaf)) {
			t.Errorf("leaf %d is empty: %v, it has %d records", leaf, empty, got.Count)
		}
	}
}

// A partition can be read in parts, and any run of its leaves.
func TestScanLeaves(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	for i := range 300 {
		for _, partition := range []uint16{2, 3, 4} {
			at := slot(strconv.Itoa(i))
			at.Partition = partition
			mustSubmit(t, s, at, false, put(mint, []byte("x"), all))
		}
	}
	var want []kv.Key
	if err := s.ScanPartition(3, func(k kv.Key, _ kv.Record) error { want = append(want, k); return nil }); err != nil {
		t.Fatal(err)
	}
	scan := func(first, last uint8, after kv.Key, most int) (got []kv.Key) {
		t.Helper()
		err := s.ScanLeaves(3, first, last, after, func(k kv.Key, r kv.Record, digest uint64) error {
			if digest != kv.Digest(k, kv.AppendRecord(nil, r)) {
				t.Errorf("%v has digest %x", k, digest)
			}
			if len(got) == most {
				return errEnough
			}
			got = append(got, k)
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		return got
	}
	var got []kv.Key
	for after, more := (kv.Key{}), true; more; {
		part := scan(0, 255, after, 7)
		if more = len(part) > 0; more {
			got, after = append(got, part...), part[len(part)-1]
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("in parts there are %d records, at once %d", len(got), len(want))
	}
	some := slices.DeleteFunc(slices.Clone(want), func(k kv.Key) bool { return k.Leaf() < 10 || k.Leaf() > 20 })
	if got := scan(10, 20, kv.Key{}, 1000); len(some) == 0 || !slices.Equal(got, some) {
		t.Errorf("leaves 10 to 20 hold %v, want %v", got, some)
	}
	wantError(t, "after no key", s.ScanLeaves(3, 0, 255, kv.Key{Name: "x"}, nil), storage.ErrBadKey)
}

// Damage is told of also where the one who reads has enough.
func TestScanTellsOfDamageBeforeItsEnd(t *testing.T) {
	disk, mint := memory.New(), minter()
	s := open(t, disk, options(1))
	for i := range 100 {
		mustSubmit(t, s, slot(strconv.Itoa(i)), true, put(mint, []byte("x"), all))
	}
	disk.Flip("r", 3, 99)
	seen := 0
	err := s.ScanLeaves(3, 0, 255, kv.Key{}, func(kv.Key, kv.Record, uint64) error {
		if seen++; seen == 50 {
			return errEnough
		}
		return nil
	})
	wantError(t, "scan", err, storage.ErrCorrupt)
	wantError(t, "scan", err, errEnough)
}

var errEnough = errors.New("enough")

func TestStepIsOne(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	step := func(run func(*storage.Tx) error) error {
		done := make(chan error, 1)
		if err := s.SubmitStep(storage.Step{Sync: true, Run: run, Done: func(err error) { done <- err }}); err != nil {
			return err
		}
		return <-done
	}
	fill := func(tx *storage.Tx) error {
		for _, at := range []kv.Slot{slot("a"), hint(7, "a"), slot("b")} {
			old, err := tx.Get(at)
			if err != nil {
				return err
			}
			c, err := put(mint, text(1, 9000), all)(old, tx.Boot())
			if err != nil {
				return err
			}
			tx.Put(at, c)
		}
		tx.SetFact("fact", []byte("1"))
		return nil
	}
	before := s.Stats().Commits
	if err := step(fill); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().Commits - before; n != 1 {
		t.Errorf("%d commits for a step", n)
	}
	refused := errors.New("refused")
	wantError(t, "step", step(func(tx *storage.Tx) error { return errors.Join(fill(tx), refused) }), refused)
	err := step(func(tx *storage.Tx) error {
		tx.Put(slot("c"), storage.Change{Record: mustRecord("x")})
		tx.Put(slot("d"), storage.Change{Record: mustGet(t, s, slot("a"))})
		return nil
	})
	wantError(t, "a step with a missing value", err, storage.ErrMissingBlob)
	for name, want := range map[string]int{"a": 1, "b": 1, "c": 0, "d": 0} {
		if got, err := values(s, slot(name), mustGet(t, s, slot(name))); err != nil || len(got) != want {
			t.Errorf("%s: %d values, %v, want %d", name, len(got), err, want)
		}
	}
	if got, err := s.GetMeta("fact"); err != nil || string(got) != "1" {
		t.Errorf("fact %q, %v", got, err)
	}
	checkTrees(t, s, 3)
}

// Two changes of one record in a step: the second holds what came with the first.
func TestStepKeepsValues(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	done := make(chan error, 1)
	err := s.SubmitStep(storage.Step{Sync: true, Done: func(err error) { done <- err }, Run: func(tx *storage.Tx) error {
		for _, seed := range []uint64{1, 2} {
			old, err := tx.Get(slot("a"))
			if err != nil {
				return err
			}
			c, err := put(mint, text(seed, 9000), nothing)(old, tx.Boot())
			if err != nil {
				return err
			}
			tx.Put(slot("a"), c)
		}
		return nil
	}})
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if got, err := values(s, slot("a"), mustGet(t, s, slot("a"))); err != nil || len(got) != 2 {
		t.Errorf("%d values, %v, want 2", len(got), err)
	}
}

// editMissed edits entries, and checks which of them that removes.
func editMissed(tb testing.TB, s *storage.Store, add, remove []storage.Missed, want ...bool) {
	tb.Helper()
	done := make(chan error, 1)
	var got []bool
	if err := s.SubmitMissed(add, remove, func(removed []bool, err error) { got = removed; done <- err }); err != nil {
		tb.Fatal(err)
	}
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
	if !slices.Equal(got, want) {
		tb.Errorf("edits of %v and %v removed %v, want %v", add, remove, got, want)
	}
}

func missedOf(tb testing.TB, s *storage.Store, target kv.NodeID) []storage.Missed {
	tb.Helper()
	var all []storage.Missed
	if err := s.ScanMissed(target, func(m storage.Missed) error { all = append(all, m); return nil }); err != nil {
		tb.Fatal(err)
	}
	return all
}

func TestMissed(t *testing.T) {
	s := open(t, memory.New(), options(1))
	missed := func(target kv.NodeID, name string, since int64) storage.Missed {
		return storage.Missed{Target: target, Partition: 3, Key: slot(name).Key, Since: time.UnixMilli(since)}
	}
	editMissed(t, s, []storage.Missed{missed(9, "a", 20), missed(2, "a", 10), missed(9, "a", 30)}, nil)
	seen := missedOf(t, s, 9)
	if len(seen) != 1 || seen[0].Since.UnixMilli() != 30 || seen[0].Key != slot("a").Key {
		t.Fatalf("missed %+v", seen)
	}
	if targets, err := s.MissedTargets(); err != nil || len(targets) != 2 || targets[0] != 2 || targets[1] != 9 {
		t.Errorf("targets %v, %v, want 2 and 9", targets, err)
	}
	editMissed(t, s, []storage.Missed{missed(9, "a", 30)}, nil)
	editMissed(t, s, nil, seen, false)
	if left := missedOf(t, s, 9); len(left) != 1 || left[0].Edition == seen[0].Edition {
		t.Errorf("a removal took along what was missed since: %+v", left)
	}
	editMissed(t, s, nil, append(missedOf(t, s, 9), seen...), true, false)
	seen = missedOf(t, s, 2)
	editMissed(t, s, []storage.Missed{missed(2, "a", 10)}, append(seen, seen...), false, false)
	editMissed(t, s, nil, missedOf(t, s, 2), true)
	if targets, err := s.MissedTargets(); err != nil || len(targets) != 0 {
		t.Errorf("targets %v, %v, want none", targets, err)
	}
	for _, target := range []kv.NodeID{0, kv.Quarantine} {
		err := s.SubmitMissed([]storage.Missed{missed(target, "a", 1)}, nil, func([]bool, error) {})
		wantError(t, "submit", err, storage.ErrBadKey)
	}
}

// A hint is dropped as it was seen, and no other.
func TestDropHint(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	at := hint(5, "a")
	big := bytes.Repeat([]byte("x"), 2*kv.InlineLimit)
	mustSubmit(t, s, at, false, put(mint, big, all))
	drop := func(r kv.Record) kv.Record {
		done := make(chan error, 1)
		if err := s.DropHint(at, kv.Digest(at.Key, kv.AppendRecord(nil, r)), func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		left, err := s.Get(at)
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	before, err := s.Get(at)
	if err != nil {
		t.Fatal(err)
	}
	mustSubmit(t, s, at, false, put(mint, big, all))
	after := drop(before)
	if after.Absent() {
		t.Error("it was dropped although it had changed")
	}
	if left := drop(after); !left.Absent() {
		t.Errorf("left is %+v", left)
	}
	drop(kv.Record{})
	if targets, err := s.HintTargets(); err != nil || len(targets) != 0 {
		t.Errorf("targets %v, %v, want none", targets, err)
	}
}

// What is in quarantine is read on from any place.
func TestScanQuarantineAfter(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	for _, at := range []kv.Slot{
		{Target: kv.Quarantine - 1, Partition: 1, Key: kv.Key{Bucket: "b", Name: "hint"}},
		{Target: kv.Quarantine, Partition: 1, Key: kv.Key{Bucket: "b", Name: "first"}},
		{Target: kv.Quarantine, Partition: 2, Key: kv.Key{Bucket: "b", Name: "k"}},
		{Target: kv.Quarantine, Partition: 2, Key: kv.Key{Bucket: "b", Name: "k\x00"}},
		{Target: kv.Quarantine, Partition: 0xffff, Key: kv.Key{Bucket: "b", Name: "last"}},
	} {
		mustSubmit(t, s, at, false, put(mint, []byte("x"), all))
	}
	var slots []kv.Slot
	note := func(slot kv.Slot, _ kv.Record) error {
		slots = append(slots, slot)
		return nil
	}
	if err := s.ScanQuarantineAfter(0, kv.Key{}, note); err != nil || len(slots) != 4 {
		t.Fatalf("%v, %v", slots, err)
	}
	whole := slots
	for i, at := range whole {
		slots = nil
		if err := s.ScanQuarantineAfter(at.Partition, at.Key, note); err != nil || !slices.Equal(slots, whole[i+1:]) {
			t.Errorf("after %v: %v, %v", at, slots, err)
		}
	}
	wantError(t, "after no key", s.ScanQuarantineAfter(1, kv.Key{Bucket: "b"}, note), storage.ErrBadKey)
}

func TestHintTargets(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	for _, target := range []kv.NodeID{5, 1, kv.Quarantine, 1 << 63, kv.Quarantine - 1} {
		for _, name := range []string{"a", "b"} {
			mustSubmit(t, s, hint(target, name), false, put(mint, []byte("x"), all))
		}
	}
	got, err := s.HintTargets()
	if want := []kv.NodeID{1, 5, 1 << 63, kv.Quarantine - 1}; err != nil || !slices.Equal(got, want) {
		t.Errorf("targets %v, %v, want %v", got, err, want)
	}
}

func TestRaiseStarts(t *testing.T) {
	disk := memory.New()
	s := open(t, disk, options(1))
	for _, to := range []uint64{10, 4} {
		if err := s.RaiseStarts(to); err != nil {
			t.Fatal(err)
		}
		if s.Starts() != 10 {
			t.Errorf("%d starts after raising them to %d", s.Starts(), to)
		}
	}
	disk.Crash(memory.LoseAll)
	if s = open(t, disk, options(2)); s.Starts() != 11 {
		t.Errorf("%d starts after a power cut, want 11", s.Starts())
	}
}
