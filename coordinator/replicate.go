package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/starling-kv/starling/kv"
)

// spreading carries an assigned record to the replicas and counts who has it.
type spreading struct {
	*Coordinator
	assignment
	put        Put
	commit     *commitment
	standInFor kv.NodeID

	encoded  []byte
	life     lifetime
	pl       plan // of this round
	tally    *Tally
	inbox    chan stored
	standIns []kv.NodeID
	open     int
	reported missing
}

// missing are the owners that were reported to lack the write, each once. It is
// safe for concurrent use.
type missing struct {
	mu     sync.Mutex
	owners []kv.NodeID
}

// add reports whether owner is new.
func (m *missing) add(owner kv.NodeID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if slices.Contains(m.owners, owner) {
		return false
	}
	m.owners = append(m.owners, owner)
	return true
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
	deadline, _ := ctx.Deadline()
	s.life.begin(s.base, deadline) //nolint:contextcheck // what the answer no longer needs, the owners still do
	defer s.life.leave()
	for range maxRestarts {
		err := s.round(ctx, pl)
		stale, ok := errors.AsType[*StaleViewError](err)
		switch {
		case err == nil:
			return s.done(), nil
		case !ok:
			return PutDone{}, err
		}
		if pl, err = s.replan(stale); err != nil {
			s.missedByAll()
			return PutDone{}, s.failed(kv.CodeInternal, brief(err))
		}
	}
	s.missedByAll()
	return PutDone{}, s.failed(kv.CodeNotReady, "the nodes do not agree on the cluster's layouts")
}

// replan is the plan under the view of a replica that knows more.
func (s *spreading) replan(stale *StaleViewError) (plan, error) {
	if err := s.learn(stale); err != nil {
		return plan{}, err
	}
	pl, err := newPlan(s.Cluster.View(), s.put.Key, s.put.N)
	if err == nil {
		err = pl.check("w", s.put.W.Of(s.put.N))
	}
	return pl, err
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
	d.Acked, d.Hinted = s.pl.counted(s.tally)
	return d
}

// round sends to all owners of one view at once, wider ones included: whoever
// ever held the key must hear of it, but only the first n count.
func (s *spreading) round(ctx context.Context, pl plan) error {
	s.pl, s.tally, s.standIns = pl, NewTally(s.put.W.Of(pl.n), pl.groups), nil
	if s.put.Sloppy {
		s.standIns = slices.DeleteFunc(pl.standIns(), func(id kv.NodeID) bool { return id == s.Self })
	}
	targets := s.targets(pl)
	s.inbox, s.open = make(chan stored, len(targets)+len(s.standIns)), 0
	for _, id := range targets {
		switch {
		case pl.down(id):
			s.no(id, errTakenDown)
			s.missed(id)
		default:
			s.send(id, id)
		}
	}
	return s.wait(ctx)
}

// targets are the owners that the record is sent to: not this node, which has
// it, nor the owner for which it has it.
func (s *spreading) targets(pl plan) []kv.NodeID {
	return slices.DeleteFunc(pl.owners(max(pl.n, int(s.record.NMax))), func(id kv.NodeID) bool {
		return id == s.Self || id == s.standInFor
	})
}

func (s *spreading) wait(ctx context.Context) error {
	committed := s.commit.done
	var gone <-chan struct{} // see within
	patience := late(ctx)
	timer := s.timer(patience)
	defer s.recycle(timer)
	for !s.tally.Reached() {
		if s.tally.Lost() && (!s.put.Sloppy || s.open == 0 && committed == nil) {
			return s.failed(unreachedCode(ctx), "too few owners stored the write")
		}
		select {
		case <-committed:
			committed = nil
			s.countSelf()
		case r := <-s.inbox:
			s.open--
			if err := s.count(r); err != nil {
				return err
			}
		case <-timer.C:
			if len(s.inbox) == 0 {
				s.replaceSilent()
			}
			timer.Reset(patience)
			gone = ctx.Done()
		case <-gone:
			if len(s.inbox) == 0 {
				return s.failed(kv.CodeTimeout, "too few owners stored the write")
			}
		}
	}
	return nil
}

