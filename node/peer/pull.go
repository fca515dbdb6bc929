package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Merger merges into this node's own records what it pulls.
type Merger interface {
	// MergeParcels merges what another node told under the view with the digest
	// fence, and says what became of each parcel.
	MergeParcels(ctx context.Context, fence uint64, parcels []kv.Parcel,
		values func(ctx context.Context, key kv.Key, v kv.Version) ([]byte, error)) []error
	// Sync returns once what was merged is on the disk.
	Sync(ctx context.Context) error
	// Parcels returns a page of what the node holds of keys, as of [Source].
	Parcels(fence uint64, keys []kv.Key, standIn bool) (parcels []kv.Parcel, taken int, err error)
	// MendValue stores an external value in place of what the disk has of it, and
	// returns once it is durable.
	MendValue(ctx context.Context, key kv.Key, v kv.Version, data []byte) error
	// Room is how many keys the node would take at the moment.
	Room() int
}

// Views are the layouts that this node knows.
type Views interface {
	View() ring.View
	// Learn merges a view of a peer into this node's, durably, before it returns.
	Learn(v ring.View) error
}

// Bounds of what this node pulls.
const (
	pullRounds   = 3 // tries of a key, for what changes meanwhile
	pullKeys     = 1 << 10
	nudgesAtOnce = 4
	viewRounds   = 3 // tries to agree on the view
	// nudgePause is what a node asks for that takes nothing more at the moment.
	nudgePause = 100 * time.Millisecond
	// fullPause is what it asks for that takes nothing for some time.
	fullPause = 500 * time.Millisecond
)

var errOwnPull = errors.New("a node does not pull from itself")

// Pull merges what the node from holds of keys into what this node holds, for
// standIn with what it keeps for other owners. held says of each key whether
// this node holds all of that now, on its disk. It does not if the source cannot
// read the key, or if the source is not registered and its reap number is behind;
// or if this node does not own the key. After an error the rest was not tried.
//
// A node pulls from itself only as a stand-in: it takes what it keeps for others
// as its own.
//
// That a node is busy, this one or the source, is a [*kv.Error] of
// [kv.CodeOverloaded] with a pause.
func (c *Client) Pull(ctx context.Context, from kv.NodeID, keys []kv.Key, standIn bool) (held []bool, err error) {
	if from == c.self && !standIn {
		return make([]bool, len(keys)), errOwnPull
	}
	p := pull{Client: c, from: from, standIn: standIn}
	held, err = p.keys(ctx, keys)
	return held, p.settle(ctx, held, err)
}

// keys pulls keys, in rounds.
func (p *pull) keys(ctx context.Context, keys []kv.Key) (held []bool, err error) {
	held = make([]bool, len(keys))
	left := make([]int, len(keys))
	for i := range left {
		left[i] = i
	}
	for range pullRounds {
		if left, err = p.round(ctx, keys, left, held); err != nil || len(left) == 0 {
			break
		}
	}
	return held, err
}

// pull is one call of Pull or PullLeaves.
type pull struct {
	*Client

	from    kv.NodeID
	standIn bool
	numbers []ReapNumber // that the source is to learn, by partition
	bytes   atomic.Int64 // of records and values that came
	merged  bool         // there is something to sync
}

// settle makes what was merged durable: what was not does not count as held.
func (p *pull) settle(ctx context.Context, held []bool, err error) error {
	if !p.merged {
		return err
	}
	syncErr := p.merger.Sync(ctx)
	if syncErr != nil {
		clear(held)
	}
	return cmp.Or(err, syncErr)
}

// round pulls the keys whose places are in left, page by page, and returns the
// places of those that another round may get. It stops at an error that concerns
// more than one key.
func (p *pull) round(ctx context.Context, keys []kv.Key, left []int, held []bool) (again []int, err error) {
	for len(left) > 0 {
		req := PullRequest{Reap: p.numbers, StandIn: p.standIn}
		for _, i := range left[:min(len(left), pullKeys)] {
			req.Keys = append(req.Keys, keys[i])
		}
		reply, errs, err := p.page(ctx, req)
		if err != nil {
			return nil, err
		}
		if reply.Taken < 1 || reply.Taken > len(req.Keys) {
			return nil, fmt.Errorf("node %v answered %d of %d keys", p.from, reply.Taken, len(req.Keys))
		}
		parcels := reply.Parcels
		for _, i := range left[:reply.Taken] {
			if len(parcels) == 0 || parcels[0].Key != keys[i] {
				continue // the source cannot read it
			}
			held[i] = errs[0] == nil
			if p.mayYet(errs[0]) {
				again = append(again, i)
			}
			if err = wholeError(errs[0]); err != nil {
				return nil, err
			}
			parcels, errs = parcels[1:], errs[1:]
		}
		left = left[reply.Taken:]
	}
	return again, nil
}

