package hints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// The world of these tests is one node with a store in memory, and peers that do
// what the test says.
const self = kv.NodeID(1)

type world struct {
	t      *testing.T
	log    *Log
	replay *Replayer
	ended  sync.WaitGroup

	mu     sync.Mutex
	missed map[debtor]Missed
	slots  map[kv.Slot]kv.Record
	owners map[uint16][]kv.NodeID
	places uint64
	peers  map[kv.NodeID]*peer
	marks  []mark
	busy   error         // of every submission
	failed error         // of every commit
	disk   time.Duration // of every commit
	scans  int
	nudges []nudge
	seed   uint64
	edits  uint64 // entries written
	edited uint64 // of these, at the last look
}

// peer is what another node is like.
type peer struct {
	away   bool
	err    error
	room   int               // 0: no limit
	pause  time.Duration     // if set, it is busy
	slow   time.Duration     // every nudge takes so long
	refuse func(kv.Key) bool // keys that it cannot take
	holds  map[kv.Key]uint64 // what it has fetched: the digest of the record
	onPull func(key kv.Key)  // before a key is fetched
}

type nudge struct {
	at      time.Duration // since the begin of the test
	to      kv.NodeID
	keys    int
	standIn bool
}

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of synctest bubbles

// lives runs fn beside a running log and replayer.
func lives(t *testing.T, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.start()
		fn(w)
		stop()
	})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, missed: make(map[debtor]Missed), slots: make(map[kv.Slot]kv.Record),
		owners: make(map[uint16][]kv.NodeID), peers: make(map[kv.NodeID]*peer), places: 1,
	}
	w.moved(1, 2, 3)
	for i := range 6 {
		w.peers[kv.NodeID(i+1)] = &peer{holds: make(map[kv.Key]uint64)}
	}
	return w
}

// start begins a life of the node, and returns what ends it.
func (w *world) start() (stop func()) {
	w.seed++
	random := rand.New(rand.NewPCG(w.seed, 0))
	w.log = NewLog(LogConfig{
		Store: w, Now: time.Now, Log: zap.NewNop(), TargetBytes: 100_000, TotalBytes: 150_000,
		Mark: func(target kv.NodeID, partition uint16) {
			defer w.lock()()
			w.marks = append(w.marks, mark{target, partition})
		},
	})
	w.replay = NewReplayer(ReplayConfig{
		Self: self, Hints: w.log, Store: w, Copies: w, Peers: w, Places: w, Now: time.Now, Random: random.Uint64, Log: zap.NewNop(),
	})
	ctx, cancel := context.WithCancel(w.t.Context())
	w.ended.Go(func() { w.log.Run(ctx) })
	w.ended.Go(func() { w.replay.Run(ctx) })
	return func() {
		cancel()
		w.ended.Wait()
	}
}

func (w *world) lock() (unlock func()) {
	w.mu.Lock()
	return w.mu.Unlock
}

// peer changes what a node is like.
func (w *world) peer(id kv.NodeID, change func(p *peer)) {
	defer w.lock()()
	change(w.peers[id])
}

func key(i int) kv.Key { return kv.Key{Bucket: "b", Name: fmt.Sprintf("k%d", i)} }

func partition(k kv.Key) uint16 { return uint16(k.Hash() % 4) }

// write makes another version of the record in a slot, on three nodes.
func (w *world) write(target kv.NodeID, k kv.Key) {
	defer w.lock()()
	slot := kv.Slot{Target: target, Partition: partition(k), Key: k}
	mint := func() vclock.Actor { return vclock.Actor(k.Hash() | 1) }
	w.slots[slot], _ = w.slots[slot].Put(kv.Sibling{Kind: kv.KindValue, N: 3}, w.slots[slot].Clock, 1, mint, time.Time{})
}

// miss writes a key, and has the target miss it.
func (w *world) miss(target kv.NodeID, k kv.Key) {
	w.write(0, k)
	w.log.Missed(target, partition(k), k)
}

// held is the digest of what this node would give to whoever asks for k.
func (w *world) held(k kv.Key, standIn bool) uint64 {
	var r kv.Record
	for _, target := range []kv.NodeID{0, 2, 3, 4, 5, 6} {
		if target == 0 || standIn {
			r = r.Merge(w.slots[kv.Slot{Target: target, Partition: partition(k), Key: k}])
		}
	}
	return kv.Digest(k, kv.AppendRecord(nil, r))
}

func (w *world) owed(target kv.NodeID) Owed {
	for _, o := range w.replay.Stats().Owed {
		if o.Target == target {
			return o
		}
	}
	return Owed{Target: target}
}

// limits sets those of the log.
func (w *world) limits(target, total int64) {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.cfg.TargetBytes, w.log.cfg.TotalBytes = target, total
}

func (w *world) slowDisk(d time.Duration) {
	defer w.lock()()
	w.disk = d
}

// moved gives all partitions other owners.
func (w *world) moved(owners ...kv.NodeID) {
	defer w.lock()()
	for p := range uint16(4) {
		w.owners[p] = owners
	}
	w.places++
}

// scanned is how many scans there were since the last look.
func (w *world) scanned() int {
	defer w.lock()()
	n := w.scans
	w.scans = 0
	return n
}

