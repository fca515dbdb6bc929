package enginetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/starling-kv/starling/node/storage"
)

func testGet(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	defer closeEngine(t, e)
	want(t, e, "a", none)
	Commit(t, e, false, "a", "1", "empty", "", "\x00", "zero", "\xff\xff", "high")
	for key, value := range map[string]string{"a": "1", "empty": "", "\x00": "zero", "\xff\xff": "high", "b": none, "em": none} {
		want(t, e, key, value)
	}
	Commit(t, e, true, "a", "2")
	want(t, e, "a", "2")
	var b storage.Batch
	b.Delete([]byte("a"))
	b.Delete([]byte("never there"))
	if err := e.Commit(&b, false); err != nil {
		t.Fatal(err)
	}
	want(t, e, "a", none)
}

func testLastCounts(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	defer closeEngine(t, e)
	var b storage.Batch
	b.Set([]byte("a"), []byte("1"))
	b.Set([]byte("a"), []byte("2"))
	b.Set([]byte("b"), []byte("1"))
	b.Delete([]byte("b"))
	b.Delete([]byte("c"))
	b.Set([]byte("c"), []byte("1"))
	if err := e.Commit(&b, false); err != nil {
		t.Fatal(err)
	}
	if got, want := pairs(t, e, nil, nil), []string{"a=2", "c=1"}; !slices.Equal(got, want) {
		t.Errorf("after the batch %q, want %q", got, want)
	}
}

func testScan(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	defer closeEngine(t, e)
	Commit(t, e, false, "b", "2", "a", "1", "aa", "3", "c", "4", "\x00", "5", "\xff", "6")
	tests := []struct {
		from, to string
		want     []string
	}{
		{"a", "c", []string{"a=1", "aa=3", "b=2"}},
		{"a\x00", "b", []string{"aa=3"}},
		{"c", "a", []string{}},
		{"d", "e", []string{}},
		{"", "aa", []string{"\x00=5", "a=1"}},
	}
	for _, tt := range tests {
		if got := pairs(t, e, []byte(tt.from), []byte(tt.to)); !slices.Equal(got, tt.want) {
			t.Errorf("scan %q to %q = %q, want %q", tt.from, tt.to, got, tt.want)
		}
	}
	if got, want := pairs(t, e, []byte("b"), nil), []string{"b=2", "c=4", "\xff=6"}; !slices.Equal(got, want) {
		t.Errorf("scan to the end = %q, want %q", got, want)
	}
}

func testScanStops(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	defer closeEngine(t, e)
	Commit(t, e, false, "a", "1", "b", "2", "c", "3")
	enough := errors.New("enough")
	calls := 0
	err := e.Scan(nil, nil, func(key, _ []byte) error {
		if calls++; string(key) == "b" {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || calls != 2 {
		t.Errorf("scan returned %v after %d calls, want %v after 2", err, calls, enough)
	}
}

func testScanSnapshot(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	defer closeEngine(t, e)
	Commit(t, e, false, "a", "0", "b", "1", "c", "1")
	var got []string
	err := e.Scan(nil, nil, func(key, value []byte) error {
		got = append(got, string(key)+"="+string(value))
		var b storage.Batch
		b.Set([]byte("b"), []byte("3"))
		b.Set([]byte("bb"), []byte("3"))
		b.Delete([]byte("c"))
		return e.Commit(&b, false)
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a=0", "b=1", "c=1"}; !slices.Equal(got, want) {
		t.Errorf("scan saw %q, want %q", got, want)
	}
	if got, want := pairs(t, e, nil, nil), []string{"a=0", "b=3", "bb=3"}; !slices.Equal(got, want) {
		t.Errorf("afterwards %q, want %q", got, want)
	}
}

func testOwnership(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	defer closeEngine(t, e)
	Commit(t, e, false, "a", "value")
	got, err := e.Get([]byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	clear(got)
	err = e.Scan(nil, nil, func(key, value []byte) error {
		clear(key)
		clear(value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, e, "a", "value")
}

func testLargeBatch(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	if e.MaxBatch() < storage.MinMaxBatch {
		t.Fatalf("MaxBatch is %d, at least %d is promised", e.MaxBatch(), storage.MinMaxBatch)
	}
	shapes := map[string]int{"few large": 200 << 10, "many small": 1}
	for name, size := range shapes {
		keys := fill(t, e, name, size)
		for _, key := range keys {
			if got := get(t, e, key); len(got) != size {
				t.Fatalf("%s: %q has %d bytes, want %d", name, key, len(got), size)
			}
		}
	}
	closeEngine(t, e)
}

// fill commits one batch as large as allowed, of values of size bytes.
func fill(t *testing.T, e storage.Engine, prefix string, size int) (keys []string) {
	t.Helper()
	var b storage.Batch
	for {
		key := fmt.Sprintf("%s %06d", prefix, len(keys))
		op := storage.Batch{}
		op.Set([]byte(key), make([]byte, size))
		if b.Size()+op.Size() > e.MaxBatch() {
			break
		}
		b.Set([]byte(key), make([]byte, size))
		keys = append(keys, key)
	}
	if err := e.Commit(&b, true); err != nil {
		t.Fatalf("batch of %d bytes in %d operations, MaxBatch %d: %v", b.Size(), b.Len(), e.MaxBatch(), err)
	}
	return keys
}

func testOversized(t *testing.T, d Disk) {
	t.Helper()
	e := d.Open(t)
	defer closeEngine(t, e)
	var b storage.Batch
	for i := 0; b.Size() <= e.MaxBatch(); i++ {
		b.Set(fmt.Appendf(nil, "%d", i), make([]byte, 64<<10))
	}
	if err := e.Commit(&b, true); !errors.Is(err, storage.ErrTooLarge) {
		t.Fatalf("commit of %d bytes where %d are allowed: %v, want ErrTooLarge", b.Size(), e.MaxBatch(), err)
	}
	if got := pairs(t, e, nil, nil); len(got) != 0 {
		t.Errorf("%d keys are there after a refused batch", len(got))
	}
	Commit(t, e, true, "a", "1")
	want(t, e, "a", "1")
}
