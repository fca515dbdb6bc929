package standing

import (
	"bytes"
	"errors"
	"flag"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// TestMain makes more random runs the default here: they cost little. Flags on
// the command line still win.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "5000"); err != nil {
		panic(err)
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}

var errDisk = errors.New("no such luck")

// disk keeps facts in memory.
type disk struct {
	mu     sync.Mutex
	facts  map[string][]byte
	broken string // updates of facts whose names begin with it fail; all if "*"
	writes int
}

func newDisk() *disk { return &disk{facts: make(map[string][]byte)} }

// clone returns a copy of the disk as it is.
func (d *disk) clone() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &disk{facts: maps.Clone(d.facts)}
}

func (d *disk) breakDown(prefix string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = prefix
}

// Get implements [Facts].
func (d *disk) Get(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.facts[name]), nil
}

// Update implements [Facts].
func (d *disk) Update(name string, fn func([]byte) ([]byte, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next, err := fn(bytes.Clone(d.facts[name]))
	switch {
	case err != nil:
		return err
	case d.broken == "*" || d.broken != "" && strings.HasPrefix(name, d.broken):
		return errDisk
	case next == nil:
		delete(d.facts, name)
	default:
		d.facts[name] = bytes.Clone(next)
	}
	d.writes++
	return nil
}

// Scan implements [Facts].
func (d *disk) Scan(prefix string, fn func(string, []byte) error) error {
	d.mu.Lock()
	all := maps.Clone(d.facts)
	d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(name, prefix) {
			if err := fn(name, all[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

// starts stands for the count that the store keeps.
func (d *disk) starts() uint64 {
	b, _ := d.Get("starts")
	n, _ := strconv.ParseUint(string(b), 10, 64)
	return n
}

func (d *disk) raiseStarts(to uint64) {
	_ = d.Update("starts", func([]byte) ([]byte, error) { return strconv.AppendUint(nil, to, 10), nil })
}

const partitions = 8

// viewOf returns the view with one active layout for each list of members.
func viewOf(t rapid.TB, layouts ...[]kv.NodeID) ring.View {
	t.Helper()
	var v ring.View
	for i, ids := range layouts {
		members := make([]ring.Member, len(ids))
		for i, id := range ids {
			members[i] = ring.Member{ID: id, Name: "n" + id.String(), Address: id.String() + ":1", Weight: 1}
		}
		l, err := ring.Compute(ring.ClusterID{7}, uint64(i+1), members, partitions, nil)
		if err != nil {
			t.Fatal(err)
		}
		if v, err = v.With(l); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// upTo returns the ids 1 to n.
func upTo(n int) []kv.NodeID {
	ids := make([]kv.NodeID, n)
	for i := range ids {
		ids[i] = kv.NodeID(i + 1)
	}
	return ids
}

// open begins a life of node id on d.
func open(t rapid.TB, d *disk, id kv.NodeID, v ring.View, nonce uint64, boot string) *Ledger {
	t.Helper()
	d.raiseStarts(d.starts() + 1)
	l, err := Open(LedgerConfig{
		Self: id, Facts: d, Life: Life{Starts: d.starts(), Nonce: nonce}, OSBoot: boot,
		View: func() ring.View { return v }, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}