// written is how many entries were written since the last look.
func (w *world) written() uint64 {
	defer w.lock()()
	n := w.edits - w.edited
	w.edited = w.edits
	return n
}

// sent are the nudges since the last look.
func (w *world) sent() []nudge {
	defer w.lock()()
	list := w.nudges
	w.nudges = nil
	return list
}

// marked are the marks since the last look.
func (w *world) marked() []mark {
	defer w.lock()()
	list := w.marks
	w.marks = nil
	return list
}

// copies is how many copies there are.
func (w *world) copies() (n int) {
	defer w.lock()()
	for slot := range w.slots {
		if slot.Target != 0 {
			n++
		}
	}
	return n
}

// fetched is what a peer holds.
func (w *world) fetched(id kv.NodeID) map[kv.Key]uint64 {
	defer w.lock()()
	return maps.Clone(w.peers[id].holds)
}

// entries are the missed writes that the store has for a target.
func (w *world) entries(target kv.NodeID) (list []Missed) {
	defer w.lock()()
	for _, m := range w.missed {
		if m.Target == target {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, compareMissed)
	return list
}

// What follows is the world as the parts know it.

func (w *world) SubmitMissed(add, remove []Missed, done func([]bool, error)) error {
	defer w.lock()()
	if w.busy != nil {
		return w.busy
	}
	add, remove = slices.Clone(add), slices.Clone(remove)
	commit := func() {
		unlock := w.lock()
		if err := w.failed; err != nil {
			unlock()
			done(nil, err)
			return
		}
		removed := make([]bool, len(remove))
		for _, m := range add {
			w.edits++
			m.Edition = w.edits
			w.missed[debtor{m.Target, m.Key}] = m
		}
		for i, m := range remove {
			if now, there := w.missed[debtor{m.Target, m.Key}]; there && now.Edition == m.Edition {
				delete(w.missed, debtor{m.Target, m.Key})
				removed[i] = true
			}
		}
		unlock()
		done(removed, nil)
	}
	time.AfterFunc(w.disk, commit)
	return nil
}

func (w *world) ScanMissed(target kv.NodeID, fn func(Missed) error) error {
	entries := w.entries(target)
	w.mu.Lock()
	w.scans++
	w.mu.Unlock()
	for _, m := range entries {
		if err := fn(m); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) MissedTargets() ([]kv.NodeID, error) {
	defer w.lock()()
	ids := make([]kv.NodeID, 0, len(w.missed))
	for _, m := range w.missed {
		ids = append(ids, m.Target)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func (w *world) Get(slot kv.Slot) (kv.Record, error) {
	defer w.lock()()
	return w.slots[slot], nil
}

func (w *world) HintTargets() ([]kv.NodeID, error) {
	defer w.lock()()
	var ids []kv.NodeID
	for slot := range w.slots {
		if slot.Target != 0 {
			ids = append(ids, slot.Target)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func (w *world) ScanHints(target kv.NodeID, fn func(kv.Slot, kv.Record) error) error {
	w.mu.Lock()
	slots := slices.SortedFunc(maps.Keys(w.slots), func(a, b kv.Slot) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Key.Name, b.Key.Name))
	})
	records := maps.Clone(w.slots)
	w.mu.Unlock()
	for _, slot := range slots {
		if slot.Target != target {
			continue
		}
		if err := fn(slot, records[slot]); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) DropHint(slot kv.Slot, digest uint64, done func(error)) error {
	time.AfterFunc(w.disk, func() {
		unlock := w.lock()
		if kv.Digest(slot.Key, kv.AppendRecord(nil, w.slots[slot])) == digest {
			delete(w.slots, slot)
		}
		unlock()
		done(nil)
	})
	return nil
}

func (w *world) Connected(id kv.NodeID) bool {
	defer w.lock()()
	return !w.peers[id].away
}

func (w *world) Nudge(ctx context.Context, to, from kv.NodeID, keys []kv.Key, standIn bool) ([]bool, int, time.Duration, error) {
	w.mu.Lock()
	p := *w.peers[to]
	w.nudges = append(w.nudges, nudge{time.Since(epoch), to, len(keys), standIn})
	w.mu.Unlock()
	time.Sleep(p.slow)
	switch {
	case from != self:
		return nil, 0, 0, errors.New("from whom?")
	case ctx.Err() != nil || p.away:
		return nil, 0, 0, cmp.Or(ctx.Err(), errors.New("connection lost"))
	case p.err != nil:
		return nil, 0, 0, p.err
	case p.pause > 0:
		return make([]bool, len(keys)), 0, p.pause, nil
	}
	held := make([]bool, len(keys))
	for i, k := range keys {
		if held[i] = p.refuse == nil || !p.refuse(k); held[i] {
			if p.onPull != nil {
				p.onPull(k)
			}
			w.mu.Lock()
			w.peers[to].holds[k] = w.held(k, standIn)
			w.mu.Unlock()
		}
	}
	return held, cmp.Or(p.room, 1<<20), 0, nil
}

func (w *world) Owners(partition uint16, n int) []kv.NodeID {
	defer w.lock()()
	all := w.owners[partition]
	return slices.Clone(all[:min(n, len(all))])
}

func (w *world) Digest() uint64 {
	defer w.lock()()
	return w.places
}
