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

	seed    uint64
	slow    atomic.Int64 // what a commit takes, in nanoseconds
	unclear atomic.Bool  // the next commit is done and reported as failed
}

func newDisk(seed uint64) *disk { return &disk{Disk: memory.New(), seed: seed} }

// open returns an engine for the next life of the node.
func (d *disk) open() storage.Engine { return &engine{Engine: d.Disk.Open(), disk: d} }

// pausing returns what the store of one life of the node does before each round
// and after each answer: it waits for a moment, in which everything comes to rest
// that happens at the same time. Otherwise it would be chance who of those that
// it answers is the next to hand in an update, and with which a round begins.
func (d *disk) pausing(boot int) func() {
	moments := newStream(d.seed, uint64(boot))
	return func() { time.Sleep(100*time.Nanosecond + spread(moments.next())) }
}

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

// readTime is what a read from a disk takes at least. Were it nothing, a node
// would have its own answer before it has asked the others, or after: it would
// be chance. Nor does it take equally long for all keys, or goroutines that
// began at one moment would meet again at another.
const readTime = 20 * time.Microsecond

// spread is up to 4 us.
func spread(x uint64) time.Duration { return time.Duration(x % 4096) }

// Get implements [storage.Engine].
func (e *engine) Get(key []byte) ([]byte, error) {
	time.Sleep(e.disk.readTime(key))
	return e.Engine.Get(key)
}

func (d *disk) readTime(key []byte) time.Duration {
	return readTime + spread(mix(d.seed, hashOf(string(key))))
}

// cache is that of one life of a node. It forgets a quarter of the keys anew in
// each tenth of a second. A read takes as long as from the disk: whether it was
// in time to be cached may be chance.
type cache struct {
	memory.Cache

	disk *disk
	life uint64
}

func (d *disk) newCache(life int) *cache { return &cache{disk: d, life: uint64(life)} }

// HasGet implements [storage.Cache].
func (c *cache) HasGet(dst, key []byte) ([]byte, bool) {
	tenth := uint64(time.Now().UnixMilli() / 100)
	if mix(c.disk.seed, c.life, hashOf(string(key)), tenth)%4 == 0 {
		c.Del(key)
		return dst, false
	}
	value, ok := c.Cache.HasGet(dst, key)
	if ok {
		time.Sleep(c.disk.readTime(key))
	}
	return value, ok
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
