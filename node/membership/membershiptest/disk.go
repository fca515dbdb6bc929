package membershiptest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/starling-kv/starling/ring"
)

// Disk keeps, in memory, what package membership needs kept: it is its
// Journal, its Binder and its PeerStore. It outlives the node that uses it, so
// that a node can be started again from it. The zero Disk is empty. It is safe
// for concurrent use.
type Disk struct {
	// Sync, if set, runs between the storing of a view and the return of its
	// update, without any lock. Its error is that of the update. Set it while
	// nobody uses the disk.
	Sync func() error

	mu      sync.Mutex
	view    []byte
	cluster ring.ClusterID
	peers   []byte
	fault   Fault
}

// Fault is where a [Disk] fails, from then on and until it is given another.
type Fault int

// The faults of a [Disk].
const (
	None       Fault = iota
	BeforeBind       // binding changes nothing
	BeforeView       // an update of the view does not run
	DuringView       // an update of the view runs, and nothing is stored
	AfterView        // an update of the view is stored, and fails nevertheless
)

// ErrFault is matched by the errors of a [Disk] with a fault.
var ErrFault = errors.New("injected fault of the disk")

// Fail makes the disk fail from now on.
func (d *Disk) Fail(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// Load returns the stored view.
func (d *Disk) Load() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.view), nil
}

// Update replaces the stored view.
func (d *Disk) Update(fn func(old []byte) ([]byte, error)) error {
	if err := d.update(fn); err != nil || d.Sync == nil {
		return err
	}
	return d.Sync()
}

func (d *Disk) update(fn func(old []byte) ([]byte, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault == BeforeView {
		return ErrFault
	}
	view, err := fn(slices.Clone(d.view))
	switch {
	case err != nil:
		return err
	case d.fault == DuringView:
		return ErrFault
	}
	d.view = slices.Clone(view)
	if d.fault == AfterView {
		return ErrFault
	}
	return nil
}

// Cluster returns the cluster that the disk is bound to.
func (d *Disk) Cluster() (ring.ClusterID, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cluster, d.cluster != ring.ClusterID{}
}

// Bind binds the disk to a cluster.
func (d *Disk) Bind(id ring.ClusterID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.fault == BeforeBind:
		return ErrFault
	case d.cluster != ring.ClusterID{} && d.cluster != id:
		return fmt.Errorf("bound to cluster %s, not %s", d.cluster, id)
	}
	d.cluster = id
	return nil
}

// LoadPeers returns the stored peers.
func (d *Disk) LoadPeers() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.peers), nil
}

// SavePeers stores the peers.
func (d *Disk) SavePeers(b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers = slices.Clone(b)
	return nil
}
