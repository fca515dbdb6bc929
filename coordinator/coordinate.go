package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// coordinate gives the write its dot at this node and carries the record to
// the others. While req.StandInFor is not zero, this node takes that owner's
// place.
func (c *Coordinator) coordinate(ctx context.Context, pl plan, req ForwardRequest) (PutDone, error) {
	if !req.Put.Sloppy {
		if err := c.reachable(ctx, pl, req.Put); err != nil {
			return PutDone{}, err
		}
	}
	in := intent{Put: req.Put, n: pl.n, standInFor: req.StandInFor, fresh: req.Fresh || req.Put.WriteID.IsZero()}
	a, commit, err := c.assignIf(ctx, pl, in)
	if err != nil {
		return PutDone{}, err
	}
	if len(a.record.Live) >= SiblingsWarn {
		c.stats.warned.Add(1)
		c.Log.Warn("a key has many siblings; its writers should read before they write",
			zap.Stringer("key", req.Put.Key), zap.Int("siblings", len(a.record.Live)))
	}
	s := &spreading{Coordinator: c, put: req.Put, assignment: a, commit: commit, standInFor: req.StandInFor}
	return s.run(ctx, pl)
}

// assignIf gives the write its dot if its condition holds of what a quorum and
// this node have.
func (c *Coordinator) assignIf(ctx context.Context, pl plan, in intent) (assignment, *commitment, error) {
	q := query{key: in.Key, need: pl.majority(), sloppy: in.Sloppy, floor: in.Token.Seen}
	if in.Condition.IsZero() {
		a, commit, err := c.assignLocally(ctx, pl, in)
		if !errors.Is(err, errUnseen) {
			return a, commit, err
		}
		return c.assignKnowing(ctx, pl, in, q, c.search)
	}
	a, commit, err := c.assignKnowing(ctx, pl, in, q, c.collect)
	if e, ok := errors.AsType[*kv.Error](err); !ok || e.Code != kv.CodePrecondition || e.Outcome != kv.Unknown || in.Sloppy {
		return a, commit, err
	}
	// Only all owners together can say that no earlier attempt was applied, and
	// with it that this one was not.
	q.need, in.complete = pl.n, true
	b, committed, again := c.assignKnowing(ctx, pl, in, q, c.askEach)
	if errors.Is(again, errUnheard) {
		return a, commit, err
	}
	return b, committed, again
}

// maxReapRounds bounds how often one request reads again because of rounds of
// reaping: between two rounds of a partition lie minutes.
const maxReapRounds = 3

// assignKnowing gives the write its dot with what look finds merged in. What
// was found before a round of reaping that this node has confirmed must not
// come back: it is then looked for again, by nodes that learn of the round first.
func (c *Coordinator) assignKnowing(
	ctx context.Context, pl plan, in intent, q query, look func(context.Context, plan, query) (collection, error),
) (assignment, *commitment, error) {
	in.searched = true
	for range maxReapRounds {
		var err error
		if in.known, err = look(ctx, pl, q); err != nil {
			return assignment{}, nil, unapplied(err)
		}
		a, commit, err := c.assignLocally(ctx, pl, in)
		stale, ok := errors.AsType[*StaleReapError](err)
		if !ok {
			return a, commit, err
		}
		q.reap = stale.Number
	}
	return assignment{}, nil, &kv.Error{
		Code: kv.CodeNotReady, Outcome: kv.NotApplied, RetryAfter: time.Second,
		Message: "the owners are forgetting deleted keys at this very moment: try again",
	}
}

// search is a read that takes what it can get in good time.
func (c *Coordinator) search(ctx context.Context, pl plan, q query) (collection, error) {
	ctx, cancel := context.WithTimeout(ctx, early(ctx))
	defer cancel()
	q.hedge = HedgeAll
	known, _ := c.collect(ctx, pl, q)
	return known, nil
}

var errUnheard = errors.New("not all were heard")

// askEach is a search that must hear as many as it needs.
func (c *Coordinator) askEach(ctx context.Context, pl plan, q query) (collection, error) {
	known, err := c.search(ctx, pl, q)
	if err == nil && !known.tally.Reached() {
		err = errUnheard
	}
	return known, err
}

