package reap

import (
	"fmt"
	"slices"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// round asks one member after the other, each for what all before it have
// confirmed, and ends with the first that refuses: the fewer numbers are raised
// in vain, the fewer messages under way are refused for nothing.
type round struct {
	Request

	members []kv.NodeID // the reaper first
	asked   int
}

// newRound returns the round of a reaper under the view, and with what it knows of
// the lives of the members.
func newRound(self kv.NodeID, v ring.View, lives uint64, partition uint16, number uint64, items []Item) *round {
	return &round{
		Request: Request{View: v.Digest(), Lives: lives, Partition: partition, Number: number, Items: items},
		members: members(self, v),
	}
}

// members lists all members of all active layouts, self first, then by id.
func members(self kv.NodeID, v ring.View) []kv.NodeID {
	var list []kv.NodeID
	for _, l := range v.Active() {
		for _, m := range l.Members() {
			list = append(list, m.ID)
		}
	}
	slices.Sort(list)
	list = slices.DeleteFunc(slices.Compact(list), func(id kv.NodeID) bool { return id == self })
	return slices.Insert(list, 0, self)
}

// next returns the member to ask, if there is one and something to ask for.
func (r *round) next() (kv.NodeID, bool) {
	if r.asked == len(r.members) || len(r.Items) == 0 {
		return 0, false
	}
	return r.members[r.asked], true
}

// take takes in the answer of the member that next named. Items that it did
// not confirm leave the round.
func (r *round) take(reply Reply) error {
	if reply.Refusal != 0 {
		return &RefusedError{Reason: reply.Refusal, Number: reply.Number}
	}
	if len(reply.Done) != len(r.Items) {
		return fmt.Errorf("%d answers to %d items", len(reply.Done), len(r.Items))
	}
	left := make([]Item, 0, len(r.Items))
	for i, it := range r.Items {
		if reply.Done[i] {
			left = append(left, it)
		}
	}
	r.Items = left
	r.asked++
	return nil
}

// confirmed reports whether all members have confirmed what is left.
func (r *round) confirmed() bool { return r.asked == len(r.members) && len(r.Items) > 0 }

// RefusedError is a member's refusal to take part in a round.
type RefusedError struct {
	Reason Refusal
	Number uint64 // the member's reap number
}

// Error says why.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused under reap number %d: %v", e.Number, e.Reason)
}
