package storage

import (
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/vclock"
)

// Change is what an update makes of a record.
type Change struct {
	// Record replaces what is stored; an absent one removes it.
	Record kv.Record
	// Blobs are the external values that Record holds live and the old record
	// did not. Others are ignored, save that a blob of a value held before is
	// written again, which repairs a damaged one.
	Blobs []kv.Blob
	// Same says that there is nothing to write: what is stored is as it should
	// be. Record and Blobs are ignored.
	Same bool
}

// MissingBlobError says which external values a record refers to that were
// neither supplied nor kept. It wraps [ErrMissingBlob].
type MissingBlobError struct {
	Slot kv.Slot
	Dots []vclock.Dot
}

func (e *MissingBlobError) Error() string {
	return fmt.Sprintf("%v: %v of %v", ErrMissingBlob, e.Dots, slotAddress(e.Slot))
}

// Unwrap returns [ErrMissingBlob].
func (e *MissingBlobError) Unwrap() error { return ErrMissingBlob }

// plan is a change turned into operations.
type plan struct {
	// pieces are new and immutable. They must be durable no later than entry.
	pieces []Op
	// entry holds the record and the deletion of what it no longer refers to.
	entry []Op
	// keeps is set if the record refers to values that earlier commits wrote.
	keeps bool
	// deltas are the changes of the trees that go with entry.
	deltas []merkle.Delta
	// next is what the entry holds then.
	next result
}

// planChange turns the change of what slot holds under its storage key into
// operations. Its errors are [ErrBadBlob] and [ErrMissingBlob].
func planChange(slot kv.Slot, key []byte, old result, c Change, id func() uint64) (plan, error) {
	p, err := planValues(slot, old.record, c)
	if err != nil {
		return plan{}, err
	}
	if !old.ref.isZero() {
		p.entry = append(p.entry, deletePieces(partAddress(old.ref.id), old.ref.length)...)
	}
	if c.Record.Absent() {
		p.entry = append(p.entry, Op{Key: key, Delete: true})
	} else {
		envelope := kv.AppendLocal(newEnvelope(mineBytes+kv.SizeHint(c.Record)), c.Record)
		p.next.record = c.Record
		if slot.Target == 0 {
			p.next.digest = kv.Digest(slot.Key, kv.Canonical(envelope[envelopeBytes:]))
		}
		parts, entry, ref := sealEntry(key, envelope, id)
		p.pieces, p.next.ref = append(p.pieces, parts...), ref
		p.entry = append(p.entry, entry)
	}
	if slot.Target == 0 {
		p.deltas = deltas(slot, old, p.next)
	}
	return p, nil
}

// deltas returns how the trees change when old in slot becomes next. There is
// at least one, if it changes nothing: what else becomes of the leaf may depend
// on this record having been written, see [trees].
func deltas(slot kv.Slot, old, next result) []merkle.Delta {
	leaf := slot.Key.Leaf()
	from := merkle.ID{Partition: slot.Partition, NMax: old.record.NMax}
	to := merkle.ID{Partition: slot.Partition, NMax: next.record.NMax}
	was, is := !old.record.Absent(), !next.record.Absent()
	switch {
	case was && is && from != to:
		return []merkle.Delta{merkle.Removed(from, leaf, old.digest), merkle.Added(to, leaf, next.digest)}
	case was && !is:
		return []merkle.Delta{merkle.Removed(from, leaf, old.digest)}
	case !was && is:
		return []merkle.Delta{merkle.Added(to, leaf, next.digest)}
	}
	return []merkle.Delta{merkle.Replaced(to, leaf, old.digest, next.digest)}
}

// planValues plans the external values of a change.
func planValues(slot kv.Slot, old kv.Record, c Change) (plan, error) {
	var p plan
	var missing []vclock.Dot
	for _, v := range c.Record.Live {
		i := slices.IndexFunc(c.Blobs, func(b kv.Blob) bool { return b.Dot == v.Dot })
		switch {
		case !v.Value.External:
		case i >= 0:
			if err := checkBlob(v, c.Blobs[i]); err != nil {
				return plan{}, fmt.Errorf("%v of %v: %w", v.Dot, slotAddress(slot), err)
			}
			p.pieces = append(p.pieces, setPieces(valueAddress(slot, v.Dot), c.Blobs[i].Data)...)
		case holdsExternal(old, v.Dot):
			p.keeps = true
		default:
			missing = append(missing, v.Dot)
		}
	}
	if missing != nil {
		return plan{}, &MissingBlobError{Slot: slot, Dots: missing}
	}
	for _, v := range old.Live {
		if v.Value.External && !holdsExternal(c.Record, v.Dot) {
			p.entry = append(p.entry, deletePieces(valueAddress(slot, v.Dot), v.Value.Length)...)
		}
	}
	return p, nil
}

func checkBlob(v kv.Version, b kv.Blob) error {
	if uint64(len(b.Data)) != v.Value.Length || xxhash.Sum64(b.Data) != v.Value.Checksum {
		return fmt.Errorf("%w: %d bytes with checksum %016x, the record states %d with %016x",
			ErrBadBlob, len(b.Data), xxhash.Sum64(b.Data), v.Value.Length, v.Value.Checksum)
	}
	if pieceCount(v.Value.Length) > maxPieces {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, v.Value.Length)
	}
	return nil
}

func holdsExternal(r kv.Record, d vclock.Dot) bool {
	i, ok := slices.BinarySearchFunc(r.Live, d, func(v kv.Version, d vclock.Dot) int { return v.Dot.Compare(d) })
	return ok && r.Live[i].Value.External
}

// planFact plans storing fact under key, or removing it if it is nil.
func planFact(key, fact []byte, oldRef reference, id func() uint64) plan {
	var p plan
	if !oldRef.isZero() {
		p.entry = deletePieces(partAddress(oldRef.id), oldRef.length)
	}
	if fact == nil {
		p.entry = append(p.entry, Op{Key: key, Delete: true})
		return p
	}
	parts, entry, ref := sealEntry(key, append(newEnvelope(len(fact)), fact...), id)
	p.pieces, p.next = parts, result{fact: fact, ref: ref}
	p.entry = append(p.entry, entry)
	return p
}
