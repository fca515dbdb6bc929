package standing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// LedgerConfig is what a [Ledger] is opened with. All of it is required, OSBoot
// excepted.
type LedgerConfig struct {
	Self  kv.NodeID
	Facts Facts
	// Life is that of this process: its count of starts is durable already.
	Life Life
	// OSBoot names this boot of the operating system. Empty: unknown, and then
	// every start is taken for one of a new boot.
	OSBoot string
	// View returns the layouts that the node knows at the moment. It is safe for
	// concurrent use and returns at once.
	View func() ring.View
	// Now is the wall clock. It is safe for concurrent use.
	Now func() time.Time
}

// Ledger is what a node knows durably of its own lives and of those of the
// others. It is safe for concurrent use.
//
// [Ledger.Registered], [Ledger.Standing] and [Ledger.Doubted] are asked for
// every read: they never wait for the disk. What changes the ledger is durable
// before it is seen, with one exception on the safe side: a fall is seen first.
type Ledger struct {
	config LedgerConfig

	registered atomic.Bool
	fallen     atomic.Bool  // ever
	doubted    atomic.Int64 // the size of doubts
	unsynced   atomic.Bool  // the fact is stored
	heard      chan struct{}

	mu      sync.RWMutex // held for moments only, never over a wait
	history History
	fall    fall
	catchup map[uint16]catchup     // of the fall's epoch
	lives   map[kv.NodeID]Position // how far the others were heard of
	doubts  map[leaf]struct{}
}

// leaf is one leaf of a partition's trees.
type leaf struct {
	partition uint16
	leaf      uint8
}

// Open begins a life: it reads what the facts say, stores the new life, and
// lets the node fall if the operating system ended with acknowledged writes
// that were not synced. It fails if the facts cannot be read, are damaged, or
// cannot be stored.
func Open(c LedgerConfig) (*Ledger, error) {
	l := &Ledger{
		config: c, heard: make(chan struct{}, 1),
		catchup: make(map[uint16]catchup), lives: make(map[kv.NodeID]Position), doubts: make(map[leaf]struct{}),
	}
	for _, step := range []func() error{l.loadFall, l.loadLives, l.loadCatchup, l.checkUnsynced, l.beginLife} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("open the ledger of standing: %w", err)
		}
	}
	return l, nil
}

func (l *Ledger) loadFall() (err error) {
	l.fall, err = get(l.config.Facts, factFall, decodeFall)
	l.fallen.Store(l.fall.epoch > 0)
	return err
}

func (l *Ledger) loadLives() error {
	return l.config.Facts.Scan(prefixLives, func(name string, value []byte) error {
		id, err := kv.ParseNodeID(name[len(prefixLives):])
		if err != nil {
			return fmt.Errorf("fact %q: %w", name, err)
		}
		l.lives[id], err = parse(name, value, decodePosition)
		return err
	})
}

func (l *Ledger) loadCatchup() error {
	return l.config.Facts.Scan(prefixMerged, func(name string, value []byte) error {
		p, err := partitionOf(prefixMerged, name)
		if err != nil {
			return fmt.Errorf("fact %q: %w", name, err)
		}
		c, err := parse(name, value, decodeCatchup)
		if c.epoch == l.fall.epoch {
			l.catchup[p] = c
		}
		return err
	})
}

func (l *Ledger) beginLife() error {
	return l.updateHistory(func(h History) (History, error) {
		if h.Tip().Starts >= l.config.Life.Starts {
			return h, fmt.Errorf("this is start %d of the disk, whose history ends with start %d: the store and its facts are not of one disk",
				l.config.Life.Starts, h.Tip().Starts)
		}
		return h.begin(l.config.Life), nil
	})
}

