package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// Get reads a key from r of its n owners and returns the merge of what they
// hold: every value that no other has replaced. The error is a [kv.Error];
// a key without a value is not an error.
func (c *Coordinator) Get(ctx context.Context, g Get) (Got, error) {
	var err error
	if g.Options, err = c.resolve(g.Key, g.Options); err != nil {
		return Got{}, asRead(err)
	}
	ctx, cancel := c.within(ctx, g.Timeout)
	defer cancel()
	var got Got
	err = c.restarting(ctx, g.Key, g.N, func(p plan) error {
		if err := p.check("r", g.R.Of(g.N)); err != nil {
			return err
		}
		got, err = c.get(ctx, p, g)
		return err
	})
	return got, c.counted(asRead(err))
}

// asRead takes the outcome out of an error: only writes have one.
func asRead(err error) error {
	if e, ok := errors.AsType[*kv.Error](err); ok {
		read := *e
		read.Outcome = ""
		return &read
	}
	return err
}

func (c *Coordinator) get(ctx context.Context, p plan, g Get) (Got, error) {
	q := query{key: g.Key, need: g.needs(), sloppy: g.Sloppy, hedge: g.Hedge, floor: g.Floor}
	look, differed := c.collect, false
	defer func() {
		if differed {
			c.Repairs.Behind(g.Key, p.n)
		}
	}()
	for pause := 2 * time.Millisecond; ; pause *= 2 {
		col, err := look(ctx, p, q)
		if err != nil {
			return Got{}, g.explained(err)
		}
		differed = differed || len(col.behind()) > 0
		got, err := c.answer(ctx, g, col)
		if !errors.Is(err, errAgain) || c.sleep(ctx, pause) != nil {
			return got, err
		}
		if g.Monotonic {
			look = c.askWidely
		}
		if stale, ok := errors.AsType[*StaleReapError](err); ok {
			q.reap = stale.Number
		}
	}
}

// errAgain marks errors that another look may mend: what is missing may be on
// its way, or was replaced since.
var errAgain = errors.New("read again")

// answer turns a collection into what the client is shown.
func (c *Coordinator) answer(ctx context.Context, g Get, col collection) (Got, error) {
	if !col.merged.Clock.Dominates(g.Floor) {
		wide, reaped := c.reapedSince(ctx, g, col)
		if !reaped {
			return Got{}, errors.Join(errAgain, stale(col))
		}
		col = wide
	}
	if g.Monotonic {
		if err := tooFewKeep(col, g.needs()); err != nil {
			return Got{}, err
		}
		if err := c.anchor(ctx, g.Key, col, g.needs()); err != nil {
			return Got{}, err
		}
	}
	values, deleted := col.merged.Visible(c.Now())
	got := Got{Deleted: deleted, Token: vclock.Token{Seen: col.merged.Clock, Floor: col.merged.Clock, Reap: reapOf(g.Sloppy, col.highest)}}
	if len(values) > 0 {
		got.ETag = kv.ETag(values)
	}
	for _, v := range values {
		val := Value{Version: v, Data: v.Value.Inline}
		if v.Value.External && !g.NoValues {
			var err error
			if val.Data, err = c.external(ctx, g.Key, col, v); err != nil {
				return Got{}, err
			}
		}
		got.Values = append(got.Values, val)
	}
	for _, id := range col.behind() {
		got.Behind = append(got.Behind, col.plan.name(id))
	}
	c.stats.behind.Add(uint64(len(got.Behind)))
	return got, nil
}

func stale(col collection) error {
	acked, hinted := col.plan.counted(col.tally)
	failed := col.plan.failures(col.tally)
	return &kv.Error{
		Code: kv.CodeStale, N: col.plan.n, R: col.tally.need, Acked: acked, Hinted: hinted, Failed: failed, RetryAfter: time.Second,
		Message: "the owners that answered are older than the context of the request: wait, or ask without the context",
	}
}
