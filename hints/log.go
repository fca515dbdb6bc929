package hints

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

const (
	flushEvery = 50 * time.Millisecond
	flushLen   = 1000    // as many entries are flushed at once, and without waiting
	queueLen   = 1 << 14 // entries in memory
)

// The limits of a [Log] that is given none.
const (
	DefaultTargetBytes = 64 << 20
	DefaultTotalBytes  = 256 << 20
)

// LogConfig says what a [Log] works with. All fields are needed, but for the
// limits.
type LogConfig struct {
	Store Store
	// Mark has a partition compared with the target soon: hints for it were
	// dropped. It must return at once.
	Mark func(target kv.NodeID, partition uint16)
	// TargetBytes and TotalBytes bound the entries for one target and for all,
	// in bytes as stored, and about; 0: the defaults.
	TargetBytes, TotalBytes int64
	Now                     func() time.Time
	Log                     *zap.Logger
}

// Log notes which owners missed which writes. It gathers entries in memory and
// gives them to the store in batches: what a crash takes with it, the last
// moments before it, is left to anti-entropy. It is safe for concurrent use.
//
// At a limit an entry is dropped, counted, and its partition marked: the hint is
// only the quicker of two ways to heal, and no write waits or fails for it.
type Log struct {
	cfg     LogConfig
	wake    chan struct{}
	counted chan struct{} // closed once what the store holds is counted

	mu      sync.Mutex
	queued  map[id]struct{} // the entries of queue
	queue   []Missed        // in the order of their arrival, each once
	growth  account         // what queue will add to stored, at most
	stored  account
	dropped map[kv.NodeID]uint64
	marks   map[mark]struct{}
	failing error // of the store, when it was given entries last
}

// id names an entry.
type id struct {
	target kv.NodeID
	key    kv.Key
}

type mark struct {
	target    kv.NodeID
	partition uint16
}

// NewLog returns a log of what the store holds. Run it.
func NewLog(cfg LogConfig) *Log {
	if cfg.TargetBytes == 0 {
		cfg.TargetBytes = DefaultTargetBytes
	}
	if cfg.TotalBytes == 0 {
		cfg.TotalBytes = DefaultTotalBytes
	}
	return &Log{
		cfg: cfg, wake: make(chan struct{}, 1), counted: make(chan struct{}),
		queued: make(map[id]struct{}), dropped: make(map[kv.NodeID]uint64), marks: make(map[mark]struct{}),
	}
}

// Missed notes that target has not confirmed a write of the key. It returns at
// once.
func (l *Log) Missed(target kv.NodeID, partition uint16, key kv.Key) {
	m := Missed{Target: target, Partition: partition, Key: key, Since: l.cfg.Now().Truncate(time.Millisecond)}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := id{target, key}
	if _, again := l.queued[at]; again {
		return
	}
	if len(l.queue) >= queueLen || !l.fits(m) {
		l.drop(m)
		return
	}
	l.queued[at] = struct{}{}
	l.queue = append(l.queue, m)
	l.growth.add(m)
	if len(l.queue) == flushLen {
		l.notify()
	}
}

// fits reports whether there is room for m. Until the store confirms them,
// entries count as new, also where they coalesce with older ones.
func (l *Log) fits(m Missed) bool {
	n := size(m.Key)
	return l.stored.amounts[m.Target].Bytes+l.growth.amounts[m.Target].Bytes+n <= l.cfg.TargetBytes &&
		l.stored.total+l.growth.total+n <= l.cfg.TotalBytes
}

func (l *Log) drop(m Missed) {
	l.dropped[m.Target]++
	l.marks[mark{m.Target, m.Partition}] = struct{}{}
}

func (l *Log) notify() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run gives the entries to the store until ctx ends, and then those that are
// left.
func (l *Log) Run(ctx context.Context) {
	l.count(ctx)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-l.wake:
		case <-ctx.Done():
		}
		l.flush()
		l.tell()
	}
	l.flush()
}

