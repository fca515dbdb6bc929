// Package replica is what one node does as a replica: it fetches, merges and
// assigns records in its own store, under the fence of the layouts it knows.
//
// A request made under another view than the replica's is refused before and,
// for writes, again inside the store's serial order: learning a layout goes
// through the same order, so that nothing is stored under an old view after
// the new one was acknowledged.
package replica

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/ring"
)

// Replica serves the records of one node. It is safe for concurrent use.
type Replica struct {
	self     kv.NodeID
	store    *storage.Store
	view     func() ring.View
	sync     bool
	standing Standing
	suspect  func(partition uint16, leaf uint8)
	log      *zap.Logger

	numbers numbers
	acked   atomic.Uint64
	reused  atomic.Uint64
	voided  atomic.Uint64
}

// Standing is what a node knows of its own good standing. Its methods are safe
// for concurrent use and return at once.
type Standing interface {
	// Registered reports whether the cluster knows of this start of the node:
	// until then it takes nothing, and its answers do not count.
	Registered() bool
	// Standing reports whether the node has merged all that the owners of a
	// partition hold. They include the node itself.
	Standing(partition uint16, owners []kv.NodeID) bool
	// Doubted reports whether the disk has lost records of a leaf, or parts of
	// them, that were not merged from all other owners since.
	Doubted(partition uint16, leaf uint8) bool
	// Doubt makes a leaf doubted, before anything is repaired.
	Doubt(partition uint16, leaf uint8)
	// BeforeUnsynced has returned nil before a write is acknowledged that is not
	// synced. It waits for the disk, once in the life of a process.
	BeforeUnsynced() error
}

// Config says what a [Replica] works with. All fields are needed.
type Config struct {
	Self  kv.NodeID
	Store *storage.Store
	// View returns the layouts that the node knows at the moment.
	View func() ring.View
	// Sync says whether writes that do not choose are synced before they are
	// acknowledged.
	Sync     bool
	Standing Standing
	// Suspect has the records of a leaf checked soon, and the values that they
	// keep outside: one could not be read. It returns at once.
	Suspect func(partition uint16, leaf uint8)
	Log     *zap.Logger
}

// New returns the replica of one node, with the reap numbers that its store
// keeps.
func New(c Config) (*Replica, error) {
	r := &Replica{self: c.Self, store: c.Store, view: c.View, sync: c.Sync, standing: c.Standing, suspect: c.Suspect, log: c.Log}
	if err := r.numbers.load(c.Store); err != nil {
		return nil, err
	}
	return r, nil
}

// ReusedDots counts the alarms that another copy of this node has written with
// its actors since the start.
func (r *Replica) ReusedDots() uint64 { return r.reused.Load() }

// Acknowledged counts the records that were stored since the start, and said to
// be.
func (r *Replica) Acknowledged() uint64 { return r.acked.Load() }

// Store merges a record into what this node holds, or keeps it as a hint where
// the request names a target. done is called once, with nil when the merge is
// committed as durably as asked.
func (r *Replica) Store(req coordinator.StoreRequest, done func(error)) {
	incoming, err := kv.DecodeRecord(req.Record)
	if err != nil {
		done(err)
		return
	}
	v, err := r.admitted(req.Fence.Digest)
	if err == nil && !owns(v, req.Key, incoming.NMax, cmp.Or(req.Target, r.self)) {
		// Nobody would serve the record, or repair it.
		err = coordinator.ErrNotOwner
	}
	var sync bool
	if err == nil {
		sync, err = r.synced(req.Durability)
	}
	if err != nil {
		done(err)
		return
	}
	slot := slotOf(v, req.Key, req.Target)
	err = r.store.Submit(storage.Update{
		Slot: slot,
		Sync: sync,
		Size: len(req.Record) + blobBytes(req.Blobs),
		Apply: func(old kv.Record, boot uint64) (storage.Change, error) {
			if _, err := r.fenced(req.Fence.Digest); err != nil {
				return storage.Change{}, err
			}
			if err := r.numbers.check(slot.Partition, req.Reap); err != nil {
				return storage.Change{}, err
			}
			return r.merge(req.Key, old, incoming, req.Blobs, r.boot(boot))
		},
		Done: func(err error) {
			r.stored(slot, err)
			done(told(err))
		},
	})
	if err != nil {
		done(told(err))
	}
}

