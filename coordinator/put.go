package coordinator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Put writes or deletes a key on n owners and returns once w of them have it.
// The error is a [kv.Error] whose outcome is the truth about the write. What p
// refers to must not change afterwards, not even once Put has returned: owners
// that it no longer waits for are still being sent the value.
func (c *Coordinator) Put(ctx context.Context, p Put) (PutDone, error) {
	var err error
	if p.Options, err = c.resolve(p.Key, p.Options); err != nil {
		return PutDone{}, err
	}
	if err := p.check(); err != nil {
		return PutDone{}, err
	}
	ctx, cancel := c.within(ctx, p.Timeout)
	defer cancel()
	r := &routing{Coordinator: c, put: p}
	var done PutDone
	err = c.restarting(ctx, p.Key, p.N, func(pl plan) error {
		if err := pl.check("w", p.W.Of(p.N)); err != nil {
			return err
		}
		done, err = r.run(ctx, pl)
		return err
	})
	return done, c.counted(c.truthful(r.settled(err), r.put))
}

// check refuses what would be stored and could never be decoded again, and the
// delete that would delete nothing: If-Match: * names no value.
func (p Put) check() error {
	if p.Tombstone && p.Condition.IfMatchAny && !p.Overwrite && len(p.Token.Seen) == 0 {
		return &kv.Error{
			Code: kv.CodeContextRequired, Outcome: kv.NotApplied,
			Message: "If-Match: * does not say what is to be deleted: send the context of a read, name the value by its tag, " +
				"or overwrite whatever is there",
		}
	}
	if p.Tombstone && len(p.Value) > 0 {
		return badRequest("a delete carries no value")
	}
	if err := p.checkTTL(); err != nil {
		return err
	}
	if !sorted(p.Meta) || len(p.Meta) > maxListItems {
		return badRequest("metadata: give at most %d fields, sorted by name, each name once", maxListItems)
	}
	long := func(s string) bool { return len(s) > maxTextBytes }
	if long(p.ContentType) || slices.ContainsFunc(p.Meta, func(m kv.Meta) bool { return long(m.Name) || long(m.Value) }) {
		return badRequest("a content type, and a name or value of metadata, has at most %d bytes", maxTextBytes)
	}
	return nil
}

func (p Put) checkTTL() error {
	switch {
	case p.TTL == 0:
	case p.Tombstone:
		return badRequest("a delete does not expire: give a time to live to values only")
	case p.TTL < MinTTL || p.TTL > MaxTTL:
		return badRequest("a time to live is %v to 10 years, not %v", MinTTL, p.TTL)
	}
	return nil
}

// sorted reports whether the fields are in the one order in which they are
// stored.
func sorted(meta []kv.Meta) bool {
	for i := 1; i < len(meta); i++ {
		if kv.CompareMeta(meta[i-1], meta[i]) >= 0 {
			return false
		}
	}
	return true
}

// Forwarded coordinates a write that another node handed to this one, which
// owns the key or stands in for an owner. It is never handed on.
func (c *Coordinator) Forwarded(ctx context.Context, req ForwardRequest) (PutDone, error) {
	if c.base.Err() != nil {
		return PutDone{}, errClosing
	}
	v := c.Cluster.View()
	if v.Digest() != req.Fence.Digest {
		return PutDone{}, &StaleViewError{View: v}
	}
	pl, err := newPlan(v, req.Put.Key, req.Put.N)
	if err != nil {
		return PutDone{}, err
	}
	if req.StandInFor == 0 && !pl.owns(c.Self) || req.StandInFor != 0 && !pl.owns(req.StandInFor) {
		return PutDone{}, ErrNotOwner
	}
	if err := pl.check("w", req.Put.W.Of(req.Put.N)); err != nil {
		return PutDone{}, err
	}
	ctx, cancel := c.within(ctx, beforeDeadline(ctx))
	defer cancel()
	done, err := c.coordinate(ctx, pl, req)
	return done, c.truthful(err, req.Put)
}

// beforeDeadline leaves the answer the time to arrive before its receiver gives
// up: it says who has the write and who does not.
func beforeDeadline(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return MaxTimeout
	}
	left := time.Until(deadline)
	return left - min(left/10, 50*time.Millisecond)
}

// truthful makes sure that an error names its write and claims no more than is
// known: an error of unknown origin leaves the outcome unknown.
func (c *Coordinator) truthful(err error, p Put) error {
	if _, stale := errors.AsType[*StaleViewError](err); err == nil || stale || errors.Is(err, ErrNotOwner) {
		return err
	}
	e := new(kv.Error)
	if ours, ok := errors.AsType[*kv.Error](err); ok {
		*e = *ours
	} else {
		*e = kv.Error{Code: kv.CodeInternal, Message: err.Error()}
		if NotRun(err) {
			e.Outcome = kv.NotApplied
		}
	}
	if e.Outcome == "" {
		e.Outcome = kv.Unknown
	}
	if e.N == 0 {
		e.N, e.W = p.N, p.W.Of(p.N)
	}
	if !p.WriteID.IsZero() {
		e.WriteID = p.WriteID.String()
	}
	return e
}
