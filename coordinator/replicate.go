package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// spreading carries an assigned record to the replicas and counts who has it.
type spreading struct {
	*Coordinator
	assignment
	put        Put
	commit     *commitment
	standInFor kv.NodeID

	encoded  []byte
	pl       plan // of this round
	tally    *Tally
	inbox    chan stored
	standIns []kv.NodeID
	open     int
}

// stored is what became of one copy.
type stored struct {
	to, owner kv.NodeID
	err       error
}

// run sends until w owners have the record in every active layout. The sends
// still under way then go on: they are bounded by the request's deadline.
func (s *spreading) run(ctx context.Context, pl plan) (PutDone, error) {
	s.encoded = kv.AppendRecord(nil, s.record)
	for range maxRestarts {
		err := s.round(ctx, pl)
		stale, ok := errors.AsType[*StaleViewError](err)
		switch {
		case err == nil:
			return s.done(), nil
		case !ok:
			return PutDone{}, err
		}
		if err := s.learn(stale); err != nil {
			return PutDone{}, s.failed(kv.CodeInternal, brief(err))
		}
		if pl, err = newPlan(s.Cluster.View(), s.put.Key, s.put.N); err == nil {
			err = pl.check("w", s.put.W.Of(s.put.N))
		}
		if err != nil {
			return PutDone{}, s.failed(kv.CodeInternal, brief(err))
		}
	}
	return PutDone{}, s.failed(kv.CodeNotReady, "the nodes do not agree on the cluster's layouts")
}

// done is the answer to the write. A tag stands for values that the client
// knows: it has been shown no other than its own.
func (s *spreading) done() PutDone {
	d := PutDone{Token: s.token, Dot: s.dot, WriteID: s.put.WriteID}
	values, _ := s.record.Visible(s.Now())
	d.Siblings = len(values)
	if len(values) == 1 && (intent{Put: s.put}).made(values[0], s.dot) {
		d.ETag = kv.ETag(values)
	}
	d.Acked, d.Hinted, _ = s.pl.failures(s.tally)
	return d
}

// round sends to all owners of one view at once, wider ones included: whoever
// ever held the key must hear of it, but only the first n count.
func (s *spreading) round(ctx context.Context, pl plan) error {
	s.pl, s.tally, s.standIns = pl, NewTally(s.put.W.Of(pl.n), pl.groups), nil
	if s.put.Sloppy {
		s.standIns = slices.DeleteFunc(pl.standIns(), func(id kv.NodeID) bool { return id == s.Self })
	}
	targets := pl.owners(max(pl.n, int(s.record.NMax)))
	s.inbox, s.open = make(chan stored, len(targets)+len(s.standIns)), 0
	for _, id := range targets {
		switch {
		case id == s.Self || id == s.standInFor:
		case pl.down(id):
			s.no(ctx, id, errTakenDown)
		default:
			s.send(ctx, id, id)
		}
	}
	return s.wait(ctx)
}

func (s *spreading) wait(ctx context.Context) error {
	committed := s.commit.done
	patience := late(ctx)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for !s.tally.Reached() {
		if s.tally.Lost() && (!s.put.Sloppy || s.open == 0 && committed == nil) {
			return s.failed(unreachedCode(ctx), "too few owners stored the write")
		}
		select {
		case <-committed:
			committed = nil
			s.countSelf(ctx)
		case r := <-s.inbox:
			s.open--
			if err := s.count(ctx, r); err != nil {
				return err
			}
		case <-timer.C:
			if len(s.inbox) == 0 {
				s.replaceSilent(ctx)
			}
			timer.Reset(patience)
		case <-ctx.Done():
			if len(s.inbox) == 0 {
				return s.failed(kv.CodeTimeout, "too few owners stored the write")
			}
		}
	}
	return nil
}

// replaceSilent brings in a stand-in for each owner that has not answered.
func (s *spreading) replaceSilent(ctx context.Context) {
	for _, id := range s.tally.Owners() {
		if !s.tally.Answered(id) {
			s.bringStandIn(ctx, id)
		}
	}
}

func (s *spreading) countSelf(ctx context.Context) {
	switch {
	case s.commit.err != nil && s.standInFor == 0:
		s.no(ctx, s.Self, s.commit.err)
	case s.commit.err != nil:
		s.no(ctx, s.standInFor, s.commit.err)
	case s.standInFor != 0:
		s.tally.StandIn(s.standInFor, s.Self)
	default:
		s.tally.Yes(s.Self)
	}
}

