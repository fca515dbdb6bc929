// Package badgerengine is a storage engine on badger: an LSM tree on a local
// file system. It gives badger the durability, the limits and the manners that
// the engine contract asks for; the package storage seals what is stored, so
// that damage which badger does not see is noticed there.
package badgerengine

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/dgraph-io/badger/v4"

	"github.com/starling-kv/starling/node/storage"
)

const kind = "badger"

// Open opens the engine in a data directory. The error is
// [storage.ErrDiskFull] if there is too little space to open, and
// [storage.ErrCorrupt] or [storage.ErrIncomplete] if the files cannot be right.
func Open(dir *storage.Dir, o Options) (storage.Engine, error) {
	path, err := dir.EnginePath(kind, badger.ManifestFilename)
	if err != nil {
		return nil, err
	}
	e, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("open badger in %s: %w", path, err)
	}
	if err := dir.EngineOpened(kind); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func open(path string, o Options) (*engine, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	if err := prepare(path, o); err != nil {
		return nil, err
	}
	alarm := newAlarm()
	db, err := openBadger(o.badger(path, alarm))
	if err != nil {
		return nil, err
	}
	logs, err := openLogs(path)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	version := db.MaxVersion()
	return &engine{
		path: path, db: db, alarm: alarm, logs: logs, maxBatch: int(o.maxTxn()) - 1,
		version: version, readers: newReaders(version),
	}, nil
}

// openBadger turns a panic of badger, and the signal that a memory-mapped file
// raises on a full or failing disk, into an error.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer guard(&err)()
	return badger.OpenManaged(o)
}

// guard is for functions that call into badger: the function it returns is
// deferred and turns a panic into [storage.ErrCorrupt]. Badger trusts the
// lengths in its files and slices beyond the bounds if a bit of them flipped;
// and a memory-mapped page that cannot be read raises a signal, which would
// end the process.
func guard(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			*err = fmt.Errorf("%w: badger gave up: %v", storage.ErrCorrupt, r)
		}
	}
}

// engine implements [storage.Engine].
type engine struct {
	path     string
	db       *badger.DB
	alarm    *alarm
	maxBatch int
	readers  *readers

	// Of the committing goroutine, and of Close after it:
	version uint64 // of the last commit, done or not
	logs    *logs
	failed  bool // a commit or sync failed
}

func (e *engine) Get(key []byte) ([]byte, error) {
	version, ok := e.readers.enter()
	if !ok {
		return nil, storage.ErrClosed
	}
	defer e.readers.leave(version)
	value, err := get(e.db, version, key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, storage.ErrNotFound
	}
	if err != nil {
		return nil, e.explain(err)
	}
	return value, nil
}

// explain names the cause of a failed read. A badger whose background work
// failed may panic in reads too; then it is not what is stored that is damaged.
func (e *engine) explain(err error) error {
	if cause := e.alarm.err(); cause != nil {
		return fmt.Errorf("%w: badger: %w", storage.ErrFailed, cause)
	}
	return fmt.Errorf("badger: %w", err)
}

func get(db *badger.DB, version uint64, key []byte) (value []byte, err error) {
	defer guard(&err)()
	txn := db.NewTransactionAt(version, false)
	defer txn.Discard()
	item, err := txn.Get(key)
	if err != nil {
		return nil, err
	}
	return item.ValueCopy(nil)
}

func (e *engine) Scan(from, to []byte, fn func(key, value []byte) error) error {
	version, ok := e.readers.enter()
	if !ok {
		return storage.ErrClosed
	}
	defer e.readers.leave(version)
	it, err := newIterator(e.db, version)
	if err != nil {
		return e.explain(err)
	}
	defer closeIterator(it)
	if err := seek(it, from); err != nil {
		return e.explain(err)
	}
	for {
		key, value, err := next(it)
		if err != nil {
			return e.explain(err)
		}
		if key == nil || to != nil && bytes.Compare(key, to) >= 0 {
			return nil
		}
		if err := fn(key, value); err != nil {
			return err
		}
	}
}

// newIterator makes no use of its transaction but for the version: with
// versions from outside a transaction that only reads has nothing to discard.
func newIterator(db *badger.DB, version uint64) (it *badger.Iterator, err error) {
	defer guard(&err)()
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false // values lie beside their keys
	return db.NewTransactionAt(version, false).NewIterator(o), nil
}

func seek(it *badger.Iterator, from []byte) (err error) {
	defer guard(&err)()
	it.Seek(from)
	return nil
}

func closeIterator(it *badger.Iterator) {
	var err error // of no use: everything was read, or an error returned
	defer guard(&err)()
	it.Close()
}

// next returns copies of what it stands on and moves it on; after the end the
// key is nil.
func next(it *badger.Iterator) (key, value []byte, err error) {
	defer guard(&err)()
	if !it.Valid() {
		return nil, nil, nil
	}
	key = it.Item().KeyCopy(nil)
	if value, err = it.Item().ValueCopy(nil); err != nil {
		return nil, nil, err
	}
	it.Next()
	return key, value, nil
}

// Commit shows b to reads once it is done, with sync once it is durable. After
// an error b may turn up when the database is opened again.
func (e *engine) Commit(b *storage.Batch, sync bool) error {
	version, ok := e.readers.enter()
	if !ok {
		return storage.ErrClosed
	}
	defer e.readers.leave(version)
	if b.Size() > e.maxBatch {
		return fmt.Errorf("%w: %d bytes, at most %d", storage.ErrTooLarge, b.Size(), e.maxBatch)
	}
	e.version++
	if err := e.commit(b, sync); err != nil {
		e.failed = true
		return fmt.Errorf("badger: %w", err)
	}
	e.db.SetDiscardTs(e.readers.show(e.version))
	return nil
}

func (e *engine) commit(b *storage.Batch, sync bool) error {
	if err := e.alarm.err(); err != nil {
		return err
	}
	if err := e.write(b); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if e.alarm.full.Swap(false) {
		if err := e.logs.follow(); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	if !sync {
		return nil
	}
	if err := e.logs.sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// write hands b to the operating system as one transaction.
func (e *engine) write(b *storage.Batch) (err error) {
	defer guard(&err)()
	txn := e.db.NewTransactionAt(e.version-1, true)
	defer txn.Discard()
	for _, op := range b.Ops() {
		if err := set(txn, op); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	if err := txn.CommitAt(e.version, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-e.alarm.raised: // it may never be done
		return e.alarm.cause
	}
}

func set(txn *badger.Txn, op storage.Op) error {
	if op.Delete {
		return txn.Delete(op.Key)
	}
	return txn.Set(op.Key, op.Value)
}

func (e *engine) MaxBatch() int { return e.maxBatch }

// Close leaves badger as it is if the disk failed: it would try to flush its
// memtable for ever. What it holds in memory is gone with the process, which is
// to be restarted anyway, and what was synced is in the logs.
func (e *engine) Close() error {
	if !e.readers.close() {
		return nil
	}
	err := errors.Join(e.alarm.err(), e.logs.sync(), e.logs.close())
	if err != nil || e.failed {
		return fmt.Errorf("badger is left open, its disk failed: %w", cmp.Or(err, storage.ErrFailed))
	}
	err = closeBadger(e.db)
	if err == nil {
		err = writeClosed(e.path)
	}
	if err != nil {
		return fmt.Errorf("close badger: %w", err)
	}
	return nil
}

func closeBadger(db *badger.DB) (err error) {
	defer guard(&err)()
	return db.Close()
}
