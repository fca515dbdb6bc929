package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/vclock"
)

// restorer does with records in quarantine what a person decides, since nobody
// else can: its values are written again, or it is discarded.
//
// A restored value is a new write that has seen nothing. So it replaces nothing,
// whatever has become of its key, and stands beside what is there as a sibling.
// Merging the old record would carry out again what that had replaced or deleted,
// and let dots live that reaping rests on being gone.
type restorer struct {
	*Core

	turn chan struct{} // held by who settles a record, one at a time
	// unsure are the write ids of restores that may have written something, by the
	// digests of their records: what is tried again soon is the same write.
	unsure map[uint64]kv.WriteID
}

func newRestorer(c *Core) *restorer {
	return &restorer{Core: c, turn: make(chan struct{}, 1), unsure: make(map[uint64]kv.WriteID)}
}

// inQuarantine is a record that is to be settled.
type inQuarantine struct {
	kv.Record

	slot   kv.Slot
	digest uint64
}

// Restore does what [api.Repairs] promises of it.
func (r *restorer) Restore(ctx context.Context, key kv.Key, hash string) (api.Settled, error) {
	var out api.Settled
	err := r.settle(key, hash, func(q inQuarantine) (err error) {
		out, err = r.restore(ctx, q)
		return err
	})
	return out, err
}

// Discard does what [api.Repairs] promises of it.
func (r *restorer) Discard(ctx context.Context, key kv.Key, hash string) (api.Settled, error) {
	var out api.Settled
	err := r.settle(key, hash, func(q inQuarantine) error {
		out = api.Settled{Record: q.Record, Became: slices.Repeat([]string{api.BecameDiscarded}, len(q.Live)), Removed: true}
		return r.remove(ctx, q)
	})
	return out, err
}

// settle calls fn with the record that is meant, while no other is settled.
func (r *restorer) settle(key kv.Key, hash string, fn func(inQuarantine) error) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	default:
		return &kv.Error{
			Code: kv.CodeOverloaded, RetryAfter: time.Second,
			Message: "another record is restored or discarded on this node: try again when that is done",
		}
	}
	q, err := r.find(key, hash)
	if err == nil {
		err = fn(q)
	}
	if errors.Is(err, errNotThatRecord) {
		return &kv.Error{
			Code: kv.CodePrecondition, Message: "what is in quarantine of the key has changed since it was listed: list it again",
		}
	}
	return err
}

// errNotThatRecord says that another record is in quarantine than was meant, or
// none any more.
var errNotThatRecord = errors.New("another record is in quarantine")

// find returns the record that is meant. One that the node will judge by itself
// is not to be settled: what it holds may come back from other owners.
func (r *restorer) find(key kv.Key, hash string) (inQuarantine, error) {
	q := inQuarantine{slot: kv.Slot{Target: kv.Quarantine, Partition: uint16(r.partition(key)), Key: key}}
	var err error
	if q.Record, err = r.store.Get(q.slot); err != nil {
		return q, err
	}
	q.digest = kv.Digest(key, kv.AppendRecord(nil, q.Record))
	missing, _ := r.ledger.Sources(q.slot.Partition, repairPorts{r.Core}.Owners(q.slot.Partition, kv.MaxN))
	switch {
	case q.Absent():
		return q, &kv.Error{Code: kv.CodeNotFound, Message: "nothing of the key is in quarantine here: see starling quarantine"}
	case api.RecordHash(q.Record) != hash:
		return q, errNotThatRecord
	case len(missing) > 0 || !r.admission.Registered():
		return q, &kv.Error{
			Code: kv.CodeNotReady, RetryAfter: time.Second,
			Message: "it waits: first the node merges what other owners hold of the partition, " + r.names(missing) +
				"; what is needed then comes back by itself",
		}
	}
	return q, nil
}

// restore writes the values of q that do not live, and removes q once any does.
func (r *restorer) restore(ctx context.Context, q inQuarantine) (api.Settled, error) {
	got, err := r.coordinator.Get(ctx, coordinator.Get{Options: optionsOf(q), Key: q.slot.Key})
	if err != nil {
		return api.Settled{}, err
	}
	id := r.idOf(q)
	out := api.Settled{Record: q.Record, Became: make([]string, len(q.Live))}
	for i, v := range q.Live {
		out.Became[i] = fate(q.Record, v, got, r.world.Now())
		if out.Became[i] != api.BecameRestored {
			continue
		}
		data, err := r.replica.ValueOf(q.slot.Key, kv.Quarantine, v)
		there := coordinator.Value{Version: v, Data: data}
		switch {
		case errors.Is(err, storage.ErrCorrupt):
			out.Became[i] = api.BecameDamaged
		case err != nil:
			return out, err
		case slices.ContainsFunc(got.Values, func(o coordinator.Value) bool { return stands(o, there) }):
			out.Became[i] = api.BecameThere
		default:
			if err := r.write(ctx, q, there, id); err != nil {
				return out, err
			}
			got.Values = append(got.Values, there)
		}
	}
	if slices.Contains(out.Became, api.BecameThere) {
		if err := r.hold(ctx, q, got); err != nil {
			return out, err
		}
	}
	return out, r.finish(ctx, q, &out)
}

