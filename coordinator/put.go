package coordinator

import (
	"cmp"
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

// candidate is a node that could coordinate a write: an owner, or a node that
// takes the place of one.
type candidate struct{ node, standInFor kv.NodeID }

// coordinators lists who may coordinate, best first: this node if it owns the
// key, then the other owners; where stand-ins are allowed, they come after the
// owners, in the place of the first.
func (c *Coordinator) coordinators(pl plan, p Put) []candidate {
	owners := slices.DeleteFunc(pl.owners(pl.n), pl.down)
	c.latencies.order(owners, len(owners), c.class)
	list := make([]candidate, 0, len(owners)+1)
	for _, id := range owners {
		list = append(list, candidate{node: id})
	}
	if !p.Sloppy {
		return list
	}
	for _, id := range selfFirst(pl.standIns(), c.Self) {
		list = append(list, candidate{node: id, standInFor: pl.owners(pl.n)[0]})
	}
	return list
}

func selfFirst(ids []kv.NodeID, self kv.NodeID) []kv.NodeID {
	if i := slices.Index(ids, self); i > 0 {
		ids = slices.Concat([]kv.NodeID{self}, ids[:i], ids[i+1:])
	}
	return ids
}

type attempt struct {
	from candidate
	done PutDone
	err  error
}

// routing lets one of the candidates coordinate a write. The next is tried
// when one has certainly done nothing, and also when one was lost on the way
// or is long silent: that is safe because every handed-on write carries a
// write id, under which two dots count as one write. A write without an id is
// only ever tried by this node, and alone.
type routing struct {
	*Coordinator
	put     Put // its write id stays the same over all attempts and views
	minted  bool
	list    []candidate
	inbox   chan *attempt
	tried   int
	open    int
	refused []kv.Failure
	first   *kv.Error // the first refusal that was told in our own words
	alike   bool      // all so far had first's code, or were out of reach
	doubt   bool      // an attempt may have been applied, or may be yet
}

func (r *routing) run(ctx context.Context, pl plan) (PutDone, error) {
	r.doubt = r.doubt || r.open > 0 // under an older view
	r.list = r.coordinators(pl, r.put)
	r.inbox = make(chan *attempt, len(r.list))
	r.tried, r.open, r.refused, r.first, r.alike = 0, 0, nil, nil, true
	patience := late(ctx)
	timer := r.timer(patience)
	defer r.recycle(timer)
	// An attempt ends with ctx, and then knows best what became of it.
	for r.next(ctx, pl); r.open > 0; {
		select {
		case a := <-r.inbox:
			r.open--
			if a.err == nil {
				return a.done, nil
			}
			if err := r.judge(pl, a); err != nil {
				return PutDone{}, err
			}
			r.next(ctx, pl)
		case <-timer.C:
			if len(r.inbox) == 0 && !r.put.WriteID.IsZero() {
				r.rescue(ctx, pl)
			}
			timer.Reset(patience)
		}
	}
	return PutDone{}, r.exhausted(ctx, pl)
}

// rescue tries the next candidate beside those that are long silent.
func (r *routing) rescue(ctx context.Context, pl plan) {
	before := r.tried
	r.next(ctx, pl)
	r.stats.rescues.Add(uint64(r.tried - before))
}

// next starts the attempt of the next candidate, if one is left. One that nobody
// is tried beside, since the write has no id, is not worth a goroutine.
func (r *routing) next(ctx context.Context, pl plan) {
	if r.tried == len(r.list) || ctx.Err() != nil {
		return
	}
	to := r.list[r.tried]
	if to.node != r.Self && r.put.WriteID.IsZero() {
		r.put.WriteID, r.minted = kv.NewWriteID(r.Now(), r.Random), true
	}
	req := ForwardRequest{Put: r.put, StandInFor: to.standInFor, Fresh: r.minted && r.open == 0 && !r.doubt}
	r.tried++
	r.open++
	if r.put.WriteID.IsZero() {
		r.inbox <- r.alone(ctx, pl, to, req)
		return
	}
	r.beside(ctx, pl, to, req)
}

// beside has a candidate coordinate while others may be tried.
func (r *routing) beside(ctx context.Context, pl plan, to candidate, req ForwardRequest) {
	inbox := r.inbox
	ok := r.spawn(func() {
		a := &attempt{from: to}
		if to.node == r.Self {
			a.done, a.err = r.coordinate(ctx, pl, req)
		} else {
			a.done, a.err = r.forward(ctx, pl, to.node, req)
		}
		inbox <- a
	})
	if !ok {
		inbox <- &attempt{from: to, err: MarkNotRun(errClosed)}
	}
}

// alone lets this node coordinate, and waits for it.
func (r *routing) alone(ctx context.Context, pl plan, at candidate, req ForwardRequest) *attempt {
	a := &attempt{from: at, err: MarkNotRun(errClosed)}
	if r.begin() {
		defer r.running.Done()
		a.done, a.err = r.coordinate(ctx, pl, req)
	}
	return a
}

func (r *routing) forward(ctx context.Context, pl plan, to kv.NodeID, req ForwardRequest) (PutDone, error) {
	r.stats.forwards.Add(1)
	return send(pl, func(f Fence) (PutDone, error) {
		req.Fence = f
		return r.Replicas.Forward(ctx, to, req)
	})
}

// judge returns the error that ends the routing, or nil if the next candidate
// may do better.
func (r *routing) judge(pl plan, a *attempt) error {
	e, isOurs := errors.AsType[*kv.Error](a.err)
	if stale := pl.newer(a.err); stale != nil {
		return stale
	}
	switch {
	case NotRun(a.err):
	case isOurs && e.Outcome == kv.NotApplied && fault(e.Code):
	case isOurs:
		return e
	default:
		r.doubt = true
	}
	switch {
	case isOurs:
		r.alike = r.alike && (r.first == nil || r.first.Code == e.Code)
		r.first = cmp.Or(r.first, e)
	case !NotRun(a.err):
		r.alike = false
	}
	r.refused = append(r.refused, kv.Failure{Node: pl.name(a.from.node), Reason: brief(a.err)})
	return nil
}

// fault reports whether a refusal blames the node or what it can reach, not
// the request: another node may do better.
func fault(code kv.Code) bool {
	switch code {
	case kv.CodeOverloaded, kv.CodeDiskFull, kv.CodeNotReady, kv.CodeInternal, kv.CodeWriteIDExpired, kv.CodeQuorumUnreached:
		return true
	default:
		return false
	}
}

// settled takes the claim out of an error that nothing was applied if any
// attempt may have been: one of this routing, here or under an earlier view, or
// one before it under an id that nobody remembers for so long.
func (r *routing) settled(err error) error {
	e, ok := errors.AsType[*kv.Error](err)
	if !ok || e.Outcome != kv.NotApplied || !r.doubt && r.open == 0 && e.Code != kv.CodeWriteIDExpired {
		return err
	}
	doubtful := *e
	doubtful.Outcome = kv.Unknown
	if r.doubt || r.open > 0 {
		doubtful.Message += "; an attempt may have been applied: repeat the write under the same write id, or read the key"
	}
	return &doubtful
}

// exhausted is the error of a write that no candidate took. Where all that
// could be asked refused for the same reason, that is the answer.
func (r *routing) exhausted(ctx context.Context, pl plan) error {
	if r.alike && r.first != nil {
		return r.first
	}
	e := &kv.Error{
		Code: unreachedCode(ctx), Outcome: kv.NotApplied, N: r.put.N, W: r.put.W.Of(r.put.N), Failed: r.refused,
		RetryAfter: time.Second, Message: "no owner of the key took the write: " + names(r.refused),
	}
	if !r.put.Sloppy && len(pl.standIns()) > 0 {
		e.Message += "; sloppy=true lets other nodes stand in"
	}
	return e
}
