package memory

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/starling-kv/starling/node/storage"
)

// engine is one process's view of a disk.
type engine struct {
	disk   *Disk
	life   int
	closed atomic.Bool
}

func (e *engine) Get(key []byte) ([]byte, error) {
	if e.closed.Load() {
		return nil, storage.ErrClosed
	}
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if err := e.disk.alive(e.life); err != nil {
		return nil, err
	}
	value, ok := e.disk.current.get(key)
	if !ok {
		return nil, storage.ErrNotFound
	}
	return bytes.Clone(value), nil
}

func (e *engine) Scan(from, to []byte, fn func(key, value []byte) error) error {
	entries, err := e.snapshot(from, to)
	if err != nil {
		return err
	}
	for _, x := range entries {
		if err := fn(bytes.Clone(x.key), bytes.Clone(x.value)); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) snapshot(from, to []byte) ([]entry, error) {
	if e.closed.Load() {
		return nil, storage.ErrClosed
	}
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if err := e.disk.alive(e.life); err != nil {
		return nil, err
	}
	return e.disk.current.between(from, to), nil
}

func (e *engine) Commit(b *storage.Batch, sync bool) error {
	if e.closed.Load() {
		return storage.ErrClosed
	}
	if b.Size() > e.MaxBatch() {
		return fmt.Errorf("%w: %d bytes, at most %d", storage.ErrTooLarge, b.Size(), e.MaxBatch())
	}
	return e.disk.commit(e.life, b, sync)
}

func (e *engine) MaxBatch() int {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if e.disk.maxBatch > 0 {
		return e.disk.maxBatch
	}
	return 4 << 20
}

func (e *engine) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if e.disk.alive(e.life) != nil {
		return nil
	}
	return e.disk.trySync()
}

// table is an ordered map of byte strings, small enough to keep sorted. Its
// slices are never written to, so that copies of the entries are snapshots.
type table struct {
	entries []entry
	bytes   int
}

type entry struct{ key, value []byte }

func (t *table) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(t.entries, key, func(e entry, key []byte) int { return bytes.Compare(e.key, key) })
}

func (t *table) get(key []byte) ([]byte, bool) {
	i, ok := t.find(key)
	if !ok {
		return nil, false
	}
	return t.entries[i].value, true
}

func (t *table) between(from, to []byte) []entry {
	i, _ := t.find(from)
	j := len(t.entries)
	if to != nil {
		j, _ = t.find(to)
	}
	return slices.Clone(t.entries[i:max(i, j)])
}

func (t *table) apply(ops []storage.Op) {
	for _, op := range ops {
		i, ok := t.find(op.Key)
		if ok {
			t.bytes -= len(t.entries[i].key) + len(t.entries[i].value)
		}
		switch {
		case op.Delete && ok:
			t.entries = slices.Delete(t.entries, i, i+1)
		case op.Delete:
		case ok:
			t.entries[i].value = op.Value
			t.bytes += len(op.Key) + len(op.Value)
		default:
			t.entries = slices.Insert(t.entries, i, entry{op.Key, op.Value})
			t.bytes += len(op.Key) + len(op.Value)
		}
	}
}

func (t *table) clone() table { return table{entries: slices.Clone(t.entries), bytes: t.bytes} }
