package reap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// pass is one look at all records of a partition.
type pass struct {
	*Reaper
	Result

	partition uint16
	pending   []candidate
	due       bool          // something was
	next      time.Time     // when the first of what is not due may be
	owed      time.Duration // of waiting, for what was looked at
	err       error         // the last
}

// candidate is an item with the time of its tombstone, if it has one.
type candidate struct {
	Item

	deleted time.Time
}

func (p *pass) run(ctx context.Context) error {
	after := kv.Key{}
	for more := true; more; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var seen int
		after, seen, more = p.scan(after)
		for len(p.pending) >= MaxItems {
			p.settle(ctx, MaxItems)
		}
		p.pace(ctx, seen)
	}
	if len(p.pending) > 0 {
		p.settle(ctx, len(p.pending))
	}
	return p.err
}

// scan looks at the next records after a key and returns the last of them, how
// many they were, and whether there are more.
func (p *pass) scan(after kv.Key) (last kv.Key, seen int, more bool) {
	last = after
	err := p.Local.Scan(p.partition, after, func(key kv.Key, r kv.Record, digest uint64) error {
		if seen == batchLen {
			return errBatch
		}
		last = key
		seen++
		p.look(key, r, digest)
		return nil
	})
	if more = errors.Is(err, errBatch); err != nil && !more {
		p.err = fmt.Errorf("scan: %w", err)
	}
	return last, seen, more
}

// look notes what may be taken out of a record.
func (p *pass) look(key kv.Key, r kv.Record, digest uint64) {
	reaping, due, ok := p.judge(r, p.Now())
	if !ok {
		p.next = earlier(p.next, p.Rules.next(r))
		return
	}
	p.due = true
	c := candidate{Item: Item{Key: key, Digest: digest, Due: due, Reaping: reaping}}
	for _, v := range r.Live {
		if v.Value.Kind == kv.KindTombstone && slices.Contains(reaping.Drop, v.Dot) {
			c.deleted = earlier(c.deleted, v.Value.Stamp.Time())
		}
	}
	p.pending = append(p.pending, c)
}

// settle tries to reap the first n candidates.
func (p *pass) settle(ctx context.Context, n int) {
	batch := p.pending[:n]
	p.pending = p.pending[n:]
	items := make([]Item, n)
	for i, c := range batch {
		items[i] = c.Item
	}
	done, err := p.reapItems(ctx, items)
	if err != nil {
		p.err = err
		p.Refused++
	}
	for _, c := range batch {
		if !slices.ContainsFunc(done, func(it Item) bool { return it.Key == c.Key }) {
			p.Oldest = earlier(p.Oldest, c.deleted)
		}
	}
}

// reapItems returns the items that all members confirmed.
func (p *pass) reapItems(ctx context.Context, items []Item) ([]Item, error) {
	v := p.View()
	for _, id := range members(p.Self, v) {
		if !p.Peers.Connected(id) {
			p.miss(id)
		}
	}
	if len(p.Missing) > 0 {
		return nil, fmt.Errorf("not connected to %v", p.Missing)
	}
	var err error
	for range attempts {
		var done []Item
		if done, err = p.round(ctx, v, items); err == nil {
			return done, nil
		}
		if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Reason != RefusedNumber {
			break
		}
	}
	return nil, err
}

func (p *pass) miss(id kv.NodeID) {
	if !slices.Contains(p.Missing, id) {
		p.Missing = append(p.Missing, id)
	}
}

// round carries out one round.
func (p *pass) round(ctx context.Context, v ring.View, items []Item) ([]Item, error) {
	rd := newRound(p.Self, v, p.Lives(), p.partition, 1+max(p.Local.Number(p.partition), p.numbers[p.partition]), items)
	p.Rounds++
	for to, more := rd.next(); more; to, more = rd.next() {
		if err := p.confirm(ctx, to, rd); err != nil {
			return nil, fmt.Errorf("round %d of partition %d at %v: %w", rd.Number, p.partition, to, err)
		}
	}
	if !rd.confirmed() {
		return nil, nil
	}
	p.Confirmed += len(rd.Items)
	return rd.Items, p.apply(ctx, rd)
}

func (p *pass) confirm(ctx context.Context, to kv.NodeID, rd *round) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	reply, err := p.Peers.Confirm(ctx, to, rd.Request)
	if err == nil {
		p.numbers[p.partition] = max(p.numbers[p.partition], reply.Number)
		err = rd.take(reply)
	}
	if refused, ok := errors.AsType[*RefusedError](err); err != nil && (!ok || refused.Reason != RefusedNumber) {
		p.miss(to)
	}
	return err
}

// apply tells all members, this node last: if it dies before, it will find the
// records again. A member that does not hear of it keeps them, and gives them to
// others, until the next round.
func (p *pass) apply(ctx context.Context, rd *round) error {
	for i := range rd.members {
		to := rd.members[len(rd.members)-1-i]
		reply, err := p.applyAt(ctx, to, rd.Request)
		switch {
		case to != p.Self: // harmless
		case err != nil:
			return fmt.Errorf("reap here: %w", err)
		default:
			for _, done := range reply.Done {
				if done {
					p.Reaped++
				}
			}
		}
	}
	return nil
}

func (p *pass) applyAt(ctx context.Context, to kv.NodeID, req Request) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	return p.Peers.Apply(ctx, to, req)
}

// pace waits so that no more than Rate records are looked at in a second.
func (p *pass) pace(ctx context.Context, seen int) {
	p.owed += time.Duration(seen) * time.Second / time.Duration(p.Rate)
	if p.owed >= pause {
		p.wait(ctx, p.owed)
		p.owed = 0
	}
}
