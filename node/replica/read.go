package replica

import (
	"errors"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/ring"
)

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
// acknowledged by them, is read by few. In a leaf that is doubted no record does:
// one that took the place of a damaged one may lack what only that one held.
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
