package coordinator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// plan says who takes part in a request on one key under one view.
type plan struct {
	layouts   []*ring.Layout // active, the newest first; at least one
	digest    uint64
	full      []byte // the encoded view, once a replica showed another
	partition ring.Partition
	n         int
}

// newPlan places the key under the view.
func newPlan(v ring.View, key kv.Key, n int) (plan, error) {
	layouts := v.Active()
	if len(layouts) == 0 {
		return plan{}, &kv.Error{
			Code: kv.CodeNotReady, Outcome: kv.NotApplied,
			Message: "this node knows no layout yet: it waits for the cluster to be bootstrapped, or to be joined to one",
		}
	}
	return plan{layouts: layouts, digest: v.Digest(), partition: layouts[0].Partition(key.Hash()), n: n}, nil
}

// fence is what each message of the request carries.
func (p plan) fence() Fence { return Fence{Digest: p.digest, Full: p.full} }

// groups are, for each active layout, the owners that count: the first n.
func (p plan) groups() [][]kv.NodeID {
	groups := make([][]kv.NodeID, len(p.layouts))
	for i, l := range p.layouts {
		groups[i] = first(l.Owners(p.partition), p.n)
	}
	return groups
}

// owners are the first k owners of every active layout, each once.
func (p plan) owners(k int) []kv.NodeID {
	var all []kv.NodeID
	for _, l := range p.layouts {
		for _, id := range first(l.Owners(p.partition), k) {
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	return all
}

// owns reports whether id is an owner that counts.
func (p plan) owns(id kv.NodeID) bool { return slices.Contains(p.owners(p.n), id) }

// standIns are the nodes that may take the place of owners out of reach, in
// the order of the newest layout's preference list beyond the owners.
func (p plan) standIns() []kv.NodeID {
	owners := p.owners(p.n)
	return slices.DeleteFunc(slices.Clone(p.layouts[0].Owners(p.partition)), func(id kv.NodeID) bool {
		return slices.Contains(owners, id)
	})
}

// name is what the operator calls the node.
func (p plan) name(id kv.NodeID) string {
	for _, l := range p.layouts {
		if m, ok := l.Member(id); ok {
			return m.Name
		}
	}
	return id.String()
}

// down reports whether the operator took the node down: it is not tried.
func (p plan) down(id kv.NodeID) bool {
	m, ok := p.layouts[0].Member(id)
	return ok && m.State == ring.StateDown
}

// members is how many nodes the newest layout has.
func (p plan) members() int { return len(p.layouts[0].Members()) }

// check refuses what no cluster of this size can do, before anything is sent.
func (p plan) check(what string, count int) error {
	switch owners := len(p.groups()[0]); {
	case count > p.n:
		return &kv.Error{
			Code: kv.CodeBadRequest, Outcome: kv.NotApplied,
			Message: fmt.Sprintf("%s=%d asks for more answers than n=%d has replicas: lower %s or raise n", what, count, p.n, what),
		}
	case count > owners:
		return &kv.Error{
			Code: kv.CodeBadRequest, Outcome: kv.NotApplied,
			Message: fmt.Sprintf("%s=%d cannot be reached: n=%d has only %d owners in a cluster of %d members: "+
				"lower %s to at most %d, or add nodes", what, count, p.n, owners, p.members(), what, owners),
		}
	}
	return nil
}

// failures lists why owners did not count, by name.
func (p plan) failures(t *Tally) (acked, hinted []string, failed []kv.Failure) {
	answered := make(map[kv.NodeID]bool)
	t.Each(func(owner, by kv.NodeID, yes bool, reason error) {
		answered[owner] = true
		switch {
		case yes && by == 0:
			acked = append(acked, p.name(owner))
		case yes:
			hinted = append(hinted, p.name(by)+" for "+p.name(owner))
		default:
			failed = append(failed, kv.Failure{Node: p.name(owner), Reason: brief(reason)})
		}
	})
	for _, id := range t.Owners() {
		if !answered[id] {
			failed = append(failed, kv.Failure{Node: p.name(id), Reason: "no answer in time"})
		}
	}
	return acked, hinted, failed
}

// brief is the text of an error without the outcome, which is the answer's.
func brief(err error) string {
	var e *kv.Error
	if errors.As(err, &e) {
		return string(e.Code) + ": " + e.Message
	}
	return err.Error()
}

func names(fs []kv.Failure) string {
	list := make([]string, len(fs))
	for i, f := range fs {
		list[i] = f.Node + " (" + f.Reason + ")"
	}
	return cmp.Or(strings.Join(list, ", "), "none")
}

func first(owners []kv.NodeID, k int) []kv.NodeID { return owners[:min(k, len(owners))] }
