package storage_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
	"github.com/starling-kv/starling/vclock"
)

var errDisk = errors.New("input/output error")

func TestFailedCommitOrSyncEndsWrites(t *testing.T) {
	fail := map[string]func(*memory.Disk){
		"commit": func(d *memory.Disk) { d.FailCommit(1, errDisk) },
		"sync":   func(d *memory.Disk) { d.FailSync(1, errDisk) },
	}
	for name, plan := range fail {
		t.Run(name, func(t *testing.T) {
			disk := memory.New()
			s, mint := open(t, disk, options(1)), minter()
			mustSubmit(t, s, slot("before"), true, put(mint, []byte("x"), all))
			boot := s.Boot()
			plan(disk)
			release := hold(t, s)
			answers := make(chan error, 4)
			for i := range 4 {
				u := storage.Update{Slot: slot(strconv.Itoa(i)), Sync: i == 2, Apply: put(mint, []byte("x"), all)}
				u.Done = func(err error) { answers <- err }
				if err := s.Submit(u); err != nil {
					t.Fatal(err)
				}
			}
			release()
			for range 4 {
				err := <-answers
				wantError(t, "an update of the failed round", err, storage.ErrFailed)
				wantError(t, "its cause", err, errDisk)
			}
			if s.Boot() == boot {
				t.Error("the boot goes on after a failed commit: dots that were sent can be used again")
			}
			wantError(t, "a later update", submit(s, slot("later"), false, same), storage.ErrFailed)
			wantError(t, "a later fact", meta(s, "later", false, func([]byte) ([]byte, error) { return nil, nil }), storage.ErrFailed)
			if mustGet(t, s, slot("before")).Absent() {
				t.Error("reads ended too")
			}
			if st := s.Stats(); st.State != storage.StateFailed {
				t.Errorf("the store is %v", st.State)
			}
		})
	}
}

// Updates that were queued when a round failed are answered and not applied.
func TestQueuedUpdatesOfAFailedStore(t *testing.T) {
	disk, o := memory.New(), options(1)
	o.BatchLen = 1
	s, mint := open(t, disk, o), minter()
	disk.FailCommit(1, errDisk)
	release := hold(t, s)
	answers, applied := make(chan error, 3), 0
	for i := range 3 {
		u := storage.Update{Slot: slot(strconv.Itoa(i)), Done: func(err error) { answers <- err }}
		u.Apply = func(old kv.Record, boot uint64) (storage.Change, error) {
			applied++
			return put(mint, []byte("x"), all)(old, boot)
		}
		if err := s.Submit(u); err != nil {
			t.Fatal(err)
		}
	}
	release()
	for range 3 {
		wantError(t, "update", <-answers, storage.ErrFailed)
	}
	if applied != 1 {
		t.Errorf("%d updates were applied, want the first only", applied)
	}
}

func TestDiskFullOfTheEngineIsNotTheEnd(t *testing.T) {
	disk := memory.New()
	s, mint := open(t, disk, options(1)), minter()
	mustSubmit(t, s, slot("a"), true, put(mint, []byte("x"), all))
	boot := s.Boot()
	disk.SetCapacity(1)
	wantError(t, "on a full disk", submit(s, slot("b"), true, put(mint, []byte("x"), all)), storage.ErrDiskFull)
	if s.Boot() == boot {
		t.Error("the boot goes on after a refused commit: dots that were sent can be used again")
	}
	if mustGet(t, s, slot("a")).Absent() || !mustGet(t, s, slot("b")).Absent() {
		t.Error("want the first record only")
	}
	disk.SetCapacity(0)
	mustSubmit(t, s, slot("b"), true, put(mint, []byte("x"), all))
}

