package storage_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
	"github.com/starling-kv/starling/vclock"
)

// checkTrees compares all trees of some partitions with what the records make.
func checkTrees(tb testing.TB, s *storage.Store, partitions ...uint16) {
	tb.Helper()
	for _, p := range partitions {
		for leaf := range merkle.Leaves {
			if err := s.CheckLeaf(p, uint8(leaf)); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// compareTrees does the same by one scan, and the records may not be damaged.
func compareTrees(tb testing.TB, s *storage.Store, partitions ...uint16) {
	tb.Helper()
	for _, p := range partitions {
		want := map[uint8]merkle.Tree{}
		err := s.ScanPartition(p, func(k kv.Key, r kv.Record) error {
			tree := want[r.NMax]
			tree.Apply(merkle.Added(merkle.ID{}, k.Leaf(), kv.Digest(k, kv.AppendRecord(nil, r))))
			want[r.NMax] = tree
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
		roots := s.Trees(p)
		if len(roots) != len(want) {
			tb.Fatalf("partition %d has the trees %+v, its records make %d", p, roots, len(want))
		}
		for _, root := range roots {
			if got := s.Tree(p, root.NMax); got != want[root.NMax] || got.Root() != root.Root || got.Count() != root.Count {
				tb.Fatalf("partition %d: the tree of n %d is not that of its records", p, root.NMax)
			}
		}
		var from merkle.Tree
		for n := uint8(kv.MaxN); n > 0; n-- {
			tree := want[n]
			if from.Add(&tree); s.TreeFrom(p, n) != from {
				tb.Fatalf("partition %d: the tree from n %d on is not the sum of those of its records", p, n)
			}
		}
	}
}

// treeLife is one life of a store whose trees are watched.
type treeLife struct {
	s      *storage.Store
	random *rand.Rand
	mint   func() vclock.Actor
}

// touch submits one random change, of all kinds that there are, and does not
// wait for it.
func (l treeLife) touch(answers chan<- error) error {
	done := func(err error) { answers <- err }
	sync := l.random.IntN(8) == 0
	at := kv.Slot{Partition: uint16(l.random.IntN(2)), Key: kv.Key{Bucket: "b", Name: strconv.Itoa(l.random.IntN(6))}}
	switch l.random.IntN(12) {
	case 0:
		return l.s.RebuildLeaf(at.Partition, at.Key.Leaf(), done)
	case 1:
		at.Target = 7
	case 2:
		other := at
		other.Partition = 1 - at.Partition
		change, rest := l.change(), l.change()
		return l.s.SubmitStep(storage.Step{Sync: sync, Done: done, Run: func(tx *storage.Tx) error {
			tx.SetFact("fact", []byte{1})
			return put2(tx, at, change, other, rest)
		}})
	case 3:
		m := storage.Missed{Target: 7, Partition: at.Partition, Key: at.Key}
		return l.s.SubmitMissed([]storage.Missed{m}, nil, func(_ []bool, err error) { done(err) })
	}
	return l.s.Submit(storage.Update{Slot: at, Sync: sync, Apply: l.change(), Done: done})
}

func put2(tx *storage.Tx, a kv.Slot, changeA apply, b kv.Slot, changeB apply) error {
	for _, x := range []struct {
		slot   kv.Slot
		change apply
	}{{a, changeA}, {b, changeB}} {
		old, err := tx.Get(x.slot)
		if err != nil {
			return err
		}
		c, err := x.change(old, tx.Boot())
		if err != nil {
			return err
		}
		tx.Put(x.slot, c)
	}
	return nil
}

// change is a random one: a value of some n, large or small, a removal, or one
// that no replica sees.
func (l treeLife) change() apply {
	n := uint8(1 + l.random.IntN(3))
	size := 10
	switch l.random.IntN(12) {
	case 0:
		size = 300 << 10
	case 1, 2:
		size = 9000
	}
	value, kind := text(l.random.Uint64(), size), l.random.IntN(8)
	return func(old kv.Record, boot uint64) (storage.Change, error) {
		switch kind {
		case 0:
			return storage.Change{}, nil
		case 1:
			if !old.Absent() {
				old.Mine = kv.Mine{Actor: l.mint(), Boot: boot}
			}
			return storage.Change{Record: old}, nil
		}
		c, err := put(l.mint, value, all)(old, boot)
		c.Record.NMax = max(c.Record.NMax, n)
		return c, err
	}
}

func treeOptions(seed uint64, random *rand.Rand) storage.Options {
	o := options(seed)
	o.BatchLen = 1 + random.IntN(6)
	o.JournalLen = 1 + random.IntN(12)
	if random.IntN(8) == 0 {
		o.JournalLen = 1000
	}
	return o
}

// Whatever part of what was not synced a crash takes, whatever transactions and
// checkpoints were under way, and however often: the trees are those of the
// records.
func TestTreesSurviveCrashes(t *testing.T) {
	rebuilt := uint64(0)
	for seed := range uint64(300) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { rebuilt += crashTrees(t, seed) })
	}
	if rebuilt == 0 {
		t.Error("no crash ever made a leaf doubtful")
	}
}

func crashTrees(t *testing.T, seed uint64) (rebuilt uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 9))
	disk, mint := memory.New(), minter()
	disk.SetMaxBatch(storage.MinMaxBatch + random.IntN(1<<20))
	for life := range uint64(6) {
		s, err := storage.Open(disk.Open(), treeOptions(seed*10+life, random))
		if err != nil {
			t.Fatal(err)
		}
		compareTrees(t, s, 0, 1)
		rebuilt += s.Stats().Rebuilt
		runTrees(t, treeLife{s: s, random: random, mint: mint}, disk)
		disk.Heal()
		switch random.IntN(4) {
		case 0: // the process is killed: the next one finds everything
			disk.Open()
		case 1: // a clean end
		default:
			disk.Crash(memory.LoseSome(random.Uint64()))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, disk, options(seed))
	compareTrees(t, s, 0, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := entries(t, disk, "d"); n != 0 {
		t.Errorf("%d entries of the journal are left after a clean end", n)
	}
	return rebuilt
}

// entries counts the keys with a prefix. It ends the store on the disk.
func entries(tb testing.TB, disk *memory.Disk, prefix string) int {
	tb.Helper()
	n := 0
	err := disk.Open().Scan([]byte(prefix), []byte(prefix+"\xff"), func(_, _ []byte) error { n++; return nil })
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// runTrees makes some changes, during which the disk may fail.
func runTrees(t *testing.T, l treeLife, disk *memory.Disk) {
	t.Helper()
	if l.random.IntN(3) == 0 {
		disk.FailCommit(1+l.random.IntN(40), errDisk)
	}
	if l.random.IntN(6) == 0 {
		disk.FailCommit(1+l.random.IntN(40), storage.ErrDiskFull)
	}
	n := l.random.IntN(60)
	answers := make(chan error, n)
	for range n {
		if err := l.touch(answers); err != nil {
			wantError(t, "submit", err, storage.ErrFailed)
			answers <- err
		}
		if l.random.IntN(3) == 0 {
			answers <- <-answers
		}
	}
	for range n {
		if err := <-answers; err != nil { // a disk that fails is part of the test
			continue
		}
	}
	if l.s.Stats().State == storage.StateOK {
		compareTrees(t, l.s, 0, 1)
	}
}

// fill writes n records of 1 KiB and less into two partitions.
func fill(tb testing.TB, s *storage.Store, mint func() vclock.Actor, n int) {
	tb.Helper()
	for i := range n {
		at := kv.Slot{Partition: uint16(i % 2), Key: kv.Key{Bucket: "b", Name: strconv.Itoa(i)}}
		mustSubmit(tb, s, at, false, put(mint, text(uint64(i), i%1000), all))
	}
}

func roots(s *storage.Store) []storage.TreeRoot { return append(s.Trees(0), s.Trees(1)...) }

// A process that ends in any way but by a power cut finds its trees without
// reading a record.
func TestTreesAreNotRebuilt(t *testing.T) {
	for _, end := range []string{"closed", "killed"} {
		disk, mint, o := memory.New(), minter(), options(1)
		o.JournalLen = 50
		s := open(t, disk, o)
		fill(t, s, mint, 400)
		want := roots(s)
		if end == "closed" {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		s = open(t, disk, o)
		if got := roots(s); !slices.Equal(got, want) {
			t.Errorf("%s: the trees are %+v, want %+v", end, got, want)
		}
		if n := s.Stats().Rebuilt; n != 0 {
			t.Errorf("%s: %d leaves were rebuilt", end, n)
		}
		checkTrees(t, s, 0, 1)
	}
}

// A lost transaction makes those leaves doubtful that later ones touched, and no
// others.
func TestOnlyDoubtfulLeavesAreRebuilt(t *testing.T) {
	disk, mint := memory.New(), minter()
	s := open(t, disk, options(1))
	place := func(i int) kv.Slot {
		return kv.Slot{Partition: uint16(i % 2), Key: slot(strconv.Itoa(i)).Key}
	}
	for i := range 6000 {
		mustSubmit(t, s, place(i), i == 5999, put(mint, []byte("x"), all))
	}
	type leaf struct {
		partition uint16
		leaf      uint8
	}
	later := map[leaf]bool{}
	for _, i := range []int{7, 8, 9, 7, 100, 2001, 3000, 8} {
		at := place(i)
		mustSubmit(t, s, at, false, put(mint, []byte("y"), all))
		later[leaf{at.Partition, at.Key.Leaf()}] = true
	}
	disk.Crash(func(i, _ int) bool { return i == 0 })
	s = open(t, disk, options(2))
	if n := s.Stats().Rebuilt; n != uint64(len(later)) {
		t.Errorf("%d leaves were rebuilt, want %d", n, len(later))
	}
	compareTrees(t, s, 0, 1)
}

// Only so many entries wait to be replayed, at any time.
func TestJournalIsBounded(t *testing.T) {
	disk, o := memory.New(), options(1)
	o.JournalLen = 20
	s := open(t, disk, o)
	fill(t, s, minter(), 500)
	disk.Crash(func(int, int) bool { return false })
	if n := entries(t, disk, "d"); n == 0 || n > 3*o.JournalLen {
		t.Errorf("%d entries of the journal, want at most %d", n, 3*o.JournalLen)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestEmptyTreesAreForgotten(t *testing.T) {
	disk := memory.New()
	s := open(t, disk, options(1))
	mustSubmit(t, s, slot("a"), false, put(minter(), []byte("x"), all))
	mustSubmit(t, s, slot("a"), false, remove)
	mustSubmit(t, s, slot("b"), false, remove)
	for range 2 {
		if got := s.Trees(3); got != nil {
			t.Errorf("trees %+v of nothing", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, disk, options(2))
	}
}

// Damage to pages, journal or mark is noticed by a start, which makes the trees
// from the records; the next start has nothing more to do.
func TestDamagedTreesAreMadeAnew(t *testing.T) {
	for _, damage := range []string{"t", "d", "strees"} {
		for n := range 3 {
			disk, mint, o := memory.New(), minter(), options(1)
			o.JournalLen = 50
			fill(t, open(t, disk, o), mint, 300)
			disk.Crash(func(int, int) bool { return false })
			if !disk.Flip(damage, n, 555) {
				continue
			}
			s := open(t, disk, o)
			if s.Stats().Rebuilt == 0 {
				t.Errorf("%s %d: the damage was not noticed", damage, n)
			}
			checkTrees(t, s, 0, 1)
			want := roots(s)
			disk.Crash(memory.LoseAll)
			s = open(t, disk, o)
			if got := roots(s); !slices.Equal(got, want) || s.Stats().Rebuilt != 0 {
				t.Errorf("%s %d: %d leaves were rebuilt again, trees %+v, want %+v", damage, n, s.Stats().Rebuilt, got, want)
			}
		}
	}
}

// A crash while the trees are made anew leaves the next start to do it.
func TestCrashWhileTreesAreMadeAnew(t *testing.T) {
	for seed := range uint64(100) {
		disk, mint, o := memory.New(), minter(), options(1)
		disk.SetMaxBatch(storage.MinMaxBatch)
		o.JournalLen = 50
		fill(t, open(t, disk, o), mint, 100)
		disk.Crash(func(int, int) bool { return false })
		disk.Flip([]string{"t", "d"}[seed%2], int(seed/2%3), 555)
		disk.FailCommit(2+int(seed%5), errDisk)
		if s, err := storage.Open(disk.Open(), o); err == nil {
			disk.Heal()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		disk.Crash(memory.LoseSome(seed))
		checkTrees(t, open(t, disk, o), 0, 1)
	}
}

// damageRecord flips a bit of a record of partition 3 and returns its key.
func damageRecord(t *testing.T, s *storage.Store, disk *memory.Disk, n int) kv.Key {
	t.Helper()
	if !disk.Flip("r", n, 99) {
		t.Fatal("no record to damage")
	}
	for i := range 1000 {
		if _, err := s.Get(slot(strconv.Itoa(i))); errors.Is(err, storage.ErrCorrupt) {
			return slot(strconv.Itoa(i)).Key
		}
	}
	t.Fatal("the damage is not noticed")
	return kv.Key{}
}

func TestMend(t *testing.T) {
	disk := memory.New()
	s, mint := open(t, disk, options(1)), minter()
	for i := range 1000 {
		mustSubmit(t, s, slot(strconv.Itoa(i)), true, put(mint, []byte("x"), all))
	}
	for n := range 20 {
		key := damageRecord(t, s, disk, 7*n)
		wantError(t, "check", s.CheckLeaf(3, key.Leaf()), storage.ErrLeaf)
		at := kv.Slot{Partition: 3, Key: key}
		mended := mustRecord("mended")
		replace := func(old kv.Record, _ uint64) (storage.Change, error) { //nolint:unparam // an Apply
			if !old.Absent() {
				t.Errorf("the damaged record was given to Apply as %+v", old)
			}
			return storage.Change{Record: mended}, nil
		}
		release := hold(t, s)
		answers := make(chan error, 4)
		done := func(err error) { answers <- err }
		updates := []func() error{
			func() error { return s.RebuildLeaf(3, key.Leaf(), done) },
			func() error { return s.RebuildLeaf(3, key.Leaf(), done) },
			func() error {
				return s.Submit(storage.Update{Slot: at, Sync: true, Mend: true, Done: done, Apply: replace})
			},
			func() error { return s.RebuildLeaf(3, key.Leaf(), done) },
		}
		for i := range updates {
			if err := updates[(i+n)%4](); err != nil {
				t.Fatal(err)
			}
		}
		release()
		for range updates {
			if err := <-answers; err != nil {
				t.Fatal(err)
			}
		}
		if got := mustGet(t, s, at); !sameRecord(got, mended) {
			t.Errorf("mended as %+v", got)
		}
		checkTrees(t, s, 3)
	}
	disk.Crash(memory.LoseAll)
	checkTrees(t, open(t, disk, options(2)), 3)
}

// What hides damage from the next start tells it so, until the leaf is trusted.
func TestDamagedLeavesAreRemembered(t *testing.T) {
	for _, tt := range []struct {
		name string
		hide func(s *storage.Store, at kv.Slot, done func(error)) error
	}{
		{"rebuilt", func(s *storage.Store, at kv.Slot, done func(error)) error {
			return s.RebuildLeaf(at.Partition, at.Key.Leaf(), done)
		}},
		{"mended", func(s *storage.Store, at kv.Slot, done func(error)) error {
			return s.Submit(storage.Update{Slot: at, Mend: true, Done: done, Apply: func(kv.Record, uint64) (storage.Change, error) {
				return storage.Change{Record: mustRecord("mended")}, nil
			}})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := memory.New()
			s, mint := open(t, disk, options(1)), minter()
			for i := range 100 {
				mustSubmit(t, s, slot(strconv.Itoa(i)), true, put(mint, []byte("x"), all))
			}
			key := damageRecord(t, s, disk, 7)
			at := kv.Slot{Partition: 3, Key: key}
			wantDamaged(t, s)
			done := make(chan error, 1)
			if err := errors.Join(tt.hide(s, at, func(err error) { done <- err }), <-done); err != nil {
				t.Fatal(err)
			}
			mustSubmit(t, s, slot("sync"), true, put(mint, []byte("x"), all))
			wantDamaged(t, s, key.Leaf())

			disk.Crash(memory.LoseAll)
			s = open(t, disk, options(2))
			wantDamaged(t, s, key.Leaf())
			if err := s.Trust(3, key.Leaf()); err != nil {
				t.Fatal(err)
			}
			mustSubmit(t, s, slot("sync"), true, put(mint, []byte("y"), all))
			wantDamaged(t, s)
			disk.Crash(memory.LoseAll)
			wantDamaged(t, open(t, disk, options(3)))
		})
	}
}

func wantDamaged(t *testing.T, s *storage.Store, want ...uint8) {
	t.Helper()
	var got []uint8
	err := s.Damaged(func(partition uint16, leaf uint8) {
		if partition != 3 {
			t.Errorf("a leaf of partition %d is damaged", partition)
		}
		got = append(got, leaf)
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("damaged leaves: %v, %v; want %v", got, err, want)
	}
}

func TestMendOfNothing(t *testing.T) {
	disk := memory.New()
	s := open(t, disk, options(1))
	mustSubmit(t, s, hint(7, "key"), true, put(minter(), []byte("x"), all))
	mustSubmit(t, s, slot("0"), true, put(minter(), []byte("x"), all))
	damageRecord(t, s, disk, 0)
	disk.Flip("h", 0, 99)
	for at, want := range map[kv.Slot]error{slot("0"): storage.ErrCorrupt, hint(7, "key"): nil} {
		change := storage.Change{Same: at.Target == 0, Record: mustRecord("y")}
		mend := storage.Update{Slot: at, Mend: true, Apply: func(kv.Record, uint64) (storage.Change, error) { return change, nil }}
		done := make(chan error, 1)
		mend.Done = func(err error) { done <- err }
		if err := s.Submit(mend); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		_, err := s.Get(at)
		wantError(t, "get after", err, want)
	}
}

// A record that vanished without a word is missed by its tree, until that is
// made to follow.
func TestVanishedRecordIsNoticed(t *testing.T) {
	disk := memory.New()
	s, at := open(t, disk, options(1)), slot("key")
	mustSubmit(t, s, at, true, put(minter(), []byte("x"), all))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	engine := disk.Open()
	var b storage.Batch
	if err := engine.Scan([]byte("r"), []byte("s"), func(key, _ []byte) error { b.Delete(key); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := engine.Commit(&b, true); err != nil {
		t.Fatal(err)
	}
	s = open(t, disk, options(2))
	wantError(t, "check", s.CheckLeaf(3, at.Key.Leaf()), storage.ErrLeaf)
	done := make(chan error, 1)
	if err := s.RebuildLeaf(3, at.Key.Leaf(), func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	checkTrees(t, s, 3)
	if got := s.Trees(3); got != nil {
		t.Errorf("trees %+v of nothing", got)
	}
}

// Checks beside writes find nothing wrong.
func TestCheckLeafBesideWrites(t *testing.T) {
	disk, o := memory.New(), options(1)
	o.JournalLen = 10
	s, at := open(t, disk, o), slot("key")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		mint := minter()
		for i := uint64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := submit(s, at, i%16 == 0, put(mint, text(i, 10), all)); err != nil {
				t.Error(err)
			}
		}
	})
	for range 500 {
		if err := s.CheckLeaf(3, at.Key.Leaf()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}
