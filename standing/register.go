package standing

import (
	"slices"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Registered reports whether enough members have stored the present life of
// self, in each of the active layouts of v; never if there is none. stored says
// which members have, and remembered an earlier one: a member that was emptied
// itself, or is new, cannot tell a node that was set back from a new one.
//
// Enough are more than half of the members other than self. Any two such sets
// have a member in common, so whoever was enough for a life that registered has
// one among those that are asked after it. Self cannot be that one: it is its
// memory that is in doubt. If the others are even in number, half of them are
// enough too if [witness] is among them; of two halves, only one has it.
func Registered(v ring.View, self kv.NodeID, stored func(kv.NodeID) bool) bool {
	for _, l := range v.Active() {
		if !registered(memberIDs(l), self, stored) {
			return false
		}
	}
	return len(v.Active()) > 0
}

// Most reports whether self and the members that have stored its present life
// are more than half of all, in each of the active layouts of v. It is what a
// node goes by that waits in vain for [Registered]: the members that would know
// of another life may all be among those that it cannot reach.
func Most(v ring.View, self kv.NodeID, stored func(kv.NodeID) bool) bool {
	for _, l := range v.Active() {
		ids := memberIDs(l)
		others := slices.DeleteFunc(slices.Clone(ids), func(id kv.NodeID) bool { return id == self || !stored(id) })
		if 2*(len(others)+1) <= len(ids) {
			return false
		}
	}
	return len(v.Active()) > 0
}

// registered is the rule for one layout, whose members come by ascending id.
func registered(members []kv.NodeID, self kv.NodeID, stored func(kv.NodeID) bool) bool {
	others, yes := 0, 0
	for _, id := range members {
		switch {
		case id == self:
		case stored(id):
			others, yes = others+1, yes+1
		default:
			others++
		}
	}
	return 2*yes > others || 2*yes == others && (others == 0 || stored(witness(members, self)))
}

// witness returns the member that breaks a tie between the others of self: the
// one with the next larger id, after the largest the smallest. Ids are random,
// so that no node is the witness of many.
func witness(members []kv.NodeID, self kv.NodeID) kv.NodeID {
	i, found := slices.BinarySearch(members, self)
	if found {
		i++
	}
	return members[i%len(members)]
}

func memberIDs(l *ring.Layout) []kv.NodeID {
	ids := make([]kv.NodeID, len(l.Members()))
	for i, m := range l.Members() {
		ids[i] = m.ID
	}
	return ids
}

// everyone returns the members of all active layouts but self, by ascending id.
func everyone(v ring.View, self kv.NodeID) []kv.NodeID {
	lists := make([][]kv.NodeID, len(v.Active()))
	for i, l := range v.Active() {
		lists[i] = memberIDs(l)
	}
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(id kv.NodeID) bool { return id == self })
}
