// Package replica is what one node does as a replica: it fetches, merges and
// assigns records in its own store, under the fence of the layouts it knows.
//
// A request made under another view than the replica's is refused before and,
// for writes, again inside the store's serial order: learning a layout goes
// through the same order, so that nothing is stored under an old view after
// the new one was acknowledged.
package replica

import (
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
	self  kv.NodeID
	store *storage.Store
	view  func() ring.View
	sync  bool
	log   *zap.Logger

	reused atomic.Uint64
	voided atomic.Uint64
}

// New returns the replica of the node self over its store. view returns the
// layouts that the node knows at the moment; sync says whether writes that do
// not choose are synced before they are acknowledged.
func New(self kv.NodeID, store *storage.Store, view func() ring.View, sync bool, log *zap.Logger) *Replica {
	return &Replica{self: self, store: store, view: view, sync: sync, log: log}
}

// ReusedDots counts the alarms that another copy of this node has written with
// its actors since the start.
func (r *Replica) ReusedDots() uint64 { return r.reused.Load() }

// Fetch returns what this node holds of a key. For a stand-in this includes
// what it keeps for other owners.
func (r *Replica) Fetch(req coordinator.FetchRequest) (coordinator.FetchReply, error) {
	v, err := r.fenced(req.Fence.Digest)
	if err != nil {
		return coordinator.FetchReply{}, err
	}
	var merged kv.Record
	for i, slot := range slots(v, req.Key, req.StandIn) {
		rec, err := r.store.Get(slot)
		switch {
		case err != nil:
			return coordinator.FetchReply{}, told(err)
		case i == 0:
			merged = rec
		default:
			merged = merged.Merge(rec)
		}
	}
	merged.Mine = kv.Mine{}
	return coordinator.FetchReply{Record: merged, Standing: true}, nil
}

// Value returns one external value.
func (r *Replica) Value(req coordinator.ValueRequest) ([]byte, error) {
	v, err := r.fenced(req.Fence.Digest)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots(v, req.Key, req.StandIn) {
		var b []byte
		if b, err = r.store.Value(slot, req.Dot, req.Length, req.Checksum); err == nil {
			return b, nil
		}
	}
	return nil, told(err)
}

// Store merges a record into what this node holds, or keeps it as a hint where
// the request names a target. done is called once, with nil when the merge is
// committed as durably as asked.
func (r *Replica) Store(req coordinator.StoreRequest, done func(error)) {
	incoming, err := kv.DecodeRecord(req.Record)
	if err != nil {
		done(err)
		return
	}
	v, err := r.fenced(req.Fence.Digest)
	if err == nil {
		err = r.mayHold(v, req, incoming)
	}
	if err != nil {
		done(err)
		return
	}
	err = r.store.Submit(storage.Update{
		Slot: slotOf(v, req.Key, req.Target),
		Sync: r.synced(req.Durability),
		Size: size(req),
		Apply: func(old kv.Record, boot uint64) (storage.Change, error) {
			if _, err := r.fenced(req.Fence.Digest); err != nil {
				return storage.Change{}, err
			}
			return r.merge(req.Key, old, incoming, req.Blobs, r.boot(boot))
		},
		Done: func(err error) { done(told(err)) },
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

// size is about how many bytes the request brings along.
func size(req coordinator.StoreRequest) int {
	n := len(req.Record)
	for _, b := range req.Blobs {
		n += len(b.Data)
	}
	return n
}

// Assign runs a decision of the coordinator in the slot's read-modify-write.
func (r *Replica) Assign(req coordinator.AssignRequest) error {
	decided := false // touched by the store's one committing goroutine
	err := r.store.Submit(storage.Update{
		Slot: req.Slot,
		Sync: r.synced(req.Durability),
		Size: req.Size,
		Apply: func(old kv.Record, boot uint64) (storage.Change, error) {
			if _, err := r.fenced(req.Fence); err != nil {
				return storage.Change{}, err
			}
			next, blobs, err := req.Decide(coordinator.Held{Record: old, Boot: r.boot(boot)})
			decided = err == nil
			return storage.Change{Record: next, Blobs: blobs, Same: err == nil && old.Covers(next)}, err
		},
		Done: func(err error) {
			if err != nil && decided {
				r.voided.Add(1)
			}
			req.Done(told(err))
		},
	})
	return told(err)
}

// boot is the boot under which dots are given: the store's, and another one
// after each dot that was given and not stored, for whatever reason. Such a dot
// may be out, and must not be given to another value.
func (r *Replica) boot(store uint64) uint64 { return store + r.voided.Load() }

// fenced returns the view of the moment, or a refusal if the request was made
// under another.
func (r *Replica) fenced(digest uint64) (ring.View, error) {
	v := r.view()
	if v.Digest() != digest {
		return v, &coordinator.StaleViewError{View: v}
	}
	return v, nil
}

// mayHold refuses records of keys that the node, or the owner that it stands in
// for, does not own: they would be served by nobody and repaired by nobody.
func (r *Replica) mayHold(v ring.View, req coordinator.StoreRequest, rec kv.Record) error {
	owner := req.Target
	if owner == 0 {
		owner = r.self
	}
	for _, l := range v.Active() {
		owners := l.Owners(l.Partition(req.Key.Hash()))
		if slices.Contains(owners[:min(int(rec.NMax), len(owners))], owner) {
			return nil
		}
	}
	return coordinator.ErrNotOwner
}

func (r *Replica) synced(d coordinator.Durability) bool {
	switch d {
	case coordinator.DurabilitySync:
		return true
	case coordinator.DurabilityAsync:
		return false
	case coordinator.DurabilityDefault:
	}
	return r.sync
}

// slots are where the node may hold something of the key: its own record and,
// for a stand-in, one hint for each owner.
func slots(v ring.View, key kv.Key, standIn bool) []kv.Slot {
	list := []kv.Slot{slotOf(v, key, 0)}
	if !standIn {
		return list
	}
	for _, l := range v.Active() {
		for _, id := range l.Owners(l.Partition(key.Hash())) {
			if slot := slotOf(v, key, id); !slices.Contains(list, slot) {
				list = append(list, slot)
			}
		}
	}
	return list
}

// slotOf relies on the number of partitions being the same in all layouts of a
// cluster.
func slotOf(v ring.View, key kv.Key, target kv.NodeID) kv.Slot {
	slot := kv.Slot{Target: target, Key: key}
	if active := v.Active(); len(active) > 0 {
		slot.Partition = uint16(active[0].Partition(key.Hash()))
	}
	return slot
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

// Holds returns the record that this node keeps in the slot of the key and, by
// owner, what it keeps for others, without a fence: for inspection.
func (r *Replica) Holds(key kv.Key) (kv.Record, map[kv.NodeID]kv.Record, error) {
	v := r.view()
	own, err := r.store.Get(slotOf(v, key, 0))
	if err != nil {
		return kv.Record{}, nil, err
	}
	hints := make(map[kv.NodeID]kv.Record)
	for _, slot := range slots(v, key, true)[1:] {
		rec, err := r.store.Get(slot)
		if err != nil {
			return kv.Record{}, nil, err
		}
		if !rec.Absent() {
			hints[slot.Target] = rec
		}
	}
	return own, hints, nil
}

// ValueOf returns the bytes of a sibling that this node holds, for inspection.
func (r *Replica) ValueOf(key kv.Key, target kv.NodeID, s kv.Version) ([]byte, error) {
	if !s.Value.External {
		return s.Value.Inline, nil
	}
	return r.store.Value(slotOf(r.view(), key, target), s.Dot, s.Value.Length, s.Value.Checksum)
}
