package main

import (
	"maps"
	"testing"
)

// What is compared is what the first n_max owners hold; others hold leftovers.
func TestJudgeReplicas(t *testing.T) {
	owners := []string{"n1", "n2", "n3", "n4"}
	line := func(hash string, nMax int) heldLine { return heldLine{Bucket: "b", Key: "k", Hash: hash, NMax: nMax} }
	for _, tt := range []struct {
		name                         string
		held                         map[string]heldLine
		divergent, missing, leftover int
	}{
		{"the same", map[string]heldLine{"n1": line("a", 3), "n2": line("a", 3), "n3": line("a", 3)}, 0, 0, 0},
		{"one differs", map[string]heldLine{"n1": line("a", 3), "n2": line("b", 3), "n3": line("a", 3)}, 1, 0, 0},
		{"one lacks it", map[string]heldLine{"n1": line("a", 3), "n3": line("a", 3)}, 0, 1, 0},
		{"the widest n counts", map[string]heldLine{"n1": line("a", 2), "n2": line("b", 3)}, 1, 1, 0},
		{"held by one that does not own it", map[string]heldLine{"n1": line("a", 1), "n4": line("b", 1)}, 0, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := partitionKeys{}
			for node, h := range tt.held {
				d.add(node, h)
			}
			r := d.judge(owners)
			if r.Keys != 1 || r.Divergent != tt.divergent || r.Missing != tt.missing || r.Leftover != tt.leftover {
				t.Errorf("%+v", r)
			}
			if named := len(r.Examples) == 1; named != (tt.divergent+tt.missing > 0) {
				t.Errorf("examples: %v", r.Examples)
			}
		})
	}
}

func TestReplicaReportsAddUp(t *testing.T) {
	total, part := newReplicaReport(), newReplicaReport()
	part.Keys, part.Divergent, part.Nodes["n1"] = 2, 1, 2
	part.Examples = make([]differentKey, maxExamples-1)
	total.add(part)
	total.add(part)
	if total.Keys != 4 || total.Divergent != 2 || !maps.Equal(total.Nodes, map[string]int{"n1": 4}) || len(total.Examples) != maxExamples {
		t.Errorf("%+v", total)
	}
}
