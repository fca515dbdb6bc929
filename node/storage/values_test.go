package storage_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
	"github.com/starling-kv/starling/vclock"
)

func TestExternalValuesOfAllLengths(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	for _, n := range []int{kv.InlineLimit + 1, 256 << 10, 256<<10 + 1, 3 << 20} {
		at, want := slot(strconv.Itoa(n)), string(text(1, n))
		mustSubmit(t, s, at, true, put(mint, []byte(want), all))
		got, err := values(s, at, mustGet(t, s, at))
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%d bytes: %d values, %v", n, len(got), err)
		}
	}
}

func TestReplacedValuesLeaveNothing(t *testing.T) {
	for _, at := range []kv.Slot{slot("key"), hint(7, "key")} {
		disk := memory.New()
		s, mint := open(t, disk, options(1)), minter()
		for i := range uint64(3) {
			mustSubmit(t, s, at, false, put(mint, text(i, 600<<10), all))
		}
		old := mustGet(t, s, at).Live[0]
		mustSubmit(t, s, at, false, put(mint, []byte("small"), all))
		_, err := s.Value(at, old.Dot, old.Value.Length, old.Value.Checksum)
		wantError(t, "a replaced value", err, storage.ErrNotFound)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := keys(t, disk); n != 1 {
			t.Errorf("%d entries are left, want the record only", n)
		}
	}
}

func TestSiblingsKeepTheirValues(t *testing.T) {
	disk := memory.New()
	s, mint, at := open(t, disk, options(1)), minter(), slot("key")
	for i := range uint64(3) {
		mustSubmit(t, s, at, false, put(mint, text(i, 5000), nothing))
	}
	got, err := values(s, at, mustGet(t, s, at))
	if err != nil || len(got) != 3 {
		t.Fatalf("%d siblings, %v, want 3", len(got), err)
	}
	mustSubmit(t, s, at, false, remove)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := keys(t, disk); n != 0 {
		t.Errorf("%d entries are left after the removal", n)
	}
}

// A hint and a record of the same dot hold a value each: the one must not take
// the other's along.
func TestHintsShareNoValues(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	owned, held := slot("key"), hint(7, "key")
	mustSubmit(t, s, owned, false, put(mint, text(1, 5000), all))
	r := mustGet(t, s, owned)
	copied := func(kv.Record, uint64) (storage.Change, error) {
		return storage.Change{Record: r, Blobs: []kv.Blob{{Dot: r.Live[0].Dot, Data: text(1, 5000)}}}, nil
	}
	mustSubmit(t, s, held, false, copied)
	mustSubmit(t, s, held, false, remove)
	if _, err := values(s, owned, mustGet(t, s, owned)); err != nil {
		t.Errorf("the record's value went with the hint: %v", err)
	}
}

func TestMissingBlob(t *testing.T) {
	s, at := open(t, memory.New(), options(1)), slot("key")
	r, dot := kv.Record{}.Put(sibling(text(1, 5000)), nil, 1, minter(), time.Time{})
	other := kv.Blob{Dot: vclock.Dot{Actor: 99, Counter: 1}, Data: []byte("of no use")}
	err := submit(s, at, true, func(kv.Record, uint64) (storage.Change, error) {
		return storage.Change{Record: r, Blobs: []kv.Blob{other}}, nil
	})
	wantError(t, "update", err, storage.ErrMissingBlob)
	var missing *storage.MissingBlobError
	if !errors.As(err, &missing) || !slices.Equal(missing.Dots, []vclock.Dot{dot}) || missing.Slot != at {
		t.Errorf("error %#v does not name dot %v", err, dot)
	}
	if !mustGet(t, s, at).Absent() {
		t.Error("a record with a dangling reference was stored")
	}
}

func TestBlobThatDoesNotMatch(t *testing.T) {
	s := open(t, memory.New(), options(1))
	r, dot := kv.Record{}.Put(sibling(text(1, 5000)), nil, 1, minter(), time.Time{})
	for name, data := range map[string][]byte{"length": text(1, 4999), "checksum": text(2, 5000)} {
		err := submit(s, slot(name), true, func(kv.Record, uint64) (storage.Change, error) {
			return storage.Change{Record: r, Blobs: []kv.Blob{{Dot: dot, Data: data}}}, nil
		})
		wantError(t, name, err, storage.ErrBadBlob)
	}
}

