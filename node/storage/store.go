package storage

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Options are what a [Store] is opened with. Random and Now are required; a
// zero elsewhere stands for the default.
type Options struct {
	// Random returns 64 random bits. It is called by one goroutine at a time.
	Random func() uint64
	// Now is the clock that says when to look at the free space again. It is
	// safe for concurrent use.
	Now func() time.Time

	// Free returns the free space of the engine's disk in bytes. It is safe for
	// concurrent use and returns at once. Nil: writes are never refused for
	// lack of space.
	Free func() (uint64, error)
	// LowWater is the free space in bytes below which writes are refused, and
	// HighWater, no less, that above which they are taken again; by default a
	// tenth more than LowWater. [Watermarks] proposes both.
	LowWater, HighWater uint64
	// SpaceEvery and SpaceBytes say when to look at the free space again: after
	// so long (default 250 ms) or so many bytes written (default 16 MiB).
	SpaceEvery time.Duration
	SpaceBytes int

	// QueueLen (default 8192) and QueueBytes (default 64 MiB) bound the updates
	// that wait; beyond them Submit returns [ErrBusy].
	QueueLen, QueueBytes int
	// BatchLen (default 2048) and BatchBytes (default 8 MiB) bound the updates
	// that share one sync.
	BatchLen, BatchBytes int
	// Gather is called before the updates that wait are taken for a round, by the
	// committing goroutine. Whoever was answered by the last round may have the
	// next update ready: to let them run first makes the rounds several times
	// larger under load and costs nothing without. Default [runtime.Gosched].
	Gather func()
	// Answered, if set, is called after each answer to an update, by the
	// committing goroutine: a simulation lets what that sets off happen first.
	Answered func()
	// JournalLen (default 32768) and JournalBytes (default 8 MiB) are so many
	// entries, one for each transaction, and bytes about how the hash trees
	// changed, after which the trees are written as pages. A start replays up to
	// three times as much.
	JournalLen, JournalBytes int
	// Cache keeps copies of records; the store owns it and empties it at the end.
	// Nil: every read goes to the engine.
	Cache Cache
}

func (o Options) withDefaults() Options {
	setDefault(&o.HighWater, o.LowWater+o.LowWater/10)
	setDefault(&o.SpaceEvery, 250*time.Millisecond)
	setDefault(&o.SpaceBytes, 16<<20)
	setDefault(&o.QueueLen, 8192)
	setDefault(&o.QueueBytes, 64<<20)
	setDefault(&o.BatchLen, 2048)
	setDefault(&o.BatchBytes, 8<<20)
	if o.Gather == nil {
		o.Gather = runtime.Gosched
	}
	setDefault(&o.JournalLen, 32<<10)
	setDefault(&o.JournalBytes, 8<<20)
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o Options) check() error {
	switch {
	case o.Random == nil || o.Now == nil:
		return errors.New("storage options: Random and Now are required")
	case o.HighWater < o.LowWater:
		return fmt.Errorf("storage options: high watermark %d is under low watermark %d: raise it", o.HighWater, o.LowWater)
	}
	return nil
}

// Store keeps records, hints, external values and facts on an [Engine]. All
// methods may be called by many goroutines at once.
type Store struct {
	engine Engine
	opts   Options
	queue  *queue
	space  *watermark
	starts atomic.Uint64
	boot   atomic.Uint64
	counts counters
	trees  trees
	cache  recordCache

	journal journal

	// targets are the nodes for which there may be hints. Only the committing
	// goroutine touches it.
	targets map[kv.NodeID]struct{}
	// unsynced is set while commits are done that no sync covers. Only the
	// committing goroutine touches it.
	unsynced bool

	closing  sync.Once
	done     chan struct{} // closed when the committing goroutine has ended
	closeErr error         // readable then
}

// Open returns a store on engine, which it owns from then on: also if Open
// fails, the engine is closed.
func Open(engine Engine, o Options) (*Store, error) {
	s, err := open(engine, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), engine.Close())
	}
	go s.commitAll()
	return s, nil
}

func open(engine Engine, o Options) (*Store, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Store{
		engine: engine,
		opts:   o,
		queue:  newQueue(o.QueueLen, o.QueueBytes),
		space: &watermark{
			ask: o.Free, now: o.Now, every: o.SpaceEvery, bytes: o.SpaceBytes,
			gauge: gauge{low: o.LowWater, high: o.HighWater},
		},
		cache: recordCache{cache: o.Cache},
		done:  make(chan struct{}),
	}
	if err := s.space.admit(true); err != nil {
		return nil, err
	}
	s.newBoot()
	if err := s.countStart(); err != nil {
		return nil, err
	}
	if err := s.loadTargets(); err != nil {
		return nil, err
	}
	return s, s.loadTrees()
}

// Boot returns the number of this life of the store: random, never zero, drawn
// anew by every Open and after every failed commit. An actor that a record
// minted under another boot must not be continued.
func (s *Store) Boot() uint64 { return s.boot.Load() }

// Close refuses new updates, finishes those that wait, and closes the engine.
// It waits for all that and may be called more than once.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.queue.refuse(ErrClosed)
		s.queue.end()
	})
	<-s.done
	return s.closeErr
}

func (s *Store) newBoot() {
	old := s.boot.Load()
	for {
		if b := s.opts.Random(); b != 0 && b != old {
			s.boot.Store(b)
			return
		}
	}
}

// State says whether a store takes writes.
type State uint8

// The states of a store. Reads go on in all of them.
const (
	StateOK     State = iota
	StateFull         // free space is under the watermark
	StateFailed       // a commit or sync failed
)

// String returns the state as a word.
func (s State) String() string { return [...]string{"ok", "full", "failed"}[s] }

// Stats is what a store has done since it was opened, and how it is.
type Stats struct {
	State      State
	Updates    uint64 // turns of the serial order that were answered, whatever the answer
	Batches    uint64 // rounds of the committing goroutine
	Commits    uint64 // transactions of the engine
	Syncs      uint64 // of them with a sync
	Bytes      uint64 // given to the engine, keys included
	Corrupt    uint64 // damaged values met by reads
	CacheHits  uint64 // reads of records that a copy in memory answered
	CacheMiss  uint64 // and those that none did
	Rebuilt    uint64 // leaves of hash trees that were made anew from records
	QueueLen   int    // updates waiting
	QueueBytes int    // and their size
	Free       uint64 // free space when last looked at, 0 if never
}

type counters struct {
	updates, batches, commits, syncs, bytes, corrupt, rebuilt atomic.Uint64
	failed                                                    atomic.Bool
}

// Stats returns figures for metrics.
func (s *Store) Stats() Stats {
	g := s.space.state()
	st := Stats{
		Updates:   s.counts.updates.Load(),
		Batches:   s.counts.batches.Load(),
		Commits:   s.counts.commits.Load(),
		Syncs:     s.counts.syncs.Load(),
		Bytes:     s.counts.bytes.Load(),
		Corrupt:   s.counts.corrupt.Load(),
		Rebuilt:   s.counts.rebuilt.Load(),
		CacheHits: s.cache.hits.Load(), CacheMiss: s.cache.misses.Load(),
		Free: g.free,
	}
	st.QueueLen, st.QueueBytes = s.queue.depth()
	switch {
	case s.counts.failed.Load():
		st.State = StateFailed
	case g.full:
		st.State = StateFull
	}
	return st
}
