package badgerengine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/vclock"
)

// The tests of kills and power cuts run a store in a child process, this test
// binary again, and hear from it on a pipe which writes were acknowledged.

const childEnv = "STARLING_TEST_CHILD"

func isChild() bool { return os.Getenv(childEnv) != "" }

// childMain runs what the environment names in the directory that it names.
func childMain() int {
	mode, path, _ := strings.Cut(os.Getenv(childEnv), " ")
	run := map[string]func(*storage.Store) error{
		"write": childWrite, "rotate": childRotate, "async": childAsync, "hold": childHold,
	}[mode]
	err := childRun(path, run)
	_, _ = fmt.Fprintln(os.Stdout, "ended:", err)
	return 1
}

func childRun(path string, run func(*storage.Store) error) error {
	d := &disk{path: path}
	e, err := d.open(small)
	if err != nil {
		return err
	}
	s, err := storage.Open(e, testOptions())
	if err != nil {
		return err
	}
	return errors.Join(run(s), s.Close())
}

func testOptions() storage.Options {
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	return storage.Options{Random: random.Uint64, Now: time.Now, JournalLen: 64}
}

// startChild starts a child and returns the lines that it prints.
func startChild(t *testing.T, mode, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+mode+" "+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	return child, bufio.NewScanner(out)
}

// killChild kills a child and returns the whole lines that were still unread.
func killChild(t *testing.T, child *exec.Cmd, lines *bufio.Scanner) []string {
	t.Helper()
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var rest []string
	for lines.Scan() {
		rest = append(rest, lines.Text())
	}
	_ = child.Wait()
	return rest
}

// testValue is what write n stores: mostly small, sometimes in chunks.
func testValue(n uint64) []byte {
	size := 100 + n%900
	if n%50 == 0 {
		size = 300 << 10
	}
	b := make([]byte, size)
	source := rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%032d", n)))
	_, _ = source.Read(b)
	return b
}

// testPartitions is how many partitions the records of the tests are in.
const testPartitions = 7

func testSlot(n uint64) kv.Slot {
	return kv.Slot{Partition: uint16(n % testPartitions), Key: kv.Key{Bucket: "b", Name: strconv.FormatUint(n, 10)}}
}

// testUpdate is write n.
func testUpdate(n uint64, sync bool, done func(error)) storage.Update {
	value := testValue(n)
	u := storage.Update{Slot: testSlot(n), Sync: sync, Size: len(value), Done: done}
	u.Apply = func(old kv.Record, boot uint64) (storage.Change, error) {
		s := kv.Sibling{Kind: kv.KindValue, N: 1, Length: uint64(len(value)), Checksum: xxhash.Sum64(value)}
		if s.External = len(value) > kv.InlineLimit; !s.External {
			s.Inline = value
		}
		next, dot := old.Put(s, old.Clock, boot, func() vclock.Actor { return vclock.Actor(n + 1) }, time.Time{})
		return storage.Change{Record: next, Blobs: []kv.Blob{{Dot: dot, Data: value}}}, nil
	}
	return u
}

func submit(s *storage.Store, n uint64, sync bool) error {
	done := make(chan error, 1)
	if err := s.Submit(testUpdate(n, sync, func(err error) { done <- err })); err != nil {
		return err
	}
	return <-done
}

// readBack returns what is wrong with write n, if anything.
func readBack(s *storage.Store, n uint64) error {
	r, err := s.Get(testSlot(n))
	if err != nil {
		return err
	}
	if len(r.Live) != 1 {
		return fmt.Errorf("%w: write %d left %d siblings", storage.ErrNotFound, n, len(r.Live))
	}
	v := r.Live[0]
	data := v.Value.Inline
	if v.Value.External {
		if data, err = s.Value(testSlot(n), v.Dot, v.Value.Length, v.Value.Checksum); err != nil {
			return err
		}
	}
	if string(data) != string(testValue(n)) {
		return fmt.Errorf("write %d reads another value", n)
	}
	return nil
}

// childWrite has 32 writers, every other write with sync. A line is a write
// that was acknowledged.
func childWrite(s *storage.Store) error {
	var next atomic.Uint64
	next.Store(s.Starts() << 32)
	failed := make(chan error, 32)
	for range 32 {
		go func() {
			for {
				n := next.Add(1)
				if err := submit(s, n, n%2 == 0); err != nil {
					failed <- err
					return
				}
				printLine(n)
			}
		}()
	}
	return <-failed
}

// rotateStep makes every fifth write of childRotate a large one.
const rotateStep = 10

// childRotate writes much without sync, then once with: by then the memtable
// has changed several times. A line says that all writes up to it are durable.
func childRotate(s *storage.Store) error {
	from := s.Starts() << 32
	for i := uint64(0); ; i++ {
		n, sync := from+i*rotateStep, i%200 == 199
		if err := submit(s, n, sync); err != nil {
			return err
		}
		if sync {
			printLine(n)
		}
	}
}

// childAsync writes without sync. A line is a write that was acknowledged.
func childAsync(s *storage.Store) error {
	for n := s.Starts() << 32; ; n++ {
		if err := submit(s, n, false); err != nil {
			return err
		}
		printLine(n)
	}
}

// childHold says that it is open and does nothing.
func childHold(*storage.Store) error {
	printLine(0)
	select {} // until killed
}

var printing sync.Mutex

func printLine(n uint64) {
	printing.Lock()
	defer printing.Unlock()
	_, _ = io.WriteString(os.Stdout, strconv.FormatUint(n, 10)+"\n")
}
