package memory_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/enginetest"
	"github.com/starling-kv/starling/node/storage/memory"
)

// disk lets the suite end engines in every way.
type disk struct{ *memory.Disk }

func (d disk) Open(testing.TB) storage.Engine { return d.Disk.Open() }

func (disk) Kill(testing.TB) {} // the next Open ends the engine before

func (d disk) Crash(_ testing.TB, seed uint64) { d.Disk.Crash(memory.LoseSome(seed)) }

func TestEngine(t *testing.T) {
	enginetest.Run(t, func(testing.TB) enginetest.Disk { return disk{memory.New()} })
}

func has(t *testing.T, e storage.Engine, key string) bool {
	t.Helper()
	_, err := e.Get([]byte(key))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func TestCrashChoosesWhatIsLost(t *testing.T) {
	tests := []struct {
		name string
		loss memory.Loss
		want string
	}{
		{"all that was not synced", memory.LoseAll, "ab"},
		{"a suffix", memory.LoseFrom(2), "abcd"},
		{"nothing", memory.LoseFrom(9), "abcdef"},
		{"holes", func(i, _ int) bool { return i == 1 }, "abcef"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := memory.New()
			e := d.Open()
			for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
				enginetest.Commit(t, e, key == "b", key, "1")
			}
			d.Crash(tt.loss)
			if _, err := e.Get([]byte("a")); !errors.Is(err, storage.ErrClosed) {
				t.Errorf("get after the crash: %v, want ErrClosed", err)
			}
			e = d.Open()
			for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
				if got, want := has(t, e, key), strings.Contains(tt.want, key); got != want {
					t.Errorf("after the crash %s is there: %v, want %v", key, got, want)
				}
			}
		})
	}
}

func TestLoseSomeIsAFunctionOfItsSeed(t *testing.T) {
	lost := func(seed uint64) (places []int) {
		for i := range 64 {
			if memory.LoseSome(seed)(i, 64) {
				places = append(places, i)
			}
		}
		return places
	}
	for seed := range uint64(8) {
		if n := len(lost(seed)); n < 16 || n > 48 {
			t.Errorf("seed %d loses %d of 64", seed, n)
		}
		if !slices.Equal(lost(seed), lost(seed)) {
			t.Errorf("seed %d loses this or that", seed)
		}
		if slices.Equal(lost(seed), lost(seed+1)) {
			t.Errorf("seeds %d and %d lose the same", seed, seed+1)
		}
	}
}

var errPlanned = errors.New("planned")

func TestFailedCommitChangesNothing(t *testing.T) {
	d := memory.New()
	e := d.Open()
	d.FailCommit(2, errPlanned)
	enginetest.Commit(t, e, false, "a", "1")
	var b storage.Batch
	b.Set([]byte("b"), []byte("1"))
	if err := e.Commit(&b, true); !errors.Is(err, errPlanned) {
		t.Fatalf("second commit: %v", err)
	}
	enginetest.Commit(t, e, false, "c", "1")
	if !has(t, e, "a") || has(t, e, "b") || !has(t, e, "c") {
		t.Error("want a and c only")
	}
}

// What a failed sync was to write is lost for good, however well the next goes.
func TestFailedSyncIsVisibleAndNeverDurable(t *testing.T) {
	d := memory.New()
	e := d.Open()
	d.FailSync(1, errPlanned)
	enginetest.Commit(t, e, false, "a", "1")
	var b storage.Batch
	b.Set([]byte("b"), []byte("1"))
	if err := e.Commit(&b, true); !errors.Is(err, errPlanned) {
		t.Fatalf("sync: %v", err)
	}
	enginetest.Commit(t, e, true, "c", "1")
	if !has(t, e, "a") || !has(t, e, "b") {
		t.Error("not visible after the failed sync")
	}
	d.Crash(memory.LoseAll)
	e = d.Open()
	if has(t, e, "a") || has(t, e, "b") || !has(t, e, "c") {
		t.Error("want c only after the crash")
	}
}

func TestCapacity(t *testing.T) {
	d := memory.New()
	e := d.Open()
	enginetest.Commit(t, e, false, "a", "1")
	d.SetCapacity(100)
	if free, err := d.Free(); free != 98 || err != nil {
		t.Errorf("free %d, %v, want 98", free, err)
	}
	var b storage.Batch
	b.Set([]byte("b"), make([]byte, 100))
	if err := e.Commit(&b, false); !errors.Is(err, storage.ErrDiskFull) {
		t.Errorf("commit beyond the capacity: %v, want ErrDiskFull", err)
	}
	if has(t, e, "b") {
		t.Error("a refused commit changed something")
	}
	d.SetCapacity(10_000)
	if err := e.Commit(&b, false); err != nil {
		t.Error(err)
	}
}

func TestUnsyncedBytesAreBounded(t *testing.T) {
	d := memory.New()
	e := d.Open()
	value := string(make([]byte, 1<<20))
	for range 20 {
		enginetest.Commit(t, e, false, "old", value)
	}
	enginetest.Commit(t, e, false, "new", "1")
	d.Crash(memory.LoseAll)
	e = d.Open()
	if !has(t, e, "old") || has(t, e, "new") {
		t.Error("want the oldest commits written back, the newest lost")
	}
}
