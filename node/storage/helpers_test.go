package storage_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/goleak"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
	"github.com/starling-kv/starling/vclock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options are those of the tests: seeded, and with a clock that stands still.
func options(seed uint64) storage.Options {
	random := rand.New(rand.NewPCG(seed, 0))
	return storage.Options{Random: random.Uint64, Now: func() time.Time { return time.Unix(1, 0) }}
}

// open opens a store on disk that the test closes, if the disk has not crashed.
func open(tb testing.TB, disk *memory.Disk, o storage.Options) *storage.Store {
	tb.Helper()
	s, err := storage.Open(disk.Open(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return s
}

func slot(name string) kv.Slot {
	return kv.Slot{Partition: 3, Key: kv.Key{Bucket: "bucket", Name: name}}
}

func hint(target kv.NodeID, name string) kv.Slot {
	s := slot(name)
	s.Target = target
	return s
}

type apply = func(kv.Record, uint64) (storage.Change, error)

// submit submits an update and waits for its answer.
func submit(s *storage.Store, at kv.Slot, sync bool, fn apply) error {
	done := make(chan error, 1)
	err := s.Submit(storage.Update{Slot: at, Sync: sync, Apply: fn, Done: func(err error) { done <- err }})
	if err != nil {
		return err
	}
	return <-done
}

func mustSubmit(tb testing.TB, s *storage.Store, at kv.Slot, sync bool, fn apply) {
	tb.Helper()
	if err := submit(s, at, sync, fn); err != nil {
		tb.Fatalf("update of %v: %v", at.Key, err)
	}
}

func mustGet(tb testing.TB, s *storage.Store, at kv.Slot) kv.Record {
	tb.Helper()
	r, err := s.Get(at)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// minter mints actors 1, 2, 3 and so on.
func minter() func() vclock.Actor {
	var last vclock.Actor
	return func() vclock.Actor { last++; return last }
}

// sibling is a value, inline if it is small.
func sibling(value []byte) kv.Sibling {
	s := kv.Sibling{Kind: kv.KindValue, N: 1, Length: uint64(len(value)), Checksum: xxhash.Sum64(value)}
	if s.External = len(value) > kv.InlineLimit; !s.External {
		s.Inline = value
	}
	return s
}

// put writes a value by an author who had seen what seen returns of the record.
func put(mint func() vclock.Actor, value []byte, seen func(kv.Record) vclock.Clock) apply {
	return func(old kv.Record, boot uint64) (storage.Change, error) {
		next, dot := old.Put(sibling(value), seen(old), boot, mint, time.Time{})
		return storage.Change{Record: next, Blobs: []kv.Blob{{Dot: dot, Data: value}}}, nil
	}
}

func all(r kv.Record) vclock.Clock { return r.Clock }

func nothing(kv.Record) vclock.Clock { return nil }

func same(kv.Record, uint64) (storage.Change, error) { return storage.Change{Same: true}, nil }

func remove(kv.Record, uint64) (storage.Change, error) { return storage.Change{}, nil }

// values returns the live values of a record, external ones read.
func values(s *storage.Store, at kv.Slot, r kv.Record) ([]string, error) {
	var out []string
	for _, v := range r.Live {
		data := v.Value.Inline
		if v.Value.External {
			var err error
			if data, err = s.Value(at, v.Dot, v.Value.Length, v.Value.Checksum); err != nil {
				return nil, fmt.Errorf("value %v: %w", v.Dot, err)
			}
		}
		if xxhash.Sum64(data) != v.Value.Checksum {
			return nil, fmt.Errorf("value %v is wrong", v.Dot)
		}
		out = append(out, string(data))
	}
	return out, nil
}

// text returns n bytes that tell seeds apart.
func text(seed uint64, n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%032d", seed)))
	_, _ = source.Read(b)
	return b
}

// keys returns the number of storage keys that an engine holds, apart from the
// store's own and the trees.
func keys(tb testing.TB, disk *memory.Disk) int {
	tb.Helper()
	n := 0
	err := disk.Open().Scan(nil, nil, func(key, _ []byte) error {
		if !strings.ContainsRune("sdt", rune(key[0])) {
			n++
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func wantError(tb testing.TB, what string, got, want error) {
	tb.Helper()
	if !errors.Is(got, want) {
		tb.Errorf("%s: %v, want %v", what, got, want)
	}
}
