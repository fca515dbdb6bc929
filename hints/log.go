package hints

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
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
	// in bytes as stored, and about; 0: the defaults. In memory an entry takes 20
	// to 40 bytes, less than half as much.
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
//
// An entry that the store holds stands for later writes of its key too, and is
// written again only while a replay may remove it, having read it before such a
// write.
type Log struct {
	cfg     LogConfig
	wake    chan struct{}
	counted chan struct{} // closed once what the store holds is counted
	seed    maphash.Seed  // of ids

	mu      sync.Mutex
	queued  map[id]struct{} // the entries of queue
	queue   []Missed        // in the order of their arrival, each once
	growth  account         // what queue will add to stored, at most
	stored  account
	since   map[id]int64           // of each entry that the store holds, in Unix milliseconds
	replays map[kv.NodeID]struct{} // the targets whose entries a replay may remove
	dropped map[kv.NodeID]uint64
	marks   map[mark]struct{}
	failing error // of the store, when it was given entries last
}

// id names an entry: a hash of target and key. Two entries with one id, which no
// client can arrange, would be taken for one, and the second left to
// anti-entropy.
type id uint64

func (l *Log) id(target kv.NodeID, key kv.Key) id {
	return id(maphash.Comparable(l.seed, debtor{target, key}))
}

type debtor struct {
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
		cfg: cfg, wake: make(chan struct{}, 1), counted: make(chan struct{}), seed: maphash.MakeSeed(),
		queued: make(map[id]struct{}), since: make(map[id]int64), replays: make(map[kv.NodeID]struct{}),
		dropped: make(map[kv.NodeID]uint64), marks: make(map[mark]struct{}),
	}
}

// Missed notes that target has not confirmed a write of the key. It returns at
// once.
func (l *Log) Missed(target kv.NodeID, partition uint16, key kv.Key) {
	at := l.id(target, key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.noted(at, target) {
		return
	}
	m := Missed{Target: target, Partition: partition, Key: key, Since: l.cfg.Now().Truncate(time.Millisecond)}
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

// noted reports whether an entry is there, or will be, that no replay has read.
func (l *Log) noted(at id, target kv.NodeID) bool {
	if _, queued := l.queued[at]; queued {
		return true
	}
	_, stored := l.since[at]
	_, replayed := l.replays[target]
	return stored && !replayed
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
	since := make(map[id]int64)
	targets, err := l.cfg.Store.MissedTargets()
	for _, target := range targets {
		err = errors.Join(err, l.cfg.Store.ScanMissed(target, func(m Missed) error {
			found.add(m)
			since[l.id(m.Target, m.Key)] = m.Since.UnixMilli()
			return ctx.Err()
		}))
	}
	if err != nil && ctx.Err() == nil {
		l.cfg.Log.Warn("some hints cannot be read; anti-entropy heals what they stood for", zap.Error(err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored, l.since = found, since
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
// now on is noted again, for these may be replayed before that is committed. Of
// an entry that is in the store the time stays.
func (l *Log) take() (batch []Missed, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.queue), flushLen)
	batch = slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	for i, m := range batch {
		at := l.id(m.Target, m.Key)
		delete(l.queued, at)
		if since, stored := l.since[at]; stored {
			batch[i].Since = time.UnixMilli(since)
		}
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
		at := l.id(m.Target, m.Key)
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
	err := l.cfg.Store.SubmitMissed(add, remove, func(removed []bool, err error) {
		if err == nil {
			l.book(add, remove, removed)
		}
		done <- err
	})
	if err != nil {
		return err
	}
	return <-done
}

// book counts what the store has changed. It is called in the order of the
// changes.
func (l *Log) book(add, remove []Missed, removed []bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = nil
	for _, m := range add {
		l.growth.remove(m)
		at := l.id(m.Target, m.Key)
		if _, stored := l.since[at]; !stored {
			l.stored.add(m)
		}
		l.since[at] = m.Since.UnixMilli()
	}
	for i, m := range remove {
		at := l.id(m.Target, m.Key)
		if _, stored := l.since[at]; stored && removed[i] {
			l.stored.remove(m)
			delete(l.since, at)
		}
	}
}

// replaying is called before a replay reads the entries for target, some of
// which it will remove, and rests once it removes none any more.
func (l *Log) replaying(target kv.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replays[target] = struct{}{}
}

func (l *Log) rests(target kv.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.replays, target)
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
