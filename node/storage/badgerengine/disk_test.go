package badgerengine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/starling-kv/starling/node/storage"
)

// mountTmpfs mounts a small file system, or skips the test.
func mountTmpfs(t *testing.T, bytes int) string {
	t.Helper()
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("NOT TESTED: a full disk: mounting a tmpfs needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	return path
}

// A disk runs full under load: by the store's own writes, while something else
// holds a part of it. The process must live, reads must go on, and writes must
// be taken again when the other goes.
func TestDiskFull(t *testing.T) {
	const size = 320 << 20
	path := mountTmpfs(t, size)
	other := filepath.Join(path, "other")
	if err := os.WriteFile(other, make([]byte, 100<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &disk{path: filepath.Join(path, "data")}
	e := d.Open(t)
	o := testOptions()
	o.Free, o.SpaceBytes, o.QueueBytes = d.live.dir.Free, 1<<20, 4<<20
	o.LowWater = small.Reserve() + uint64(o.QueueBytes)
	s, err := storage.Open(e, o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	written := fillUntilFull(t, s, size)
	if st := s.Stats(); st.State != storage.StateFull {
		t.Errorf("the store is %v", st.State)
	}
	readAll := func() {
		for _, n := range written {
			if err := readBack(s, n); err != nil {
				t.Errorf("write %d: %v", n, err)
			}
		}
	}
	readAll()
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	written = append(written, 1)
	writeOnceThereIsSpace(t, s, 1)
	readAll()
}

// fillUntilFull writes until the store refuses, large values mostly, and
// returns the writes that it took.
func fillUntilFull(t *testing.T, s *storage.Store, size uint64) (written []uint64) {
	t.Helper()
	for n := uint64(0); s.Stats().Bytes < size; n += 25 {
		err := submit(s, n, n%16 == 0)
		if errors.Is(err, storage.ErrDiskFull) {
			return written
		}
		if err != nil {
			t.Fatalf("write %d: %v", n, err)
		}
		written = append(written, n)
	}
	t.Fatal("the disk did not run full")
	return nil
}

// writeOnceThereIsSpace writes as soon as the store has looked again, and
// compactions under way have left the space that they will.
func writeOnceThereIsSpace(t *testing.T, s *storage.Store, n uint64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var err error
	for range 1000 {
		if err = submit(s, n, true); !errors.Is(err, storage.ErrDiskFull) {
			break
		}
		<-tick.C
	}
	if err != nil {
		t.Errorf("after space was freed: %v", err)
	}
}

// A disk that is too full to open refuses; with space it opens.
func TestOpenOnAFullDisk(t *testing.T) {
	path := mountTmpfs(t, 64<<20)
	d := &disk{path: filepath.Join(path, "data")}
	s := openStore(t, d)
	fill(t, s, 0, 100)
	closeStore(t, s)
	other := filepath.Join(path, "other")
	free, err := freeSpace(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, make([]byte, free-(1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.open(small); !errors.Is(err, storage.ErrDiskFull) {
		t.Errorf("open: %v, want ErrDiskFull", err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, d)
	verify(t, s, 0, 100)
	closeStore(t, s)
}

func freeSpace(path string) (uint64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return st.Bavail * uint64(st.Bsize), err
}

// loop is an ext4 file system in a file, whose power can be cut.
type loop struct{ image, path string }

func newLoop(t *testing.T) loop {
	t.Helper()
	l := loop{image: filepath.Join(t.TempDir(), "image"), path: t.TempDir()}
	if err := errors.Join(os.WriteFile(l.image, nil, 0o600), os.Truncate(l.image, 400<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", l.image).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: a power cut: making a file system: %v %s", err, out)
	}
	l.mount(t)
	t.Cleanup(func() { _ = unix.Unmount(l.path, 0) })
	return l
}

func (l loop) mount(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", l.image, l.path).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: a power cut: mounting a file system needs root: %v %s", err, out)
	}
}

// cut ends all writing to the disk at once, as ext4 and XFS offer for tests:
// what is only in the page cache is lost.
func (l loop) cut(t *testing.T) {
	t.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2 // _IOR('X', 125, __u32)
	f, err := os.Open(l.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (l loop) restart(t *testing.T) {
	t.Helper()
	if err := unix.Unmount(l.path, 0); err != nil {
		t.Fatal(err)
	}
	l.mount(t)
}

// The power is cut after a write with sync that follows many without, over
// several changes of the memtable and its log. All of them must be there: the
// sync of a write makes those before it durable.
func TestPowerCut(t *testing.T) {
	l := newLoop(t)
	d := &disk{path: filepath.Join(l.path, "data")}
	for round := range 3 {
		child, lines := startChild(t, "rotate", d.path)
		var durable uint64
		for range 3 {
			if !lines.Scan() {
				t.Fatal("the child ended by itself")
			}
			n, err := strconv.ParseUint(lines.Text(), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			durable = n
		}
		l.cut(t)
		waitChild(t, child, lines)
		l.restart(t)
		s := openStore(t, d)
		from := durable &^ (1<<32 - 1)
		t.Logf("round %d: %d writes are durable", round, (durable-from)/rotateStep+1)
		for n := from; n <= durable; n += rotateStep {
			if err := readBack(s, n); err != nil {
				t.Errorf("write %d: %v", n, err)
			}
		}
		checkTrees(t, s)
		closeStore(t, s)
	}
}

// waitChild waits for a child whose disk failed to notice, to close its store
// and to end, which a store must do in bounded time.
func waitChild(t *testing.T, child *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	stuck := time.AfterFunc(30*time.Second, func() { _ = child.Process.Kill() })
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, "ended") {
			t.Log(line)
		}
	}
	_ = child.Wait()
	if !stuck.Stop() {
		t.Error("the child did not end by itself after its disk had failed")
	}
}

// What a killed process left in the page cache counts as synced once the next
// one has opened the engine.
func TestPowerCutAfterAKill(t *testing.T) {
	l := newLoop(t)
	d := &disk{path: filepath.Join(l.path, "data")}
	child, lines := startChild(t, "async", d.path)
	var acked []string
	for len(acked) < 2000 && lines.Scan() {
		acked = append(acked, lines.Text())
	}
	acked = append(acked, killChild(t, child, lines)...)
	child, lines = startChild(t, "hold", d.path)
	if !lines.Scan() {
		t.Fatal("the child did not open the store")
	}
	l.cut(t)
	_ = killChild(t, child, lines)
	l.restart(t)
	s := openStore(t, d)
	for _, line := range acked {
		n, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if err := readBack(s, n); err != nil {
			t.Errorf("write %d of %d: %v", n, len(acked), err)
		}
	}
	checkTrees(t, s)
	closeStore(t, s)
}

// Without a power cut: a sync leaves no older log that is not known to be
// durable, and holds no file that badger has deleted.
func TestSyncCoversOlderLogs(t *testing.T) {
	d := newDisk(t)
	e := d.Open(t)
	l := d.engine(t).logs
	rotations := 0
	for i := 0; rotations < 6; i++ {
		before := l.number
		commit(t, e, i, false)
		if l.number != before {
			rotations++
			if n := len(l.older); n == 0 || l.newest == l.older[n-1] {
				t.Fatalf("log %d is new, %d older ones are noted", l.number, n)
			}
		}
		if len(l.older) > memTables+2 {
			t.Fatalf("%d older logs are kept open", len(l.older))
		}
		if _, err := os.Stat(l.name(l.number + 1)); err == nil {
			t.Fatalf("log %d is not the newest", l.number)
		}
	}
	commit(t, e, -1, true)
	if len(l.older) != 0 || l.created {
		t.Errorf("after a sync %d older logs are not known to be durable", len(l.older))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if n := d.count(t, "*"+logSuffix); n != 0 {
		t.Errorf("%d logs are left after a close, which flushes all to tables", n)
	}
}

func commit(t *testing.T, e storage.Engine, i int, sync bool) {
	t.Helper()
	var b storage.Batch
	b.Set(fmt.Appendf(nil, "%d", i), make([]byte, 200<<10))
	if err := e.Commit(&b, sync); err != nil {
		t.Fatal(err)
	}
}

// Old versions go, or the disk fills with them; but not while a scan under way
// still needs them.
func TestOldVersions(t *testing.T) {
	d := newDisk(t)
	e := d.Open(t)
	const keys, rounds = 300, 60
	generation := func(n int) *storage.Batch {
		var b storage.Batch
		for i := range keys {
			b.Set(fmt.Appendf(nil, "%04d", i), fmt.Appendf(make([]byte, 1000), "%d", n))
		}
		return &b
	}
	if err := e.Commit(generation(0), false); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := e.Scan(nil, nil, func(_, value []byte) error {
		if string(value[1000:]) != "0" {
			return fmt.Errorf("generation %s at key %d", value[1000:], seen)
		}
		if seen++; seen%5 != 0 {
			return nil
		}
		return e.Commit(generation(seen), false)
	})
	if err != nil || seen != keys {
		t.Errorf("a scan during %d rounds of overwriting saw %d of %d keys: %v", rounds, seen, keys, err)
	}
	if n := len(d.engine(t).readers.active); n != 0 {
		t.Errorf("%d reads are noted as under way", n)
	}
	for n := range 200 {
		if err := e.Commit(generation(n), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if size := d.size(t, tableSuffix); size > 40<<20 {
		t.Errorf("%d bytes of tables for %d bytes of data", size, keys*1000)
	}
}

// size returns the bytes of the files whose names end in suffix.
func (d *disk) size(tb testing.TB, suffix string) int64 {
	tb.Helper()
	paths, err := glob(filepath.Dir(d.file("x")), suffix)
	if err != nil {
		tb.Fatal(err)
	}
	var size int64
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			tb.Fatal(err)
		}
		size += st.Size()
	}
	return size
}