func TestWatermarkRefusesWritesAndTakesThemAgain(t *testing.T) {
	var free atomic.Uint64
	var now atomic.Int64
	free.Store(1000)
	o := options(1)
	o.Free = func() (uint64, error) { return free.Load(), nil }
	o.Now = func() time.Time { return time.UnixMilli(now.Load()) }
	o.LowWater, o.HighWater = 100, 200
	s, mint := open(t, memory.New(), o), minter()
	write := func(name string) error {
		now.Add(1000)
		return submit(s, slot(name), true, put(mint, []byte("x"), all))
	}
	fact := func() error {
		now.Add(1000)
		return meta(s, "fact", true, func([]byte) ([]byte, error) { return strconv.AppendInt(nil, now.Load(), 10), nil })
	}
	steps := []struct {
		free          uint64
		records, meta error
	}{
		{100, nil, nil},
		{99, storage.ErrDiskFull, nil},
		{49, storage.ErrDiskFull, storage.ErrDiskFull},
		{199, storage.ErrDiskFull, nil},
		{200, nil, nil},
	}
	for _, step := range steps {
		free.Store(step.free)
		if err := write(strconv.FormatUint(step.free, 10)); !errors.Is(err, step.records) {
			t.Errorf("record with %d free: %v, want %v", step.free, err, step.records)
		}
		if err := fact(); !errors.Is(err, step.meta) {
			t.Errorf("fact with %d free: %v, want %v", step.free, err, step.meta)
		}
		if full := s.Stats().State == storage.StateFull; full != (step.records != nil) {
			t.Errorf("with %d free the store says full=%v", step.free, full)
		}
		if mustGet(t, s, slot("100")).Absent() {
			t.Error("reads ended")
		}
	}
}

// That there is room again is seen without a write: those that would hand over
// what they keep ask for it first.
func TestRoomIsSeenWithoutAWrite(t *testing.T) {
	free, now := uint64(1000), int64(0)
	o := options(1)
	o.Free, o.LowWater, o.HighWater = func() (uint64, error) { return free, nil }, 100, 200
	o.Now = func() time.Time { return time.UnixMilli(now) }
	s := open(t, memory.New(), o)
	for _, step := range []struct {
		free uint64
		full bool
	}{{99, true}, {199, true}, {200, false}} {
		free, now = step.free, now+1000
		if st := s.Stats(); (st.State == storage.StateFull) != step.full || st.Free != step.free {
			t.Errorf("with %d free: %v, %d free", step.free, st.State, st.Free)
		}
	}
}

func TestOpenOnAFullDisk(t *testing.T) {
	o := options(1)
	o.Free, o.LowWater = func() (uint64, error) { return 10, nil }, 100
	_, err := storage.Open(memory.New().Open(), o)
	wantError(t, "open", err, storage.ErrDiskFull)
}

// An answer without error to an update that asked for sync says that what the
// update saw is on disk, also if it changed nothing itself.
func TestSyncOfWhatOthersWrote(t *testing.T) {
	disk := memory.New()
	s, mint, at := open(t, disk, options(1)), minter(), slot("key")
	mustSubmit(t, s, at, false, put(mint, []byte("x"), all))
	mustSubmit(t, s, at, true, same)
	disk.Crash(memory.LoseAll)
	s2 := open(t, disk, options(2))
	if mustGet(t, s2, at).Absent() {
		t.Error("gone after a power cut")
	}
	before := s2.Stats()
	mustSubmit(t, s2, at, true, same)
	if after := s2.Stats(); after.Syncs != before.Syncs {
		t.Error("synced again what was on disk")
	}
}

func TestSyncOfWhatTheSameRoundWrote(t *testing.T) {
	disk := memory.New()
	s, mint, at := open(t, disk, options(1)), minter(), slot("key")
	release := hold(t, s)
	done := make(chan error, 2)
	for i, fn := range []apply{put(mint, []byte("x"), all), same} {
		if err := s.Submit(storage.Update{Slot: at, Sync: i == 1, Apply: fn, Done: func(err error) { done <- err }}); err != nil {
			t.Fatal(err)
		}
	}
	release()
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	disk.Crash(memory.LoseAll)
	if mustGet(t, open(t, disk, options(2)), at).Absent() {
		t.Error("gone after a power cut")
	}
}

