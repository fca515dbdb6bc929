package coordinator

import (
	"slices"

	"github.com/starling-kv/starling/kv"
)

// Tally counts answers towards a quorum in every active layout at once: need
// of the first n owners of each. It is a value without a clock; answers may
// come in any order, twice, or from nodes that do not count.
//
// Invariant: one node counts at most once in a group, and a stand-in counts
// for exactly one owner, so what is counted are distinct nodes.
type Tally struct {
	need   int
	groups [][]kv.NodeID // per active layout: the first n owners
	votes  map[kv.NodeID]vote
}

type vote struct {
	yes    bool
	by     kv.NodeID // the stand-in that answered for the owner; zero: itself
	reason error
}

// NewTally returns the count of need answers in each group.
func NewTally(need int, groups [][]kv.NodeID) *Tally {
	return &Tally{need: need, groups: groups, votes: make(map[kv.NodeID]vote)}
}

// Yes records that owner answered well. A yes is final.
func (t *Tally) Yes(owner kv.NodeID) { t.votes[owner] = vote{yes: true} }

// StandIn records that by answered well in place of owner.
func (t *Tally) StandIn(owner, by kv.NodeID) {
	if !t.votes[owner].yes {
		t.votes[owner] = vote{yes: true, by: by}
	}
}

// No records that owner will not answer, and why.
func (t *Tally) No(owner kv.NodeID, reason error) {
	if !t.votes[owner].yes {
		t.votes[owner] = vote{reason: reason}
	}
}

// Reached reports whether every group has what it needs.
func (t *Tally) Reached() bool {
	return !slices.ContainsFunc(t.groups, func(g []kv.NodeID) bool { return t.count(g) < t.need })
}

// Lost reports whether some group can no longer have what it needs, even if
// every owner that is still to answer answers well.
func (t *Tally) Lost() bool {
	return slices.ContainsFunc(t.groups, func(g []kv.NodeID) bool { return t.count(g)+t.open(g) < t.need })
}

// Missing returns how many answers the group that lacks most still needs.
func (t *Tally) Missing() int {
	most := 0
	for _, g := range t.groups {
		most = max(most, t.need-t.count(g))
	}
	return most
}

// Owners returns every owner that can count, each once, in the order of the
// groups.
func (t *Tally) Owners() []kv.NodeID {
	var all []kv.NodeID
	for _, g := range t.groups {
		for _, id := range g {
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	return all
}

// Answered reports whether owner has answered, well or not.
func (t *Tally) Answered(owner kv.NodeID) bool {
	_, ok := t.votes[owner]
	return ok
}

// Each calls fn for every owner that has answered, well or not, in order.
func (t *Tally) Each(fn func(owner, by kv.NodeID, yes bool, reason error)) {
	for _, id := range t.Owners() {
		if v, ok := t.votes[id]; ok {
			fn(id, v.by, v.yes, v.reason)
		}
	}
}

func (t *Tally) count(g []kv.NodeID) int {
	k := 0
	for _, id := range g {
		if t.votes[id].yes {
			k++
		}
	}
	return k
}

func (t *Tally) open(g []kv.NodeID) int {
	k := 0
	for _, id := range g {
		if _, answered := t.votes[id]; !answered {
			k++
		}
	}
	return k
}
