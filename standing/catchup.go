package standing

import (
	"cmp"
	"slices"

	"github.com/starling-kv/starling/kv"
)

// catchup is what a fallen node has merged of one partition since it fell. It
// is a value: operations return new ones.
type catchup struct {
	epoch uint64 // of the fall that it makes up for
	// whole is set once the partition was merged from all owners that it had in
	// any active layout: then no owner of later is needed. Others are forgotten.
	whole  bool
	merged []source // by ascending id
}

// source is an owner whose records of the partition were merged.
type source struct {
	id     kv.NodeID
	starts uint64 // of the source when they were
	// final is set once the partition counted for some n with this source among
	// the owners: then it does not matter if the source starts again.
	final bool
}

// add returns c with a source merged.
func (c catchup) add(id kv.NodeID, starts uint64) catchup {
	c.merged = slices.Clone(c.merged)
	i, found := slices.BinarySearchFunc(c.merged, id, bySource)
	switch {
	case !found:
		c.merged = slices.Insert(c.merged, i, source{id: id, starts: starts})
	case c.merged[i].starts < starts:
		c.merged[i].starts = starts
	}
	return c
}

// missing returns those of owners other than self that are still to be merged:
// never merged, or in an earlier life than the one they are known to be in, in
// which their disk may be another. starts is what is known of their lives.
func (c catchup) missing(self kv.NodeID, owners []kv.NodeID, starts func(kv.NodeID) uint64) []kv.NodeID {
	var out []kv.NodeID
	for _, id := range owners {
		if id != self && !c.has(id, starts) {
			out = append(out, id)
		}
	}
	return out
}

func (c catchup) has(id kv.NodeID, starts func(kv.NodeID) uint64) bool {
	if c.whole {
		return true
	}
	i, found := slices.BinarySearchFunc(c.merged, id, bySource)
	return found && (c.merged[i].final || c.merged[i].starts >= starts(id))
}

// settle returns c with the sources final that suffice for some n. owners are
// the owner lists of the partition, one for each active layout.
func (c catchup) settle(self kv.NodeID, owners [][]kv.NodeID, starts func(kv.NodeID) uint64) catchup {
	most := 0
	for _, list := range owners {
		most = max(most, len(list))
	}
	c.merged = slices.Clone(c.merged)
	for n := range most {
		for _, list := range owners {
			if n < len(list) && list[n] != self && !c.has(list[n], starts) {
				return c
			}
		}
		for _, list := range owners {
			c.finish(list[:min(n+1, len(list))])
		}
	}
	if most > 0 {
		return catchup{epoch: c.epoch, whole: true}
	}
	return c
}

func (c catchup) finish(ids []kv.NodeID) {
	for i := range c.merged {
		if slices.Contains(ids, c.merged[i].id) {
			c.merged[i].final = true
		}
	}
}

// union returns what either has recorded of one epoch; of two, the later one.
func (c catchup) union(o catchup) catchup {
	switch {
	case c.epoch > o.epoch || c.epoch == o.epoch && c.whole:
		return c
	case c.epoch < o.epoch || o.whole:
		return o
	}
	for _, s := range o.merged {
		c = c.add(s.id, s.starts)
		if s.final {
			c.finish([]kv.NodeID{s.id})
		}
	}
	return c
}

func bySource(s source, id kv.NodeID) int { return cmp.Compare(s.id, id) }
