package membership

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/starling-kv/starling/ring"
)

// Journal keeps the encoded view of a node where its writes are committed, so
// that learning a layout has its place in the order of the writes: whatever is
// committed after it is judged after it.
type Journal interface {
	// Load returns what the last Update stored, nil if there was none.
	Load() ([]byte, error)
	// Update calls fn at most once, on the goroutine that commits writes, with
	// what is stored, and stores what it returns. It returns when that is synced.
	// If fn fails, nothing is stored and its error comes back. An error after fn
	// succeeded leaves open what is stored.
	Update(fn func(old []byte) ([]byte, error)) error
}

// Binder keeps the cluster that a data directory belongs to. It is safe for
// concurrent use.
type Binder interface {
	// Cluster returns the cluster, from memory, and false if there is none yet.
	Cluster() (ring.ClusterID, bool)
	// Bind makes id the cluster, durably before it returns. Binding to the same
	// cluster again does nothing; to another one fails.
	Bind(id ring.ClusterID) error
}

// ErrViewNotDurable is matched by the errors of [Views.Learn] after one that
// failed while it was committed. The node knows the layout, so that it refuses
// what the layout forbids, but may have forgotten it after a restart: it must
// not serve again before that.
var ErrViewNotDurable = errors.New("the view of the layouts could not be stored: restart the node once its disk is well")

// Views holds the view of one node: the layouts that it knows. It is safe for
// concurrent use.
//
// It holds the view twice, because learning takes effect within the order of
// writes and is durable only later, with the sync of its batch. The current
// view fences requests: it changes inside the commit, so that a write that is
// committed after it was judged by it. The durable view is what the node says
// of itself to others and survives a crash.
type Views struct {
	journal Journal
	binder  Binder

	current atomic.Pointer[ring.View] // stored to only inside Journal.Update
	durable atomic.Pointer[ring.View] // never more than current
	failed  atomic.Bool

	mu        sync.Mutex // orders stores to durable; guards listeners
	listeners []func(ring.View)
}

// OpenViews loads the view that journal keeps. It fails if the stored view is
// damaged or belongs to another cluster than the directory.
func OpenViews(journal Journal, binder Binder) (*Views, error) {
	stored, err := journal.Load()
	if err != nil {
		return nil, fmt.Errorf("load the view of the layouts: %w", err)
	}
	var view ring.View
	if len(stored) > 0 {
		if view, err = ring.DecodeView(stored); err != nil {
			return nil, fmt.Errorf("the stored view of the layouts is damaged, start the node with an empty directory to replace it: %w", err)
		}
	}
	v := &Views{journal: journal, binder: binder}
	if view.Cluster() != (ring.ClusterID{}) {
		if err := v.bind(view.Cluster()); err != nil {
			return nil, fmt.Errorf("stored view: %w", err)
		}
	}
	v.current.Store(&view)
	v.durable.Store(&view)
	return v, nil
}

// Current returns the view by which requests are judged. It takes nanoseconds.
func (v *Views) Current() ring.View { return *v.current.Load() }

// Durable returns the part of [Views.Current] that a crash cannot take back:
// what this node may tell others that it knows.
func (v *Views) Durable() ring.View { return *v.durable.Load() }

// Cluster returns the cluster that this node is bound to, and false if none.
func (v *Views) Cluster() (ring.ClusterID, bool) { return v.binder.Cluster() }

// OnChange has f called with the durable view each time that it has grown, on
// the goroutine that made it grow, holding no lock. Calls of different
// goroutines may come late or out of order: [Views.Durable] says what holds.
func (v *Views) OnChange(f func(ring.View)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listeners = append(v.listeners, f)
}

// Learn merges a view into this node's, durably before it returns; it is quick
// if there is nothing new. A node that belongs to no cluster yet is bound to
// the view's cluster first. Learn fails with a [*ring.ClusterError] if the view
// is of another cluster than the node, with [ring.ErrViewFull], with the error
// of the journal, and after that with [ErrViewNotDurable].
func (v *Views) Learn(in ring.View) error {
	cluster := in.Cluster()
	if cluster == (ring.ClusterID{}) {
		return nil
	}
	if err := v.bind(cluster); err != nil {
		return err
	}
	if v.Durable().Contains(in) {
		return nil
	}
	if v.failed.Load() {
		return ErrViewNotDurable
	}
	return v.commit(in)
}

// bind makes sure that this node is of the given cluster.
func (v *Views) bind(cluster ring.ClusterID) error {
	bound, ok := v.binder.Cluster()
	switch {
	case !ok:
		return v.binder.Bind(cluster)
	case bound != cluster:
		return &ring.ClusterError{Want: bound, Got: cluster}
	}
	return nil
}

func (v *Views) commit(in ring.View) error {
	var merged *ring.View // set once the view is in force
	err := v.journal.Update(func([]byte) ([]byte, error) {
		next, err := v.Current().Merge(in)
		if err != nil {
			return nil, err
		}
		v.current.Store(&next)
		merged = &next
		return next.Append(nil), nil
	})
	switch {
	case err != nil && merged != nil:
		v.failed.Store(true)
		return fmt.Errorf("%w: %w", ErrViewNotDurable, err)
	case err != nil:
		return fmt.Errorf("learn layouts: %w", err)
	}
	v.publish(merged)
	return nil
}

// publish makes a committed view the durable one, unless a later commit has
// returned first.
func (v *Views) publish(merged *ring.View) {
	v.mu.Lock()
	if !v.Durable().Contains(*merged) {
		v.durable.Store(merged)
	}
	listeners := v.listeners
	v.mu.Unlock()
	for _, f := range listeners {
		f(*merged)
	}
}
