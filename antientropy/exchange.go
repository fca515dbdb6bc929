package antientropy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
)

// Sizes of what is asked for at once. They keep a message at some hundred
// kilobytes, and what is found between two looks at some megabytes.
const (
	compareShares = 1 << 10 // partitions compared by one message
	childrenAsked = 1 << 11 // inner nodes asked for by one message
	looksRecords  = 1 << 14 // records listed by one message
	looksParts    = 1 << 10 // parts listed by one message
	looksFound    = 1 << 15 // discords found before they are looked at again
	pullKeys      = 256     // keys pulled, or nudged about, by one call
	streamRecords = 1 << 14 // records, about, that one call streams
)

// verdict is what an exchange found out about a partition.
type verdict uint8

// The verdicts, from good to bad: a partition has the worst of its leaves.
const (
	same       verdict = iota // nothing differed, writes under way apart
	healed                    // all that differed was merged on both sides
	left                      // it differs, and is not for this exchange: the peer comes for it itself, say
	unfinished                // it may differ still
)

// errRestarted ends an exchange with a peer that began another life meanwhile.
var errRestarted = errors.New("the peer was restarted during the exchange")

// exchange is one conversation with one peer over at most [compareShares]
// partitions. It is used by one goroutine.
type exchange struct {
	*Exchanger

	peer   kv.NodeID
	land   *territory
	shares []share // by partition
	// eager is set where this node has to become whole: it takes all that
	// differs at the first look, and gives nothing.
	eager  bool
	bucket string // heal only keys of this one; "": all
	window Window

	differed []uint16  // partitions whose roots were not the same, rising
	verdicts []verdict // of the shares; final when run returns
	notes    []verdict // of the shares that differed, so far
	starts   uint64    // of the peer's life, once met
	met      bool
	tally    tally
	scratch  []byte
}

// tally is what an exchange counted.
type tally struct {
	differ, healed uint64 // keys
	records, bytes uint64 // streamed by leaves
	compared       uint64 // bytes of messages that compare, both ways
}

// run compares the shares and heals them. What verdicts says by then holds also
// if it fails.
func (e *exchange) run(ctx context.Context) error {
	e.verdicts, e.notes = make([]verdict, len(e.shares)), make([]verdict, len(e.shares))
	for i := range e.verdicts {
		e.verdicts[i] = unfinished
	}
	list, err := e.compare(ctx)
	if err == nil {
		err = e.settle(ctx, list)
	}
	if err == nil && e.eager && len(list) > 0 {
		_, err = e.askRoots(ctx) // tells whether all came from the life that was compared
	}
	if err != nil {
		return err
	}
	for _, c := range list {
		i := e.index(c.partition)
		e.verdicts[i] = e.notes[i]
	}
	return nil
}

// compare returns the partitions that differ and are to be healed; the verdict
// on the others is final.
func (e *exchange) compare(ctx context.Context) ([]canvass, error) {
	reply, err := e.askRoots(ctx)
	if err != nil {
		return nil, err
	}
	for i := range e.verdicts {
		e.verdicts[i] = same
	}
	var list []canvass
	for _, d := range reply.Differ {
		e.differed = append(e.differed, d.Partition)
		i := e.index(d.Partition)
		if i < 0 {
			return nil, fmt.Errorf("%w: partition %d was not asked for", errBadMessage, d.Partition)
		}
		if _, comes := slices.BinarySearch(reply.Behind, d.Partition); comes && !e.eager {
			e.verdicts[i] = left
			continue
		}
		e.verdicts[i] = unfinished
		list = append(list, newCanvass(e.shares[i], e.window, e.Local.Tree(d.Partition, e.shares[i].least), d))
	}
	return list, nil
}

func (e *exchange) askRoots(ctx context.Context) (CompareReply, error) {
	req := CompareRequest{Fence: e.fence(), Window: e.window, Roots: make([]Root, len(e.shares))}
	for i, s := range e.shares {
		tree := e.Local.Tree(s.partition, s.least)
		req.Roots[i] = Root{s.partition, tree.Root()}
	}
	reply, err := ask(ctx, e, e.Peers.Compare, req)
	if err == nil {
		err = e.meet(reply.Refusal, reply.Starts)
	}
	if err == nil && reply.Window != e.window {
		err = fmt.Errorf("%w: window %d where %d was asked for", errBadMessage, reply.Window, e.window)
	}
	return reply, err
}