// replaceSilent brings in a stand-in for each owner that has not answered.
func (s *spreading) replaceSilent() {
	for _, id := range s.tally.Owners() {
		if !s.tally.Answered(id) {
			s.bringStandIn(id)
		}
	}
}

func (s *spreading) countSelf() {
	switch {
	case s.commit.err != nil && s.standInFor == 0:
		s.no(s.Self, s.commit.err)
	case s.commit.err != nil:
		s.no(s.standInFor, s.commit.err)
	case s.standInFor != 0:
		s.tally.StandIn(s.standInFor, s.Self)
	default:
		s.tally.Yes(s.Self)
	}
}

func (s *spreading) count(r stored) error {
	if stale := s.pl.newer(r.err); stale != nil {
		return stale
	}
	switch {
	case r.err != nil && r.to == r.owner:
		s.no(r.owner, r.err)
	case r.err != nil:
		s.bringStandIn(r.owner)
	case r.to != r.owner:
		s.tally.StandIn(r.owner, r.to)
	default:
		s.tally.Yes(r.owner)
	}
	return nil
}

func (s *spreading) no(owner kv.NodeID, reason error) {
	s.tally.No(owner, reason)
	s.bringStandIn(owner)
}

// bringStandIn sends the record to the next node that may keep it for owner,
// if the request allows stand-ins and the owner would count.
func (s *spreading) bringStandIn(owner kv.NodeID) {
	if len(s.standIns) == 0 || !s.pl.owns(owner) {
		return
	}
	id := s.standIns[0]
	s.standIns = s.standIns[1:]
	s.send(id, owner)
}

func (s *spreading) send(to, owner kv.NodeID) {
	req := StoreRequest{
		Fence: s.pl.fence(), Key: s.put.Key, Durability: s.put.Durability, Reap: s.reap, Record: s.encoded, Blobs: s.ownBlob(),
	}
	if to != owner {
		req.Target = owner
	}
	inbox, pl := s.inbox, s.pl
	s.open++
	if !s.begin() {
		inbox <- stored{to: to, owner: owner, err: errClosed}
		return
	}
	s.life.enter()
	s.Replicas.Store(s.life.ctx, to, req, func(err error) {
		if err != nil {
			go s.insist(pl, to, owner, req, err, inbox)
			return
		}
		inbox <- stored{to: to, owner: owner}
		s.ended()
	})
}

// ended is the end of what send began.
func (s *spreading) ended() {
	s.life.leave()
	s.running.Done()
}

// missed has it reported that owner lacks the write.
func (s *spreading) missed(owner kv.NodeID) {
	pl := s.pl
	s.spawn(func() { s.report(pl, owner) })
}

// missedByAll is missed for all owners that have not confirmed the write, where
// the last round did not go through to all.
func (s *spreading) missedByAll() {
	for _, id := range s.targets(s.pl) {
		if v, ok := s.tally.vote(id); !ok || !v.yes || v.by != 0 {
			s.missed(id)
		}
	}
}

// report says, once, that owner lacks the write. Before, it waits for this
// node's own commit: whoever asks for the record afterwards gets the write.
func (s *spreading) report(pl plan, owner kv.NodeID) {
	select {
	case <-s.commit.done:
	case <-s.base.Done():
	}
	if s.reported.add(owner) {
		s.Repairs.Missed(owner, uint16(pl.partition), s.put.Key)
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

// failed is the error of a write that has its dot: it may be seen, now or later.
func (s *spreading) failed(code kv.Code, why string) error {
	acked, hinted := s.pl.counted(s.tally)
	failed := s.pl.failures(s.tally)
	return &kv.Error{
		Code: code, Outcome: kv.Unknown, N: s.put.N, W: s.put.W.Of(s.put.N), Acked: acked, Hinted: hinted, Failed: failed,
		RetryAfter: time.Second,
		Message: fmt.Sprintf("%s: %d of %d needed, missing %s; repeat it under the same write id, or read the key",
			why, len(acked)+len(hinted), s.put.W.Of(s.put.N), names(failed)),
	}
}