// hold returns once a quorum of the owners of what lives holds what got shows: it
// may be of a write that was never acknowledged. The record in quarantine may have
// asked for more owners than the key has now.
func (r *restorer) hold(ctx context.Context, q inQuarantine, got coordinator.Got) error {
	o := optionsOf(q)
	o.N = 1
	for _, v := range got.Values {
		o.N = max(o.N, int(v.Value.N))
	}
	_, err := r.coordinator.Get(ctx, coordinator.Get{
		Options: o, Key: q.slot.Key, Monotonic: true, Floor: got.Token.Floor, FloorReap: got.Token.Reap, NoValues: true,
	})
	return err
}

// fate says what restoring makes of a sibling of q, beside what a quorum holds
// of its key. A value that nobody holds and nobody has seen is to be restored.
func fate(q kv.Record, v kv.Version, got coordinator.Got, now time.Time) string {
	lives := func(o coordinator.Value) bool {
		return o.Dot == v.Dot || !v.Value.WriteID.IsZero() && o.Value.WriteID == v.Value.WriteID
	}
	seen := got.Token.Seen.Covers
	switch {
	case v.Value.Kind == kv.KindTombstone:
		return api.BecameDelete
	case slices.ContainsFunc(got.Values, lives):
		return api.BecameThere
	case seen(v.Dot), slices.ContainsFunc(q.Attempts(v.Value.WriteID), seen): // with one attempt, all are replaced
		return api.BecameReplaced
	case v.Value.Expires != 0 && timeLeft(v.Value, now) < coordinator.MinTTL:
		return api.BecameExpired
	}
	return api.BecameRestored
}

// stands reports whether o, which lives, makes a copy of v needless: it is the
// same to a reader, and is shown for as long, but for what clocks differ.
func stands(o, v coordinator.Value) bool {
	lasts := o.Value.Expires == 0 || v.Value.Expires != 0 && v.Value.Expires-o.Value.Expires <= coordinator.MinTTL.Milliseconds()
	return lasts && o.Value.ContentType == v.Value.ContentType && slices.Equal(o.Value.Meta, v.Value.Meta) && bytes.Equal(o.Data, v.Data)
}

func timeLeft(s kv.Sibling, now time.Time) time.Duration { return time.UnixMilli(s.Expires).Sub(now) }

// optionsOf asks of all owners that the record had that a quorum answers and,
// since the copy in quarantine will go, has on its disks what it acknowledges.
func optionsOf(q inQuarantine) coordinator.Options {
	return coordinator.Options{N: int(q.NMax), R: coordinator.Quorum, W: coordinator.Quorum, Durability: coordinator.DurabilitySync}
}

// write writes v as a value that has seen nothing.
func (r *restorer) write(ctx context.Context, q inQuarantine, v coordinator.Value, id kv.WriteID) error {
	put := coordinator.Put{
		Options: optionsOf(q), Key: q.slot.Key, Value: v.Data, ContentType: v.Value.ContentType, Meta: v.Value.Meta,
		WriteID: writeIDOf(id, v.Dot),
	}
	if v.Value.Expires != 0 {
		put.TTL = min(timeLeft(v.Value, r.world.Now()), coordinator.MaxTTL)
	}
	_, err := r.coordinator.Put(ctx, put)
	if e, ok := errors.AsType[*kv.Error](err); ok && e.Outcome == kv.Unknown {
		r.unsure[q.digest] = id
	}
	return err
}

// writeIDOf names the write of one value among those that a restore writes.
func writeIDOf(restore kv.WriteID, dot vclock.Dot) kv.WriteID {
	sum := xxhash.Sum64(vclock.AppendDot(restore[:], dot))
	return kv.NewWriteID(restore.Issued(), func() uint64 { return sum })
}

// idOf returns the write id of a restore of q: that of the last one, if it may
// have written something and its id is good for long enough.
func (r *restorer) idOf(q inQuarantine) kv.WriteID {
	now := r.world.Now()
	maps.DeleteFunc(r.unsure, func(_ uint64, id kv.WriteID) bool { return now.Sub(id.Issued()) > coordinator.WriteIDWindow/2 })
	if id, ok := r.unsure[q.digest]; ok {
		return id
	}
	return kv.NewWriteID(now, r.world.Random)
}

// finish removes q if any of its values lives and none was lost to damage.
func (r *restorer) finish(ctx context.Context, q inQuarantine, out *api.Settled) error {
	lives := slices.ContainsFunc(out.Became, func(b string) bool { return b == api.BecameRestored || b == api.BecameThere })
	if !lives || slices.Contains(out.Became, api.BecameDamaged) {
		return nil
	}
	err := r.remove(ctx, q)
	out.Removed = err == nil
	return err
}

// remove removes q from quarantine if it is still what it was.
func (r *restorer) remove(ctx context.Context, q inQuarantine) error {
	err := shelves{r.store, r.replica}.discard(ctx, q.slot, q.digest)
	if err == nil {
		delete(r.unsure, q.digest)
		r.repairs.release.taken(q.slot.Partition)
	}
	return err
}

// names lists members by their names.
func (r *restorer) names(ids []kv.NodeID) string {
	if len(ids) == 0 {
		return "once enough of them know of its start"
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = r.name(id)
	}
	slices.Sort(names)
	return fmt.Sprintf("of which %s must be up", strings.Join(names, ", "))
}