// settle heals the partitions: first those of which this node has nothing.
func (e *exchange) settle(ctx context.Context, list []canvass) error {
	var partly []canvass
	var listed []place
	for _, c := range list {
		if c.mine.Count() > 0 {
			partly = append(partly, c)
			continue
		}
		more, err := e.stream(ctx, c.filled())
		if err != nil {
			return err
		}
		listed = append(listed, more...)
	}
	if err := e.settleKeys(ctx, listed); err != nil {
		return err
	}
	for len(partly) > 0 {
		n := batchOfTrees(partly)
		sites, err := e.descend(ctx, partly[:n])
		if err != nil {
			return err
		}
		if err := e.settleSites(ctx, sites); err != nil {
			return err
		}
		partly = partly[n:]
	}
	return nil
}

// descend finds the leaves that differ.
func (e *exchange) descend(ctx context.Context, list []canvass) ([]site, error) {
	req := ChildrenRequest{Fence: e.fence(), Window: e.window}
	asked := 0
	for _, c := range list {
		if len(c.inner) > 0 {
			req.Trees = append(req.Trees, InnerNodes{c.partition, c.inner})
			asked += len(c.inner)
		}
	}
	if asked == 0 { // they became the same
		return nil, nil
	}
	reply, err := ask(ctx, e, e.Peers.Children, req)
	if err == nil {
		err = e.meet(reply.Refusal, reply.Starts)
	}
	if err == nil && (len(reply.Children) != asked || reply.Window != e.window) {
		err = fmt.Errorf("%w: other inner nodes than were asked for", errBadMessage)
	}
	if err != nil {
		return nil, err
	}
	var sites []site
	children := reply.Children
	for _, c := range list {
		sites = append(sites, c.sites(children)...)
		children = children[len(c.inner):]
	}
	return sites, nil
}

// settleSites streams the leaves that are empty here and compares the keys of
// the others.
func (e *exchange) settleSites(ctx context.Context, sites []site) error {
	var listed []place
	for len(sites) > 0 {
		n := samePartition(sites)
		var empty []site
		for _, s := range sites[:n] {
			if s.here == 0 {
				empty = append(empty, s)
			} else {
				listed = append(listed, s.places()...)
			}
		}
		more, err := e.stream(ctx, empty)
		if err != nil {
			return err
		}
		listed, sites = append(listed, more...), sites[n:]
	}
	return e.settleKeys(ctx, listed)
}

// stream pulls all records of leaves of one partition. What cannot be streamed,
// because the peer cannot read some record of it, or because only one bucket is
// wanted, is to be listed.
func (e *exchange) stream(ctx context.Context, sites []site) (listed []place, err error) {
	for len(sites) > 0 {
		n := batchOfLeaves(sites)
		if e.bucket != "" || e.streamOnce(ctx, sites[:n]) != nil {
			for _, s := range sites[:n] {
				listed = append(listed, s.places()...)
			}
		}
		sites = sites[n:]
	}
	return listed, ctx.Err()
}

func (e *exchange) streamOnce(ctx context.Context, sites []site) error {
	partition, leaves := sites[0].partition, make([]uint8, len(sites))
	for i, s := range sites {
		leaves[i] = s.leaf
	}
	return e.patiently(ctx, moveTimeouts*e.Timeout, func(ctx context.Context) error {
		records, bytes, err := e.Mover.PullLeaves(ctx, e.peer, partition, leaves)
		e.tally.records += uint64(records)
		e.tally.bytes += uint64(bytes)
		if err == nil {
			e.note(partition, healed)
		}
		return err
	})
}

// note makes the verdict on a partition that differs no better than v.
func (e *exchange) note(partition uint16, v verdict) {
	if i := e.index(partition); i >= 0 {
		e.notes[i] = max(e.notes[i], v)
	}
}

// index returns the place of a partition among the shares, -1 if it is none.
func (e *exchange) index(partition uint16) int {
	if i, ok := findShare(e.shares, partition); ok {
		return i
	}
	return -1
}

// meet checks that the peer takes part, and that it is the one of the replies
// before.
func (e *exchange) meet(r Refusal, starts uint64) error {
	if err := r.Err(); err != nil {
		return err
	}
	if e.met && e.starts != starts {
		return errRestarted
	}
	e.starts, e.met = starts, true
	return nil
}

func (e *exchange) fence() Fence { return Fence{View: e.land.digest, HashVersion: merkle.HashVersion} }
