package reap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Tx is one step in the serial order in which the node changes its records. It
// is valid within the step only. What is put is stored together, and only if
// the step returns nil.
type Tx interface {
	// Get returns what is stored, absent if nothing is. An error says that it
	// cannot be read.
	Get(slot kv.Slot) (kv.Record, error)
	// Put replaces what is stored; an absent record removes it.
	Put(slot kv.Slot, r kv.Record)
	// HintTargets returns, sorted, the nodes for which there are hints, and
	// perhaps others.
	HintTargets() []kv.NodeID
	// Number returns the reap number of a partition.
	Number(partition uint16) (uint64, error)
	// Raise sets the reap number of a partition to a higher one.
	Raise(partition uint16, to uint64)
}

// Store keeps the records and reap numbers of the node.
type Store interface {
	// Step runs fn once in the serial order, unless it fails before, and returns
	// once what it changed is stored: on disk if sync is set. After an error of
	// anything but fn, the changes may be stored or not.
	Step(ctx context.Context, sync bool, fn func(Tx) error) error
}

// Node is what a member knows of itself and of the others. Its methods are called
// within steps and must not wait.
type Node interface {
	// View returns the layouts that the node knows.
	View() ring.View
	// Standing reports whether the node is registered and has caught up with the
	// partition, if it ever had to.
	Standing(partition uint16) bool
	// Lives returns a digest of how often each member is known to have started,
	// this one included. What is told of a member's start is known before that one
	// is told of reap numbers.
	Lives() uint64
}

// Member answers reapers. It is safe for concurrent use.
type Member struct {
	store Store
	node  Node
	now   func() time.Time
}

// NewMember returns the member over the node's store. now gives the wall clock.
func NewMember(store Store, node Node, now func() time.Time) *Member {
	return &Member{store: store, node: node, now: now}
}

// Confirm answers which items the member holds in exactly the given form, or
// not at all, as its own or as a hint. In the same step the member raises its
// reap number, on disk before the answer: from then on it refuses everything
// that was read before it confirmed. Where it confirms nothing there is nothing
// to refuse, and its number stays.
//
// Its number must be lower than the round's. An equal one may have been learnt
// from another member, or given to another round: it confirms nothing.
//
// A member whose disk was lost since it confirmed knows the number again, or who
// was to tell it refuses: what tells it the numbers has heard of its start before,
// so either the number is raised by then, or the start is known once it is. That is
// why the lives are compared after the number is raised.
func (m *Member) Confirm(ctx context.Context, req Request) (Reply, error) {
	return m.step(ctx, req, true, func(tx Tx, number uint64) Reply {
		switch {
		case number >= req.Number:
			return Reply{Refusal: RefusedNumber, Number: number}
		case m.restarted(req):
			return Reply{Refusal: RefusedLives, Number: number}
		}
		reply := Reply{Number: number, Done: make([]bool, len(req.Items))}
		for i, it := range req.Items {
			reply.Done[i] = !it.Due.After(m.now()) && agrees(tx, req.Partition, it)
		}
		if slices.Contains(reply.Done, true) {
			tx.Raise(req.Partition, req.Number)
			reply.Number = req.Number
		}
		if m.restarted(req) {
			return Reply{Refusal: RefusedLives, Number: reply.Number}
		}
		return reply
	})
}

// restarted reports whether this member and the reaper, when it began the round,
// differ in what they know of the starts of members.
func (m *Member) restarted(req Request) bool { return m.node.Lives() != req.Lives }

// Apply reaps the items, each as own record and as hints, where they still are
// what all members confirmed. A member that did not confirm must not: it would
// take what the record kept out.
func (m *Member) Apply(ctx context.Context, req Request) (Reply, error) {
	return m.step(ctx, req, false, func(tx Tx, number uint64) Reply {
		if number < req.Number {
			return Reply{Refusal: RefusedNumber, Number: number}
		}
		reply := Reply{Number: number, Done: make([]bool, len(req.Items))}
		for i, it := range req.Items {
			reply.Done[i] = reap(tx, req.Partition, it)
		}
		return reply
	})
}

// step runs fn if the member may take part.
func (m *Member) step(ctx context.Context, req Request, sync bool, fn func(Tx, uint64) Reply) (Reply, error) {
	var reply Reply // touched within the step, until it is done
	err := m.store.Step(ctx, sync, func(tx Tx) error {
		number, err := tx.Number(req.Partition)
		if err != nil {
			return fmt.Errorf("read the reap number: %w", err)
		}
		view := m.node.View()
		switch {
		case view.Digest() != req.View:
			reply = Reply{Refusal: RefusedView, Number: number}
		case !belongs(view, req):
			return errMisplaced
		case !m.node.Standing(req.Partition):
			reply = Reply{Refusal: RefusedStanding, Number: number}
		default:
			reply = fn(tx, number)
		}
		return nil
	})
	if err != nil {
		return Reply{}, err // the step may be under way yet
	}
	return reply, nil
}

var errMisplaced = errors.New("a reap round names keys of another partition")

// belongs reports whether all items are of the partition. The number of
// partitions is the same in all layouts of a cluster.
func belongs(v ring.View, req Request) bool {
	return len(v.Active()) > 0 && !slices.ContainsFunc(req.Items, func(it Item) bool {
		return v.Active()[0].Partition(it.Key.Hash()) != ring.Partition(req.Partition)
	})
}

// agrees reports whether nothing is stored of the item's key but, perhaps, the
// item's record. What is in quarantine has a past that nobody knows.
func agrees(tx Tx, partition uint16, it Item) bool {
	for _, slot := range slots(tx, partition, it.Key) {
		r, err := tx.Get(slot)
		if err != nil || !r.Absent() && (slot.Target == kv.Quarantine || digest(it.Key, r) != it.Digest) {
			return false
		}
	}
	return true
}

func reap(tx Tx, partition uint16, it Item) (done bool) {
	for _, slot := range slots(tx, partition, it.Key) {
		r, err := tx.Get(slot)
		if err == nil && !r.Absent() && slot.Target != kv.Quarantine && digest(it.Key, r) == it.Digest {
			tx.Put(slot, r.Reaped(it.Reaping))
			done = true
		}
	}
	return done
}

// slots are all places where the node may keep something of the key.
func slots(tx Tx, partition uint16, key kv.Key) []kv.Slot {
	targets := tx.HintTargets()
	list := make([]kv.Slot, 0, 2+len(targets))
	list = append(list, kv.Slot{Partition: partition, Key: key}, kv.Slot{Target: kv.Quarantine, Partition: partition, Key: key})
	for _, id := range targets {
		list = append(list, kv.Slot{Target: id, Partition: partition, Key: key})
	}
	return list
}

func digest(key kv.Key, r kv.Record) uint64 { return kv.Digest(key, kv.AppendRecord(nil, r)) }