// merge is the change that incoming makes to old.
func (r *Replica) merge(key kv.Key, old, incoming kv.Record, blobs []kv.Blob, boot uint64) (storage.Change, error) {
	if old.Reused(incoming, boot) {
		r.reused.Add(1)
		r.log.Error("a dot of this node was given twice: another process runs on a copy of its data directory, or its "+
			"disk was rolled back under it; stop the copy", zap.Stringer("key", key), zap.Stringer("actor", old.Mine.Actor))
		old.Mine = kv.Mine{}
	}
	if old.Covers(incoming) {
		return storage.Change{Record: old, Same: true}, nil
	}
	next := old.Merge(incoming)
	missing := new(coordinator.MissingBlobsError)
	for _, v := range next.Live {
		if v.Value.External && !old.Holds(v.Dot) && !slices.ContainsFunc(blobs, func(b kv.Blob) bool { return b.Dot == v.Dot }) {
			missing.Dots = append(missing.Dots, v.Dot)
		}
	}
	if len(missing.Dots) > 0 {
		return storage.Change{}, missing
	}
	return storage.Change{Record: next, Blobs: blobs}, nil
}

// errUnsettled: the reap number of the partition is not on the disk yet.
var errUnsettled = errors.New("a reap round is being confirmed")

// Assign runs a decision of the coordinator in the slot's read-modify-write.
func (r *Replica) Assign(req coordinator.AssignRequest) error {
	if _, err := r.admitted(req.Fence); err != nil {
		return err
	}
	sync, err := r.synced(req.Durability)
	if err != nil {
		return err
	}
	return r.assign(req, sync)
}

// assign is Assign, behind its door. The record goes out while it is being
// committed, under a reap number that must not be lost with it: if the number
// itself is being committed, the update goes to the end of the queue, behind it.
func (r *Replica) assign(req coordinator.AssignRequest, sync bool) error {
	decided := false // touched by the store's one committing goroutine
	err := r.store.Submit(storage.Update{
		Slot: req.Slot,
		Sync: sync,
		Size: req.Size,
		Apply: func(old kv.Record, boot uint64) (storage.Change, error) {
			v, err := r.fenced(req.Fence)
			if err != nil {
				return storage.Change{}, err
			}
			number, settled := r.numbers.settled(req.Slot.Partition)
			if !settled {
				return storage.Change{}, errUnsettled
			}
			next, blobs, err := req.Decide(coordinator.Held{
				Record: old, Boot: r.boot(boot), Reap: number, Standing: r.stands(v, req.Slot),
			})
			decided = err == nil
			return storage.Change{Record: next, Blobs: blobs, Same: err == nil && old.Covers(next)}, err
		},
		Done: func(err error) {
			if errors.Is(err, errUnsettled) {
				if err = r.assign(req, sync); err == nil {
					return
				}
			}
			if err != nil && decided {
				r.voided.Add(1)
			}
			r.stored(req.Slot, err)
			req.Done(told(err))
		},
	})
	return told(err)
}

// boot is the boot under which dots are given: the store's, and another one
// after each dot that was given and not stored, for whatever reason. Such a dot
// may be out, and must not be given to another value.
func (r *Replica) boot(store uint64) uint64 { return store + r.voided.Load() }

// synced reports whether a write is acknowledged only once it is synced. If not,
// the node has noted for its next start that such writes may be lost.
func (r *Replica) synced(d coordinator.Durability) (bool, error) {
	if d == coordinator.DurabilitySync || d == coordinator.DurabilityDefault && r.sync {
		return true, nil
	}
	return false, told(r.standing.BeforeUnsynced())
}

// told turns an error of the store into what a client may be told. Refusals at
// the door promise that nothing was applied.
func told(err error) error {
	refuse := func(code kv.Code, remedy string) error {
		return &kv.Error{Code: code, Outcome: kv.NotApplied, Message: fmt.Sprintf("%v: %s", err, remedy), RetryAfter: time.Second}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, storage.ErrBusy):
		return refuse(kv.CodeOverloaded, "try again later")
	case errors.Is(err, storage.ErrDiskFull):
		return refuse(kv.CodeDiskFull, "free space on the node's disk or add nodes")
	}
	return err
}
