// Package enginetest is what every storage engine must do, as tests.
package enginetest

import (
	"errors"
	"testing"

	"github.com/starling-kv/starling/node/storage"
)

// Disk is where engines under test keep their data.
type Disk interface {
	// Open opens an engine on what earlier engines left. The suite closes it,
	// unless it kills it.
	Open(t testing.TB) storage.Engine
}

// Killer is a Disk whose engine can be ended as kill -9 ends a process.
type Killer interface{ Kill(t testing.TB) }

// Crasher is a Disk whose power can be cut. Seed chooses what is lost.
type Crasher interface {
	Crash(t testing.TB, seed uint64)
}

// Run runs the suite, each test on a disk of its own.
func Run(t *testing.T, newDisk func(testing.TB) Disk) {
	t.Helper()
	tests := []struct {
		name string
		run  func(*testing.T, Disk)
	}{
		{"get", testGet},
		{"last operation counts", testLastCounts},
		{"scan", testScan},
		{"scan stops", testScanStops},
		{"scan is a snapshot", testScanSnapshot},
		{"callers own what they get", testOwnership},
		{"large batches", testLargeBatch},
		{"oversized batch changes nothing", testOversized},
		{"close", testClose},
		{"close waits for reads", testCloseWaits},
		{"reopen", testReopen},
		{"commits are atomic to readers", testAtomicReads},
		{"kill loses nothing", testKill},
		{"crash keeps what was synced", testCrash},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, newDisk(t)) })
	}
	t.Run("like a map", func(t *testing.T) { testModel(t, newDisk) })
}

// Commit commits pairs of keys and values and fails the test on an error.
func Commit(tb testing.TB, e storage.Engine, sync bool, pairs ...string) {
	tb.Helper()
	var b storage.Batch
	for i := 0; i < len(pairs); i += 2 {
		b.Set([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	if err := e.Commit(&b, sync); err != nil {
		tb.Fatalf("commit: %v", err)
	}
}

// none is what get and want say of a key that is not there.
const none = "<none>"

func get(tb testing.TB, e storage.Engine, key string) string {
	tb.Helper()
	value, err := e.Get([]byte(key))
	if errors.Is(err, storage.ErrNotFound) {
		return none
	}
	if err != nil {
		tb.Fatalf("get %q: %v", key, err)
	}
	return string(value)
}

func want(tb testing.TB, e storage.Engine, key, value string) {
	tb.Helper()
	if got := get(tb, e, key); got != value {
		tb.Errorf("get %q = %.40q, want %.40q", key, got, value)
	}
}

// pairs returns what a scan sees as key=value.
func pairs(tb testing.TB, e storage.Engine, from, to []byte) []string {
	tb.Helper()
	got := []string{}
	err := e.Scan(from, to, func(key, value []byte) error {
		got = append(got, string(key)+"="+string(value))
		return nil
	})
	if err != nil {
		tb.Fatalf("scan: %v", err)
	}
	return got
}

func closeEngine(tb testing.TB, e storage.Engine) {
	tb.Helper()
	if err := e.Close(); err != nil {
		tb.Fatalf("close: %v", err)
	}
}