// unapplied marks the errors of the read that judges a condition: it precedes
// the write.
func unapplied(err error) error {
	if e, ok := errors.AsType[*kv.Error](err); ok {
		before := *e
		before.Outcome = kv.NotApplied
		return &before
	}
	return MarkNotRun(err)
}

// undecided marks the errors of an update that was not given a dot.
func undecided(err error) error {
	if _, ok := errors.AsType[*kv.Error](err); ok {
		return err
	}
	return MarkNotRun(err)
}

// reachable refuses a strict write that cannot reach its count before any
// state is sent. Only refused connections count against an owner: one that is
// merely silent may answer yet.
func (c *Coordinator) reachable(ctx context.Context, pl plan, p Put) error {
	if c.allConnected(pl) {
		return nil
	}
	t := NewTally(p.W.Of(p.N), pl.groups)
	t.Yes(c.Self)
	for _, id := range t.Owners() {
		switch {
		case id == c.Self:
		case pl.down(id):
			t.No(id, errTakenDown)
		case c.Replicas.Connected(id):
			t.Yes(id)
		}
	}
	if t.Reached() {
		return nil
	}
	return c.connect(ctx, pl, p, t)
}

// allConnected reports whether a connection to every owner that counts stands.
func (c *Coordinator) allConnected(pl plan) bool {
	for _, group := range pl.groups {
		for _, id := range group {
			if id != c.Self && (pl.down(id) || !c.Replicas.Connected(id)) {
				return false
			}
		}
	}
	return true
}

