package hints

import (
	"context"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Missed says that Target, an owner of a key, has not confirmed a write of it.
// It is a hint without the record, which this node has: replay lets the target
// fetch it as it is then, so that hints of one key coalesce by themselves.
type Missed struct {
	Target    kv.NodeID
	Partition uint16
	Key       kv.Key
	Since     time.Time // of the first write missed, to the millisecond
	// Edition is drawn by the store whenever the entry is written, and is as a
	// scan found it. To remove an entry that was written again since, and so has
	// another, does nothing.
	Edition uint64
}

// Store keeps what was missed, in one serial order.
type Store interface {
	// SubmitMissed adds entries, which replace those that are there already, and
	// then removes others. If it returns nil, done is called once, in the serial
	// order, and told of each of remove whether it was. done must return at once.
	SubmitMissed(add, remove []Missed, done func(removed []bool, err error)) error
	// ScanMissed calls fn with the entries for one target, in the same order
	// each time, until fn returns an error, which it returns as it is.
	ScanMissed(target kv.NodeID, fn func(Missed) error) error
	// MissedTargets returns, sorted, the targets that have entries.
	MissedTargets() ([]kv.NodeID, error)
	// Get returns what a slot holds, the zero Record if that is nothing.
	Get(slot kv.Slot) (kv.Record, error)
}

// Copies are the records that this node keeps in the place of owners. They are
// data: each may be one of the w copies of an acknowledged write.
type Copies interface {
	// HintTargets returns, sorted, the owners for which there are copies.
	HintTargets() ([]kv.NodeID, error)
	// ScanHints calls fn with the copies for one owner, in the same order each
	// time, until fn returns an error, which it returns as it is.
	ScanHints(target kv.NodeID, fn func(kv.Slot, kv.Record) error) error
	// DropHint removes a copy if its digest is still that, and else leaves it.
	// If it returns nil, done is called once. done must return at once.
	DropHint(slot kv.Slot, digest uint64, done func(error)) error
}

// Peers reaches the other nodes.
type Peers interface {
	// Connected reports whether a connection to the node stands, without
	// waiting. It does to this node itself.
	Connected(id kv.NodeID) bool
	// Nudge asks one node to fetch keys from another and to merge them into what
	// it holds. standIn says that the source keeps some of them for
	// others; where both are this node, it takes these as its own. held says of
	// each key whether it holds it then, durably; room is how many keys it would
	// take next, and pause when, if that is none. That it is busy is a
	// [*kv.Error] of [kv.CodeOverloaded] with a pause.
	Nudge(ctx context.Context, to, from kv.NodeID, keys []kv.Key, standIn bool) (
		held []bool, room int, pause time.Duration, err error)
}

// Places tells who owns what at present.
type Places interface {
	// Owners returns the first n owners of a partition in every active layout,
	// each once. n may exceed their number.
	Owners(partition uint16, n int) []kv.NodeID
	// Digest stands for all that Owners goes by.
	Digest() uint64
}
