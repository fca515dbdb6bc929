package antientropy

import (
	"errors"
	"fmt"
	"slices"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/ring"
)

// maxExtraBytes bounds the entries of one [KeysReply].
const maxExtraBytes = 4 << 20

// ResponderConfig is what a [Responder] is made of. All of it is required and
// safe for concurrent use.
type ResponderConfig struct {
	Self   kv.NodeID
	View   func() ring.View
	Local  Local
	Ledger Ledger
	// Starts is the count of starts under which this node is registered.
	Starts func() uint64
	// Suspect is told of leaves that turned out to be damaged; it returns at
	// once. See [Exchanger.Suspect].
	Suspect func(partition uint16, leaf uint8)
}

// Responder answers what other nodes ask in their exchanges. It changes
// nothing, waits for nothing but its disk, and is safe for concurrent use.
type Responder struct {
	ResponderConfig

	surveyor surveyor
}

// NewResponder returns the responder of a node.
func NewResponder(c ResponderConfig) *Responder {
	return &Responder{ResponderConfig: c, surveyor: surveyor{self: c.Self}}
}

// admit returns what this node shares with others under the view of the fence,
// or why it does not take part.
func (r *Responder) admit(f Fence) (*territory, Refusal) {
	v := r.View()
	switch {
	case f.HashVersion != merkle.HashVersion:
		return nil, RefusedHashVersion
	case f.View != v.Digest():
		return nil, RefusedView
	case !r.Ledger.Registered():
		return nil, RefusedUnregistered
	}
	return r.surveyor.territory(v), 0
}

// Compare answers in which partitions the records differ that this node shares
// with the asking one.
func (r *Responder) Compare(from kv.NodeID, req CompareRequest) (CompareReply, error) {
	land, refusal := r.admit(req.Fence)
	reply := CompareReply{Refusal: refusal, Starts: r.Starts(), Window: req.Window}
	if refusal != 0 {
		return reply, nil
	}
	for _, asked := range req.Roots {
		least, ok := land.least(from, asked.Partition)
		if !ok {
			return CompareReply{}, notShared(from, asked.Partition)
		}
		if sources, _ := r.Ledger.Sources(asked.Partition, land.owners(asked.Partition)); slices.Contains(sources, from) {
			reply.Behind = append(reply.Behind, asked.Partition)
		}
		mine := r.Local.Tree(asked.Partition, least)
		if inner := mine.Inner(); inner.Node() != asked.Node {
			reply.Differ = append(reply.Differ, Difference{asked.Partition, mine.Count(), req.Window.of(inner)})
		}
	}
	return reply, nil
}

func notShared(from kv.NodeID, partition uint16) error {
	return fmt.Errorf("%w: node %v asks for records of partition %d that it does not share", errBadMessage, from, partition)
}

// Children answers with the leaves beneath inner nodes.
func (r *Responder) Children(from kv.NodeID, req ChildrenRequest) (ChildrenReply, error) {
	land, refusal := r.admit(req.Fence)
	reply := ChildrenReply{Refusal: refusal, Starts: r.Starts(), Window: req.Window}
	if refusal != 0 {
		return reply, nil
	}
	for _, asked := range req.Trees {
		least, ok := land.least(from, asked.Partition)
		if !ok {
			return ChildrenReply{}, notShared(from, asked.Partition)
		}
		tree := r.Local.Tree(asked.Partition, least)
		for _, i := range asked.Inner {
			reply.Children = append(reply.Children, req.Window.of(tree.Children(i)))
		}
	}
	return reply, nil
}

// Keys answers how the records of this node differ from those listed.
func (r *Responder) Keys(from kv.NodeID, req KeysRequest) (KeysReply, error) {
	land, refusal := r.admit(req.Fence)
	reply := KeysReply{Refusal: refusal, Starts: r.Starts()}
	if refusal != 0 {
		return reply, nil
	}
	room := maxExtraBytes
	for _, l := range req.Parts {
		least, ok := land.least(from, l.Part.Partition)
		if !ok {
			return KeysReply{}, notShared(from, l.Part.Partition)
		}
		c, err := r.contrast(l, least, &room, req.Held)
		if err != nil {
			return KeysReply{}, err
		}
		reply.Parts = append(reply.Parts, c)
	}
	return reply, nil
}

// contrast compares a part with a listing of it; room is how many bytes of
// entries the reply has left. held: what is not listed is not asked for.
func (r *Responder) contrast(l Listing, least uint8, room *int, held bool) (Contrast, error) {
	var c Contrast
	met := make([]bool, len(l.Digests))
	err := scanPart(r.Local, l.Part, least, func(e Entry) {
		if i, ok := slices.BinarySearch(l.Digests, e.Digest); ok {
			met[i] = true
			return
		}
		if held {
			return
		}
		if *room -= entryOverhead + len(e.Key.Bucket) + len(e.Key.Name); *room < 0 {
			c.Cut = true
			return
		}
		c.Extra = append(c.Extra, e)
	})
	if errors.Is(err, ErrDamaged) {
		r.Suspect(l.Part.Partition, l.Part.Leaf) // the rest of the leaf can be compared all the same
		err = nil
	}
	for i, ok := range met {
		if !ok {
			c.Unknown = append(c.Unknown, uint32(i))
		}
	}
	return c, err
}

// scanPart calls fn with what this node holds of a part with at least that n_max.
func scanPart(local Local, p Part, least uint8, fn func(Entry)) error {
	return local.ScanLeaf(p.Partition, p.Leaf, func(key kv.Key, r kv.Record, digest uint64) error {
		if r.NMax >= least && p.has(key) {
			fn(Entry{key, digest, r.Clock})
		}
		return nil
	})
}
