package storage_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
)

func TestPutGetRemove(t *testing.T) {
	disk := memory.New()
	s := open(t, disk, options(1))
	at := slot("key")
	if r := mustGet(t, s, at); !r.Absent() {
		t.Errorf("before the first write: %+v", r)
	}
	mustSubmit(t, s, at, true, put(minter(), []byte("value"), all))
	r := mustGet(t, s, at)
	if got, err := values(s, at, r); err != nil || !slices.Equal(got, []string{"value"}) {
		t.Errorf("values %q, %v", got, err)
	}
	if r.Mine.Boot != s.Boot() {
		t.Errorf("minted under boot %d, it is %d", r.Mine.Boot, s.Boot())
	}
	mustSubmit(t, s, at, true, remove)
	if r := mustGet(t, s, at); !r.Absent() {
		t.Errorf("after the removal: %+v", r)
	}
}

func TestSlotsAreApart(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	slots := []kv.Slot{slot("key"), hint(1, "key"), hint(2, "key"), slot("key2"), {Partition: 4, Key: slot("key").Key}}
	for i, at := range slots {
		mustSubmit(t, s, at, false, put(mint, text(uint64(i), 10_000), all))
	}
	for i, at := range slots {
		got, err := values(s, at, mustGet(t, s, at))
		if want := string(text(uint64(i), 10_000)); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("slot %+v holds %.20q, %v", at, got, err)
		}
	}
}

func TestErrorOfApplyChangesNothing(t *testing.T) {
	disk := memory.New()
	s, at, refused := open(t, disk, options(1)), slot("key"), errors.New("refused")
	before := s.Stats()
	err := submit(s, at, true, func(kv.Record, uint64) (storage.Change, error) {
		return storage.Change{Record: mustRecord("x")}, refused
	})
	wantError(t, "update", err, refused)
	if r := mustGet(t, s, at); !r.Absent() {
		t.Errorf("stored %+v", r)
	}
	if after := s.Stats(); after.Commits != before.Commits || after.Updates != before.Updates+1 {
		t.Errorf("counted %+v, before %+v", after, before)
	}
}

func mustRecord(value string) kv.Record {
	r, _ := kv.Record{}.Put(sibling([]byte(value)), nil, 1, minter(), time.Time{})
	return r
}

func TestKeysThatCannotBeStored(t *testing.T) {
	s := open(t, memory.New(), options(1))
	for _, key := range []kv.Key{
		{},
		{Bucket: "b"},
		{Name: "n"},
		{Bucket: string(make([]byte, kv.MaxBucketBytes+1)), Name: "n"},
		{Bucket: "b", Name: string(make([]byte, kv.MaxKeyBytes+1))},
	} {
		wantError(t, "submit", submit(s, kv.Slot{Key: key}, false, remove), storage.ErrBadKey)
		_, err := s.Get(kv.Slot{Key: key})
		wantError(t, "get", err, storage.ErrBadKey)
	}
	for _, name := range []string{"", string(make([]byte, 2000))} {
		err := s.SubmitMeta(name, func(old []byte) ([]byte, error) { return old, nil }, false, func(error) {})
		wantError(t, "submit fact", err, storage.ErrBadKey)
	}
}

func TestScanPartition(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	slots := []kv.Slot{
		slot("b"), slot("a"), hint(9, "c"),
		{Partition: 2, Key: slot("d").Key},
		{Partition: 4, Key: slot("e").Key},
	}
	for _, at := range slots {
		mustSubmit(t, s, at, false, put(mint, []byte(at.Key.Name), all))
	}
	var got []string
	err := s.ScanPartition(3, func(k kv.Key, r kv.Record) error {
		got = append(got, k.Name+"="+string(r.Live[0].Value.Inline))
		return nil
	})
	if want := []string{"a=a", "b=b"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("partition 3 holds %q, %v, want %q", got, err, want)
	}
	enough := errors.New("enough")
	wantError(t, "scan", s.ScanPartition(3, func(kv.Key, kv.Record) error { return enough }), enough)
}

func TestScanHints(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	for _, at := range []kv.Slot{hint(7, "b"), hint(8, "a"), hint(7, "a"), slot("c")} {
		mustSubmit(t, s, at, false, put(mint, []byte("x"), all))
	}
	var got []kv.Slot
	err := s.ScanHints(7, func(at kv.Slot, _ kv.Record) error { got = append(got, at); return nil })
	if want := []kv.Slot{hint(7, "a"), hint(7, "b")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("hints %+v, %v, want %+v", got, err, want)
	}
}

