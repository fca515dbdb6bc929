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
	Log      *zap.Logger
}

// New returns the replica of one node, with the reap numbers that its store
// keeps.
func New(c Config) (*Replica, error) {
	r := &Replica{self: c.Self, store: c.Store, view: c.View, sync: c.Sync, standing: c.Standing, log: c.Log}
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

// Fetch returns what this node holds of a key. For a stand-in this includes
// what it keeps for other owners.
func (r *Replica) Fetch(req coordinator.FetchRequest) (coordinator.FetchReply, error) {
	reply, waits, err := r.FetchNow(req)
	if !waits {
		return reply, err
	}
	v, err := r.fenced(req.Fence.Digest)
	if err != nil {
		return coordinator.FetchReply{}, err
	}
	own := slotOf(v, req.Key, 0)
	r.heed(own.Partition, req.Reap)
	// The look at the record comes after the one at the leaf: what was mended
	// between them is found.
	agrees := r.leafAgrees(own)
	reply, err = r.look(v, own, req)
	reply.Standing = reply.Standing && (agrees || !reply.Record.Absent())
	return reply, err
}

// FetchNow is [Replica.Fetch] where that takes no more than a look at the record.
// Otherwise it returns waits: a reap number is to be learnt first, or the record
// is not found, and its leaf must be read to know what that means.
func (r *Replica) FetchNow(req coordinator.FetchRequest) (reply coordinator.FetchReply, waits bool, err error) {
	v, err := r.fenced(req.Fence.Digest)
	if err != nil {
		return coordinator.FetchReply{}, false, err
	}
	own := slotOf(v, req.Key, 0)
	if r.numbers.stored(own.Partition) < req.Reap && r.standing.Registered() {
		return coordinator.FetchReply{}, true, nil
	}
	reply, err = r.look(v, own, req)
	counts := err == nil && reply.Standing && !req.StandIn
	return reply, counts && reply.Record.Absent() && !r.store.LeafEmpty(own.Partition, req.Key.Leaf()), err
}

// look reads the record, and says whether it counts if it is there.
func (r *Replica) look(v ring.View, own kv.Slot, req coordinator.FetchRequest) (reply coordinator.FetchReply, err error) {
	// The number comes before the record: what is read later holds nothing that
	// was reaped under it. The standing must be good before and after: what was
	// merged or lost meanwhile was not there to be read.
	reply.Reap = r.numbers.stored(own.Partition)
	stands := r.stands(v, own)
	if reply.Record, err = r.held(v, req.Key, req.StandIn); err != nil {
		return coordinator.FetchReply{}, told(err)
	}
	reply.Standing = stands && r.stands(v, own)
	reply.Record.Mine = kv.Mine{}
	return reply, nil
}

// held is what this node holds of a key, for a stand-in merged with what it
// keeps for other owners.
func (r *Replica) held(v ring.View, key kv.Key, standIn bool) (kv.Record, error) {
	var merged kv.Record
	for i, slot := range slots(v, key, standIn) {
		rec, err := r.get(slot)
		switch {
		case err != nil:
			return kv.Record{}, err
		case i == 0:
			merged = rec
		default:
			merged = merged.Merge(rec)
		}
	}
	return merged, nil
}

func (r *Replica) get(slot kv.Slot) (kv.Record, error) {
	rec, err := r.store.Get(slot)
	r.notice(slot, err)
	return rec, err
}

// stored counts a record that is acknowledged.
func (r *Replica) stored(slot kv.Slot, err error) {
	if err == nil {
		r.acked.Add(1)
	}
	r.notice(slot, err)
}

// notice makes the leaf of a damaged record doubted, so that it is repaired from
// the other owners.
func (r *Replica) notice(slot kv.Slot, err error) {
	if slot.Target == 0 && errors.Is(err, storage.ErrCorrupt) {
		r.standing.Doubt(slot.Partition, slot.Key.Leaf())
	}
}

// stands reports whether an answer of this node counts. It must have merged from
// all owners, however few a request asks: what was written to more, and
// acknowledged by them, is read by few. In a leaf that is doubted no record does: one that took the place of a
// damaged one may lack what only that one held.
func (r *Replica) stands(v ring.View, slot kv.Slot) bool {
	return r.standing.Registered() && r.standing.Standing(slot.Partition, firstOwners(v, slot.Partition, kv.MaxN)) &&
		!r.standing.Doubted(slot.Partition, slot.Key.Leaf())
}

// leafAgrees reports whether the leaf of a key holds what its trees say: only
// then it counts that a key is not found in it, for a damaged block of the disk
// hides its records.
func (r *Replica) leafAgrees(slot kv.Slot) bool {
	err := r.store.CheckLeaf(slot.Partition, slot.Key.Leaf())
	if errors.Is(err, storage.ErrLeaf) {
		r.standing.Doubt(slot.Partition, slot.Key.Leaf())
	}
	return err == nil
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

// fenced returns the view of the moment, or a refusal if the request was made
// under another.
func (r *Replica) fenced(digest uint64) (ring.View, error) {
	v := r.view()
	if v.Digest() != digest {
		return v, &coordinator.StaleViewError{View: v}
	}
	return v, nil
}

// admitted is fenced for what changes records: a node of which the cluster does
// not know yet that it started takes nothing, for its disk may be an old one.
func (r *Replica) admitted(digest uint64) (ring.View, error) {
	if !r.standing.Registered() {
		return ring.View{}, errNotRegistered()
	}
	return r.fenced(digest)
}

func errNotRegistered() error {
	return &kv.Error{
		Code: kv.CodeNotReady, Outcome: kv.NotApplied, RetryAfter: time.Second,
		Message: "the node has started and waits for a majority of the members to know it: try again later",
	}
}

// owns reports whether a node is among the first n owners of a key in any active
// layout.
func owns(v ring.View, key kv.Key, n uint8, id kv.NodeID) bool {
	for _, l := range v.Active() {
		owners := l.Owners(l.Partition(key.Hash()))
		if slices.Contains(owners[:min(int(n), len(owners))], id) {
			return true
		}
	}
	return false
}

// firstOwners lists the first n owners of a partition in every active layout.
func firstOwners(v ring.View, partition uint16, n int) []kv.NodeID {
	var list []kv.NodeID
	for i, l := range v.Active() {
		owners := l.Owners(ring.Partition(partition))
		owners = owners[:min(n, len(owners))]
		if i == 0 {
			list = slices.Clip(owners) // most often all there is: shared, not copied
			continue
		}
		for _, id := range owners {
			if !slices.Contains(list, id) {
				list = append(list, id)
			}
		}
	}
	return list
}

// synced reports whether a write is acknowledged only once it is synced. If not,
// the node has noted for its next start that such writes may be lost.
func (r *Replica) synced(d coordinator.Durability) (bool, error) {
	if d == coordinator.DurabilitySync || d == coordinator.DurabilityDefault && r.sync {
		return true, nil
	}
	return false, told(r.standing.BeforeUnsynced())
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
