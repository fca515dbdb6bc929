package antientropy

import (
	"context"
	"errors"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
)

// Local is what this node holds as an owner, hints apart. It is safe for
// concurrent use and answers without waiting for writes.
type Local interface {
	// Tree returns the hash tree of all records of a partition with at least that
	// n_max, as of one moment: were there a moment between the trees of two n_max,
	// a record that grows from one into the other could be missed.
	Tree(partition uint16, least uint8) merkle.Tree
	// ScanLeaf calls fn with every record of a leaf that can be read, and with
	// its digest. An error of fn ends the scan and is returned as it is. If
	// records were left out because they are damaged, the error after the last
	// call of fn matches [ErrDamaged].
	ScanLeaf(partition uint16, leaf uint8, fn func(key kv.Key, r kv.Record, digest uint64) error) error
}

// ErrDamaged is matched by errors of [Local] and [Leaves] which say that
// records of a leaf cannot be read or that its tree does not agree with them.
var ErrDamaged = errors.New("records or trees of this disk are damaged")

// Leaves checks the trees of this node against its records.
type Leaves interface {
	// CheckLeaf reads a leaf and compares it with its trees: nil, [ErrDamaged],
	// or another error that says nothing about the leaf.
	CheckLeaf(partition uint16, leaf uint8) error
	// RebuildLeaf makes the trees follow the records that can be read; done is
	// called once, when that is stored or with the reason that it is not.
	RebuildLeaf(partition uint16, leaf uint8, done func(error)) error
}

// Values looks after what the records of this node keep outside: a record says
// of such a value what it must be, and so whether it can be read well.
type Values interface {
	// CheckValues reads the values of the records of a leaf, and calls lost with
	// those that are damaged or missing; checked is how many it read.
	CheckValues(partition uint16, leaf uint8, lost func(kv.Key, kv.Version)) (checked int, err error)
	// PullValue fetches a value that another node holds, and stores it in place of
	// what this disk has of it. The context carries a deadline.
	PullValue(ctx context.Context, from kv.NodeID, key kv.Key, v kv.Version) error
}

// Doubts are the leaves of this disk of which records may be missing: that a
// key of theirs is not found here proves nothing. They are forgotten when the
// process ends.
type Doubts interface {
	Doubt(partition uint16, leaf uint8)
	// Doubted reports whether a leaf is doubted, whoever said so.
	Doubted(partition uint16, leaf uint8) bool
	// Trust ends a doubt: the leaf was merged from every other owner since.
	Trust(partition uint16, leaf uint8)
}

// Ledger knows what this node has still to merge before it is in good standing.
type Ledger interface {
	// Registered reports whether the peers know of this life of the disk; before
	// that nothing is merged into it.
	Registered() bool
	// Sources returns which of the owners of a partition this node has still to
	// merge it from, none if it is in good standing, and the number of the fall
	// that this makes up for.
	Sources(partition uint16, owners []kv.NodeID) (missing []kv.NodeID, epoch uint64)
	// Merged says that all is stored here durably that a source, in the life with
	// that count of starts, held of the partition when a merge began; and that
	// Sources had returned epoch by then.
	Merged(partition uint16, source kv.NodeID, starts, epoch uint64) error
}

// Peers asks other nodes about what they hold. Every context carries a
// deadline. A reply with a [Refusal] is no error.
type Peers interface {
	Compare(ctx context.Context, to kv.NodeID, req CompareRequest) (CompareReply, error)
	Children(ctx context.Context, to kv.NodeID, req ChildrenRequest) (ChildrenReply, error)
	Keys(ctx context.Context, to kv.NodeID, req KeysRequest) (KeysReply, error)
	// Connected reports whether a connection to the node stands, without waiting.
	Connected(id kv.NodeID) bool
}

// Mover moves records between nodes. Whoever receives them asks for them and
// merges them in its own serial order. Every context carries a deadline. That a
// node is busy is a [*kv.Error] with [kv.CodeOverloaded] and a pause.
type Mover interface {
	// Pull merges the records of keys that another node holds into this one's,
	// and says of each key whether this node now holds durably all that the
	// other does.
	Pull(ctx context.Context, from kv.NodeID, keys []kv.Key, standIn bool) (held []bool, err error)
	// PullLeaves does so with all records of some leaves that this node owns;
	// without an error all of them are held durably.
	PullLeaves(ctx context.Context, from kv.NodeID, partition uint16, leaves []uint8) (records, bytes int, err error)
	// Nudge asks the node to, to pull the keys from the node from: held as for
	// Pull; room is how many keys it would take next, none until pause is over.
	Nudge(ctx context.Context, to, from kv.NodeID, keys []kv.Key, standIn bool) (held []bool, room int, pause time.Duration, err error)
}
