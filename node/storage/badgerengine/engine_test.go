package badgerengine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/enginetest"
)

func TestMain(m *testing.M) {
	if isChild() {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(m)
}

// small options let tests see memtables change, flush and compact.
var small = Options{MemTableSize: minMemTable}

// disk is a data directory whose engine can be killed, by going on with a copy
// of its files as they are in the page cache.
type disk struct {
	path string
	live *owned
}

// owned closes the directory with its engine.
type owned struct {
	storage.Engine
	dir *storage.Dir
}

func (o *owned) Close() error { return errors.Join(o.Engine.Close(), o.dir.Close()) }

func newDisk(tb testing.TB) *disk {
	tb.Helper()
	return &disk{path: filepath.Join(tb.TempDir(), "data")}
}

func (d *disk) Open(tb testing.TB) storage.Engine {
	tb.Helper()
	e, err := d.open(small)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// engine returns the inside of the engine that was opened last.
func (d *disk) engine(tb testing.TB) *engine {
	tb.Helper()
	e, ok := d.live.Engine.(*engine)
	if !ok {
		tb.Fatalf("engine of type %T", d.live.Engine)
	}
	return e
}

func (d *disk) open(o Options) (storage.Engine, error) {
	dir, err := storage.OpenDir(d.path, "node", func() uint64 { return 1 })
	if err != nil {
		return nil, err
	}
	e, err := Open(dir, o)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	d.live = &owned{Engine: e, dir: dir}
	return d.live, nil
}

func (d *disk) Kill(tb testing.TB) {
	tb.Helper()
	d.waitForFlush(tb)
	snapshot := filepath.Join(tb.TempDir(), "data")
	if err := os.CopyFS(snapshot, os.DirFS(d.path)); err != nil {
		tb.Fatal(err)
	}
	if err := d.live.Close(); err != nil {
		tb.Fatal(err)
	}
	d.path = snapshot
}

// waitForFlush waits until badger has flushed the logs that it found when it was
// opened, so that a copy of its files is of one moment.
func (d *disk) waitForFlush(tb testing.TB) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		if d.count(tb, "*"+logSuffix) == 1 {
			return
		}
		<-tick.C
	}
	tb.Fatal("badger does not flush its logs")
}

// file returns the path of a file of the engine.
func (d *disk) file(name string) string { return filepath.Join(d.path, "engine", name) }

func TestEngine(t *testing.T) {
	enginetest.Run(t, func(tb testing.TB) enginetest.Disk {
		tb.Helper()
		return newDisk(tb)
	})
}
