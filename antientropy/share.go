package antientropy

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// A record with n_max lives on the first n_max owners of its partition, in
// every active layout. So two nodes share all trees of a partition from some
// n_max on, and none below: that of the one who stands further back.

// rank returns the first place, from 0, that the node has among the owners of
// a partition in any active layout.
func rank(v ring.View, p ring.Partition, id kv.NodeID) (int, bool) {
	first := -1
	for _, l := range v.Active() {
		if i := slices.Index(l.Owners(p), id); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	return first, first >= 0
}

// sharedFrom returns the smallest n_max of which both nodes hold the records of
// a partition; they hold those of every larger one, too.
func sharedFrom(v ring.View, p ring.Partition, a, b kv.NodeID) (uint8, bool) {
	i, mine := rank(v, p, a)
	j, theirs := rank(v, p, b)
	return uint8(max(i, j) + 1), mine && theirs && a != b
}

// share is a partition that this node shares with a peer.
type share struct {
	partition uint16
	least     uint8 // the smallest n_max whose records both hold
}

// holding is a partition that this node owns.
type holding struct {
	partition uint16
	owners    []kv.NodeID // of all active layouts, the newest first, no node twice
}

// territory is what follows from a view for one node. It never changes.
type territory struct {
	digest   uint64
	holdings []holding  // by partition
	peers    []neighbor // by id
}

// neighbor is a node with which this one shares partitions.
type neighbor struct {
	id     kv.NodeID
	shares []share // by partition
}

func newTerritory(v ring.View, self kv.NodeID) *territory {
	t := &territory{digest: v.Digest()}
	for p := range partitions(v) {
		owners := ownersOf(v, ring.Partition(p))
		if !slices.Contains(owners, self) {
			continue
		}
		t.holdings = append(t.holdings, holding{uint16(p), owners})
		for _, id := range owners {
			if least, ok := sharedFrom(v, ring.Partition(p), self, id); ok {
				t.add(id, share{uint16(p), least})
			}
		}
	}
	return t
}

// partitions is the number of partitions, the same in all layouts of a cluster.
func partitions(v ring.View) int {
	if len(v.Active()) == 0 {
		return 0
	}
	return v.Active()[0].Partitions()
}

func ownersOf(v ring.View, p ring.Partition) []kv.NodeID {
	var owners []kv.NodeID
	for _, l := range v.Active() {
		for _, id := range l.Owners(p) {
			if !slices.Contains(owners, id) {
				owners = append(owners, id)
			}
		}
	}
	return owners
}

func (t *territory) add(id kv.NodeID, s share) {
	i, known := t.find(id)
	if !known {
		t.peers = slices.Insert(t.peers, i, neighbor{id: id})
	}
	t.peers[i].shares = append(t.peers[i].shares, s)
}

func (t *territory) find(id kv.NodeID) (int, bool) {
	return slices.BinarySearchFunc(t.peers, id, func(n neighbor, id kv.NodeID) int { return cmp.Compare(n.id, id) })
}

// shares returns what this node shares with the peer, by partition.
func (t *territory) shares(id kv.NodeID) []share {
	if i, ok := t.find(id); ok {
		return t.peers[i].shares
	}
	return nil
}

// least returns the smallest n_max of which this node shares the records of a
// partition with the peer.
func (t *territory) least(id kv.NodeID, partition uint16) (uint8, bool) {
	shares := t.shares(id)
	i, ok := findShare(shares, partition)
	if !ok {
		return 0, false
	}
	return shares[i].least, true
}

func findShare(shares []share, partition uint16) (int, bool) {
	return slices.BinarySearchFunc(shares, partition, func(s share, p uint16) int { return cmp.Compare(s.partition, p) })
}

// owners returns the owners of a partition that this node owns, else none.
func (t *territory) owners(partition uint16) []kv.NodeID {
	i, ok := slices.BinarySearchFunc(t.holdings, partition, func(h holding, p uint16) int { return cmp.Compare(h.partition, p) })
	if !ok {
		return nil
	}
	return t.holdings[i].owners
}

// surveyor keeps the territory of the last view that it was asked about.
type surveyor struct {
	self kv.NodeID
	last atomic.Pointer[territory]
}

func (s *surveyor) territory(v ring.View) *territory {
	if t := s.last.Load(); t != nil && t.digest == v.Digest() {
		return t
	}
	t := newTerritory(v, s.self)
	s.last.Store(t)
	return t
}
