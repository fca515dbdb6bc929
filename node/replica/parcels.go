package replica

import (
	"errors"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/node/storage"
)

// pageBytes is how much of keys and records goes into one answer, one record
// more at most.
const pageBytes = 1 << 20

// Parcels returns what this node holds of keys, for standIn merged with what it
// keeps for other owners, in their order and about 1 MiB at a time: taken says
// how many of the keys it got to. A key of those that is missing among the
// parcels cannot be read. fence is the digest of the view of the one who asks.
//
// It serves whatever the node's standing is.
func (r *Replica) Parcels(fence uint64, keys []kv.Key, standIn bool) (parcels []kv.Parcel, taken int, err error) {
	v, err := r.fenced(fence)
	if err != nil {
		return nil, 0, err
	}
	parcels = make([]kv.Parcel, 0, len(keys))
	for size := 0; taken < len(keys) && size < pageBytes; taken++ {
		key := keys[taken]
		p := kv.Parcel{Key: key, Reap: r.numbers.stored(slotOf(v, key, 0).Partition)}
		rec, err := r.held(v, key, standIn)
		switch {
		case errors.Is(err, storage.ErrCorrupt):
			continue
		case err != nil:
			return nil, 0, told(err)
		case !rec.Absent():
			p.Record = kv.AppendRecord(nil, rec)
		}
		parcels = append(parcels, p)
		size += parcelSize(p)
	}
	return parcels, taken, nil
}

// parcelSize is about how many bytes a parcel takes on its way.
func parcelSize(p kv.Parcel) int { return len(p.Key.Bucket) + len(p.Key.Name) + len(p.Record) + 16 }

var errPageFull = errors.New("the page is full")

// LeafParcels returns the records of leaves of a partition that the node to owns,
// in the order of the leaves given and about 1 MiB at a time: more says that the
// page ended before the leaves did. It goes on behind the key after, of the first
// leaf, if that is set. Records that cannot be read are left out, which damaged
// says.
func (r *Replica) LeafParcels(fence uint64, to kv.NodeID, partition uint16, leaves []uint8, after kv.Key) (
	parcels []kv.Parcel, more, damaged bool, err error,
) {
	v, err := r.fenced(fence)
	if err != nil {
		return nil, false, false, err
	}
	reap, size := r.numbers.stored(partition), 0
	var asked [merkle.Leaves]bool
	for _, leaf := range leaves {
		asked[leaf] = true
	}
	for len(leaves) > 0 {
		run := leaves[:r.adjoining(partition, leaves)]
		err := r.store.ScanLeaves(partition, run[0], run[len(run)-1], after, func(key kv.Key, rec kv.Record, _ uint64) error {
			switch {
			case !asked[key.Leaf()], !owns(v, key, rec.NMax, to):
				return nil
			case size >= pageBytes:
				return errPageFull
			}
			p := kv.Parcel{Key: key, Reap: reap, Record: kv.AppendRecord(nil, rec)}
			parcels = append(parcels, p)
			size += parcelSize(p)
			return nil
		})
		if errors.Is(err, storage.ErrCorrupt) {
			r.doubtDamaged(partition, run)
			damaged = true
		}
		switch {
		case errors.Is(err, errPageFull):
			return parcels, true, damaged, nil
		case err != nil && !errors.Is(err, storage.ErrCorrupt):
			return nil, false, false, told(err)
		}
		leaves, after = leaves[len(run):], kv.Key{}
	}
	return parcels, false, damaged, nil
}

// adjoining returns how many of the first leaves one scan reads without meeting
// records of others: between them there are none.
func (r *Replica) adjoining(partition uint16, leaves []uint8) int {
	n := 1
	for ; n < len(leaves); n++ {
		for leaf := leaves[n-1] + 1; leaf < leaves[n]; leaf++ {
			if !r.store.LeafEmpty(partition, leaf) {
				return n
			}
		}
	}
	return n
}

// doubtDamaged makes those of the leaves doubted that hold damaged records.
func (r *Replica) doubtDamaged(partition uint16, leaves []uint8) {
	for _, leaf := range leaves {
		err := r.store.ScanLeaf(partition, leaf, func(kv.Key, kv.Record, uint64) error { return nil })
		if errors.Is(err, storage.ErrCorrupt) {
			r.standing.Doubt(partition, leaf)
		}
	}
}