func TestAsyncWritesDoNotSync(t *testing.T) {
	disk := memory.New()
	s, mint, at := open(t, disk, options(1)), minter(), slot("key")
	before := s.Stats().Syncs
	mustSubmit(t, s, at, false, put(mint, text(1, 9000), all))
	mustSubmit(t, s, at, false, put(mint, []byte("x"), all))
	if after := s.Stats().Syncs; after != before {
		t.Errorf("%d syncs", after-before)
	}
	disk.Crash(memory.LoseAll)
	if !mustGet(t, open(t, disk, options(2)), at).Absent() {
		t.Error("the memory engine kept what was not synced")
	}
}

// op is one random update of the serial model.
type op struct {
	key   string
	value []byte
	blind bool // a sibling instead of a replacement
	sync  bool
}

func randomOp(random *rand.Rand, n uint64, syncs int) op {
	size := []int{5000, 300 << 10, 600 << 10}[random.IntN(3)]
	if random.IntN(4) > 0 {
		size = 10
	}
	return op{
		key:   strconv.Itoa(random.IntN(4)),
		value: text(n, size),
		blind: random.IntN(3) == 0,
		sync:  random.IntN(100) < syncs,
	}
}

func (o op) apply(mint func() vclock.Actor) apply {
	if o.blind {
		return put(mint, o.value, nothing)
	}
	return put(mint, o.value, all)
}

// Whatever happens concurrently, it is as if the updates had been applied one
// by one in the order in which Apply was called.
func TestConcurrentUpdatesAreSerial(t *testing.T) {
	s, mint := open(t, memory.New(), options(1)), minter()
	model := map[string]kv.Record{} // of the committing goroutine
	var wg sync.WaitGroup
	for worker := range uint64(8) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(worker, 0))
			for i := range uint64(60) {
				o := randomOp(random, worker*1000+i, 30)
				err := submit(s, slot(o.key), o.sync, func(old kv.Record, boot uint64) (storage.Change, error) {
					if want := model[o.key]; !sameRecord(old, want) {
						t.Errorf("key %s: Apply was given clock %v, the model has %v", o.key, old.Clock, want.Clock)
					}
					c, err := o.apply(mint)(old, boot)
					model[o.key] = c.Record
					return c, err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for key, want := range model {
		at := slot(key)
		got := mustGet(t, s, at)
		if !sameRecord(got, want) {
			t.Errorf("key %s holds clock %v, the model has %v", key, got.Clock, want.Clock)
		}
		if _, err := values(s, at, got); err != nil {
			t.Errorf("key %s: %v", key, err)
		}
	}
}

func sameRecord(a, b kv.Record) bool {
	return string(kv.AppendLocal(nil, a)) == string(kv.AppendLocal(nil, b))
}

// An engine may lose any part of what was not synced. Whatever part it is, a
// record must not be left that refers to a value, or parts, that are gone.
func TestNoLossLeavesDanglingReferences(t *testing.T) {
	scenarios := map[string]func(s *storage.Store, mint func() vclock.Actor) error{
		"a value larger than a transaction": func(s *storage.Store, mint func() vclock.Actor) error {
			return submit(s, slot("key"), false, put(mint, text(1, 1<<20), all))
		},
		"a record larger than a transaction": func(s *storage.Store, mint func() vclock.Actor) error {
			return submit(s, slot("key"), false, manySiblings(mint, 300))
		},
		"a record that keeps a value of an earlier one": func(s *storage.Store, mint func() vclock.Actor) error {
			return errors.Join(
				submit(s, slot("key"), false, put(mint, text(1, 5000), nothing)),
				submit(s, slot("key"), false, put(mint, text(2, 5000), nothing)),
				submit(s, slot("key"), false, put(mint, []byte("small"), nothing)))
		},
		"a value that gives way to another": func(s *storage.Store, mint func() vclock.Actor) error {
			return errors.Join(
				submit(s, slot("key"), false, put(mint, text(1, 5000), all)),
				submit(s, slot("key"), false, put(mint, text(2, 5000), all)),
				submit(s, slot("key"), false, put(mint, text(3, 5000), nothing)))
		},
		"large records that give way to others": func(s *storage.Store, mint func() vclock.Actor) error {
			return errors.Join(
				submit(s, slot("key"), false, manySiblings(mint, 80)),
				submit(s, slot("key"), false, manySiblings(mint, 90)),
				submit(s, slot("key"), false, put(mint, []byte("small"), all)))
		},
	}
	for name, run := range scenarios {
		t.Run(name, func(t *testing.T) {
			for lost := range 1 << 5 {
				disk := memory.New()
				disk.SetMaxBatch(storage.MinMaxBatch)
				if err := run(open(t, disk, options(1)), minter()); err != nil {
					t.Fatal(err)
				}
				disk.Crash(func(place, _ int) bool { return lost>>place&1 == 1 })
				checkCrashed(t, open(t, disk, options(2)), nil)
			}
		})
	}
}

// The disk fails at a random commit, its power is cut, and it forgets a random
// part of what was not synced, in any order. What was acknowledged with sync is
// there, and no record refers to a value that is gone.
func TestCrashes(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { crashOnce(t, seed) })
	}
}

