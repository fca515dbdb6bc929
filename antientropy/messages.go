package antientropy

import (
	"errors"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/vclock"
)

// Fence begins every request: two nodes can compare what they hold only if they
// agree on who owns what and on how it is hashed.
type Fence struct {
	View        uint64 // [ring.View.Digest] of the asking node
	HashVersion uint8  // [merkle.HashVersion] of the asking node
}

// Window is which bits of the nodes beneath a root are compared: all of them, or
// one of four windows of sixteen. Of two nodes that differ at least one window
// does, and hardly ever does one not: an exchange that comes again with the next
// window costs a third, and by the fourth time it has seen every difference.
type Window uint8

// Whole is the window of all bits; 1 to 4 are the others, the low bits first.
const (
	Whole Window = 0

	windows = 4
)

// of returns what is seen of the nodes.
func (w Window) of(s merkle.Summary) merkle.Summary {
	if w != Whole {
		for i := range s {
			s[i] &= 0xffff << w.shift()
		}
	}
	return s
}

func (w Window) shift() int { return 16 * (int(w) - 1) }

// Refusal is why a node does not take part in an exchange, zero if it does.
// Nothing is broken: the exchange is put off.
type Refusal uint8

// The refusals. Values are part of the messages.
const (
	RefusedView         Refusal = 1 // the nodes know different layouts
	RefusedHashVersion  Refusal = 2 // the nodes hash differently: one is to be upgraded
	RefusedUnregistered Refusal = 3 // the asked node does not know yet whether its disk is its own

	lastRefusal = RefusedUnregistered
)

// The errors that refusals stand for. Each says what has to happen first.
var (
	ErrView         = errors.New("the nodes know different layouts: they compare once they agree")
	ErrHashVersion  = errors.New("the nodes hash their trees differently: they compare once both run the same version")
	ErrUnregistered = errors.New("the node has just started: it takes part once its peers know of that")
)

// Err returns the error that the refusal stands for, nil if there is none.
func (r Refusal) Err() error {
	switch r {
	case RefusedView:
		return ErrView
	case RefusedHashVersion:
		return ErrHashVersion
	case RefusedUnregistered:
		return ErrUnregistered
	}
	return nil
}

// CompareRequest asks in which partitions the records differ that both nodes
// own.
type CompareRequest struct {
	Fence  Fence
	Window Window // for the reply
	Roots  []Root // by partition
}

// Root stands for the records of a partition that two nodes share.
type Root struct {
	Partition uint16
	Node      merkle.Node // zero: there are none
}

// CompareReply answers a [CompareRequest].
type CompareReply struct {
	Refusal Refusal
	// Starts is the count of starts under which the node is registered: it tells
	// one life of its disk from another.
	Starts uint64
	Window Window
	// Behind are the partitions that the answering node itself has still to
	// merge from the asking one before it is in good standing, in rising order.
	// It will come for them, so that they need no pushing.
	Behind []uint16
	// Differ are the partitions that differ, by number.
	Differ []Difference
}

// Difference is a partition as the answering node has it.
type Difference struct {
	Partition uint16
	Count     uint64         // records
	Inner     merkle.Summary // the nodes beneath the root, through the window
}

// ChildrenRequest asks for the leaves beneath inner nodes that differ.
type ChildrenRequest struct {
	Fence  Fence
	Window Window       // for the reply
	Trees  []InnerNodes // by partition
}

// InnerNodes are some of the nodes beneath the root of a partition.
type InnerNodes struct {
	Partition uint16
	Inner     []uint8 // rising, at least one, each below [merkle.Fanout]
}

// ChildrenReply answers a [ChildrenRequest]: the children of each inner node,
// in the order in which they were asked for.
type ChildrenReply struct {
	Refusal  Refusal
	Starts   uint64
	Window   Window
	Children []merkle.Summary // through the window
}

// Part is a leaf, or a slice of one that holds too many keys for one message:
// of 2^Bits slices the one whose number is Index, by the hash of the key.
type Part struct {
	Partition uint16
	Leaf      uint8
	Bits      uint8
	Index     uint32
}

// has reports whether a key of the leaf belongs to the part. Partition and leaf
// take the two ends of the hash, the slice its middle.
func (p Part) has(k kv.Key) bool {
	return p.Bits == 0 || uint32(k.Hash()>>8)&(1<<p.Bits-1) == p.Index
}

// KeysRequest asks which keys differ in parts of the key space.
type KeysRequest struct {
	Fence Fence
	// Held asks only which of the digests the other node holds, whoever told of
	// them; otherwise they are all that the asking node holds of the parts.
	Held  bool
	Parts []Listing
}

// Listing is digests of records of a part, rising. No key needs to travel for a
// record that both nodes have.
type Listing struct {
	Part    Part
	Digests []uint64
}

// KeysReply answers a [KeysRequest], part by part in the same order.
type KeysReply struct {
	Refusal Refusal
	Starts  uint64
	Parts   []Contrast
}

// Contrast is how the answering node's part differs from the listing.
type Contrast struct {
	// Unknown are the places, rising, in the listing of digests of which the
	// answering node holds no record.
	Unknown []uint32
	// Extra are the records of the answering node whose digests are not in the
	// listing, if they were asked for.
	Extra []Entry
	// Cut says that there are more of them than the message holds.
	Cut bool
}

// Entry is a key and what its record is known by.
type Entry struct {
	Key    kv.Key
	Digest uint64
	// Clock tells which of two records is newer. It is left out, and both sides
	// take what the other has, if it has more than [maxClock] actors.
	Clock vclock.Clock
}

// errBadMessage is wrapped by the errors of requests that no node of this
// version sends.
var errBadMessage = errors.New("a message of anti-entropy that makes no sense")
