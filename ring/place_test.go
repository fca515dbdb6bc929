package ring

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
)

// drawMembers draws up to most members of up to five zones.
func drawMembers(t *rapid.T, most int) []Member {
	zones := rapid.IntRange(1, 5).Draw(t, "zones")
	heaviest := rapid.SampledFrom([]uint32{1, 3, 1000, 1<<32 - 1}).Draw(t, "heaviest")
	ms := make([]Member, rapid.IntRange(1, most).Draw(t, "members"))
	for i := range ms {
		ms[i] = drawMember(t, i, zones, heaviest)
	}
	ms[0].Weight = max(1, ms[0].Weight)
	return ms
}

func drawMember(t *rapid.T, i, zones int, heaviest uint32) Member {
	zone := fmt.Sprintf("z%d", rapid.IntRange(1, zones).Draw(t, "zone"))
	weight := rapid.Uint32Range(min(1, heaviest-1), heaviest).Draw(t, "weight")
	return member(i, zone, weight)
}

// change returns ms after one to three members joined, left, or got another
// weight or zone.
func change(t *rapid.T, ms []Member, next *int) []Member {
	ms = slices.Clone(ms)
	for range rapid.IntRange(1, 3).Draw(t, "edits") {
		i := rapid.IntRange(0, len(ms)-1).Draw(t, "which")
		switch kind := rapid.IntRange(0, 3).Draw(t, "edit"); {
		case kind == 0 || len(ms) == 1:
			ms = append(ms, drawMember(t, *next, 5, 3))
			*next++
		case kind == 1:
			ms = slices.Delete(ms, i, i+1)
		default:
			changed := drawMember(t, 0, 5, 3)
			ms[i].Weight, ms[i].Zone = changed.Weight, changed.Zone
		}
	}
	ms[0].Weight = max(1, ms[0].Weight)
	return ms
}

// checkPromises verifies what every table promises, whatever came before it.
func checkPromises(t *rapid.T, l *Layout) {
	want := min(MaxOwners, ownersOf(l.Members()))
	for p := range l.Partitions() {
		owners := l.Owners(Partition(p))
		seen := make(map[kv.NodeID]bool)
		for _, id := range owners {
			if m, ok := l.Member(id); !ok || m.Weight == 0 {
				t.Fatalf("partition %d: owner %s is no member with a weight", p, id)
			}
			seen[id] = true
		}
		if len(seen) != want || len(owners) != want {
			t.Fatalf("partition %d: owners %v, want %d distinct", p, owners, want)
		}
	}
	if bad := zoneViolations(l); bad > 0 {
		t.Fatalf("%d zone violations", bad)
	}
}

// checkFair verifies that no load at n=3 misses its quota by more than slack.
func checkFair(t *rapid.T, l *Layout) {
	quota := quotasOf(l, l, setSize)
	for id, load := range loads(l, setSize) {
		if off := max(load-quota[id], quota[id]-load); off > max(1, quota[id]/32) {
			t.Fatalf("node %s has load %d, its share is %d", id, load, quota[id])
		}
	}
}

// Any chain of any changes keeps all promises and the balance.
func TestChangesKeepPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := drawMembers(t, 24)
		partitions := 1 << rapid.IntRange(0, 9).Draw(t, "log partitions")
		var l *Layout
		next := 100
		for step := range rapid.IntRange(1, 6).Draw(t, "steps") {
			if step > 0 {
				ms = change(t, ms, &next)
			}
			var err error
			if l, err = Compute(testCluster, uint64(step+1), ms, partitions, l); err != nil {
				t.Fatal(err)
			}
			checkPromises(t, l)
			checkFair(t, l)
		}
	})
}

// The order in which members are named has no part in the result, nor has
// anything else that is not an argument.
func TestComputeIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := drawMembers(t, 24)
		next := 100
		after := change(t, ms, &next)
		twice := func(ms []Member, prev *Layout, version uint64) *Layout {
			a, err := Compute(testCluster, version, ms, 128, prev)
			if err != nil {
				t.Fatal(err)
			}
			b, err := Compute(testCluster, version, rapid.Permutation(ms).Draw(t, "order"), 128, prev)
			if err != nil {
				t.Fatal(err)
			}
			if a.Hash() != b.Hash() {
				t.Fatal("the order of members changed the layout")
			}
			return a
		}
		twice(after, twice(ms, nil, 1), 2)
	})
}

// One change moves hardly more than the least that any table could.
func TestMovementIsNearOptimum(t *testing.T) {
	if underRace {
		t.Skip("SKIPPED under -race: the checker is slow")
	}
	for _, shares := range [][]int{nil, {1, 1}, {1, 1, 1}, {6, 5, 4, 3, 2}} {
		t.Run(fmt.Sprint("zones", shares), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				ms := members(rapid.IntRange(4, 10).Draw(t, "members"), shares...)
				for i := range ms {
					ms[i].Weight = rapid.SampledFrom([]uint32{100, 100, 100, 50, 170, 300}).Draw(t, "weight")
				}
				checkNearOptimum(t, ms, changeOne(t, ms))
			})
		})
	}
}