// updateHistory changes the history. Only one goroutine at a time does.
func (l *Ledger) updateHistory(change func(History) (History, error)) error {
	var next History
	err := l.config.Facts.Update(factHistory, func(old []byte) ([]byte, error) {
		h, err := parse(factHistory, old, decodeHistory)
		if err != nil {
			return nil, err
		}
		if next, err = change(h); err != nil {
			return nil, err
		}
		return encodeHistory(next), nil
	})
	if err != nil {
		return fmt.Errorf("store the history of the node: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = next
	return nil
}

// Life returns the present life of the node.
func (l *Ledger) Life() Life { return l.past().Tip().Life }

// Registered reports whether enough members know of this life, see the function
// [Registered]. Until then the node must take no record and confirm nothing.
func (l *Ledger) Registered() bool { return l.registered.Load() }

// past returns the history of the node.
func (l *Ledger) past() History {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.history
}

// register says whether enough members know of this life. The first time in a
// life that is durable before it is seen, so that the history does not grow.
func (l *Ledger) register(enough bool) error {
	if enough && len(l.past().Since) > 0 {
		if err := l.updateHistory(func(h History) (History, error) { return h.settle(), nil }); err != nil {
			return err
		}
	}
	l.registered.Store(enough)
	return nil
}

// turn begins a new chapter of a life that is registered.
func (l *Ledger) turn() error {
	return l.updateHistory(func(h History) (History, error) { return h.settle().turn(), nil })
}

// Lives returns a digest of how often nodes are known to have started, this one
// included: the same on nodes that have heard of the same starts.
func (l *Ledger) Lives(ids []kv.NodeID) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	b := make([]byte, 0, 16*len(ids))
	for _, id := range ids {
		starts := l.starts(id)
		if id == l.config.Self {
			starts = l.history.Tip().Starts
		}
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(id)), starts)
	}
	return xxhash.Sum64(b)
}

// heardOf returns how often a node is known to have started.
func (l *Ledger) heardOf(id kv.NodeID) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.starts(id)
}

// Announced remembers how far another node has come, durably, and answers with
// what was remembered before. It serves other nodes whatever the standing of
// this one, so that a whole cluster can start.
func (l *Ledger) Announced(a Announcement) (Known, error) {
	if a.From == l.config.Self {
		return Known{}, fmt.Errorf("node %v announces itself to itself: another process uses its id", a.From)
	}
	var before, after Position
	var stored bool
	err := l.config.Facts.Update(livesFact(a.From), func(old []byte) (_ []byte, err error) {
		if before, err = parse(livesFact(a.From), old, decodePosition); err != nil {
			return nil, err
		}
		if after, stored = Remember(before, a.History); after == before {
			return old, nil
		}
		return encodePosition(after), nil
	})
	if err != nil {
		return Known{}, fmt.Errorf("remember the life of node %v: %w", a.From, err)
	}
	l.hear(a.From, after)
	return Known{Stored: stored, Remembered: before, By: l.Life()}, nil
}

// hear notes what is durably remembered of a node, and wakes the keeper if that
// one began a new life.
func (l *Ledger) hear(id kv.NodeID, p Position) {
	l.mu.Lock()
	old := l.lives[id]
	if p.compare(old) > 0 {
		l.lives[id] = p
	}
	l.mu.Unlock()
	if p.Starts > old.Starts {
		select {
		case l.heard <- struct{}{}:
		default:
		}
	}
}

// starts returns how often a node is known to have started. The caller holds mu.
func (l *Ledger) starts(id kv.NodeID) uint64 { return l.lives[id].Starts }

// BeforeUnsynced must have returned without an error before a write is
// acknowledged that is not synced. It waits for the disk the first time in a
// life, and is cheap from then on.
func (l *Ledger) BeforeUnsynced() error {
	if l.unsynced.Load() {
		return nil
	}
	err := l.config.Facts.Update(factUnsynced, func([]byte) ([]byte, error) {
		return append([]byte{encoding}, l.config.OSBoot...), nil
	})
	if err != nil {
		return fmt.Errorf("note that unsynced writes are acknowledged: %w", err)
	}
	l.unsynced.Store(true)
	return nil
}

// CleanClose says that everything acknowledged is synced. Nothing may be
// acknowledged while it runs or later. As a fact is synced with all that was
// committed before it, nothing else is left to do then but to close the store.
func (l *Ledger) CleanClose() error {
	l.registered.Store(false)
	l.unsynced.Store(false)
	if err := l.forgetUnsynced(); err != nil {
		return fmt.Errorf("note that everything is synced: %w", err)
	}
	return nil
}

func (l *Ledger) forgetUnsynced() error {
	return l.config.Facts.Update(factUnsynced, func([]byte) ([]byte, error) { return nil, nil })
}

// checkUnsynced lets the node fall if the last life acknowledged unsynced
// writes in another boot of the operating system. What the disk still has is
// good, so nothing is put into quarantine.
func (l *Ledger) checkUnsynced() error {
	b, err := l.config.Facts.Get(factUnsynced)
	switch {
	case err != nil || b == nil:
		return err
	case b[0] != encoding:
		return fmt.Errorf("the fact %q has version %d, this node knows %d: start the version that wrote it", factUnsynced, b[0], encoding)
	case l.config.OSBoot != "" && string(b[1:]) == l.config.OSBoot:
		l.unsynced.Store(true) // they may be unsynced still
		return nil
	}
	// First the fall: a crash in between must not lose it.
	return errors.Join(l.Fall(CauseUnsynced), l.forgetUnsynced())
}