// connect waits until so many of the owners that t has not heard of can be
// reached, or cannot.
func (c *Coordinator) connect(ctx context.Context, pl plan, p Put, t *Tally) error {
	type answer struct {
		id  kv.NodeID
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	owners := t.Owners()
	inbox := make(chan answer, len(owners))
	for _, id := range owners {
		if t.Answered(id) {
			continue
		}
		if !c.spawn(func() { inbox <- answer{id, c.Replicas.Reachable(ctx, id)} }) {
			inbox <- answer{id, errClosed}
		}
	}
	for !t.Reached() && !t.Lost() {
		select {
		case a := <-inbox:
			if a.err != nil {
				t.No(a.id, a.err)
			} else {
				t.Yes(a.id)
			}
		case <-ctx.Done():
			if len(inbox) == 0 {
				return unreachable(pl, p, t, kv.CodeTimeout)
			}
		}
	}
	if t.Reached() {
		return nil
	}
	return unreachable(pl, p, t, unreachedCode(ctx))
}

func unreachable(pl plan, p Put, t *Tally, code kv.Code) error {
	failed := pl.failures(t)
	return &kv.Error{
		Code: code, Outcome: kv.NotApplied, N: p.N, W: p.W.Of(p.N), Failed: failed, RetryAfter: time.Second,
		Message: fmt.Sprintf("w=%d owners cannot be reached, nothing was written: missing %s; lower w, "+
			"or let other nodes stand in with sloppy=true", p.W.Of(p.N), names(failed)),
	}
}

// commitment is the fate of the local commit, known once done is closed.
type commitment struct {
	done chan struct{}
	err  error
}

// assignLocally gives the write its dot in this node's record. It returns once
// the dot is given, while the commit is still under way: the record may go to
// the others meanwhile, so that a write costs the slowest of its w.
func (c *Coordinator) assignLocally(ctx context.Context, pl plan, in intent) (assignment, *commitment, error) {
	given := newBlobs(in)
	for {
		a, commit, err := c.assignOnce(ctx, pl, in, given)
		missing, ok := errors.AsType[*MissingBlobsError](err)
		if !ok {
			return a, commit, err
		}
		for _, d := range missing.Dots {
			b, err := c.blobOf(ctx, in.Key, in.known, d)
			if err != nil {
				return assignment{}, nil, unapplied(err)
			}
			given = append(given, b)
		}
	}
}

func newBlobs(in intent) []kv.Blob {
	if in.Tombstone || len(in.Value) <= kv.InlineLimit {
		return nil
	}
	return []kv.Blob{{Data: in.Value}} // its dot is not known yet
}

// blobOf fetches the external value that the collection holds under d.
func (c *Coordinator) blobOf(ctx context.Context, key kv.Key, known collection, d vclock.Dot) (kv.Blob, error) {
	i := slices.IndexFunc(known.merged.Live, func(v kv.Version) bool { return v.Dot == d })
	if i < 0 {
		return kv.Blob{}, fmt.Errorf("no owner told of %v", d)
	}
	data, err := c.external(ctx, key, known, known.merged.Live[i])
	return kv.Blob{Dot: d, Data: data}, err
}

// The states of an update on its way into the local record.
const (
	waiting = iota
	deciding
	withdrawn
)

var errSlowDisk = &kv.Error{
	Code: kv.CodeOverloaded, Outcome: kv.NotApplied, RetryAfter: time.Second,
	Message: "the disk of the node does not keep up: try again in a moment",
}

var errWithdrawn = errors.New("withdrawn before a dot was given")

// assigning is one update on its way into the local record.
type assigning struct {
	*Coordinator

	ctx   context.Context //nolint:containedctx // of the one request
	in    intent
	given []kv.Blob

	state   atomic.Int32
	decided chan struct{} // holds a token once made is there
	made    assignment
	commit  commitment
}

// assignOnce runs assign in one read-modify-write. If the store does not get
// to it in good time, the update is withdrawn, and so has certainly done nothing.
func (c *Coordinator) assignOnce(ctx context.Context, pl plan, in intent, given []kv.Blob) (assignment, *commitment, error) {
	a := &assigning{Coordinator: c, ctx: ctx, in: in, given: given, decided: make(chan struct{}, 1)}
	a.commit.done = make(chan struct{})
	err := c.Local.Assign(AssignRequest{
		Slot:       kv.Slot{Target: in.standInFor, Partition: uint16(pl.partition), Key: in.Key},
		Fence:      pl.view.Digest(),
		Durability: in.Durability,
		Size:       size(in, given),
		Decide:     a.decide,
		Done:       a.done,
	})
	if err != nil {
		return assignment{}, nil, undecided(err)
	}
	if err := a.wait(); err != nil {
		return assignment{}, nil, err
	}
	return a.made, &a.commit, nil
}

// decide is called in the store's serial order.
func (a *assigning) decide(old Held) (kv.Record, []kv.Blob, error) {
	if a.ctx.Err() != nil || !a.state.CompareAndSwap(waiting, deciding) {
		return kv.Record{}, nil, errWithdrawn
	}
	if err := a.in.checkStanding(old); err != nil {
		return kv.Record{}, nil, err
	}
	made, err := assign(a.in, old, a.mint, a.Now())
	if err != nil {
		return kv.Record{}, nil, err
	}
	blobs, err := made.blobs(old.Record, a.given)
	if err == nil {
		a.made = made
		a.decided <- struct{}{}
	}
	return made.record, blobs, err
}

// done is told what became of the commit.
func (a *assigning) done(err error) {
	a.commit.err = err
	close(a.commit.done)
}

// wait returns nil once a dot is given: it is in made then.
func (a *assigning) wait() error {
	patience := a.timer(late(a.ctx) / 2) // before the routing loses patience with this node
	defer a.recycle(patience)
	for {
		select {
		case <-a.decided:
			return nil
		case <-a.commit.done:
			select {
			case <-a.decided:
				return nil
			default:
				return undecided(a.commit.err)
			}
		case <-patience.C:
		}
		if a.state.CompareAndSwap(waiting, withdrawn) {
			return errSlowDisk
		}
		// The decision is being made this very moment: wait for it.
	}
}

func size(in intent, given []kv.Blob) int {
	n := len(in.Value)
	for _, b := range given {
		n += len(b.Data)
	}
	return n
}

// blobs are the external values that the record needs and old does not have,
// the write's own under its new dot.
func (a assignment) blobs(old kv.Record, given []kv.Blob) ([]kv.Blob, error) {
	var out []kv.Blob
	var missing []vclock.Dot
	for _, v := range a.record.Live {
		if !v.Value.External || old.Holds(v.Dot) {
			continue
		}
		i := slices.IndexFunc(given, func(b kv.Blob) bool { return b.Dot == v.Dot || b.Dot.IsZero() && v.Dot == a.dot })
		if i < 0 {
			missing = append(missing, v.Dot)
			continue
		}
		out = append(out, kv.Blob{Dot: v.Dot, Data: given[i].Data})
	}
	if len(missing) > 0 {
		return nil, &MissingBlobsError{Dots: missing}
	}
	return out, nil
}
