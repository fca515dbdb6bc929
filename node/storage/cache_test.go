package storage_test

import (
	"bytes"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
)

// cache keeps everything, but that every forgets-th read misses.
type cache struct {
	memory.Cache

	forgets int64
	reads   atomic.Int64
}

func newCache(forgets int64) *cache { return &cache{forgets: forgets} }

func (c *cache) HasGet(dst, key []byte) ([]byte, bool) {
	if n := c.reads.Add(1); c.forgets > 0 && n%c.forgets == 0 {
		c.Del(key)
	}
	return c.Cache.HasGet(dst, key)
}

func cached(c storage.Cache) storage.Options {
	o := options(1)
	o.Cache = c
	return o
}

// What is read is never older than what was acknowledged before, however reads,
// commits and what the cache forgets follow one another.
func TestCacheIsNeverStale(t *testing.T) {
	s := open(t, memory.New(), cached(newCache(7)))
	const keys, writes, readers = 4, 3000, 4
	var acknowledged [keys]struct {
		sync.Mutex

		n int
	}
	done := make(chan struct{})
	var running sync.WaitGroup
	for range readers {
		running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				k := i % keys
				acknowledged[k].Lock()
				least := acknowledged[k].n
				acknowledged[k].Unlock()
				if got := number(t, s, k); got < least {
					t.Errorf("key %d is %d after %d was acknowledged", k, got, least)
					return
				}
			}
		})
	}
	mint := minter()
	for i := 1; i <= writes; i++ {
		k := i % keys
		mustSubmit(t, s, slot(strconv.Itoa(k)), false, put(mint, []byte(strconv.Itoa(i)), all))
		acknowledged[k].Lock()
		acknowledged[k].n = i
		acknowledged[k].Unlock()
	}
	close(done)
	running.Wait()
	if st := s.Stats(); st.CacheHits == 0 || st.CacheMiss == 0 {
		t.Errorf("%d hits and %d misses test nothing", st.CacheHits, st.CacheMiss)
	}
}

// number returns the number that a key holds, 0 if none.
func number(t *testing.T, s *storage.Store, key int) int {
	t.Helper()
	r, err := s.Get(slot(strconv.Itoa(key)))
	if err != nil || r.Absent() {
		return 0
	}
	n, err := strconv.Atoi(string(r.Live[0].Value.Inline))
	if err != nil || len(r.Live) != 1 {
		t.Errorf("key %d holds %v: %v", key, r.Live, err)
	}
	return n
}

func TestCacheFollowsCommits(t *testing.T) {
	s, mint := open(t, memory.New(), cached(newCache(0))), minter()
	at := slot("key")
	mustSubmit(t, s, at, false, put(mint, []byte("small"), all))
	mustGet(t, s, at)
	// Siblings that no write has seen make the record too large for the cache.
	big := bytes.Repeat([]byte("x"), kv.InlineLimit)
	for range 20 {
		mustSubmit(t, s, at, false, put(mint, big, nothing))
		before := s.Stats()
		if n := len(mustGet(t, s, at).Live); n < 2 {
			t.Fatalf("%d siblings", n)
		}
		mustGet(t, s, at)
		if after := s.Stats(); after.CacheMiss == before.CacheMiss+2 {
			break
		}
	}
	mustSubmit(t, s, at, false, put(mint, []byte("small again"), all))
	if r := mustGet(t, s, at); len(r.Live) != 1 {
		t.Fatalf("holds %v", r.Live)
	}
	mustSubmit(t, s, at, false, remove)
	if r := mustGet(t, s, at); !r.Absent() {
		t.Errorf("removed, and holds %v", r)
	}
	checkTrees(t, s, 3)
}

func TestCacheAfterAFailedCommit(t *testing.T) {
	disk := memory.New()
	s, mint := open(t, disk, cached(newCache(0))), minter()
	at := slot("key")
	mustSubmit(t, s, at, true, put(mint, []byte("one"), all))
	mustGet(t, s, at)
	disk.FailSync(1, errors.New("input/output error"))
	wantError(t, "update", submit(s, at, true, put(mint, []byte("two"), all)), storage.ErrFailed)
	before := s.Stats().CacheMiss
	mustGet(t, s, at) // either may be there: what counts is what the engine shows
	if s.Stats().CacheMiss == before {
		t.Error("what is cached outlived a commit whose outcome is open")
	}
}

// A copy in memory must not keep the disk from being mended, nor the trees from
// following it.
func TestCacheHidesNoDamage(t *testing.T) {
	mint := minter()
	unlessThere := func(old kv.Record, boot uint64) (storage.Change, error) {
		if !old.Absent() {
			return storage.Change{Same: true}, nil
		}
		return put(mint, []byte("mended"), all)(old, boot)
	}
	mend := storage.Update{Mend: true, Apply: unlessThere}
	write := storage.Update{Apply: put(mint, []byte("written"), all)}
	for _, tt := range []struct {
		name    string
		rebuild bool
		updates []storage.Update // of each key of the leaf
		refused bool             // the first of them, of the damaged record
	}{
		{"mended", false, []storage.Update{mend}, false},
		{"rebuilt and mended", true, []storage.Update{mend}, false},
		{"rebuilt, written and mended", true, []storage.Update{write, mend}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := memory.New()
			s := open(t, disk, cached(newCache(0)))
			for i := range 100 {
				mustSubmit(t, s, slot(strconv.Itoa(i)), true, put(mint, []byte("x"), all))
			}
			leaf, done := damagedLeaf(t, s, disk), make(chan error, 1)
			answer := func(err error) { done <- err }
			if tt.rebuild {
				if err := errors.Join(s.RebuildLeaf(3, leaf, answer), <-done); err != nil {
					t.Fatal(err)
				}
			}
			var refused bool
			for i := range 100 {
				for _, u := range tt.updates {
					if u.Slot, u.Done = slot(strconv.Itoa(i)), answer; u.Slot.Key.Leaf() != leaf {
						continue
					}
					err := errors.Join(s.Submit(u), <-done)
					refused = refused || errors.Is(err, storage.ErrCorrupt)
				}
			}
			checkTrees(t, s, 3)
			if refused != tt.refused {
				t.Errorf("a write of the damaged record was refused: %t", refused)
			}
		})
	}
}

// damagedLeaf damages a record and returns its leaf.
func damagedLeaf(t *testing.T, s *storage.Store, disk *memory.Disk) uint8 {
	t.Helper()
	if !disk.Flip("r", 7, 200) {
		t.Fatal("nothing to damage")
	}
	for leaf := range 256 {
		if err := s.CheckLeaf(3, uint8(leaf)); errors.Is(err, storage.ErrLeaf) {
			return uint8(leaf)
		}
	}
	t.Fatal("the damage is not noticed")
	return 0
}