func crashOnce(t *testing.T, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	disk := memory.New()
	disk.SetMaxBatch(storage.MinMaxBatch + random.IntN(1<<20)) // some updates fit into no transaction
	mint, durable := minter(), map[string]vclock.Clock{}
	for life := range uint64(3) {
		o := options(seed*10 + life)
		o.BatchLen = 1 + random.IntN(8)
		s, err := storage.Open(disk.Open(), o)
		if err != nil {
			t.Fatal(err)
		}
		checkCrashed(t, s, durable)
		disk.FailCommit(1+random.IntN(20), errDisk)
		for key, clock := range runUntilFailure(t, s, random, mint) {
			durable[key] = durable[key].Merge(clock)
		}
		disk.Crash(memory.LoseSome(seed))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, disk, options(seed))
	checkCrashed(t, s, durable)
}

// runUntilFailure submits updates without waiting for them and returns, of each
// key, the clock of the last update that was answered as synced.
func runUntilFailure(t *testing.T, s *storage.Store, random *rand.Rand, mint func() vclock.Actor) map[string]vclock.Clock {
	t.Helper()
	const updates = 40
	syncs := []int{0, 5, 30}[random.IntN(3)]
	type answer struct {
		key    string
		synced vclock.Clock // nil if nothing was promised
	}
	answers := make(chan answer, updates)
	for i := range uint64(updates) {
		o := randomOp(random, i, syncs)
		a := answer{key: o.key}
		u := storage.Update{Slot: slot(o.key), Sync: o.sync, Size: len(o.value)}
		u.Apply = func(old kv.Record, boot uint64) (storage.Change, error) {
			c, err := o.apply(mint)(old, boot)
			a.synced = c.Record.Clock
			return c, err
		}
		u.Done = func(err error) {
			if err != nil || !o.sync {
				a.synced = nil
			}
			answers <- a
		}
		if err := s.Submit(u); err != nil {
			wantError(t, "submit", err, storage.ErrFailed)
			answers <- a
		}
	}
	synced := map[string]vclock.Clock{}
	for range updates {
		a := <-answers
		synced[a.key] = synced[a.key].Merge(a.synced)
	}
	return synced
}

func checkCrashed(t *testing.T, s *storage.Store, durable map[string]vclock.Clock) {
	t.Helper()
	for key, clock := range durable {
		if got := mustGet(t, s, slot(key)).Clock; !got.Dominates(clock) {
			t.Errorf("key %s holds clock %v, %v was synced", key, got, clock)
		}
	}
	err := s.ScanPartition(slot("").Partition, func(k kv.Key, r kv.Record) error {
		_, err := values(s, slot(k.Name), r)
		return err
	})
	if err != nil {
		t.Errorf("after the crash: %v", err)
	}
}
