package replica

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/reap"
)

var _ reap.Store = (*Replica)(nil)

// Step implements [reap.Store]: rounds of reaping read and change several
// records and the reap number in one step of the store's serial order.
func (r *Replica) Step(ctx context.Context, sync bool, fn func(reap.Tx) error) error {
	s := step{numbers: &r.numbers} // touched by the store's one committing goroutine, until done
	done := make(chan error, 1)
	err := r.store.SubmitStep(storage.Step{
		Sync: sync,
		Run: func(tx *storage.Tx) error {
			s.Tx = tx
			return fn(&s)
		},
		Done: func(err error) {
			for _, to := range s.raised {
				r.numbers.settle(to.partition, to.number, err)
			}
			done <- err
		},
	})
	if err != nil {
		return told(err)
	}
	select {
	case err := <-done:
		return told(err)
	case <-ctx.Done():
		return fmt.Errorf("a step of reaping: %w", ctx.Err())
	}
}

// step is one step under way. It implements [reap.Tx].
type step struct {
	*storage.Tx

	numbers *numbers
	raised  []raise
}

type raise struct {
	partition uint16
	number    uint64
}

// Put replaces what a slot holds by less of it, so that no values are needed.
func (s *step) Put(slot kv.Slot, rec kv.Record) { s.Tx.Put(slot, storage.Change{Record: rec}) }

// Number returns the reap number of a partition.
func (s *step) Number(partition uint16) (uint64, error) {
	fact, err := s.Fact(reapFact(partition))
	if err != nil {
		return 0, err
	}
	return decodeNumber(fact)
}

// Raise sets the reap number of a partition to a higher one. It is known at once,
// so that whoever asks for it later is told.
func (s *step) Raise(partition uint16, to uint64) {
	s.SetFact(reapFact(partition), binary.AppendUvarint(nil, to))
	s.numbers.learn(partition, to)
	s.raised = append(s.raised, raise{partition, to})
}
