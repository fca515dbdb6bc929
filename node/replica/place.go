package replica

import (
	"slices"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

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
