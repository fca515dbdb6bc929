package storage

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
)

// commitAll is the goroutine that commits: while one round is on its way to the
// disk, the next gathers in the queue. It ends, and closes the engine, after
// Close.
func (s *Store) commitAll() {
	defer close(s.done)
	var tasks []task
	r := &round{s: s, made: newResults()}
	for s.queue.await() {
		s.opts.Gather()
		tasks = s.queue.take(tasks[:0], s.opts.BatchLen, s.opts.BatchBytes)
		r.commit(tasks)
		clear(tasks)
		r.reset()
		s.checkpoint()
	}
	s.closeErr = errors.Join(s.lastCheckpoint(), s.engine.Close())
	s.cache.reset()
}

// commit applies the tasks in their order and answers each.
func (r *round) commit(tasks []task) {
	for i, t := range tasks {
		if r.err != nil || r.s.counts.failed.Load() {
			r.settle()
			r.s.refuseAll(tasks[i:])
			return
		}
		r.apply(t)
	}
	r.settle()
}

// refuseAll answers tasks that will not be applied.
func (s *Store) refuseAll(tasks []task) {
	for _, t := range tasks {
		s.counts.updates.Add(1)
		s.answer(t.done, s.refusal())
	}
}

func (s *Store) answer(done func(error), err error) {
	done(err)
	if s.opts.Answered != nil {
		s.opts.Answered()
	}
}

func (s *Store) refusal() error {
	if s.counts.failed.Load() {
		return ErrFailed
	}
	return ErrDiskFull
}

// wait queues a task and waits for its answer. It must not be called by the
// committing goroutine.
func (s *Store) wait(t task) error {
	answer := make(chan error, 1)
	t.done = func(err error) { answer <- err }
	if err := s.queue.put(t); err != nil {
		return err
	}
	return <-answer
}

// result is what an entry holds and, within a round, what the round made of it:
// what later tasks of the same round are given to see, since the engine does
// not hold it yet.
type result struct {
	record kv.Record
	digest uint64 // of a record of the node's own that is not absent
	fact   []byte // of anything else
	ref    reference
}

// round is one turn of the committing goroutine. It is done after settle; its
// room, which the engine's MaxBatch bounds, serves the next one.
type round struct {
	s      *Store
	made   *results
	batch  Batch          // not yet committed
	deltas []merkle.Delta // of the trees, by exactly the records in batch
	sync   bool           // a task asked for it, and there is something to sync
	done   []func(error)  // to be called once the round is on disk
	err    error          // of the engine: the outcome is open
}

// reset makes it ready for the next turn.
func (r *round) reset() {
	r.made.forget()
	r.batch.Reset()
	clear(r.done)
	r.deltas, r.done = r.deltas[:0], r.done[:0]
	r.sync, r.err = false, nil
}

// apply runs one task and adds what it changes to the batch. Errors that
// concern the task alone are answered at once.
func (r *round) apply(t task) {
	wrote, err := t.run(r)
	if err != nil && r.err == nil {
		r.s.counts.updates.Add(1)
		r.s.answer(t.done, err)
		return
	}
	// A task that changed nothing may have seen what is not synced yet.
	if t.sync && (wrote || r.pending() || r.s.unsynced) {
		r.sync = true
	}
	r.done = append(r.done, t.done)
}

// pending reports whether there is something to commit.
func (r *round) pending() bool { return r.batch.Len() > 0 || len(r.deltas) > 0 }

// stored returns what the slot with a storage key holds, as the round has made
// it so far. To mend it is to look at the disk: the cache does not know what
// became of it there.
func (r *round) stored(slot kv.Slot, key []byte, mend bool) (result, error) {
	if known, ok := r.made.of(key); ok {
		return known, nil
	}
	read := r.s.record
	if mend {
		read = r.s.readRecord
	}
	record, payload, ref, err := read(slotAddress(slot), key)
	found := result{record: record, ref: ref}
	if payload != nil && slot.Target == 0 {
		found.digest = kv.Digest(slot.Key, kv.Canonical(payload))
	}
	return found, err
}

func (r *round) applyUpdate(u Update) (wrote bool, err error) {
	key := slotAddress(u.Slot).bytes()
	old, err := r.stored(u.Slot, key, u.Mend)
	damaged := u.Mend && errors.Is(err, ErrCorrupt)
	if err != nil && !damaged {
		return false, err
	}
	c, err := u.Apply(old.record, r.s.Boot())
	switch {
	case err != nil:
		return false, err
	case c.Same && !damaged:
		r.made.keep(key, old)
		return false, nil
	case c.Same:
		return false, nil
	case damaged && u.Slot.Target == 0:
		if err := r.rebuild(u.Slot.Partition, u.Slot.Key.Leaf()); err != nil {
			return false, err
		}
	}
	p, err := planChange(u.Slot, key, old, c, r.s.opts.Random)
	if err != nil {
		return false, err
	}
	if err := r.add(p); err != nil {
		return false, err
	}
	r.keep(u.Slot, key, p.next)
	return true, nil
}

