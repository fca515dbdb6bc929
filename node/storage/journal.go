package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/merkle"
)

// journal is how the trees survive. Each transaction that writes records of the
// node's own carries one entry with the deltas of exactly these records, so
// that both are lost or neither. Entries are numbered without gaps. A
// [checkpoint] now and then writes the trees as pages and deletes the entries
// that the pages contain. When the store is opened, the entries are replayed
// onto the pages.
//
// A crash may take any of the transactions that were not synced. Deltas commute,
// but a record that was written twice may have lost the first of the two alone:
// the second delta then starts from a digest that the tree never held. So, if
// an entry is missing that is followed by others, the leaves that those others
// touch, and only they, are made anew from the records. For that each
// transaction that writes a record has an entry, and lists the leaf, whether its
// digest changes or not.
//
// Only the committing goroutine touches it.
type journal struct {
	first, next    uint64 // entries from first on and before next may be there
	entries, bytes int    // since the last checkpoint began
	under          *checkpoint
	junk           [][]byte // damaged keys that go with the next checkpoint
}

// checkpoint is the writing of pages, in several transactions between those of
// the updates. It begins when all entries are synced; its pages hold the trees
// of that moment, so that no page ever contains what a crash may take. Once the
// pages are synced, the mark says up to where entries are needed no more, and
// those are deleted. Whatever part of this a crash takes, pages and entries
// still make the trees: each page says which entries it contains, and no entry
// goes before all pages are durable.
type checkpoint struct {
	upto    uint64 // the last entry that the pages contain
	pages   []Op   // still to be committed
	durable bool   // all pages are
}

// What a checkpoint commits between two rounds.
const (
	checkpointBytes   = 256 << 10
	checkpointDeletes = 1 << 10
)

// maxEntryDeltas bounds the deltas of one entry, except for those of a single
// step.
const maxEntryDeltas = 8 << 10

// markAddress is where the number of the last entry is that pages made
// superfluous.
var markAddress = address{space: spaceStore, name: "trees"}

// deltasSize returns what the entry with n deltas counts towards a batch, at
// most.
func deltasSize(n int) int {
	if n == 0 {
		return 0
	}
	return opOverhead + 16 + envelopeBytes + merkle.MaxDeltasHeader + n*merkle.MaxDeltaBytes
}

// entry returns the operation that writes the next entry.
func (j *journal) entry(deltas []merkle.Delta) Op {
	key := journalAddress(j.next).bytes()
	envelope := newEnvelope(merkle.MaxDeltasHeader + len(deltas)*merkle.MaxDeltaBytes)
	return Op{Key: key, Value: seal(kindWhole, key, merkle.AppendDeltas(envelope, deltas))}
}

// wrote notes that the next entry, with n deltas, is committed.
func (j *journal) wrote(n int) {
	j.next++
	j.entries++
	j.bytes += n * merkle.MaxDeltaBytes
}

// full reports whether times as much was written since the last checkpoint
// began as the options want to see replayed.
func (j *journal) full(o *Options, times int) bool {
	return j.entries >= times*o.JournalLen || j.bytes >= times*o.JournalBytes
}

// checkpoint lets a checkpoint follow a round.
func (s *Store) checkpoint() {
	if s.counts.failed.Load() {
		return
	}
	_, err := s.tend(false)
	if errors.Is(err, ErrDiskFull) { // the next round tries again
		s.space.look()
		return
	}
	if err != nil {
		_ = s.fail(err) // whoever comes next is told
	}
}

// checkpointAll makes whole checkpoints until the journal is empty.
func (s *Store) checkpointAll() error {
	for {
		if acted, err := s.tend(true); err != nil || !acted {
			return err
		}
	}
}

// lastCheckpoint leaves nothing to be replayed. If that cannot be, the entries
// are still there. The error says that the disk failed.
func (s *Store) lastCheckpoint() error {
	if s.counts.failed.Load() {
		return nil
	}
	err := s.checkpointAll()
	if errors.Is(err, ErrDiskFull) || errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// tend moves a checkpoint on by one transaction, or begins one if it is due or
// asked for. It reports whether it did anything.
func (s *Store) tend(force bool) (acted bool, err error) {
	r := round{s: s}
	switch c := s.journal.under; {
	case c == nil:
		acted = r.begin(force)
	case !c.durable && len(c.pages) == 0:
		acted = r.syncPages(c, force)
	case !c.durable:
		acted = true
		r.writePages(c)
	default:
		acted = true
		r.retire(c)
	}
	return acted, r.err
}

// begin freezes the trees once all their changes are synced. It waits a while
// for an update that asks for a sync anyway.
func (r *round) begin(force bool) bool {
	s, j := r.s, &r.s.journal
	due := j.full(&s.opts, 2) || !s.unsynced && j.full(&s.opts, 1)
	if !due && (!force || j.first == j.next && !s.trees.dirty()) {
		return false
	}
	if r.flush(true); r.err != nil {
		return true
	}
	c := &checkpoint{upto: j.next - 1}
	s.trees.freeze(func(id merkle.ID, t *merkle.Tree) { c.pages = append(c.pages, pageOp(id, c.upto, t)) })
	j.under, j.entries, j.bytes = c, 0, 0
	return true
}

// writePages commits some pages.
func (r *round) writePages(c *checkpoint) {
	n := 0
	for n < len(c.pages) && r.batch.Size() < checkpointBytes {
		r.batch.add(c.pages[n])
		n++
	}
	if r.flush(false); r.err == nil {
		c.pages = c.pages[n:]
	}
}

// syncPages makes the pages durable, or waits a while for an update that asks
// for a sync anyway.
func (r *round) syncPages(c *checkpoint, force bool) bool {
	if r.s.unsynced && !force && !r.s.journal.full(&r.s.opts, 1) {
		return false
	}
	r.flush(true)
	c.durable = r.err == nil
	return true
}

// retire sets the mark and deletes some entries that the pages contain.
func (r *round) retire(c *checkpoint) {
	j := &r.s.journal
	key := markAddress.bytes()
	r.batch.Set(key, seal(kindWhole, key, binary.AppendUvarint(newEnvelope(binary.MaxVarintLen64), c.upto)))
	for _, damaged := range j.junk {
		r.batch.Delete(damaged)
	}
	to := min(j.first+checkpointDeletes, c.upto+1)
	for number := j.first; number < to; number++ {
		r.batch.Delete(journalAddress(number).bytes())
	}
	if r.flush(false); r.err != nil {
		return
	}
	j.first, j.junk = to, nil
	if j.first > c.upto {
		j.under = nil
	}
}

// A page is the number of the last entry that it contains, then the tree.
func pageOp(id merkle.ID, upto uint64, t *merkle.Tree) Op {
	key := pageAddress(id).bytes()
	envelope := binary.AppendUvarint(newEnvelope(4<<10), upto)
	return Op{Key: key, Value: seal(kindWhole, key, merkle.AppendTree(envelope, t))}
}

func decodePage(payload []byte) (upto uint64, t merkle.Tree, err error) {
	r := wire.NewReader(payload)
	upto = r.Uvarint()
	if err := r.Err(); err != nil {
		return 0, merkle.Tree{}, fmt.Errorf("page: %w", err)
	}
	t, err = merkle.DecodeTree(r.Rest())
	return upto, t, err
}

func decodeMark(payload []byte) (uint64, error) {
	r := wire.NewReader(payload)
	upto := r.Uvarint()
	return upto, r.Close()
}
