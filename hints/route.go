package hints

import (
	"slices"

	"github.com/starling-kv/starling/kv"
)

// debt is one thing that a target is owed: a write that it missed, or a copy
// that this node keeps in its place.
type debt struct {
	Missed

	copied bool
	digest uint64 // of the copy
	n      int    // the copy's n_max
	bytes  int64  // as stored, about
}

// ask is what one node is asked to fetch: debts, by their place in a batch.
type ask struct {
	to    kv.NodeID
	debts []int
}

// route says who must hold what before it is no longer owed, each node once and
// in the order of the batch. Of a missed write that is the target, of a copy the
// owner for which it was made, or, once that owns the key no longer, every
// present owner. strays are missed writes of keys that the target owns no longer.
func route(batch []debt, owners func(partition uint16, n int) []kv.NodeID) (asks []ask, strays []int) {
	for i, d := range batch {
		takers := []kv.NodeID{d.Target}
		if !owns(d, owners) {
			if !d.copied {
				strays = append(strays, i)
				continue
			}
			takers = owners(d.Partition, d.n)
		}
		for _, to := range takers {
			asks = addAsk(asks, to, i)
		}
	}
	return asks, strays
}

// owns reports whether the target of d is an owner of its key at present, as far
// as d tells: how many owners a key has is known of copies alone.
func owns(d debt, owners func(partition uint16, n int) []kv.NodeID) bool {
	n := kv.MaxN
	if d.copied {
		n = d.n
	}
	return slices.Contains(owners(d.Partition, n), d.Target)
}

func addAsk(asks []ask, to kv.NodeID, debt int) []ask {
	at := slices.IndexFunc(asks, func(a ask) bool { return a.to == to })
	if at < 0 {
		return append(asks, ask{to: to, debts: []int{debt}})
	}
	asks[at].debts = append(asks[at].debts, debt)
	return asks
}

// redirect is what takes the place of a missed write: one for each present owner
// but this node, or nil if the target still is one of them.
func redirect(m Missed, owners []kv.NodeID, self kv.NodeID) (instead []Missed, stays bool) {
	if slices.Contains(owners, m.Target) {
		return nil, true
	}
	for _, id := range owners {
		if id != self {
			instead = append(instead, Missed{Target: id, Partition: m.Partition, Key: m.Key, Since: m.Since})
		}
	}
	return instead, false
}
