package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/antientropy"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/node/peer"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/readrepair"
	"github.com/starling-kv/starling/reap"
	"github.com/starling-kv/starling/ring"
)

// repairPorts is what the repairs need of the rest of the node. It implements
// [antientropy.Local], [antientropy.Leaves], [antientropy.Values],
// [antientropy.Ledger], [hints.Places], [reap.Local] and [reap.Node].
type repairPorts struct{ *Core }

// Tree implements [antientropy.Local].
func (p repairPorts) Tree(partition uint16, least uint8) merkle.Tree {
	return p.store.TreeFrom(partition, least)
}

// ScanLeaf implements [antientropy.Local].
func (p repairPorts) ScanLeaf(partition uint16, leaf uint8, fn func(key kv.Key, r kv.Record, digest uint64) error) error {
	return damaged(p.store.ScanLeaf(partition, leaf, fn))
}

// Scan implements [reap.Local].
func (p repairPorts) Scan(partition uint16, after kv.Key, fn func(key kv.Key, r kv.Record, digest uint64) error) error {
	return p.store.ScanLeaves(partition, 0, merkle.Leaves-1, after, fn)
}

// CheckLeaf implements [antientropy.Leaves].
func (p repairPorts) CheckLeaf(partition uint16, leaf uint8) error {
	return damaged(p.store.CheckLeaf(partition, leaf))
}

// RebuildLeaf implements [antientropy.Leaves].
func (p repairPorts) RebuildLeaf(partition uint16, leaf uint8, done func(error)) error {
	return p.store.RebuildLeaf(partition, leaf, done)
}

// CheckValues implements [antientropy.Values].
func (p repairPorts) CheckValues(partition uint16, leaf uint8, lost func(kv.Key, kv.Version)) (checked int, err error) {
	return p.store.CheckValues(partition, leaf, lost)
}

// PullValue implements [antientropy.Values].
func (p repairPorts) PullValue(ctx context.Context, from kv.NodeID, key kv.Key, v kv.Version) error {
	return p.client.PullValue(ctx, from, key, v)
}

// damaged says in the words of anti-entropy that a disk lost something.
func damaged(err error) error {
	if errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrLeaf) {
		return fmt.Errorf("%w: %w", antientropy.ErrDamaged, err)
	}
	return err
}

// Registered implements [antientropy.Ledger].
func (p repairPorts) Registered() bool { return p.admission.Registered() }

// Sources implements [antientropy.Ledger].
func (p repairPorts) Sources(partition uint16, owners []kv.NodeID) (missing []kv.NodeID, epoch uint64) {
	return p.ledger.Sources(partition, owners)
}

// Merged implements [antientropy.Ledger].
func (p repairPorts) Merged(partition uint16, source kv.NodeID, starts, epoch uint64) error {
	if err := p.ledger.Merged(partition, source, starts, epoch); err != nil {
		return err
	}
	p.repairs.release.wake()
	return nil
}

// Number implements [reap.Local].
func (p repairPorts) Number(partition uint16) uint64 { return p.replica.Number(partition) }

// Root implements [reap.Local].
func (p repairPorts) Root(partition uint16) uint64 {
	var sum uint64
	for _, t := range p.store.Trees(partition) {
		sum = sum*31 + uint64(t.Root) + uint64(t.NMax)
	}
	return sum
}

// View implements [reap.Node].
func (p repairPorts) View() ring.View { return p.views.Current() }

// Standing implements [reap.Node].
func (p repairPorts) Standing(partition uint16) bool {
	return p.admission.Registered() && p.ledger.Standing(partition, p.Owners(partition, kv.MaxN))
}

// Lives implements [reap.Node].
func (p repairPorts) Lives() uint64 {
	var ids []kv.NodeID
	for _, l := range p.views.Current().Active() {
		for _, m := range l.Members() {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	return p.ledger.Lives(slices.Compact(ids))
}

// Owners implements [hints.Places].
func (p repairPorts) Owners(partition uint16, n int) []kv.NodeID {
	var all []kv.NodeID
	for _, l := range p.views.Current().Active() {
		owners := l.Owners(ring.Partition(partition))
		for _, id := range owners[:min(n, len(owners))] {
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	return all
}

// Digest implements [hints.Places].
func (p repairPorts) Digest() uint64 { return p.views.Current().Digest() }

// doubtedLeaves keeps in memory which leaves are doubted, and in the store what of
// that the disk does not tell by itself. It implements [antientropy.Doubts].
type doubtedLeaves struct{ *Core }

// Doubt implements [antientropy.Doubts].
func (d doubtedLeaves) Doubt(partition uint16, leaf uint8) { d.ledger.Doubt(partition, leaf) }

// Doubted implements [antientropy.Doubts].
func (d doubtedLeaves) Doubted(partition uint16, leaf uint8) bool {
	return d.ledger.Doubted(partition, leaf)
}

// Trust implements [antientropy.Doubts]. What damages the leaf from now on is
// noted after this in the store, and so not forgotten with it.
func (d doubtedLeaves) Trust(partition uint16, leaf uint8) {
	if err := d.store.Trust(partition, leaf); err != nil {
		d.world.Log.Debug("a healed leaf will be healed again after a restart", zap.Uint16("partition", partition), zap.Error(err))
	}
	d.ledger.Trust(partition, leaf)
}

// surveys asks all owners of a key what they hold. The coordinator, which does,
// is made after the repairs. It implements [readrepair.Owners].
type surveys struct{ *Core }

// Survey implements [readrepair.Owners].
func (s surveys) Survey(ctx context.Context, key kv.Key, n int) ([]readrepair.Reply, error) {
	return s.coordinator.Survey(ctx, key, n)
}

// reapPeers reaches all members for rounds of reaping, this node without the
// network. It implements [reap.Peers].
type reapPeers struct {
	*peer.Client

	self   kv.NodeID
	member *reap.Member
}

// Confirm implements [reap.Peers].
func (p reapPeers) Confirm(ctx context.Context, to kv.NodeID, req reap.Request) (reap.Reply, error) {
	if to == p.self {
		return p.member.Confirm(ctx, req)
	}
	return p.Client.Confirm(ctx, to, req)
}

// Apply implements [reap.Peers].
func (p reapPeers) Apply(ctx context.Context, to kv.NodeID, req reap.Request) (reap.Reply, error) {
	if to == p.self {
		return p.member.Apply(ctx, req)
	}
	return p.Client.Apply(ctx, to, req)
}