// changeOne returns ms after one member joined, left or changed weight.
func changeOne(t *rapid.T, ms []Member) []Member {
	ms = slices.Clone(ms)
	i := rapid.IntRange(0, len(ms)-1).Draw(t, "which")
	switch rapid.IntRange(0, 2).Draw(t, "change") {
	case 0:
		return append(ms, member(100, ms[i].Zone, 100))
	case 1:
		return slices.Delete(ms, i, i+1)
	default:
		ms[i].Weight = rapid.SampledFrom([]uint32{50, 200, 400}).Draw(t, "new weight")
		return ms
	}
}

func checkNearOptimum(t *rapid.T, before, after []Member) {
	const partitions = 128
	a, err := Compute(testCluster, 1, before, partitions, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Compute(testCluster, 2, after, partitions, a)
	if err != nil {
		t.Fatal(err)
	}
	got, least := moved(a, b, setSize), optimum(a, b, setSize, loads(b, setSize))
	if least < 0 {
		t.Fatal("the checker finds no table with these loads")
	}
	if got > least+least/50+2 {
		t.Fatalf("moved %d places, %d would do", got, least)
	}
}

// powerOfTwo returns the least power of two that is not below n.
func powerOfTwo(n int) int {
	p := 1
	for p < n {
		p *= 2
	}
	return p
}

// Fifty changes, one after the other, neither wear out the balance nor move
// more than they must.
func TestFiftyChanges(t *testing.T) {
	changes := 50
	if underRace {
		changes = 5
		t.Logf("SKIPPED under -race: all changes but %d", changes)
	}
	for _, shares := range [][]int{nil, {1, 1, 1}, {6, 5, 4, 3, 2}} {
		t.Run(fmt.Sprint("zones", shares), func(t *testing.T) {
			all := members(100, shares...)
			ms, next, random := slices.Clone(all[:20]), 20, uint64(1)
			l := compute(t, ms, powerOfTwo(64*25), nil)
			sumMoved, sumLeast := map[int]int{}, map[int]int{}
			for range changes {
				random = mix(random)
				i := int(random % uint64(len(ms)))
				switch kind := random >> 32 % 3; {
				case len(ms) < 16 || kind == 0 && len(ms) < 25:
					ms = append(slices.Clone(ms), all[next])
					next++
				case kind == 1 || len(ms) >= 25:
					ms = slices.Delete(slices.Clone(ms), i, i+1)
				default:
					ms = slices.Clone(ms)
					ms[i].Weight = 300 - ms[i].Weight // 100 and 200 in turn
				}
				to := compute(t, ms, l.Partitions(), l)
				for _, n := range []int{1, 2, 3, 5} {
					sumMoved[n] += moved(l, to, n)
					sumLeast[n] += leastMoved(l, to, n)
				}
				l = to
				if worst := peakOverQuota(l, setSize); worst > 1.05 {
					t.Errorf("version %d: a node has %.3f of its share", l.Version(), worst)
				}
			}
			if bad := zoneViolations(l); bad > 0 {
				t.Errorf("%d zone violations", bad)
			}
			for _, n := range []int{1, 2, 3, 5} {
				ratio := float64(sumMoved[n]) / float64(sumLeast[n])
				t.Logf("n=%d: moved %d places in all, at least %d: %.3f", n, sumMoved[n], sumLeast[n], ratio)
				if n == setSize && ratio > 1.10 {
					t.Errorf("moved %.3f of the least, goal 1.10", ratio)
				}
			}
		})
	}
}

// A node that replaces another takes over what that one had, and at the n that
// clusters run nothing else moves.
func TestReplacementMovesNothingElse(t *testing.T) {
	ms := members(9, 1, 1, 1)
	gone := ms[4].ID
	before := compute(t, ms, 512, nil)
	ms[4].ID = 4711
	after := compute(t, ms, 512, before)
	for n := 1; n <= before.Width(); n++ {
		got, want := moved(before, after, n), loads(before, n)[gone]
		if n <= setSize && got != want || float64(got) > 1.05*float64(want) {
			t.Errorf("n=%d: moved %d places, the node that went had %d", n, got, want)
		}
	}
}

// What a lost node held is spread over many, who share the work to restore it.
func TestPartnersAreMany(t *testing.T) {
	ms := members(30)
	l := compute(t, ms, 2048, nil)
	l = compute(t, append(ms, member(30, "", 100)), 2048, l)
	for _, m := range l.Members() {
		partners := make(map[kv.NodeID]bool)
		for p := range 2048 {
			if owners := first(l, p, setSize); slices.Contains(owners, m.ID) {
				for _, id := range owners {
					partners[id] = true
				}
			}
		}
		if len(partners) < 30 {
			t.Errorf("%s shares partitions with %d of 30 others", m.Name, len(partners)-1)
		}
	}
}
