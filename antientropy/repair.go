package antientropy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/starling-kv/starling/kv"
)

// Selection says what to repair. The zero Selection is all that this node owns,
// with all other owners.
type Selection struct {
	Bucket    string    // heal only the keys of this one; "": of all
	Partition *uint16   // only this one; nil: all
	Node      kv.NodeID // only with this one; zero: with all
}

// Progress is how far a repair is.
type Progress struct {
	Peer        kv.NodeID // with which it has just exchanged
	Done, Total int       // partitions times peers, compared and to be; Total grows when some are looked at again
	Differ      uint64    // keys that were found to differ
	Healed      uint64    // of these, the ones that are the same now
	Streamed    uint64    // records that came as whole leaves
}

// ErrNothingSelected is the error of a repair of what this node does not own or
// does not share with the node selected.
var ErrNothingSelected = errors.New("this node shares nothing of that with another: ask one of the owners")

// RepairError says with which peers a repair was not done.
type RepairError struct{ Peers []PeerError }

// PeerError is what kept partitions from being compared with a peer.
type PeerError struct {
	Peer       kv.NodeID
	Partitions int // that were not compared, or differ still
	Err        error
}

// Error implements error.
func (e *RepairError) Error() string { return errors.Join(e.Unwrap()...).Error() }

// Unwrap returns what [errors.Is] and [errors.As] look through.
func (e *RepairError) Unwrap() []error {
	out := make([]error, len(e.Peers))
	for i := range e.Peers {
		out[i] = &e.Peers[i]
	}
	return out
}

// Error implements error.
func (e *PeerError) Error() string {
	return fmt.Sprintf("node %v, %d partitions: %v", e.Peer, e.Partitions, e.Err)
}

// Unwrap returns what kept them from it.
func (e *PeerError) Unwrap() error { return e.Err }

// Repair exchanges what is selected with its other owners now, one after the
// other, and once more with all of them where something differed: what one
// owner held, all of them hold then. It returns when that is done, and a
// [*RepairError] names the peers with which it was not. progress is called after
// each step. Only one repair runs at a time; others wait.
func (x *Exchanger) Repair(ctx context.Context, sel Selection, progress func(Progress)) error {
	select {
	case x.repairing <- struct{}{}:
		defer func() { <-x.repairing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !x.Ledger.Registered() {
		return ErrUnregistered
	}
	r := &repair{Exchanger: x, land: x.surveyor.territory(x.View()), bucket: sel.Bucket, progress: progress}
	list := selected(r.land, sel)
	if len(list) == 0 {
		return ErrNothingSelected
	}
	r.round(ctx, list, 1)
	r.failed = nil // what failed in the first round is tried again
	r.round(ctx, r.again(list), Whole)
	if len(r.failed) > 0 {
		return &RepairError{r.failed}
	}
	return nil
}

// repair is one call of Repair.
type repair struct {
	*Exchanger

	land     *territory
	bucket   string
	progress func(Progress)
	so       Progress
	changed  []uint16    // rising: where not all was the same
	failed   []PeerError // each peer once
}

// selected returns the shares to exchange, by peer.
func selected(land *territory, sel Selection) []neighbor {
	var out []neighbor
	for _, n := range land.peers {
		if sel.Node != 0 && n.id != sel.Node {
			continue
		}
		if sel.Partition != nil {
			n.shares = pick(n.shares, []uint16{*sel.Partition})
		}
		if len(n.shares) > 0 {
			out = append(out, n)
		}
	}
	return out
}

// again returns those of the shares where something differed with some peer.
func (r *repair) again(list []neighbor) []neighbor {
	var out []neighbor
	for _, n := range list {
		if n.shares = pick(n.shares, r.changed); len(n.shares) > 0 {
			out = append(out, n)
		}
	}
	return out
}

func (r *repair) round(ctx context.Context, list []neighbor, w Window) {
	for _, n := range list {
		r.so.Total += len(n.shares)
	}
	for _, n := range list {
		r.so.Peer = n.id
		for shares := range slices.Chunk(n.shares, compareShares) {
			r.exchange(ctx, n.id, shares, w)
		}
	}
}

func (r *repair) exchange(ctx context.Context, peer kv.NodeID, shares []share, w Window) {
	e := &exchange{Exchanger: r.Exchanger, peer: peer, land: r.land, shares: shares, bucket: r.bucket, window: w}
	err := r.converse(ctx, e)
	for _, p := range e.differed { // also where nothing was seen through the window
		r.changed = insert(r.changed, p)
	}
	open := 0
	for i, v := range e.verdicts {
		if v == unfinished {
			r.changed = insert(r.changed, shares[i].partition)
			open++
		}
	}
	if err == nil && open > 0 {
		err = errors.New("they differ still: repair again")
	}
	if err != nil {
		r.fail(peer, open, err)
	}
	r.so.Done += len(shares) - open
	r.so.Differ += e.tally.differ
	r.so.Healed += e.tally.healed
	r.so.Streamed += e.tally.records
	r.progress(r.so)
}

// fail notes the first error with a peer.
func (r *repair) fail(peer kv.NodeID, partitions int, err error) {
	if last := len(r.failed) - 1; last >= 0 && r.failed[last].Peer == peer {
		r.failed[last].Partitions += partitions
		return
	}
	r.failed = append(r.failed, PeerError{Peer: peer, Partitions: partitions, Err: err})
}