// page asks for a page and merges it.
func (p *pull) page(ctx context.Context, req PullRequest) (reply PullReply, errs []error, err error) {
	reply, digest, err := p.ask(ctx, req)
	if err != nil {
		return PullReply{}, nil, err
	}
	return reply, p.merge(ctx, digest, reply.Parcels), nil
}

// ask gets a page, and the digest of the view under which it was read.
func (p *pull) ask(ctx context.Context, req PullRequest) (reply PullReply, digest uint64, err error) {
	err = p.agreed(func(f coordinator.Fence) (err error) {
		req.Fence, digest = f, f.Digest
		if p.from == p.self {
			reply.Parcels, reply.Taken, err = p.merger.Parcels(digest, req.Keys, req.StandIn)
			return err
		}
		reply, err = ask(ctx, p.Client, p.from, methodPull, req, DecodePullReply)
		return err
	})
	return reply, digest, err
}

// merge merges parcels, and notes what the source must learn before they can be
// taken.
func (p *pull) merge(ctx context.Context, digest uint64, parcels []kv.Parcel) []error {
	errs := p.merger.MergeParcels(ctx, digest, parcels, func(ctx context.Context, key kv.Key, v kv.Version) ([]byte, error) {
		req := coordinator.ValueRequest{
			Fence: coordinator.Fence{Digest: digest}, Key: key, StandIn: p.standIn,
			Dot: v.Dot, Length: v.Value.Length, Checksum: v.Value.Checksum,
		}
		data, err := p.Value(ctx, p.from, req)
		p.bytes.Add(int64(len(data)))
		return data, err
	})
	for i, err := range errs {
		p.bytes.Add(int64(len(parcels[i].Record)))
		if stale, ok := errors.AsType[*coordinator.StaleReapError](err); ok {
			p.learn(parcels[i].Key, stale.Number)
		}
		p.merged = p.merged || err == nil && len(parcels[i].Record) > 0
	}
	return errs
}

// learn notes a reap number that the source is to learn.
func (p *pull) learn(key kv.Key, number uint64) {
	active := p.views.View().Active()
	if len(active) == 0 {
		return
	}
	partition := uint16(active[0].Partition(key.Hash()))
	i, known := slices.BinarySearchFunc(p.numbers, partition, func(n ReapNumber, to uint16) int { return cmp.Compare(n.Partition, to) })
	if !known {
		p.numbers = slices.Insert(p.numbers, i, ReapNumber{Partition: partition})
	}
	p.numbers[i].Number = max(p.numbers[i].Number, number)
}

// mayYet reports whether the key may be held after another try: its values were
// replaced while they were fetched, a view or a reap number was learnt meanwhile,
// or the damaged record turned out to be one.
func (p *pull) mayYet(err error) bool {
	return err != nil && !errors.Is(err, coordinator.ErrNotOwner) && wholeError(err) == nil
}

// wholeCodes are those of a node that takes no record at the moment.
var wholeCodes = []kv.Code{kv.CodeOverloaded, kv.CodeDiskFull, kv.CodeNotReady}

