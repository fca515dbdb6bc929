package coordinator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Put writes or deletes a key on n owners and returns once w of them have it.
// The error is a [kv.Error] whose outcome is the truth about the write.
func (c *Coordinator) Put(ctx context.Context, p Put) (PutDone, error) {
	var err error
	if p.Options, err = c.resolve(p.Options); err != nil {
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
	return done, c.truthful(r.settled(err), r.put)
}

// Forwarded coordinates a write that another node handed to this one, which
// owns the key or stands in for an owner. It is never handed on.
func (c *Coordinator) Forwarded(ctx context.Context, req ForwardRequest) (PutDone, error) {
	v := c.Cluster.View()
	if v.Digest() != req.Fence.Digest {
		return PutDone{}, &StaleView{View: v}
	}
	pl, err := newPlan(v, req.Put.Key, req.Put.N)
	if err != nil {
		return PutDone{}, err
	}
	if req.StandInFor == 0 && !pl.owns(c.Self) || req.StandInFor != 0 && !pl.owns(req.StandInFor) {
		return PutDone{}, ErrNotOwner
	}
	done, err := c.coordinate(ctx, pl, req.Put, req.StandInFor)
	return done, c.truthful(err, req.Put)
}

// truthful makes sure that an error names its write and claims no more than is
// known: an error of unknown origin leaves the outcome unknown.
func (c *Coordinator) truthful(err error, p Put) error {
	var stale *StaleView
	if err == nil || errors.As(err, &stale) || errors.Is(err, ErrNotOwner) {
		return err
	}
	e := new(kv.Error)
	if errors.As(err, &e) {
		copied := *e
		e = &copied
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
	c.latencies.order(owners, len(owners), func(id kv.NodeID) int {
		switch {
		case id == c.Self:
			return 0
		case c.Cluster.Alive(id):
			return 1
		}
		return 2
	})
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
// write id, under which two dots count as one write.
type routing struct {
	*Coordinator
	put     Put // its write id stays the same over all attempts and views
	list    []candidate
	inbox   chan attempt
	tried   int
	open    int
	refused []kv.Failure
	first   *kv.Error // the first refusal that was told in our own words
	alike   bool      // all refusals so far had first's code
	unclear error     // an attempt that may have been applied
}

func (r *routing) run(ctx context.Context, pl plan) (PutDone, error) {
	if r.open > 0 {
		r.unclear = errors.New("an attempt under an older view is still under way")
	}
	r.list = r.coordinators(pl, r.put)
	r.inbox = make(chan attempt, len(r.list))
	r.tried, r.open, r.refused, r.first, r.alike = 0, 0, nil, nil, true
	patience := time.NewTimer(late(ctx, r.Now()))
	defer patience.Stop()
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
		case <-patience.C:
			if r.tried < len(r.list) {
				r.stats.rescues.Add(1)
				r.next(ctx, pl)
				patience.Reset(late(ctx, r.Now()))
			}
		case <-ctx.Done():
			return PutDone{}, r.noAnswer(pl)
		}
	}
	return PutDone{}, r.noCoordinator(pl)
}

// next starts the attempt of the next candidate. Only this node's own may go
// without a write id: it can be called back as long as no dot was given.
func (r *routing) next(ctx context.Context, pl plan) {
	if r.tried == len(r.list) {
		return
	}
	to := r.list[r.tried]
	r.tried++
	r.open++
	if to.node != r.Self && r.put.WriteID.IsZero() {
		r.put.WriteID = kv.NewWriteID(r.Now(), r.Random)
	}
	put, inbox := r.put, r.inbox
	ok := r.spawn(func() {
		a := attempt{from: to}
		if to.node == r.Self {
			a.done, a.err = r.coordinate(ctx, pl, put, to.standInFor)
		} else {
			r.stats.forwards.Add(1)
			a.done, a.err = r.Replicas.Forward(ctx, to.node, ForwardRequest{Fence: pl.fence(), Put: put, StandInFor: to.standInFor})
		}
		inbox <- a
	})
	if !ok {
		inbox <- attempt{from: to, err: MarkNotRun(errClosed)}
	}
}

// judge returns the error that ends the routing, or nil if the next candidate
// may do better.
func (r *routing) judge(pl plan, a attempt) error {
	var stale *StaleView
	var e *kv.Error
	isOurs := errors.As(a.err, &e)
	switch {
	case errors.As(a.err, &stale):
		return stale
	case NotRun(a.err):
	case isOurs && e.Outcome == kv.NotApplied && fault(e.Code):
	case isOurs:
		return e
	default:
		r.unclear = a.err
	}
	r.alike = r.alike && isOurs && (r.first == nil || r.first.Code == e.Code)
	if r.first == nil {
		r.first = e
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
// attempt, here or under an earlier view, may have been.
func (r *routing) settled(err error) error {
	var e *kv.Error
	if errors.As(err, &e) && e.Outcome == kv.NotApplied && (r.unclear != nil || r.open > 0) {
		doubtful := *e
		doubtful.Outcome = kv.Unknown
		return &doubtful
	}
	return err
}

func (r *routing) noAnswer(pl plan) error {
	r.stats.unreached.Add(1)
	failed := slices.Clone(r.refused)
	for _, t := range r.list[:r.tried] {
		name := pl.name(t.node)
		if !slices.ContainsFunc(failed, func(f kv.Failure) bool { return f.Node == name }) {
			failed = append(failed, kv.Failure{Node: name, Reason: "no answer in time"})
		}
	}
	return &kv.Error{
		Code: kv.CodeTimeout, Outcome: kv.Unknown, N: r.put.N, W: r.put.W.Of(r.put.N), Failed: failed,
		Message: "no owner answered in time: repeat the write under the same write id, or read the key",
	}
}

// noCoordinator is the error of a write that every candidate refused. Where
// all had the same reason, that is the answer.
func (r *routing) noCoordinator(pl plan) error {
	r.stats.unreached.Add(1)
	if r.alike && r.first != nil {
		return r.first
	}
	e := &kv.Error{
		Code: kv.CodeQuorumUnreached, Outcome: kv.NotApplied, N: r.put.N, W: r.put.W.Of(r.put.N), Failed: r.refused,
		RetryAfter: time.Second, Message: "no owner of the key can take the write: " + names(r.refused),
	}
	if !r.put.Sloppy && len(pl.standIns()) > 0 {
		e.Message += "; sloppy=true lets other nodes stand in"
	}
	return e
}
