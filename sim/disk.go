package sim

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
)

var errDisk = errors.New("simulated disk: input/output error")

// disk is the disk of one node over all its lives.
type disk struct {
	*memory.Disk

	slow    atomic.Int64 // what a commit takes, in nanoseconds
	unclear atomic.Bool  // the next commit is done and reported as failed
}

func newDisk() *disk { return &disk{Disk: memory.New()} }

// open returns an engine for the next life of the node.
func (d *disk) open() storage.Engine { return &engine{Engine: d.Disk.Open(), disk: d} }

// heal ends all faults of the disk.
func (d *disk) heal() {
	d.slow.Store(0)
	d.unclear.Store(false)
	d.SetCapacity(0)
	d.Heal()
}

// engine adds to the memory engine what needs time.
type engine struct {
	storage.Engine
	disk *disk
}

// readTime is what a read from a disk takes. Were it nothing, a node would have
// its own answer before it has asked the others, or after: it would be chance.
const readTime = 20 * time.Microsecond

// Get implements [storage.Engine].
func (e *engine) Get(key []byte) ([]byte, error) {
	time.Sleep(readTime)
	return e.Engine.Get(key)
}

// Commit implements [storage.Engine]. Half of a slow commit's time passes after
// the batch is on the disk: a crash may come between that and its answer.
func (e *engine) Commit(b *storage.Batch, sync bool) error {
	half := time.Duration(e.disk.slow.Load()) / 2
	if half > 0 {
		time.Sleep(half)
	}
	err := e.Engine.Commit(b, sync)
	if half > 0 {
		time.Sleep(half)
	}
	if err == nil && b.Len() > 0 && e.disk.unclear.Swap(false) {
		return errDisk
	}
	return err
}
