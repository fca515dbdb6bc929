// Package memory is an engine without a disk, for tests and simulations. A
// [Disk] outlives the engines that are opened on it; it can crash, fail and run
// full at chosen moments. Given the same calls it does the same every time: it
// has no goroutine, no clock and no randomness, and works in testing/synctest.
package memory

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/starling-kv/starling/node/storage"
)

// writeback is how many unsynced bytes a disk keeps apart. Beyond it the oldest
// commits become durable by themselves, as an operating system's would.
const writeback = 16 << 20

// Disk holds what engines commit. The zero Disk is empty, boundless and without
// faults. It is safe for concurrent use.
type Disk struct {
	mu       sync.Mutex
	current  table    // what reads see
	durable  table    // what a crash leaves
	unsynced []commit // done to current and not to durable, oldest first
	pending  int      // bytes of them
	capacity int      // in bytes, 0 for no bound
	maxBatch int
	faults   []fault
	opened   int // counts the engines opened; only the last one is alive
}

type commit struct {
	ops  []storage.Op
	size int
}

// New returns an empty disk.
func New() *Disk { return &Disk{} }

// Open returns an engine on the disk. The engine opened before is dead, as if
// its process had been killed: what it committed is there, synced or not.
func (d *Disk) Open() storage.Engine {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened++
	d.sync() // what an engine finds counts as synced
	return &engine{disk: d, life: d.opened}
}

// Loss chooses which commits that were not synced a crash takes, by their
// places from 0, the oldest, to n-1.
type Loss func(place, n int) (lost bool)

// LoseAll takes all of them.
func LoseAll(int, int) bool { return true }

// LoseFrom takes the k-th and all after it.
func LoseFrom(k int) Loss { return func(place, _ int) bool { return place >= k } }

// LoseSome takes about half of them, chosen by seed: earlier ones may go while
// later ones stay, as when a log is written to two files.
func LoseSome(seed uint64) Loss {
	return func(place, _ int) bool {
		x := seed + uint64(place+1)*0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9 // splitmix64 (Steele and others, 2014)
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return (x^x>>31)&1 == 1
	}
}

// Crash cuts the power: the engine is dead, and of the commits that were not
// synced those are gone that loss takes. Faults that were planned are forgotten.
func (d *Disk) Crash(loss Loss) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened++
	for i, c := range d.unsynced {
		if !loss(i, len(d.unsynced)) {
			d.durable.apply(c.ops)
		}
	}
	d.unsynced, d.pending, d.faults = nil, 0, nil
	d.current = d.durable.clone()
}

// Clone returns a disk of its own that holds what a crash would leave of this
// one, as a backup does. Capacity and planned faults are not copied.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Disk{current: d.durable.clone(), durable: d.durable.clone(), maxBatch: d.maxBatch}
}

// SetCapacity bounds the bytes of keys and values. A commit that would exceed
// them is refused with [storage.ErrDiskFull]; 0 is no bound.
func (d *Disk) SetCapacity(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = n
}

// SetMaxBatch sets what engines return as MaxBatch, by default 4 MiB.
func (d *Disk) SetMaxBatch(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.maxBatch = n
}

// Free returns the bytes left of the capacity.
func (d *Disk) Free() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.capacity == 0 {
		return 1 << 62, nil
	}
	return uint64(max(0, d.capacity-d.current.bytes)), nil
}

// fault fails one commit or sync.
type fault struct {
	sync bool
	in   int // calls to let pass
	err  error
}

// FailCommit makes the k-th commit from now, counted from 1, fail with err and
// change nothing.
func (d *Disk) FailCommit(k int, err error) { d.plan(fault{in: k, err: err}) }

// FailSync makes the k-th sync from now, counted from 1, fail with err. What it
// was to make durable stays visible, and a crash takes it even after a later
// sync that succeeds: so do operating systems that drop what they could not
// write.
func (d *Disk) FailSync(k int, err error) { d.plan(fault{sync: true, in: k, err: err}) }

// Heal forgets the faults that are planned.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
}

func (d *Disk) plan(f fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, f)
}

// due counts a commit or sync and returns the error that is planned for it.
func (d *Disk) due(sync bool) error {
	var err error
	d.faults = slices.DeleteFunc(d.faults, func(f fault) bool { return f.in == 0 })
	for i := range d.faults {
		f := &d.faults[i]
		if f.sync != sync {
			continue
		}
		if f.in--; f.in == 0 {
			err = cmp.Or(err, f.err)
		}
	}
	return err
}

// Flip flips one bit of the value stored under the n-th key that begins with
// prefix, in the order of keys, and reports whether there is one: damage that no
// error announces.
func (d *Disk) Flip(prefix string, n, bit int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sync()
	first, _ := d.current.find([]byte(prefix))
	if n += first; n >= len(d.current.entries) || !bytes.HasPrefix(d.current.entries[n].key, []byte(prefix)) {
		return false
	}
	e := d.current.entries[n]
	value := bytes.Clone(e.value)
	value[bit/8%len(value)] ^= 1 << (bit % 8)
	op := []storage.Op{{Key: e.key, Value: value}}
	d.current.apply(op)
	d.durable.apply(op)
	return true
}

func (d *Disk) commit(life int, b *storage.Batch, sync bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.alive(life); err != nil {
		return err
	}
	if b.Len() > 0 {
		if err := d.due(false); err != nil {
			return err
		}
		if d.capacity > 0 && d.current.bytes+b.Size() > d.capacity {
			return storage.ErrDiskFull
		}
		c := commit{ops: slices.Clone(b.Ops()), size: b.Size()}
		d.current.apply(c.ops)
		d.unsynced = append(d.unsynced, c)
		d.pending += c.size
		d.writeBack()
	}
	if !sync {
		return nil
	}
	return d.trySync()
}

// trySync is a sync that may fail as planned.
func (d *Disk) trySync() error {
	if err := d.due(true); err != nil {
		d.unsynced, d.pending = nil, 0
		return err
	}
	d.sync()
	return nil
}

func (d *Disk) writeBack() {
	for d.pending > writeback {
		c := d.unsynced[0]
		d.durable.apply(c.ops)
		d.pending -= c.size
		d.unsynced = d.unsynced[1:]
	}
}

func (d *Disk) sync() {
	for _, c := range d.unsynced {
		d.durable.apply(c.ops)
	}
	d.unsynced, d.pending = nil, 0
}

// alive returns why the engine of the given life may not use the disk.
func (d *Disk) alive(life int) error {
	if life != d.opened {
		return fmt.Errorf("memory engine: its process is dead: %w", storage.ErrClosed)
	}
	return nil
}
