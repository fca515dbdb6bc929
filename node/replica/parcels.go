package replica

import (
	"cmp"
	"errors"
	"strings"

	"github.com/starling-kv/starling/kv"
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
	for i, leaf := range leaves {
		err := r.store.ScanLeaf(partition, leaf, func(key kv.Key, rec kv.Record, _ uint64) error {
			switch {
			case i == 0 && after != kv.Key{} && compareStored(key, after) <= 0, !owns(v, key, rec.NMax, to):
				return nil
			case size >= pageBytes:
				return errPageFull
			}
			p := kv.Parcel{Key: key, Reap: reap, Record: kv.AppendRecord(nil, rec)}
			parcels = append(parcels, p)
			size += parcelSize(p)
			return nil
		})
		switch {
		case errors.Is(err, errPageFull):
			return parcels, true, damaged, nil
		case errors.Is(err, storage.ErrCorrupt):
			r.standing.Doubt(partition, leaf)
			damaged = true
		case err != nil:
			return nil, false, false, told(err)
		}
	}
	return parcels, false, damaged, nil
}

// compareStored orders keys as the store scans them.
func compareStored(a, b kv.Key) int {
	return cmp.Or(cmp.Compare(len(a.Bucket), len(b.Bucket)), strings.Compare(a.Bucket, b.Bucket), strings.Compare(a.Name, b.Name))
}