// wholeError returns err if it concerns more than one key: this node takes
// nothing at the moment, or the time is over.
func wholeError(err error) error {
	if e, ok := errors.AsType[*kv.Error](err); ok && slices.Contains(wholeCodes, e.Code) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// PullLeaves merges all records of some leaves that the node from holds and this
// node owns, leaves rising. Without an error this node holds all of them on its
// disk. records and bytes are what came, values included. While a page is merged,
// the next one is on its way.
//
// That a node is busy is an error as of [Client.Pull].
func (c *Client) PullLeaves(ctx context.Context, from kv.NodeID, partition uint16, leaves []uint8) (records, bytes int, err error) {
	if from == c.self {
		return 0, 0, errOwnPull
	}
	p := &leafPull{pull: pull{Client: c, from: from}, pages: make(chan page, 1)}
	pages, cancel := context.WithCancel(ctx)
	p.begin(pages, PullRequest{Partition: partition, Leaves: leaves})
	err = p.run(pages)
	cancel()
	for ; p.open > 0; p.open-- {
		<-p.pages
	}
	return p.records, int(p.bytes.Load()), p.settle(ctx, nil, err)
}

// leafPull is one call of PullLeaves.
type leafPull struct {
	pull

	pages   chan page // with room for the one under way
	open    int
	records int
}

// page is an answer, or why there is none.
type page struct {
	req    PullRequest
	reply  PullReply
	digest uint64
	err    error
}

// begin asks for a page aside.
func (p *leafPull) begin(ctx context.Context, req PullRequest) {
	p.open++
	go func() {
		got := page{req: req}
		got.reply, got.digest, got.err = p.ask(ctx, req)
		p.pages <- got
	}()
}

func (p *leafPull) run(ctx context.Context) error {
	var damaged bool
	for p.open > 0 {
		got := <-p.pages
		p.open--
		if got.err != nil {
			return got.err
		}
		if got.reply.More {
			next, err := got.next()
			if err != nil {
				return fmt.Errorf("node %v: %w", p.from, err)
			}
			next.Reap = slices.Clone(p.numbers)
			p.begin(ctx, next)
		}
		damaged = damaged || got.reply.Damaged
		if err := p.take(ctx, got); err != nil {
			return err
		}
	}
	if damaged {
		return fmt.Errorf("node %v cannot read all records of the leaves: its scrub repairs them", p.from)
	}
	return nil
}

// next asks for what follows a page.
func (g page) next() (PullRequest, error) {
	if len(g.reply.Parcels) == 0 {
		return PullRequest{}, errors.New("an empty page, and more to come")
	}
	next := g.req
	next.After = g.reply.Parcels[len(g.reply.Parcels)-1].Key
	at := slices.Index(next.Leaves, next.After.Leaf())
	if at < 0 || next.After == g.req.After {
		return PullRequest{}, fmt.Errorf("%v, which was not asked for", next.After)
	}
	next.Leaves = next.Leaves[at:]
	return next, nil
}

// take merges a page. What cannot be taken as it came is pulled anew, by key.
func (p *leafPull) take(ctx context.Context, got page) error {
	var again []kv.Key
	for i, err := range p.merge(ctx, got.digest, got.reply.Parcels) {
		switch whole := wholeError(err); {
		case whole != nil:
			return whole
		case err == nil:
			p.records++
		case !errors.Is(err, coordinator.ErrNotOwner):
			again = append(again, got.reply.Parcels[i].Key)
		}
	}
	if len(again) == 0 {
		return nil
	}
	held, err := p.keys(ctx, again)
	if i := slices.Index(held, false); err == nil && i >= 0 {
		return fmt.Errorf("node %v told of %v, and this node could not take it", p.from, again[i])
	}
	p.records += len(again)
	return err
}

// PullValue fetches an external value that the node from holds, and stores it in
// place of what this node's disk has of it.
func (c *Client) PullValue(ctx context.Context, from kv.NodeID, key kv.Key, v kv.Version) error {
	if from == c.self {
		return errOwnPull
	}
	var data []byte
	err := c.agreed(func(f coordinator.Fence) (err error) {
		data, err = c.Value(ctx, from, coordinator.ValueRequest{
			Fence: f, Key: key, Dot: v.Dot, Length: v.Value.Length, Checksum: v.Value.Checksum,
		})
		return err
	})
	if err != nil {
		return err
	}
	return c.merger.MendValue(ctx, key, v, data)
}

// agreed makes a call under the view of the moment, until both sides know the
// same layouts.
func (c *Client) agreed(call func(coordinator.Fence) error) (err error) {
	full := false
	for range viewRounds {
		v := c.views.View()
		f := coordinator.Fence{Digest: v.Digest()}
		if full {
			f.Full = v.Append(nil)
		}
		err = call(f)
		stale, ok := errors.AsType[*coordinator.StaleViewError](err)
		switch {
		case !ok:
			return err
		case v.Contains(stale.View):
			full = true
		default:
			if err := c.views.Learn(stale.View); err != nil {
				return fmt.Errorf("learn the layouts of a peer: %w", err)
			}
		}
	}
	return err
}
