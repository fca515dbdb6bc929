package coordinator

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/starling-kv/starling/hints"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// plan says who takes part in a request on one key under one view.
type plan struct {
	view      ring.View
	layouts   []*ring.Layout // the active ones, the newest first; at least one
	partition ring.Partition
	n         int
	// groups are, for each layout, the owners that count: the first n.
	groups [][]kv.NodeID
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
	p := plan{view: v, layouts: layouts, partition: layouts[0].Partition(key.Hash()), n: n}
	p.groups = make([][]kv.NodeID, len(layouts))
	for i, l := range layouts {
		p.groups[i] = first(l.Owners(p.partition), n)
	}
	return p, nil
}

// owners are the first k owners of every active layout, each once. The slice is
// the caller's.
func (p plan) owners(k int) []kv.NodeID {
	all := slices.Clone(first(p.layouts[0].Owners(p.partition), k))
	for _, l := range p.layouts[1:] {
		for _, id := range first(l.Owners(p.partition), k) {
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	return all
}

// owns reports whether id is an owner that counts.
func (p plan) owns(id kv.NodeID) bool {
	return slices.ContainsFunc(p.groups, func(g []kv.NodeID) bool { return slices.Contains(g, id) })
}

// standIns are the nodes that may take the place of owners out of reach, in
// the order of the newest layout's preference list beyond the owners.
func (p plan) standIns() []kv.NodeID {
	return hints.StandIns(p.layouts[0].Owners(p.partition), func(id kv.NodeID) bool { return p.owns(id) || p.down(id) })
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

// majority is how many answers are a quorum of the widest group, and with that,
// since none is asked for more than it has, of every group.
func (p plan) majority() int {
	widest := 0
	for _, g := range p.groups {
		widest = max(widest, len(g))
	}
	return Quorum.Of(widest)
}

// check refuses what no cluster of this size can do, before anything is sent.
func (p plan) check(what string, count int) error {
	switch owners := len(p.groups[0]); {
	case count < 1:
		return badRequest("%s=%d: ask for at least one answer", what, count)
	case count > p.n:
		return badRequest("%s=%d asks for more answers than n=%d has replicas: lower %s or raise n", what, count, p.n, what)
	case count > owners:
		return badRequest("%s=%d cannot be reached: n=%d has only %d owners in a cluster of %d members: "+
			"lower %s to at most %d, or add nodes", what, count, p.n, owners, p.members(), what, owners)
	}
	return nil
}

// fence is that of a call under the plan's view.
func (p plan) fence() Fence { return Fence{Digest: p.view.Digest()} }

// fuller is the fence, with all of the view, of a second call to a node that
// turns out to lack some of it: one that is behind, or cannot learn, holds up
// nobody else. It returns false where err is no reason for a second call.
func (p plan) fuller(err error) (Fence, bool) {
	stale, ok := errors.AsType[*StaleViewError](err)
	if !ok || !p.view.Contains(stale.View) {
		return Fence{}, false
	}
	return Fence{Digest: p.view.Digest(), Full: p.view.Append(nil)}, true
}

// send makes a call under the plan's view, and waits for it.
func send[R any](p plan, call func(Fence) (R, error)) (R, error) {
	got, err := call(p.fence())
	if full, again := p.fuller(err); again {
		got, err = call(full)
	}
	return got, err
}

// newer returns the refusal of a node that knows layouts which the plan lacks,
// nil for any other error: the request must learn them and begin again.
func (p plan) newer(err error) *StaleViewError {
	if stale, ok := errors.AsType[*StaleViewError](err); ok && !p.view.Contains(stale.View) {
		return stale
	}
	return nil
}

// counted lists who counted, by name.
func (p plan) counted(t *Tally) (acked, hinted []string) {
	owners := t.Owners()
	acked = make([]string, 0, len(owners))
	for _, id := range owners {
		switch v, _ := t.vote(id); {
		case v.yes && v.by == 0:
			acked = append(acked, p.name(id))
		case v.yes:
			hinted = append(hinted, p.name(v.by)+" for "+p.name(id))
		}
	}
	return acked, hinted
}

// failures lists why the others did not, by name.
func (p plan) failures(t *Tally) (failed []kv.Failure) {
	for _, id := range t.Owners() {
		switch v, answered := t.vote(id); {
		case v.yes:
		case answered:
			failed = append(failed, kv.Failure{Node: p.name(id), Reason: brief(v.reason)})
		default:
			failed = append(failed, kv.Failure{Node: p.name(id), Reason: noAnswer})
		}
	}
	return failed
}

const noAnswer = "no answer in time"

// brief is the text of an error without the outcome, which is the answer's.
func brief(err error) string {
	if e, ok := errors.AsType[*kv.Error](err); ok {
		return string(e.Code) + ": " + e.Message
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return noAnswer
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
