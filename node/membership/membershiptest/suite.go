package membershiptest

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/ring"
)

// TestJournal is what every [membership.Journal] must pass. Open returns the
// journal of one directory, empty at first; each later call opens it again.
func TestJournal(t *testing.T, open func(t *testing.T) membership.Journal) {
	j := open(t)
	requireStored(t, j, nil)

	var saw []byte
	if err := j.Update(func(old []byte) ([]byte, error) { saw = old; return []byte("one"), nil }); err != nil {
		t.Fatal(err)
	}
	if len(saw) != 0 {
		t.Fatalf("the first update saw %q, want nothing", saw)
	}
	requireStored(t, j, []byte("one"))

	refused := errors.New("refused")
	if err := j.Update(func([]byte) ([]byte, error) { return []byte("two"), refused }); !errors.Is(err, refused) {
		t.Fatalf("an update that was refused returned %v", err)
	}
	requireStored(t, j, []byte("one"))

	countUp(t, j)
	j = open(t)
	requireStored(t, j, append([]byte("one"), bytes.Repeat([]byte{'+'}, writers)...))
}

const writers = 50

// countUp has concurrent updates each add a byte: none may be lost.
func countUp(t *testing.T, j membership.Journal) {
	t.Helper()
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			err := j.Update(func(old []byte) ([]byte, error) { return append(bytes.Clone(old), '+'), nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func requireStored(t *testing.T, j membership.Journal, want []byte) {
	t.Helper()
	got, err := j.Load()
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Load() = %q, %v; want %q", got, err, want)
	}
}

// TestBinder is what every [membership.Binder] must pass. Open returns the
// binder of one directory, new at first; each later call opens it again.
func TestBinder(t *testing.T, open func(t *testing.T) membership.Binder) {
	b := open(t)
	if id, bound := b.Cluster(); bound {
		t.Fatalf("a new directory is bound to %s", id)
	}
	mine, other := ring.ClusterID{1}, ring.ClusterID{2}
	for range 2 { // the second time changes nothing
		if err := b.Bind(mine); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Bind(other); err == nil {
		t.Fatal("bound to a second cluster")
	}
	for _, b := range []membership.Binder{b, open(t)} {
		if id, bound := b.Cluster(); !bound || id != mine {
			t.Fatalf("Cluster() = %s, %t; want %s", id, bound, mine)
		}
	}
}
