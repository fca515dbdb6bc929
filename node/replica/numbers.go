package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/storage"
)

// factReap begins the names of the facts that keep the reap numbers of
// partitions: the partition follows as four hexadecimal digits.
const factReap = "reap/"

func reapFact(partition uint16) string { return fmt.Sprintf("%s%04x", factReap, partition) }

// A reap number is the last round of reaping that the node knows of a partition.
// Whatever was read elsewhere under a lower one may hold what was removed since.
//
// Invariant: stored <= known, and they are equal while none is pending. A number is known from the moment at which the
// store's serial order has it, so that nothing that follows there is merged
// under an older one. It is stored once it is on the disk: what leaves the node
// carries that one, for a number that is lost in a crash would be given to
// another round.
type number struct {
	known, stored uint64
	pending       int // changes between the serial order and the disk
}

// numbers are those of all partitions. It is safe for concurrent use.
type numbers struct {
	mu sync.RWMutex
	of map[uint16]number // those that are not zero
}

// load reads what the store keeps.
func (n *numbers) load(store *storage.Store) error {
	n.of = make(map[uint16]number)
	err := store.ScanMeta(factReap, func(name string, value []byte) error {
		partition, err := strconv.ParseUint(strings.TrimPrefix(name, factReap), 16, 16)
		if err != nil {
			return fmt.Errorf("fact %q: %w", name, err)
		}
		to, err := decodeNumber(value)
		n.of[uint16(partition)] = number{known: to, stored: to}
		return err
	})
	if err != nil {
		return fmt.Errorf("load reap numbers: %w", err)
	}
	return nil
}

func (n *numbers) get(partition uint16) number {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.of[partition]
}

// stored is the number under which records leave the node. Read it before the
// record.
func (n *numbers) stored(partition uint16) uint64 { return n.get(partition).stored }

// settled returns the known number, and whether it is stored.
func (n *numbers) settled(partition uint16) (uint64, bool) {
	at := n.get(partition)
	return at.known, at.known == at.stored
}

// check refuses what was read under a lower number than the known one.
func (n *numbers) check(partition uint16, reap uint64) error {
	if at := n.get(partition); reap < at.known {
		return &coordinator.StaleReapError{Number: at.known}
	}
	return nil
}

// learn makes a number known. It is called in the store's serial order.
func (n *numbers) learn(partition uint16, to uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.of[partition]
	at.known = max(at.known, to)
	at.pending++
	n.of[partition] = at
}

// settle is told what became of a number that was learnt: err is that of its
// commit.
func (n *numbers) settle(partition uint16, to uint64, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.of[partition]
	if err == nil {
		at.stored = max(at.stored, to)
	}
	if at.pending--; at.pending == 0 {
		at.known = at.stored
	}
	n.of[partition] = at
}

// Number returns the reap number that the node knows of a partition; within a
// step of the store's serial order, the one that holds there. It may not be on
// the disk yet: what leaves the node carries that of [Replica.Read] and of
// parcels.
func (r *Replica) Number(partition uint16) uint64 { return r.numbers.get(partition).known }

// Numbers returns the reap numbers that are known, by partition; those of the
// others are zero. They are for a node that lost its own, and need not be on this
// disk: it only refuses more by them.
func (r *Replica) Numbers() map[uint16]uint64 {
	r.numbers.mu.RLock()
	defer r.numbers.mu.RUnlock()
	all := make(map[uint16]uint64, len(r.numbers.of))
	for p, n := range r.numbers.of {
		all[p] = n.known
	}
	return all
}

// Read returns what a slot holds, and the reap number of its partition as it was
// before.
func (r *Replica) Read(slot kv.Slot) (kv.Record, uint64, error) {
	reap := r.numbers.stored(slot.Partition)
	rec, err := r.get(slot)
	return rec, reap, told(err)
}

// Raise makes to the partition's reap number if it is lower, and returns once
// that is on the disk. A node may do so whenever it meets a higher number: no
// round is complete without its own confirmation, which it refuses from then on
// for that round. Only a node that does not know whether its disk is an old one
// may have confirmed what it has forgotten; it is refused.
func (r *Replica) Raise(ctx context.Context, partition uint16, to uint64) error {
	if r.numbers.stored(partition) >= to {
		return nil
	}
	if !r.standing.Registered() {
		return errNotRegistered()
	}
	return r.Recover(ctx, partition, to)
}

// Recover makes to the partition's reap number, durably, if it is lower, before
// the node takes anything, when it is known that its disk was not set back: one
// that was must not pass for one that confirmed.
func (r *Replica) Recover(ctx context.Context, partition uint16, to uint64) error {
	done := make(chan error, 1)
	if err := r.raise(partition, to, func(err error) { done <- err }); err != nil {
		return told(err)
	}
	select {
	case err := <-done:
		return told(err)
	case <-ctx.Done():
		return fmt.Errorf("raise the reap number of partition %d: %w", partition, ctx.Err())
	}
}

// heed raises the number for somebody who reads. Where it cannot, the answer says
// so by its number. It waits for no more than one commit.
func (r *Replica) heed(partition uint16, to uint64) {
	if r.numbers.stored(partition) >= to || !r.standing.Registered() {
		return
	}
	done := make(chan struct{})
	if err := r.raise(partition, to, func(error) { close(done) }); err == nil {
		<-done
	}
}

func (r *Replica) raise(partition uint16, to uint64, done func(error)) error {
	learnt := false // touched by the store's one committing goroutine
	apply := func(old []byte) ([]byte, error) {
		at, err := decodeNumber(old)
		if err != nil || at >= to {
			return old, err
		}
		r.numbers.learn(partition, to)
		learnt = true
		return binary.AppendUvarint(nil, to), nil
	}
	return r.store.SubmitMeta(reapFact(partition), apply, true, func(err error) {
		if learnt {
			r.numbers.settle(partition, to, err)
		}
		done(err)
	})
}

// decodeNumber reads the fact of a number. There is none before the first round.
func decodeNumber(fact []byte) (uint64, error) {
	if fact == nil {
		return 0, nil
	}
	rd := wire.NewReader(fact)
	to := rd.Uvarint()
	if err := rd.Close(); err != nil {
		return 0, errors.Join(errors.New("a stored reap number is damaged"), err)
	}
	return to, nil
}
