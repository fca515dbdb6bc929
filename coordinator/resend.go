package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// insist goes on after a first call has failed.
func (s *spreading) insist(pl plan, to, owner kv.NodeID, req StoreRequest, err error, inbox chan<- stored) {
	defer s.ended()
	err = s.store(s.life.ctx, pl, to, req, err)
	inbox <- stored{to: to, owner: owner, err: err}
	// After a newer view the record is sent again.
	if err != nil && to == owner && pl.newer(err) == nil {
		s.report(pl, owner)
	}
}

// store goes on after a call that has failed: it sends what the replica lacks
// and, while that knows of later rounds of reaping than the record was made
// under, the record as it is after these.
func (s *spreading) store(ctx context.Context, pl plan, to kv.NodeID, req StoreRequest, err error) error {
	record := s.record
	for tries := 1; ; tries++ {
		err = s.complete(ctx, pl, to, req, err, func(d vclock.Dot) ([]byte, error) { return s.value(ctx, pl, record, d) })
		stale, ok := errors.AsType[*StaleReapError](err)
		if !ok || tries == maxReapRounds {
			return err
		}
		if record, req.Reap, err = s.readAgain(ctx, pl, stale.Number); err != nil {
			return err
		}
		req.Record = kv.AppendRecord(nil, record)
		err = s.storeOnce(ctx, to, req)
	}
}

// give sends a record, and again with the values that the replica turns out to
// lack.
func (c *Coordinator) give(
	ctx context.Context, pl plan, to kv.NodeID, req StoreRequest, value func(vclock.Dot) ([]byte, error),
) error {
	req.Fence = pl.fence()
	return c.complete(ctx, pl, to, req, c.storeOnce(ctx, to, req), value)
}

// complete goes on after a call that has come to err: it sends the record again
// with what the replica turned out to lack, of the view and then of the values.
func (c *Coordinator) complete(
	ctx context.Context, pl plan, to kv.NodeID, req StoreRequest, err error, value func(vclock.Dot) ([]byte, error),
) error {
	if full, again := pl.fuller(err); again {
		retry := req
		retry.Fence = full
		err = c.storeOnce(ctx, to, retry)
	}
	missing, ok := errors.AsType[*MissingBlobsError](err)
	if !ok {
		return err
	}
	req.Blobs = slices.Clone(req.Blobs)
	for _, d := range missing.Dots {
		data, err := value(d)
		if err != nil {
			return fmt.Errorf("read a value that the replica lacks: %w", err)
		}
		req.Blobs = append(req.Blobs, kv.Blob{Dot: d, Data: data})
	}
	_, err = send(pl, func(f Fence) (struct{}, error) {
		req.Fence = f
		return struct{}{}, c.storeOnce(ctx, to, req)
	})
	return err
}

// storeOnce makes one call and waits for it.
func (c *Coordinator) storeOnce(ctx context.Context, to kv.NodeID, req StoreRequest) error {
	done := make(chan error, 1)
	c.Replicas.Store(ctx, to, req, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readAgain is the record as this node holds it once it knows of the round of
// reaping with that number: what it holds then was not reaped in it, since a
// round ends only if every member has confirmed it, and with that learnt its
// number.
func (s *spreading) readAgain(ctx context.Context, pl plan, number uint64) (kv.Record, uint64, error) {
	if err := s.committed(ctx); err != nil {
		return kv.Record{}, 0, err
	}
	if err := s.Local.Raise(ctx, uint16(pl.partition), number); err != nil {
		return kv.Record{}, 0, fmt.Errorf("learn of a round of reaping: %w", err)
	}
	record, reap, err := s.Local.Read(kv.Slot{Target: s.standInFor, Partition: uint16(pl.partition), Key: s.put.Key})
	if err == nil && !record.Clock.Covers(s.dot) {
		err = errGone
	}
	return record, reap, err
}

var errGone = errors.New("the write is no longer found where it was given its dot")

// committed waits for this node's own commit.
func (s *spreading) committed(ctx context.Context) error {
	select {
	case <-s.commit.done:
		return s.commit.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// value is the external value that record holds under d, which this node has
// once its commit is done.
func (s *spreading) value(ctx context.Context, pl plan, record kv.Record, d vclock.Dot) ([]byte, error) {
	if d == s.dot {
		return s.put.Value, nil
	}
	i := slices.IndexFunc(record.Live, func(v kv.Version) bool { return v.Dot == d })
	if i < 0 {
		return nil, fmt.Errorf("no value is known under %v", d)
	}
	select {
	case <-s.commit.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v := record.Live[i].Value
	return s.Replicas.Value(ctx, s.Self, ValueRequest{
		Fence: Fence{Digest: pl.view.Digest()}, Key: s.put.Key, StandIn: s.standInFor != 0,
		Dot: d, Length: v.Length, Checksum: v.Checksum,
	})
}