// keep notes what the round made of a slot.
func (r *round) keep(slot kv.Slot, key []byte, made result) {
	r.made.keep(key, made)
	if slot.Target != 0 {
		r.s.targets[slot.Target] = struct{}{}
	}
}

func (r *round) applyFact(name string, apply func([]byte) ([]byte, error)) (wrote bool, err error) {
	return r.applyEntry(metaAddress(name), apply)
}

// entry returns what is stored at an address that holds no record, as the round
// has made it so far.
func (r *round) entry(at address, key []byte) (result, error) {
	if known, ok := r.made.of(key); ok {
		return known, nil
	}
	payload, ref, err := r.s.load(at, key)
	return result{fact: payload, ref: ref}, err
}

func (r *round) applyEntry(at address, apply func([]byte) ([]byte, error)) (wrote bool, err error) {
	key := at.bytes()
	old, err := r.entry(at, key)
	if err != nil {
		return false, err
	}
	fact, err := apply(old.fact)
	if err != nil {
		return false, err
	}
	if bytes.Equal(fact, old.fact) && (fact == nil) == (old.fact == nil) {
		r.made.keep(key, old)
		return false, nil
	}
	return true, r.putEntry(key, fact, old.ref)
}

// putEntry stores under key, or removes if it is nil, what is no record. old is
// the reference of what was there.
func (r *round) putEntry(key, fact []byte, old reference) error {
	p := planFact(key, fact, old, r.s.opts.Random)
	if err := r.add(p); err != nil {
		return err
	}
	r.made.keep(key, p.next)
	return nil
}

// add adds a plan to the batch, so that at no moment a crash can leave an entry
// whose pieces it lost:
//
//   - an entry goes into one transaction with its new pieces if they fit;
//     otherwise the pieces go before, and are synced before the entry follows;
//   - the pieces that an entry keeps are either in the batch, to which the entry
//     is added, or in earlier transactions, which are synced first.
//
// An entry and its deltas of the trees are never apart.
func (r *round) add(p plan) error {
	pieces, entry := opsSize(p.pieces), opsSize(p.entry)+deltasSize(len(p.deltas))
	limit := r.s.engine.MaxBatch()
	if entry > limit {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, entry)
	}
	if pieces+entry > limit {
		for _, op := range p.pieces {
			r.makeRoom(op.size())
			r.batch.add(op)
		}
		r.flush(true)
	} else {
		r.makeRoom(pieces + entry)
		if p.keeps && r.s.unsynced {
			r.flush(true)
		}
		r.batch.add(p.pieces...)
	}
	r.batch.add(p.entry...)
	r.deltas = append(r.deltas, p.deltas...)
	return r.err
}

func opsSize(ops []Op) int {
	var n int
	for _, op := range ops {
		n += op.size()
	}
	return n
}

// makeRoom commits the batch if it has no room for size more bytes.
func (r *round) makeRoom(size int) {
	if r.batch.Size()+deltasSize(len(r.deltas))+size > r.s.engine.MaxBatch() || len(r.deltas) > maxEntryDeltas {
		r.flush(false)
	}
}

// flush commits the batch; with sync it and all before it are durable then.
func (r *round) flush(sync bool) {
	s := r.s
	if r.err != nil || !r.pending() && (!sync || !s.unsynced) {
		return
	}
	if len(r.deltas) > 0 {
		r.batch.add(s.journal.entry(r.deltas))
	}
	r.err = s.engine.Commit(&r.batch, sync)
	s.cache.committed(r.batch.Ops(), r.err)
	if r.err != nil {
		return
	}
	if len(r.deltas) > 0 {
		s.journal.wrote(len(r.deltas))
		s.trees.apply(r.deltas)
		r.deltas = r.deltas[:0]
	}
	s.unsynced = !sync
	s.counts.commits.Add(1)
	if sync {
		s.counts.syncs.Add(1)
	}
	s.counts.bytes.Add(uint64(r.batch.Size()))
	s.space.wrote(r.batch.Size())
	r.batch.Reset()
}

// settle ends the round: what is left is committed and the tasks are answered.
func (r *round) settle() {
	r.flush(r.sync)
	if r.err != nil {
		r.err = r.s.fail(r.err)
	}
	r.s.counts.batches.Add(1)
	r.s.counts.updates.Add(uint64(len(r.done)))
	for _, done := range r.done {
		r.s.answer(done, r.err)
	}
}

// fail draws the consequences of a failed commit and returns the error for
// those whom it concerns. Whatever was minted under the boot may have been sent
// to other replicas and is not stored here: the boot ends. If the outcome is
// unclear, writes end too: after a failed sync the operating system may have
// dropped what it could not write, and call the next sync a success.
func (s *Store) fail(err error) error {
	s.newBoot()
	if errors.Is(err, ErrDiskFull) {
		s.space.look()
		return err
	}
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	s.counts.failed.Store(true)
	s.queue.refuse(err)
	return err
}
