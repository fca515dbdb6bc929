package coordinator

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

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
	for pause := firstPause; ; pause *= 2 {
		done, err := r.pass(ctx, pl)
		if err == nil || !r.worthAnother(ctx, err, pause) {
			return done, err
		}
		if err := r.sleep(ctx, pause); err != nil {
			return done, err
		}
	}
}

// firstPause is how long a write waits before it asks again those who were all
// too busy for it; the pauses double. On one machine, or in one moment, the disks
// of all owners may stall, and a request has seconds.
const firstPause = 50 * time.Millisecond

// worthAnother reports whether all candidates refused because they are busy,
// none of them may have applied the write, and there is time for another pass.
func (r *routing) worthAnother(ctx context.Context, err error, pause time.Duration) bool {
	e, ok := errors.AsType[*kv.Error](err)
	if !ok || e.Code != kv.CodeOverloaded || e.Outcome != kv.NotApplied || r.open > 0 || r.doubt {
		return false
	}
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) > pause+lateAfter
}

// pass tries the candidates.
func (r *routing) pass(ctx context.Context, pl plan) (PutDone, error) {
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
	if !r.begin() {
		return &attempt{from: at, err: MarkNotRun(errClosed)}
	}
	defer r.running.Done()
	done, err := r.coordinate(ctx, pl, req)
	return &attempt{from: at, done: done, err: err}
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
