package badgerengine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
)

func openStore(tb testing.TB, d *disk) *storage.Store {
	tb.Helper()
	s, err := storage.Open(d.Open(tb), testOptions())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func closeStore(tb testing.TB, s *storage.Store) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
}

// fill stores writes from to to-1, the last one with sync.
func fill(tb testing.TB, s *storage.Store, from, to uint64) {
	tb.Helper()
	for n := from; n < to; n++ {
		if err := submit(s, n, n == to-1); err != nil {
			tb.Fatalf("write %d: %v", n, err)
		}
	}
}

func verify(tb testing.TB, s *storage.Store, from, to uint64) {
	tb.Helper()
	for n := from; n < to; n++ {
		if err := readBack(s, n); err != nil {
			tb.Fatalf("write %d: %v", n, err)
		}
	}
}

// A process that is killed loses nothing that it acknowledged, synced or not.
func TestKillNine(t *testing.T) {
	d := newDisk(t)
	for round := range 3 {
		child, lines := startChild(t, "write", d.path)
		var acked []string
		for len(acked) < 3000 && lines.Scan() {
			acked = append(acked, lines.Text())
		}
		acked = append(acked, killChild(t, child, lines)...)
		s := openStore(t, d)
		for _, line := range acked {
			n, err := strconv.ParseUint(line, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if err := readBack(s, n); err != nil {
				t.Errorf("round %d: write %d was acknowledged: %v", round, n, err)
			}
		}
		if len(acked) < 3000 {
			t.Errorf("the child ended after %d writes", len(acked))
		}
		if s.Starts() != uint64(2*round+2) {
			t.Errorf("start %d in round %d", s.Starts(), round)
		}
		if n := s.Stats().Rebuilt; n != 0 {
			t.Errorf("round %d: %d leaves of the trees were rebuilt", round, n)
		}
		checkTrees(t, s)
		closeStore(t, s)
	}
}

func TestFilesOfNoLength(t *testing.T) {
	d := newDisk(t)
	s := openStore(t, d)
	fill(t, s, 0, 100)
	d.Kill(t)
	closeStore(t, s)
	for _, name := range []string{"00002.mem", "00009.mem", "000002.vlog", "000009.vlog"} {
		if err := os.WriteFile(d.file(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = openStore(t, d)
	verify(t, s, 0, 100)
	closeStore(t, s)
}

// filled returns a disk whose engine was closed with several tables in it.
func filled(t *testing.T) *disk {
	t.Helper()
	d := newDisk(t)
	for i := range uint64(3) {
		s := openStore(t, d)
		fill(t, s, i*200, (i+1)*200)
		closeStore(t, s)
	}
	return d
}

func (d *disk) refuses(tb testing.TB, what string, kind error, words ...string) {
	tb.Helper()
	tables := d.count(tb, "*"+tableSuffix)
	e, err := d.open(small)
	if err == nil {
		tb.Errorf("%s: opened", what)
		_ = e.Close()
		return
	}
	if !errors.Is(err, kind) {
		tb.Errorf("%s: %v, want %v", what, err, kind)
	}
	for _, w := range append(words, "restore the directory from a backup") {
		if !strings.Contains(err.Error(), w) {
			tb.Errorf("%s: error %q does not say %q", what, err, w)
		}
	}
	if left := d.count(tb, "*"+tableSuffix); left != tables {
		tb.Errorf("%s: %d of %d tables are left after the refusal", what, left, tables)
	}
}

func (d *disk) count(tb testing.TB, pattern string) int {
	tb.Helper()
	files, err := filepath.Glob(d.file(pattern))
	if err != nil {
		tb.Fatal(err)
	}
	return len(files)
}

func TestManifestGone(t *testing.T) {
	d := filled(t)
	if err := os.Remove(d.file(badger.ManifestFilename)); err != nil {
		t.Fatal(err)
	}
	d.refuses(t, "manifest gone", storage.ErrIncomplete, "MANIFEST")
	if _, err := open(filepath.Dir(d.file("x")), small); !errors.Is(err, storage.ErrIncomplete) {
		t.Errorf("without the marker: %v, want ErrIncomplete", err)
	}
}

func TestManifestCutOrChanged(t *testing.T) {
	d := filled(t)
	text, err := os.ReadFile(d.file(badger.ManifestFilename))
	if err != nil {
		t.Fatal(err)
	}
	replace := func(d *disk, text []byte) {
		if err := os.WriteFile(d.file(badger.ManifestFilename), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{0, 4, 8, 20, len(text) / 2, len(text) - 1} {
		replace(d, text[:n])
		what := fmt.Sprintf("cut to %d of %d bytes", n, len(text))
		if n < 8 {
			d.refuses(t, what, storage.ErrCorrupt, "bad magic")
			continue
		}
		d.refuses(t, what, storage.ErrIncomplete, "MANIFEST was changed")
	}
	for n := 0; n < len(text); n += 7 {
		flipped := bytes.Clone(text)
		flipped[n] ^= 4
		replace(d, flipped)
		if e, err := d.open(small); err == nil {
			t.Errorf("byte %d flipped: opened", n)
			_ = e.Close()
		}
	}
	replace(d, text)
	s := openStore(t, d)
	verify(t, s, 0, 600)
	closeStore(t, s)
}

// After a crash nothing says how long the manifest was. Without any table in
// it, badger would delete them all.
func TestManifestCutAfterAKill(t *testing.T) {
	d := filled(t)
	s := openStore(t, d)
	fill(t, s, 600, 700)
	d.Kill(t)
	closeStore(t, s)
	if err := os.Truncate(d.file(badger.ManifestFilename), 16); err != nil {
		t.Fatal(err)
	}
	d.refuses(t, "cut to the head", storage.ErrIncomplete, "names none of 3 tables")
}

func TestTableGoneOrCut(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone":       os.Remove,
		"empty":      func(path string) error { return os.Truncate(path, 0) },
		"cut":        func(path string) error { return os.Truncate(path, 1000) },
		"tail of 00": func(path string) error { return overwriteTail(path, 0) },
		"tail of ff": func(path string) error { return overwriteTail(path, 0xff) },
	} {
		d := filled(t)
		tables, err := filepath.Glob(d.file("*" + tableSuffix))
		if err != nil || len(tables) == 0 {
			t.Fatalf("tables %v, %v", tables, err)
		}
		if err := spoil(tables[0]); err != nil {
			t.Fatal(err)
		}
		kind := storage.ErrCorrupt
		if name == "gone" {
			kind = storage.ErrIncomplete
		}
		d.refuses(t, name, kind, "table ")
	}
}

func overwriteTail(path string, b byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(bytes.Repeat([]byte{b}, 40), st.Size()-40)
	}
	return errors.Join(err, f.Close())
}

// One bit of a table is flipped, at many places in turn. The store refuses to
// open, or reads the right value, or says that it is damaged or not there. It
// never returns a wrong value.
func TestFlippedBits(t *testing.T) {
	const writes, flips = 120, 200
	d := newDisk(t)
	s := openStore(t, d)
	fill(t, s, 0, writes)
	closeStore(t, s)
	path := d.file("000001" + tableSuffix)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for i := range flips {
		bit := i*(len(text)*8/flips) + i%8
		if i >= flips/2 { // the index and the end of the table
			bit = len(text)*8 - 1 - (i-flips/2)*41
		}
		flipped := bytes.Clone(text)
		flipped[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		readFlipped(t, d, writes, seen)
	}
	t.Logf("%d flips: %v", flips, seen)
	if seen["damaged"] == 0 || seen["refused"] == 0 {
		t.Errorf("%v: want some damage and some refusals", seen)
	}
}

// readFlipped reads all writes without a store or compactions, which would
// change the directory: the engine is opened for reading only.
func readFlipped(t *testing.T, d *disk, writes uint64, seen map[string]int) {
	t.Helper()
	dir := filepath.Dir(d.file("x"))
	if err := checkManifest(dir, small); err != nil {
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("refused with %v, want ErrCorrupt", err)
		}
		seen["refused"]++
		return
	}
	db, err := openBadger(small.badger(dir, newAlarm()).WithReadOnly(true))
	if err != nil {
		seen["refused"]++
		return
	}
	e := &readOnly{engine{db: db, alarm: newAlarm(), maxBatch: storage.MinMaxBatch, readers: newReaders(db.MaxVersion())}}
	s, err := storage.Open(e, testOptions())
	if err != nil {
		seen["refused by the store"]++
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Error(err)
		}
		return
	}
	defer closeStore(t, s)
	for n := range writes {
		switch err := readBack(s, n); {
		case err == nil:
			seen["right"]++
		case errors.Is(err, storage.ErrCorrupt):
			seen["damaged"]++
		case errors.Is(err, storage.ErrNotFound):
			seen["not there"]++
		default:
			t.Errorf("write %d: %v", n, err)
		}
	}
}

// A page of a table that the disk cannot return raises a signal where it is
// read; so does one beyond the end of a file that was cut under the engine.
func TestUnreadablePages(t *testing.T) {
	d := newDisk(t)
	s := openStore(t, d)
	fill(t, s, 0, 120)
	closeStore(t, s)
	s = openStore(t, d)
	if err := os.Truncate(d.file("000001"+tableSuffix), 1<<12); err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for n := range uint64(120) {
		err := readBack(s, n)
		if errors.Is(err, storage.ErrCorrupt) {
			damaged++
		} else if err != nil {
			t.Errorf("write %d: %v", n, err)
		}
	}
	if err := s.ScanPartition(1, func(kv.Key, kv.Record) error { return nil }); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("scan: %v, want ErrCorrupt", err)
	}
	if damaged == 0 {
		t.Error("no read met the missing pages")
	}
	_ = s.Close()
}

// readOnly takes the store's own writes and forgets them.
type readOnly struct{ engine }

func (*readOnly) Commit(*storage.Batch, bool) error { return nil }

func (r *readOnly) Close() error {
	r.readers.close()
	return r.db.Close()
}
