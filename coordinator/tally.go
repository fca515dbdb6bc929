package coordinator

import (
	"slices"

	"github.com/starling-kv/starling/kv"
)

// Tally counts answers towards a quorum in every active layout at once: need
// of the first n owners of each, or all of them where a layout has fewer. It is
// a value without a clock; answers may come in any order, twice, or from nodes
// that do not count.
//
// A layout with fewer owners than n loses nothing by that: with r + w > n, either
// one of the two asks all of its owners, or r + w exceeds their number as well.
//
// Invariant: one node counts at most once in a group, and a stand-in for one
// owner at most, so what is counted are distinct nodes.
type Tally struct {
	need   int
	groups [][]kv.NodeID // per active layout: the first n owners
	votes  []vote        // few, so that a search is faster than a map
	room   [4]vote       // of votes, for as many owners as most keys have
}

type vote struct {
	owner  kv.NodeID
	by     kv.NodeID // the stand-in that answered for the owner; zero: itself
	yes    bool
	reason error
}

// NewTally returns the count of need answers in each group. It keeps groups.
func NewTally(need int, groups [][]kv.NodeID) *Tally {
	t := &Tally{need: need, groups: groups}
	t.votes = t.room[:0]
	return t
}

// Yes records that owner answered well. A yes is final.
func (t *Tally) Yes(owner kv.NodeID) { t.set(vote{owner: owner, yes: true}) }

// StandIn records that by answered well in place of owner. Who is an owner, or
// stands in for another, is no stand-in.
func (t *Tally) StandIn(owner, by kv.NodeID) {
	v, _ := t.vote(owner)
	taken := slices.ContainsFunc(t.votes, func(v vote) bool { return v.by == by })
	if !v.yes && !taken && !slices.Contains(t.Owners(), by) {
		t.set(vote{owner: owner, by: by, yes: true})
	}
}

// No records that owner will not answer, and why.
func (t *Tally) No(owner kv.NodeID, reason error) {
	if v, _ := t.vote(owner); !v.yes {
		t.set(vote{owner: owner, reason: reason})
	}
}

// Reached reports whether every group has what it needs.
func (t *Tally) Reached() bool { return t.Missing() == 0 }

// Lost reports whether some group can no longer have what it needs, even if
// every owner that is still to answer answers well.
func (t *Tally) Lost() bool {
	return slices.ContainsFunc(t.groups, func(g []kv.NodeID) bool {
		_, no := t.count(g)
		return len(g)-no < t.needs(g)
	})
}

// Missing returns how many answers the group that lacks most still needs.
func (t *Tally) Missing() int {
	most := 0
	for _, g := range t.groups {
		yes, _ := t.count(g)
		most = max(most, t.needs(g)-yes)
	}
	return most
}

// Owners returns every owner that can count, each once, in the order of the
// groups. The slice is shared: read only.
func (t *Tally) Owners() []kv.NodeID {
	all := slices.Clip(t.groups[0])
	for _, g := range t.groups[1:] {
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
	_, ok := t.vote(owner)
	return ok
}

func (t *Tally) needs(g []kv.NodeID) int { return min(t.need, len(g)) }

func (t *Tally) count(g []kv.NodeID) (yes, no int) {
	for _, v := range t.votes {
		switch {
		case !slices.Contains(g, v.owner):
		case v.yes:
			yes++
		default:
			no++
		}
	}
	return yes, no
}

func (t *Tally) vote(owner kv.NodeID) (vote, bool) {
	for _, v := range t.votes {
		if v.owner == owner {
			return v, true
		}
	}
	return vote{}, false
}

func (t *Tally) set(v vote) {
	for i := range t.votes {
		if t.votes[i].owner == v.owner {
			t.votes[i] = v
			return
		}
	}
	t.votes = append(t.votes, v)
}
