package coordinator

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// anyView is a view of one to three layouts, each after the one before, some of
// whose members are down.
func anyView(t *rapid.T) ring.View {
	var v ring.View
	var prev *ring.Layout
	for version := range rapid.Uint64Range(1, 3).Draw(t, "layouts") {
		members := make([]ring.Member, rapid.IntRange(1, 20).Draw(t, "members"))
		for i := range members {
			members[i] = member(i)
			if rapid.IntRange(0, 5).Draw(t, "down") == 0 {
				members[i].State = ring.StateDown
			}
		}
		l, err := ring.Compute(ring.ClusterID{7}, version+1, members, 16, prev)
		if err != nil {
			t.Fatal(err)
		}
		if v, err = v.With(l); err != nil {
			t.Fatal(err)
		}
		prev = l
	}
	return v
}

func distinct(ids []kv.NodeID) bool {
	sorted := slices.Sorted(slices.Values(ids))
	return len(slices.Compact(sorted)) == len(ids)
}

func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView(t)
		n := rapid.IntRange(1, kv.MaxN).Draw(t, "n")
		k := kv.Key{Bucket: "b", Name: strconv.Itoa(rapid.Int().Draw(t, "key"))}
		p, err := newPlan(v, k, n)
		if err != nil {
			t.Fatal(err)
		}
		var all []kv.NodeID
		for i, l := range v.Active() {
			list := l.Owners(l.Partition(k.Hash()))
			if want := list[:min(n, len(list))]; !slices.Equal(p.groups[i], want) {
				t.Fatalf("layout %d counts %v, want %v", i, p.groups[i], want)
			}
			all = append(all, p.groups[i]...)
			if majority := Quorum.Of(len(p.groups[i])); p.majority() < majority {
				t.Fatalf("a majority of %d is no quorum of %d", p.majority(), len(p.groups[i]))
			}
		}
		owners, standIns := p.owners(n), p.standIns()
		if !distinct(owners) || !distinct(standIns) {
			t.Fatalf("owners %v and stand-ins %v are not distinct", owners, standIns)
		}
		for _, id := range all {
			if !slices.Contains(owners, id) || !p.owns(id) {
				t.Fatalf("%v is an owner, and not among %v", id, owners)
			}
		}
		for _, id := range owners {
			if !slices.Contains(all, id) {
				t.Fatalf("%v owns nothing", id)
			}
		}
		for _, id := range standIns {
			if p.owns(id) || p.down(id) {
				t.Fatalf("%v cannot stand in", id)
			}
		}
		if !slices.Equal(owners[:len(p.groups[0])], p.groups[0]) {
			t.Fatal("the newest layout does not come first")
		}
		// A wider n has the owners of a smaller one, in its front.
		for _, wide := range p.layouts {
			front := first(wide.Owners(p.partition), n)
			if !slices.Equal(front, first(wide.Owners(p.partition), kv.MaxN)[:len(front)]) {
				t.Fatal("the owners for n are no prefix")
			}
		}
		// What is done to a plan's lists is not done to the layouts.
		clear(owners)
		clear(standIns)
		if again, err := newPlan(v, k, n); err != nil || !slices.Equal(again.owners(n)[:len(p.groups[0])], p.groups[0]) {
			t.Fatal("the layout was changed")
		}
	})
}

func TestPlanNames(t *testing.T) {
	p, err := newPlan(viewOf(t, layoutOf(t, 1, nil, member(0), member(1), member(2))), key, 2)
	if err != nil {
		t.Fatal(err)
	}
	if p.name(2) != "n2" || p.name(99) != "0000000000000063" {
		t.Errorf("%q and %q", p.name(2), p.name(99))
	}
	tally := NewTally(2, [][]kv.NodeID{{1, 2, 3, 99}})
	tally.Yes(1)
	tally.StandIn(2, 7)
	tally.No(3, &kv.Error{Code: kv.CodeDiskFull, Message: "the disk is full", Outcome: kv.NotApplied})
	acked, hinted := p.counted(tally)
	failed := p.failures(tally)
	want := []kv.Failure{{Node: "n3", Reason: "disk_full: the disk is full"}, {Node: p.name(99), Reason: noAnswer}}
	if !slices.Equal(acked, []string{"n1"}) || !slices.Equal(hinted, []string{p.name(7) + " for n2"}) || !slices.Equal(failed, want) {
		t.Errorf("acked %v, hinted %v, failed %v", acked, hinted, failed)
	}
	if names(nil) != "none" || names(want[:1]) != "n3 (disk_full: the disk is full)" {
		t.Errorf("%q", names(want))
	}
}

// send tells a node that is behind what it lacks, once; one that knows more is
// for the request to learn from.
func TestSend(t *testing.T) {
	old := layoutOf(t, 1, nil, member(0))
	behind, mine := viewOf(t, old), viewOf(t, old, layoutOf(t, 2, old, member(0), member(1)))
	p, err := newPlan(mine, key, 1)
	if err != nil {
		t.Fatal(err)
	}
	ahead, err := mine.Retire(old.Hash())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		first error
		then  error
		calls int
		newer bool
	}{
		{"well", nil, nil, 1, false},
		{"behind", MarkNotRun(&StaleViewError{View: behind}), nil, 2, false},
		{"behind and stays so", MarkNotRun(&StaleViewError{View: behind}), &StaleViewError{View: behind}, 2, false},
		{"ahead", MarkNotRun(&StaleViewError{View: ahead}), nil, 1, true},
		{"behind, then ahead", MarkNotRun(&StaleViewError{View: behind}), &StaleViewError{View: ahead}, 2, true},
		{"another error", errConnLost, nil, 1, false},
	} {
		calls := 0
		_, err := send(p, func(f Fence) (struct{}, error) {
			if calls++; f.Digest != mine.Digest() || (len(f.Full) > 0) != (calls == 2) {
				t.Errorf("%s: call %d under %+v", tt.name, calls, f)
			}
			if calls == 1 {
				return struct{}{}, tt.first
			}
			return struct{}{}, tt.then
		})
		if calls != tt.calls || (p.newer(err) != nil) != tt.newer {
			t.Errorf("%s: %d calls, %v", tt.name, calls, err)
		}
		if want := tt.then; calls == 2 && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", tt.name, err, want)
		}
	}
}
