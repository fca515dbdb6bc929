package node

import (
	"context"
	"fmt"

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
type facts struct {
	store *storage.Store
	ctx   context.Context //nolint:containedctx // of the node: ends waits when it stops
}

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
	done := make(chan error, 1)
	if err := f.store.SubmitMeta(name, fn, true, func(err error) { done <- err }); err != nil {
		return fmt.Errorf("store the node's %s: %w", name, err)
	}
	select {
	case err := <-done:
		return err
	case <-f.ctx.Done():
		return fmt.Errorf("store the node's %s: %w", name, context.Cause(f.ctx))
	}
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