// count learns how much the store holds.
func (l *Log) count(ctx context.Context) {
	defer close(l.counted)
	var found account
	targets, err := l.cfg.Store.MissedTargets()
	for _, target := range targets {
		err = errors.Join(err, l.cfg.Store.ScanMissed(target, func(m Missed) error {
			found.add(m)
			return ctx.Err()
		}))
	}
	if err != nil && ctx.Err() == nil {
		l.cfg.Log.Warn("some hints cannot be read; anti-entropy heals what they stood for", zap.Error(err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored = found
}

// flush gives what is queued to the store, as long as that takes it.
func (l *Log) flush() {
	for more := true; more; {
		var batch []Missed
		if batch, more = l.take(); len(batch) == 0 {
			return
		}
		if err := l.submit(batch, nil); err != nil {
			l.putBack(batch, err)
			return
		}
	}
}

// take takes the first entries out of the queue: who misses another write from
// now on is noted again, for these may be replayed before that is committed.
func (l *Log) take() (batch []Missed, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.queue), flushLen)
	batch = slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	for _, m := range batch {
		delete(l.queued, id{m.Target, m.Key})
	}
	slices.SortFunc(batch, compareMissed)
	return batch, len(l.queue) > 0
}

func compareMissed(a, b Missed) int {
	return cmp.Or(
		cmp.Compare(a.Target, b.Target), cmp.Compare(a.Partition, b.Partition),
		cmp.Compare(a.Key.Bucket, b.Key.Bucket), cmp.Compare(a.Key.Name, b.Key.Name),
	)
}

// putBack queues again what the store did not take. The queue is bounded by
// itself: while the store takes nothing, it fills.
func (l *Log) putBack(batch []Missed, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing == nil {
		l.cfg.Log.Warn("the store takes no hints; they wait in memory", zap.Error(err))
	}
	l.failing = err
	for _, m := range batch {
		at := id{m.Target, m.Key}
		if _, again := l.queued[at]; again {
			l.growth.remove(m)
			continue
		}
		l.queued[at] = struct{}{}
		l.queue = append(l.queue, m)
	}
}

// submit has the store add and remove entries, and returns once that is done.
// What is added was counted as growth before.
func (l *Log) submit(add, remove []Missed) error {
	done := make(chan error, 1)
	err := l.cfg.Store.SubmitMissed(add, remove, func(changed []bool, err error) {
		if err == nil {
			l.book(add, remove, changed)
		}
		done <- err
	})
	if err != nil {
		return err
	}
	return <-done
}

// book counts what the store has changed.
func (l *Log) book(add, remove []Missed, changed []bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = nil
	for i, m := range add {
		l.growth.remove(m)
		if changed[i] {
			l.stored.add(m)
		}
	}
	for i, m := range remove {
		if changed[len(add)+i] {
			l.stored.remove(m)
		}
	}
}

// settle removes entries that are no longer owed, and adds those that take the
// place of some. These are under no limit.
func (l *Log) settle(add, remove []Missed) error {
	l.grow(add)
	err := l.submit(add, remove)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, m := range add {
			l.growth.remove(m)
		}
	}
	return err
}

func (l *Log) grow(add []Missed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range add {
		l.growth.add(m)
	}
}

// tell has the partitions compared of which hints were dropped.
func (l *Log) tell() {
	l.mu.Lock()
	marks := slices.SortedFunc(maps.Keys(l.marks), func(a, b mark) int {
		return cmp.Or(cmp.Compare(a.target, b.target), cmp.Compare(a.partition, b.partition))
	})
	clear(l.marks)
	l.mu.Unlock()
	for _, m := range marks {
		l.cfg.Mark(m.target, m.partition)
	}
}

// Owed returns, for each target, how much it has missed, and Dropped how many
// hints for it were dropped since the start.
func (l *Log) owed() (owed map[kv.NodeID]Amount, dropped map[kv.NodeID]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.stored.amounts), maps.Clone(l.dropped)
}

// aged corrects the time of the target's oldest entry, after a pass that began
// at begun and left nothing older than oldest, which is zero if it left nothing.
func (l *Log) aged(target kv.NodeID, oldest, begun time.Time) {
	if oldest.IsZero() || begun.Before(oldest) {
		oldest = begun
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored.aged(target, oldest)
}

// targets lists whoever is owed something, sorted.
func (l *Log) targets() []kv.NodeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored.targets()
}
