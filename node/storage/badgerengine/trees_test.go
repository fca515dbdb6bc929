package badgerengine

import (
	"testing"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/node/storage"
)

// checkTrees compares the hash trees of a store with the records that the tests
// have written.
func checkTrees(tb testing.TB, s *storage.Store) {
	tb.Helper()
	for partition := range uint16(testPartitions) {
		var want merkle.Tree
		err := s.ScanPartition(partition, func(k kv.Key, r kv.Record) error {
			want.Apply(merkle.Added(merkle.ID{}, k.Leaf(), kv.Digest(k, kv.AppendRecord(nil, r))))
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
		if got := s.Tree(partition, 1); got != want {
			tb.Errorf("partition %d: the tree counts %d records, there are %d", partition, got.Count(), want.Count())
		}
	}
}

// Random overwrites, removals and kills: no start reads records for its trees,
// and they are right.
func TestTreesSurviveKills(t *testing.T) {
	d := newDisk(t)
	for life := range uint64(4) {
		s := openStore(t, d)
		if n := s.Stats().Rebuilt; n != 0 {
			t.Errorf("life %d: %d leaves were rebuilt", life, n)
		}
		checkTrees(t, s)
		for n := range uint64(400) {
			if err := submit(s, (n+life*7)%250, n%30 == 0); err != nil {
				t.Fatal(err)
			}
		}
		for n := range uint64(20) {
			removeRecord(t, s, n*life)
		}
		checkTrees(t, s)
		closeOrKill(t, s, d, life)
	}
	s := openStore(t, d)
	checkTrees(t, s)
	closeStore(t, s)
}

func removeRecord(t *testing.T, s *storage.Store, n uint64) {
	t.Helper()
	done := make(chan error, 1)
	u := storage.Update{Slot: testSlot(n), Done: func(err error) { done <- err }}
	u.Apply = func(kv.Record, uint64) (storage.Change, error) { return storage.Change{}, nil }
	if err := s.Submit(u); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// closeOrKill goes on with a copy of the files as they were before the store
// was closed, or with what that left.
func closeOrKill(t *testing.T, s *storage.Store, d *disk, life uint64) {
	t.Helper()
	if life%2 == 1 {
		closeStore(t, s)
		return
	}
	d.Kill(t) // closes the engine
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