// Blobs of inline or dead dots are not stored.
func TestUselessBlobsAreIgnored(t *testing.T) {
	disk := memory.New()
	s := open(t, disk, options(1))
	r, dot := kv.Record{}.Put(sibling([]byte("small")), nil, 1, minter(), time.Time{})
	mustSubmit(t, s, slot("key"), true, func(kv.Record, uint64) (storage.Change, error) {
		dead := vclock.Dot{Actor: 9, Counter: 9}
		return storage.Change{Record: r, Blobs: []kv.Blob{{Dot: dot, Data: text(1, 9999)}, {Dot: dead, Data: text(1, 9999)}}}, nil
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := keys(t, disk); n != 1 {
		t.Errorf("%d entries, want the record only", n)
	}
}

func TestSuppliedBlobRepairsADamagedValue(t *testing.T) {
	disk := memory.New()
	s, at := open(t, disk, options(1)), slot("key")
	mustSubmit(t, s, at, true, put(minter(), text(1, 5000), all))
	r := mustGet(t, s, at)
	disk.Flip("v", 0, 500)
	_, err := values(s, at, r)
	wantError(t, "the damaged value", err, storage.ErrCorrupt)
	mustSubmit(t, s, at, true, func(old kv.Record, _ uint64) (storage.Change, error) {
		return storage.Change{Record: old, Blobs: []kv.Blob{{Dot: r.Live[0].Dot, Data: text(1, 5000)}}}, nil
	})
	if _, err := values(s, at, r); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

// TestCheckValues finds what the disk lost of what records refer to, and nothing
// else.
func TestCheckValues(t *testing.T) {
	disk, at, mint := memory.New(), slot("key"), minter()
	engine := disk.Open()
	s, err := storage.Open(engine, options(1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	check := func(leaf uint8, want int, lost ...vclock.Dot) {
		t.Helper()
		var got []vclock.Dot
		checked, err := s.CheckValues(at.Partition, leaf, func(k kv.Key, v kv.Version) {
			if k != at.Key {
				t.Errorf("a value of %v", k)
			}
			got = append(got, v.Dot)
		})
		if err != nil || checked != want || !slices.Equal(got, lost) {
			t.Errorf("%d checked, lost are %v, %v; want %d and %v", checked, got, err, want, lost)
		}
	}
	leaf := at.Key.Leaf()
	check(leaf, 0)
	for i := range 3 {
		mustSubmit(t, s, at, true, put(mint, text(uint64(i), 300<<10), nothing))
	}
	mustSubmit(t, s, at, true, put(mint, []byte("inline"), nothing))
	mustSubmit(t, s, hint(9, "key"), true, put(mint, text(9, 5000), nothing)) // is in nobody's leaf
	live := mustGet(t, s, at).Live
	check(leaf, 3)
	check(leaf+1, 0)
	disk.Flip("v", 0, 500)
	disk.Flip("v", 5, 9999) // the second piece of the third
	check(leaf, 3, live[0].Dot, live[2].Dot)
	hide(t, engine, "v", 2)
	check(leaf, 3, live[0].Dot, live[1].Dot, live[2].Dot)
	for i, v := range live[:3] {
		mustSubmit(t, s, at, true, func(old kv.Record, _ uint64) (storage.Change, error) {
			return storage.Change{Record: old, Blobs: []kv.Blob{{Dot: v.Dot, Data: text(uint64(i), 300<<10)}}}, nil
		})
	}
	check(leaf, 3)
	disk.Flip("r", 0, 99) // a damaged record is repaired as a whole, and its values with it
	check(leaf, 0)
}

// hide removes the n-th entry that begins with prefix, as a damaged block does.
func hide(t *testing.T, e storage.Engine, prefix string, n int) {
	t.Helper()
	var batch storage.Batch
	err := e.Scan([]byte(prefix), nil, func(key, _ []byte) error {
		if n--; n == -1 {
			batch.Delete(key)
		}
		return nil
	})
	if err == nil && batch.Len() == 1 {
		err = e.Commit(&batch, true)
	}
	if err != nil || batch.Len() != 1 {
		t.Fatal(batch.Len(), err)
	}
}

// manySiblings makes a record of n siblings of 4 KiB each.
func manySiblings(mint func() vclock.Actor, n int) apply {
	return func(old kv.Record, boot uint64) (storage.Change, error) {
		next := old
		for i := range n {
			var seen vclock.Clock
			if i == 0 {
				seen = old.Clock
			}
			next, _ = next.Put(sibling(text(uint64(i), kv.InlineLimit)), seen, boot, mint, time.Time{})
		}
		return storage.Change{Record: next}, nil
	}
}

// A record grows beyond any limit of an engine when many clients write without
// having read; repair must be able to store it.
func TestLargeRecords(t *testing.T) {
	disk := memory.New()
	s, mint, at := open(t, disk, options(1)), minter(), slot("key")
	for _, n := range []int{100, 1, 2000, 300} {
		mustSubmit(t, s, at, true, manySiblings(mint, n))
		got, err := values(s, at, mustGet(t, s, at))
		if err != nil || len(got) != n {
			t.Fatalf("%d siblings, %v, want %d", len(got), err, n)
		}
		seen := 0
		err = s.ScanPartition(at.Partition, func(_ kv.Key, r kv.Record) error { seen = len(r.Live); return nil })
		if err != nil || seen != n {
			t.Errorf("a scan saw %d siblings, %v, want %d", seen, err, n)
		}
	}
	mustSubmit(t, s, at, true, remove)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := keys(t, disk); n != 0 {
		t.Errorf("%d entries are left after the removal", n)
	}
}

// A large record that is replaced in the round that wrote it leaves no parts.
func TestLargeRecordsOfOneRound(t *testing.T) {
	disk := memory.New()
	s, mint, at := open(t, disk, options(1)), minter(), slot("key")
	release := hold(t, s)
	for range 3 {
		if err := s.Submit(storage.Update{Slot: at, Apply: manySiblings(mint, 90), Done: func(error) {}}); err != nil {
			t.Fatal(err)
		}
	}
	release()
	mustSubmit(t, s, at, false, remove)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := keys(t, disk); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// The record is replaced at each step of a scan and between the reads of its
// parts. Whoever reads sees one of its states.
func TestLargeRecordsAreReadWhole(t *testing.T) {
	s, mint, at := open(t, memory.New(), options(1)), minter(), slot("key")
	mustSubmit(t, s, at, false, manySiblings(mint, 100))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 100; ; n = 200 - n + 1 {
			select {
			case <-stop:
				return
			default:
				_ = submit(s, at, false, manySiblings(mint, n))
			}
		}
	}()
	for range 100 {
		if n := len(mustGet(t, s, at).Live); n != 100 && n != 101 {
			t.Errorf("read %d siblings", n)
		}
		err := s.ScanPartition(at.Partition, func(_ kv.Key, r kv.Record) error {
			if n := len(r.Live); n != 100 && n != 101 {
				t.Errorf("scanned %d siblings", n)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-stopped
}

func TestDamageIsNamedAndNeverServed(t *testing.T) {
	disk := memory.New()
	s, mint := open(t, disk, options(1)), minter()
	want := map[string]string{"inline": "x", "external": string(text(1, 5000)), "other": "y"}
	for name, value := range want {
		mustSubmit(t, s, slot(name), true, put(mint, []byte(value), all))
	}
	mustSubmit(t, s, slot("large"), true, manySiblings(mint, 100))
	damaged := 0
	for n := 0; disk.Flip("", n, 8*n+3); n++ {
		for name := range want {
			at := slot(name)
			r, err := s.Get(at)
			var got []string
			if err == nil {
				got, err = values(s, at, r)
			}
			switch {
			case errors.Is(err, storage.ErrCorrupt):
				damaged++
			case err != nil || len(got) != 1 || got[0] != want[name]:
				t.Errorf("after %d flips %s reads %.20q, %v", n+1, name, got, err)
			}
		}
		if _, err := s.Get(slot("large")); err != nil && !errors.Is(err, storage.ErrCorrupt) {
			t.Error(err)
		}
	}
	_, err := s.Get(slot("large"))
	wantError(t, "the large record", err, storage.ErrCorrupt)
	if st := s.Stats(); damaged == 0 || st.Corrupt == 0 {
		t.Errorf("damage was met %d times and counted %d times", damaged, st.Corrupt)
	}
	err = s.ScanPartition(slot("").Partition, func(k kv.Key, _ kv.Record) error {
		t.Errorf("scan served %v", k)
		return nil
	})
	wantError(t, "scan", err, storage.ErrCorrupt)
}

// What a damaged record holds is not known here, so nothing may be built on it.
func TestDamagedRecordTakesNoUpdate(t *testing.T) {
	disk := memory.New()
	s, at := open(t, disk, options(1)), slot("key")
	mustSubmit(t, s, at, true, put(minter(), []byte("x"), all))
	disk.Flip("r", 0, 99)
	err := submit(s, at, true, func(kv.Record, uint64) (storage.Change, error) {
		t.Error("Apply was called")
		return storage.Change{Same: true}, nil
	})
	wantError(t, "update", err, storage.ErrCorrupt)
	if st := s.Stats(); st.State != storage.StateOK {
		t.Errorf("the store is %v", st.State)
	}
}