func meta(s *storage.Store, name string, sync bool, fn func([]byte) ([]byte, error)) error {
	done := make(chan error, 1)
	if err := s.SubmitMeta(name, fn, sync, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func TestMeta(t *testing.T) {
	disk := memory.New()
	s := open(t, disk, options(1))
	add := func(text string) func([]byte) ([]byte, error) {
		return func(old []byte) ([]byte, error) { return append(slices.Clip(old), text...), nil }
	}
	for _, name := range []string{"layout/1", "layout/2", "other", "layout/1"} {
		if err := meta(s, name, true, add("x")); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := s.ScanMeta("layout/", func(name string, value []byte) error {
		got = append(got, name+"="+string(value))
		return nil
	})
	if want := []string{"layout/1=xx", "layout/2=x"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("facts %q, %v, want %q", got, err, want)
	}
	large := text(1, 700<<10)
	for _, value := range [][]byte{{}, large, []byte("small"), nil} {
		if err := meta(s, "other", false, func([]byte) ([]byte, error) { return value, nil }); err != nil {
			t.Fatal(err)
		}
		if got, err := s.GetMeta("other"); err != nil || string(got) != string(value) || (got == nil) != (value == nil) {
			t.Errorf("fact of %d bytes read as %d bytes, %v", len(value), len(got), err)
		}
	}
	if n := keys(t, disk); n != 2 {
		t.Errorf("%d entries are left, want 2", n)
	}
}

func TestMetaErrorAndSame(t *testing.T) {
	s, refused := open(t, memory.New(), options(1)), errors.New("refused")
	wantError(t, "fact", meta(s, "a", true, func([]byte) ([]byte, error) { return []byte("x"), refused }), refused)
	if got, err := s.GetMeta("a"); got != nil || err != nil {
		t.Errorf("stored %q, %v", got, err)
	}
	before := s.Stats().Commits
	if err := meta(s, "a", true, func(old []byte) ([]byte, error) { return old, nil }); err != nil {
		t.Fatal(err)
	}
	if after := s.Stats().Commits; after != before {
		t.Errorf("%d commits for nothing", after-before)
	}
}

// Facts and records go through one order: what a fact's update sees of the
// records before it, and the other way round.
func TestMetaAndRecordsHaveOneOrder(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	var order []string
	release := hold(t, s)
	finished := make(chan struct{})
	for i := range 5 {
		err := s.Submit(storage.Update{Slot: slot("k"), Done: func(error) {}, Apply: func(old kv.Record, boot uint64) (storage.Change, error) {
			order = append(order, fmt.Sprint("record ", i))
			return put(mint, []byte("x"), all)(old, boot)
		}})
		if err != nil {
			t.Fatal(err)
		}
		err = s.SubmitMeta("m", func([]byte) ([]byte, error) {
			order = append(order, fmt.Sprint("fact ", i))
			return fmt.Append(nil, i), nil
		}, false, func(error) {
			if i == 4 {
				close(finished)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	release()
	<-finished
	want := []string{"record 0", "fact 0", "record 1", "fact 1", "record 2", "fact 2", "record 3", "fact 3", "record 4", "fact 4"}
	if !slices.Equal(order, want) {
		t.Errorf("order %q", order)
	}
}

// hold keeps the committing goroutine busy until the function it returns is
// called, so that what is submitted meanwhile becomes one round.
func hold(tb testing.TB, s *storage.Store) (release func()) {
	tb.Helper()
	began, end := make(chan struct{}), make(chan struct{})
	err := s.Submit(storage.Update{Slot: slot("held"), Done: func(error) {}, Apply: func(kv.Record, uint64) (storage.Change, error) {
		close(began)
		<-end
		return storage.Change{Same: true}, nil
	}})
	if err != nil {
		tb.Fatal(err)
	}
	<-began
	return func() { close(end) }
}

func TestUpdatesOfOneRoundSeeOneAnother(t *testing.T) {
	s, mint, at := open(t, memory.New(), options(1)), minter(), slot("key")
	release := hold(t, s)
	done := make(chan error, 3)
	answer := func(err error) { done <- err }
	before := s.Stats()
	for range 3 {
		if err := s.Submit(storage.Update{Slot: at, Sync: true, Apply: put(mint, text(1, 9000), nothing), Done: answer}); err != nil {
			t.Fatal(err)
		}
	}
	release()
	for range 3 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if got, err := values(s, at, mustGet(t, s, at)); err != nil || len(got) != 3 {
		t.Errorf("%d siblings, %v, want 3", len(got), err)
	}
	after := s.Stats()
	if after.Commits != before.Commits+1 || after.Syncs != before.Syncs+1 {
		t.Errorf("%d commits with %d syncs, want one", after.Commits-before.Commits, after.Syncs-before.Syncs)
	}
}

func TestQueueIsBounded(t *testing.T) {
	o := options(1)
	o.QueueLen, o.QueueBytes = 4, 100
	s := open(t, memory.New(), o)
	release := hold(t, s)
	done := make(chan error, 8)
	try := func(size int) error {
		return s.Submit(storage.Update{Slot: slot("key"), Size: size, Apply: same, Done: func(err error) { done <- err }})
	}
	for i, want := range []error{nil, nil, storage.ErrBusy, nil, nil, storage.ErrBusy} {
		size := []int{40, 40, 40, 1, 1, 1}[i]
		if err := try(size); !errors.Is(err, want) {
			t.Errorf("update %d of %d bytes: %v, want %v", i, size, err, want)
		}
	}
	if st := s.Stats(); st.QueueLen != 4 || st.QueueBytes != 82 {
		t.Errorf("queue of %d updates and %d bytes, want 4 and 82", st.QueueLen, st.QueueBytes)
	}
	release()
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := try(1); err != nil {
		t.Errorf("once the queue is empty: %v", err)
	}
}

func TestCloseFinishesWhatWaits(t *testing.T) {
	disk := memory.New()
	s, err := storage.Open(disk.Open(), options(1))
	if err != nil {
		t.Fatal(err)
	}
	mint, answers := minter(), 0
	release := hold(t, s)
	for i := range 10 {
		u := storage.Update{Slot: slot(strconv.Itoa(i)), Apply: put(mint, []byte("x"), all), Done: func(err error) {
			if err == nil {
				answers++
			}
		}}
		if err := s.Submit(u); err != nil {
			t.Fatal(err)
		}
	}
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- s.Close() }()
	}
	release()
	for range 2 {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
	if answers != 10 {
		t.Errorf("%d of 10 updates were answered before Close returned", answers)
	}
	wantError(t, "submit", submit(s, slot("a"), false, same), storage.ErrClosed)
	_, err = s.Get(slot("0"))
	wantError(t, "get", err, storage.ErrClosed)
	s = open(t, disk, options(2))
	for i := range 10 {
		if mustGet(t, s, slot(strconv.Itoa(i))).Absent() {
			t.Errorf("update %d is gone", i)
		}
	}
}

func TestEveryOpenIsAStartAndABoot(t *testing.T) {
	disk := memory.New()
	boots := map[uint64]bool{}
	for i := range uint64(4) {
		s, err := storage.Open(disk.Open(), options(i))
		if err != nil {
			t.Fatal(err)
		}
		if s.Starts() != i+1 {
			t.Errorf("start %d, want %d", s.Starts(), i+1)
		}
		boots[s.Boot()] = true
		if i%2 == 0 {
			disk.Crash(memory.LoseAll)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(boots) != 4 || boots[0] {
		t.Errorf("boots %v, want four that are not zero", boots)
	}
}

func TestBootIsNeverZero(t *testing.T) {
	o, draws := options(1), []uint64{0, 0, 5}
	o.Random = func() uint64 { d := draws[0]; draws = draws[1:]; return d }
	if s := open(t, memory.New(), o); s.Boot() != 5 {
		t.Errorf("boot %d, want 5", s.Boot())
	}
}

func TestOpenRefuses(t *testing.T) {
	_, err := storage.Open(memory.New().Open(), storage.Options{})
	if err == nil {
		t.Error("opened without a clock and randomness")
	}
	o := options(1)
	o.LowWater, o.HighWater = 2, 1
	if _, err = storage.Open(memory.New().Open(), o); err == nil {
		t.Error("opened with a high watermark under the low one")
	}
	disk := memory.New()
	s := open(t, disk, options(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	disk.Flip("s", 0, 100) // the count of starts
	_, err = storage.Open(disk.Open(), options(1))
	wantError(t, "open a damaged store", err, storage.ErrCorrupt)
}

// A store must do nothing that a bubble of virtual time cannot hold.
func TestInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := storage.Open(memory.New().Open(), options(1))
		if err != nil {
			t.Fatal(err)
		}
		mint := minter()
		answers := 0
		for i := range 20 {
			time.AfterFunc(time.Duration(i)*time.Minute, func() {
				u := storage.Update{Slot: slot("key"), Sync: true, Apply: put(mint, []byte("x"), all), Done: func(error) { answers++ }}
				if err := s.Submit(u); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if answers != 20 {
			t.Errorf("%d of 20 answers after an hour", answers)
		}
		if r := mustGet(t, s, slot("key")); r.Clock.Counter(1) != 20 {
			t.Errorf("clock %v after 20 writes", r.Clock)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
