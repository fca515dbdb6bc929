package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/ring"
)

// The facts that a node keeps beside its records.
const (
	factView  = "view"
	factPeers = "peers"
)

// facts keeps what membership needs durable in the store, in one order with the
// writes. It implements membership.Journal and membership.PeerStore.
type facts struct{ store *storage.Store }

// Load returns the stored view.
func (f facts) Load() ([]byte, error) { return f.store.GetMeta(factView) }

// Update changes the stored view in the serial order of the writes.
func (f facts) Update(fn func(old []byte) ([]byte, error)) error { return f.change(factView, fn) }

// LoadPeers returns the stored peers.
func (f facts) LoadPeers() ([]byte, error) { return f.store.GetMeta(factPeers) }

// SavePeers stores the peers.
func (f facts) SavePeers(b []byte) error {
	return f.change(factPeers, func([]byte) ([]byte, error) { return b, nil })
}

func (f facts) change(name string, fn func(old []byte) ([]byte, error)) error {
	// The store answers in any case, and soon once it is closed.
	err := wait(context.Background(), func(done func(error)) error { return f.store.SubmitMeta(name, fn, true, done) })
	if err != nil {
		return fmt.Errorf("store the node's %s: %w", name, err)
	}
	return nil
}

// standingFacts keeps what the ledger of standing needs durable. It implements
// [standing.Facts].
type standingFacts struct{ facts }

// standingPrefix keeps the names of these facts apart.
const standingPrefix = "standing/"

// Get returns a fact.
func (f standingFacts) Get(name string) ([]byte, error) {
	return f.store.GetMeta(standingPrefix + name)
}

// Update changes a fact in the serial order of the writes.
func (f standingFacts) Update(name string, fn func(old []byte) ([]byte, error)) error {
	return f.change(standingPrefix+name, fn)
}

// Scan calls fn with the facts whose names begin with prefix.
func (f standingFacts) Scan(prefix string, fn func(name string, value []byte) error) error {
	return f.store.ScanMeta(standingPrefix+prefix, func(name string, value []byte) error {
		return fn(strings.TrimPrefix(name, standingPrefix), value)
	})
}

// binder keeps the cluster in the marker of the data directory. It implements
// membership.Binder.
type binder struct{ dir *storage.Dir }

// Cluster returns the cluster of the directory, if it has one.
func (b binder) Cluster() (ring.ClusterID, bool) {
	id := ring.ClusterID(b.dir.Identity().Cluster)
	return id, id != ring.ClusterID{}
}

// Bind makes id the cluster of the directory, for ever.
func (b binder) Bind(id ring.ClusterID) error { return b.dir.BindCluster(id) }