func (s *spreading) count(ctx context.Context, r stored) error {
	if stale := s.pl.newer(r.err); stale != nil {
		return stale
	}
	switch {
	case r.err != nil && r.to == r.owner:
		s.no(ctx, r.owner, r.err)
	case r.err != nil:
		s.bringStandIn(ctx, r.owner)
	case r.to != r.owner:
		s.tally.StandIn(r.owner, r.to)
	default:
		s.tally.Yes(r.owner)
	}
	return nil
}

func (s *spreading) no(ctx context.Context, owner kv.NodeID, reason error) {
	s.tally.No(owner, reason)
	s.bringStandIn(ctx, owner)
}

// bringStandIn sends the record to the next node that may keep it for owner,
// if the request allows stand-ins and the owner would count.
func (s *spreading) bringStandIn(ctx context.Context, owner kv.NodeID) {
	if len(s.standIns) == 0 || !s.pl.owns(owner) {
		return
	}
	id := s.standIns[0]
	s.standIns = s.standIns[1:]
	s.send(ctx, id, owner)
}

func (s *spreading) send(ctx context.Context, to, owner kv.NodeID) {
	req := StoreRequest{Key: s.put.Key, Durability: s.put.Durability, Record: s.encoded, Blobs: s.ownBlob()}
	if to != owner {
		req.Target = owner
	}
	deadline, _ := ctx.Deadline()
	inbox, pl := s.inbox, s.pl
	s.open++
	ok := s.spawn(func() { //nolint:contextcheck // what the answer no longer needs, the owner still does
		ctx, cancel := context.WithDeadline(s.base, deadline)
		defer cancel()
		inbox <- stored{to: to, owner: owner, err: s.store(ctx, pl, to, req)}
	})
	if !ok {
		inbox <- stored{to: to, owner: owner, err: errClosed}
	}
}

// ownBlob is the value of the write, if it is stored by its dot. Whoever has a
// record that an earlier attempt left has it already.
func (s *spreading) ownBlob() []kv.Blob {
	if s.repeated {
		return nil
	}
	b := newBlobs(intent{Put: s.put})
	for i := range b {
		b[i].Dot = s.dot
	}
	return b
}

// store sends the record, and again with the values that the replica turns out
// to lack.
func (s *spreading) store(ctx context.Context, pl plan, to kv.NodeID, req StoreRequest) error {
	attempt := func() error {
		_, err := send(pl, func(f Fence) (struct{}, error) {
			req.Fence = f
			return struct{}{}, s.Replicas.Store(ctx, to, req)
		})
		return err
	}
	err := attempt()
	missing, ok := errors.AsType[*MissingBlobsError](err)
	if !ok {
		return err
	}
	for _, d := range missing.Dots {
		data, err := s.value(ctx, pl, d)
		if err != nil {
			return fmt.Errorf("read a value that the replica lacks: %w", err)
		}
		req.Blobs = append(req.Blobs, kv.Blob{Dot: d, Data: data})
	}
	return attempt()
}

// value is the external value under d, which this node has once its commit is
// done.
func (s *spreading) value(ctx context.Context, pl plan, d vclock.Dot) ([]byte, error) {
	if d == s.dot {
		return s.put.Value, nil
	}
	i := slices.IndexFunc(s.record.Live, func(v kv.Version) bool { return v.Dot == d })
	if i < 0 {
		return nil, fmt.Errorf("no value is known under %v", d)
	}
	select {
	case <-s.commit.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v := s.record.Live[i].Value
	return s.Replicas.Value(ctx, s.Self, ValueRequest{
		Fence: Fence{Digest: pl.view.Digest()}, Key: s.put.Key, StandIn: s.standInFor != 0,
		Dot: d, Length: v.Length, Checksum: v.Checksum,
	})
}

// failed is the error of a write that has its dot: it may be seen, now or later.
func (s *spreading) failed(code kv.Code, why string) error {
	acked, hinted, failed := s.pl.failures(s.tally)
	return &kv.Error{
		Code: code, Outcome: kv.Unknown, N: s.put.N, W: s.put.W.Of(s.put.N), Acked: acked, Hinted: hinted, Failed: failed,
		RetryAfter: time.Second,
		Message: fmt.Sprintf("%s: %d of %d needed, missing %s; repeat it under the same write id, or read the key",
			why, len(acked)+len(hinted), s.put.W.Of(s.put.N), names(failed)),
	}
}
