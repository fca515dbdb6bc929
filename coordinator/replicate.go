package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

// spreading carries an assigned record to the replicas and counts who has it.
type spreading struct {
	*Coordinator
	put Put
	assignment
	commit     *commitment
	standInFor kv.NodeID

	encoded  []byte
	pl       plan
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
		var stale *StaleView
		if !errors.As(err, &stale) {
			return s.done(), err
		}
		s.stats.restarts.Add(1)
		full, err := s.learn(stale)
		if err != nil {
			return PutDone{}, s.failed(kv.CodeInternal, err.Error())
		}
		if pl, err = newPlan(s.Cluster.View(), s.put.Key, s.put.N); err != nil {
			return PutDone{}, s.failed(kv.CodeInternal, err.Error())
		}
		pl.full = full
	}
	return PutDone{}, s.failed(kv.CodeNotReady, "the nodes do not agree on the cluster's layouts")
}

func (s *spreading) done() PutDone {
	d := PutDone{Token: s.token, Dot: s.dot, WriteID: s.put.WriteID}
	values, _ := s.record.Visible(s.Now())
	d.Siblings = len(values)
	if len(values) > 0 {
		d.ETag = kv.ETag(values)
	}
	d.Acked, d.Hinted, _ = s.pl.failures(s.tally)
	return d
}

// round sends to all owners of one view at once, wider ones included: whoever
// ever held the key must hear of it, but only the first n count.
func (s *spreading) round(ctx context.Context, pl plan) error {
	s.pl, s.tally, s.standIns = pl, NewTally(s.put.W.Of(pl.n), pl.groups()), pl.standIns()
	s.standIns = slices.DeleteFunc(s.standIns, func(id kv.NodeID) bool { return id == s.Self && s.standInFor != 0 })
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
	patience := time.NewTimer(late(ctx, s.Now()))
	defer patience.Stop()
	for !s.tally.Reached() {
		if s.tally.Lost() && (!s.put.Sloppy || s.open == 0 && committed == nil) {
			return s.failed(kv.CodeQuorumUnreached, "too few owners stored the write")
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
		case <-patience.C:
			for _, id := range s.tally.Owners() {
				if !s.tally.Answered(id) && id != s.Self {
					s.bringStandIn(ctx, id)
				}
			}
		case <-ctx.Done():
			return s.failed(kv.CodeTimeout, "too few owners stored the write in time")
		}
	}
	return nil
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
	var stale *StaleView
	switch {
	case errors.As(r.err, &stale):
		return stale
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
// if the request allows stand-ins.
func (s *spreading) bringStandIn(ctx context.Context, owner kv.NodeID) {
	if !s.put.Sloppy || len(s.standIns) == 0 {
		return
	}
	id := s.standIns[0]
	s.standIns = s.standIns[1:]
	s.send(ctx, id, owner)
}

func (s *spreading) send(ctx context.Context, to, owner kv.NodeID) {
	req := StoreRequest{
		Fence: s.pl.fence(), Key: s.put.Key, Durability: s.put.Durability, Record: s.encoded, Blobs: s.ownBlob(),
	}
	if to != owner {
		req.Target = owner
	}
	deadline, _ := ctx.Deadline()
	inbox := s.inbox
	s.open++
	ok := s.spawn(func() {
		// Not ctx: what the answer no longer needs, the owner still does.
		ctx, cancel := context.WithDeadline(s.base, deadline)
		defer cancel()
		inbox <- stored{to: to, owner: owner, err: s.store(ctx, to, req)}
	})
	if !ok {
		inbox <- stored{to: to, owner: owner, err: errClosed}
	}
}

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
func (s *spreading) store(ctx context.Context, to kv.NodeID, req StoreRequest) error {
	err := s.Replicas.Store(ctx, to, req)
	var missing *MissingBlobs
	if !errors.As(err, &missing) {
		return err
	}
	for _, d := range missing.Dots {
		i := slices.IndexFunc(s.record.Live, func(v kv.Version) bool { return v.Dot == d })
		if i < 0 {
			return err
		}
		v := s.record.Live[i].Value
		data, err := s.Replicas.Value(ctx, s.Self, ValueRequest{
			Fence: req.Fence, Key: req.Key, StandIn: s.standInFor != 0, Dot: d, Length: v.Length, Checksum: v.Checksum,
		})
		if err != nil {
			return fmt.Errorf("read a value that the replica lacks: %w", err)
		}
		req.Blobs = append(req.Blobs, kv.Blob{Dot: d, Data: data})
	}
	return s.Replicas.Store(ctx, to, req)
}

// failed is the error of a write that has its dot: it may be seen, now or later.
func (s *spreading) failed(code kv.Code, why string) error {
	s.stats.unreached.Add(1)
	acked, hinted, failed := s.pl.failures(s.tally)
	return &kv.Error{
		Code: code, Outcome: kv.Unknown, N: s.put.N, W: s.put.W.Of(s.put.N), Acked: acked, Hinted: hinted, Failed: failed,
		RetryAfter: time.Second,
		Message: fmt.Sprintf("%s: %d of %d needed, missing %s; repeat it under the same write id, or read the key",
			why, len(acked)+len(hinted), s.put.W.Of(s.put.N), names(failed)),
	}
}
