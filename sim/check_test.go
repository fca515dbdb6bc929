package sim

import (
	"slices"
	"testing"
	"time"
)

// told is a history written by hand: one operation a row, in the order in which
// they ended, none beside another.
type told struct {
	id       int
	kind     Kind
	outcome  Outcome
	must     []int // of writes
	shows    []int // of reads
	deleted  bool
	floor    []int
	acked    []string
	r, w, n  int // 0: 2, 2, 3
	sloppy   bool
	async    bool
	replaces bool
}

func historyOf(rows []told) *history {
	ops := make([]Op, len(rows))
	for i, t := range rows {
		ops[i] = Op{ID: t.id, Kind: t.kind, N: 3, R: 2, W: 2, Sloppy: t.sloppy, Async: t.async}
		override(&ops[i].R, t.r)
		override(&ops[i].W, t.w)
		override(&ops[i].N, t.n)
	}
	h := newHistory(Plan{Ops: ops}, func() time.Duration { return 0 })
	for _, t := range rows {
		r := h.records[t.id]
		r.begin, r.outcome, r.acked = h.moment(), t.outcome, t.acked
		r.must, r.may, r.result = idsOf(t.must...), idsOf(t.must...), idsOf(t.shows...)
		r.deleted, r.floor, r.replacesAll = t.deleted, idsOf(t.floor...), t.replaces
		r.end = h.moment()
		if r.acked == nil {
			r.acked = []string{"n0", "n1"}
		}
	}
	return h
}

// Each checker sees the violation that it is for, and nothing in a history that
// is right.
func TestCheckReadSees(t *testing.T) {
	wrote := func(id int, must ...int) told { return told{id: id, kind: Write, outcome: OK, must: must} }
	for _, tt := range []struct {
		name string
		rows []told // the last is the read
		want []string
	}{
		{"the value that was written", []told{wrote(0), {id: 1, kind: Read, outcome: OK, shows: []int{0}}}, nil},
		{"siblings", []told{wrote(0), wrote(1), {id: 2, kind: Read, outcome: OK, shows: []int{0, 1}}}, nil},
		{"a value replaced", []told{wrote(0), wrote(1, 0), {id: 2, kind: Read, outcome: OK, shows: []int{1}}}, nil},
		{
			"a value that was not applied",
			[]told{{id: 0, kind: Write, outcome: Failed}, {id: 1, kind: Read, outcome: OK, shows: []int{0}}},
			[]string{"not applied"},
		},
		{"a value that nobody wrote", []told{wrote(0), {id: 2, kind: Read, outcome: OK, shows: []int{0, 1}}}, []string{"set"}},
		{
			"a value beside what replaced it",
			[]told{wrote(0), wrote(1, 0), {id: 2, kind: Read, outcome: OK, shows: []int{0, 1}}},
			[]string{"causal", "freshness"},
		},
		{"nothing after an acknowledgement", []told{wrote(0), {id: 1, kind: Read, outcome: OK}}, []string{"freshness"}},
		{"nothing after an unknown outcome", []told{{id: 0, kind: Write, outcome: Unknown}, {id: 1, kind: Read, outcome: OK}}, nil},
		{"nothing where quorums need not overlap", []told{wrote(0), {id: 1, kind: Read, outcome: OK, r: 1}}, nil},
		{"nothing at r=1 below the floor", []told{wrote(0), {id: 1, kind: Read, outcome: OK, r: 1, floor: []int{0}}}, []string{"session"}},
		{"a delete", []told{wrote(0), {id: 1, kind: Delete, outcome: OK, must: []int{0}}, {id: 2, kind: Read, outcome: OK, deleted: true}}, nil},
		{
			"a value after its delete",
			[]told{wrote(0), {id: 1, kind: Delete, outcome: OK, must: []int{0}}, {id: 2, kind: Read, outcome: OK, shows: []int{0}}},
			[]string{"freshness"},
		},
		{
			"nothing after an overwrite that may have replaced it",
			[]told{wrote(0), {id: 1, kind: Write, outcome: OK, replaces: true}, {id: 2, kind: Read, outcome: OK, shows: []int{1}}},
			nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := historyOf(tt.rows)
			got := checkers(h.checkRead(h.records[tt.rows[len(tt.rows)-1].id]))
			if !slices.Equal(got, tt.want) {
				t.Errorf("complaints of %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCheckFinalSees(t *testing.T) {
	for _, tt := range []struct {
		name string
		rows []told
		live []int
		lose func(*history)
		want []string
	}{
		{"all there", []told{{id: 0, kind: Write, outcome: OK}}, []int{0}, nil, nil},
		{"a lost write", []told{{id: 0, kind: Write, outcome: OK}}, nil, nil, []string{"set"}},
		{
			"a write whose nodes were all wiped",
			[]told{{id: 0, kind: Write, outcome: OK}},
			nil, func(h *history) { h.lossy("n0", loss{}); h.lossy("n1", loss{}) }, nil,
		},
		{
			"a synced write after power cuts",
			[]told{{id: 0, kind: Write, outcome: OK}},
			nil, func(h *history) { h.lossy("n0", loss{unsynced: true}); h.lossy("n1", loss{unsynced: true}) },
			[]string{"set"},
		},
		{
			"an unsynced write after power cuts",
			[]told{{id: 0, kind: Write, outcome: OK, async: true}},
			nil, func(h *history) { h.lossy("n0", loss{unsynced: true}); h.lossy("n1", loss{unsynced: true}) }, nil,
		},
		{
			"a write that a stand-in had passed on to an owner that was wiped",
			[]told{{id: 0, kind: Write, outcome: OK, acked: []string{"n1"}}},
			nil, func(h *history) {
				h.records[0].standIn = map[string]string{"n1": "n0"}
				h.lossy("n0", loss{})
			}, nil,
		},
		{
			"a write that a stand-in still held when its owner was wiped",
			[]told{{id: 0, kind: Write, outcome: OK, acked: []string{"n1"}}},
			nil, func(h *history) {
				h.records[0].standIn = map[string]string{"n1": "n0"}
				h.lossy("n0", loss{owed: idsOf(0)})
			},
			[]string{"set"},
		},
		{
			"a resurrection",
			[]told{{id: 0, kind: Write, outcome: OK}, {id: 1, kind: Delete, outcome: OK, must: []int{0}}},
			[]int{0, 1},
			nil,
			[]string{"causal", "resurrection"},
		},
		{
			"a value on a disk that was set back unnoticed",
			[]told{{id: 0, kind: Write, outcome: OK}, {id: 1, kind: Write, outcome: OK, must: []int{0}}},
			[]int{0, 1},
			func(h *history) {
				h.ages = true
				h.lossy("n2", loss{silent: true, from: h.moment()})
			},
			nil,
		},
		{
			"a value that is not on the backup to which a disk was set back unnoticed",
			[]told{{id: 0, kind: Write, outcome: OK}, {id: 1, kind: Write, outcome: OK, must: []int{0}}},
			[]int{0, 1},
			func(h *history) {
				h.ages = true
				h.lossy("n2", loss{silent: true, from: h.records[0].begin - 1})
			},
			[]string{"causal", "resurrection"},
		},
		{
			"a value on a disk that was set back unnoticed, where nothing is reaped",
			[]told{{id: 0, kind: Write, outcome: OK}, {id: 1, kind: Write, outcome: OK, must: []int{0}}},
			[]int{0, 1},
			func(h *history) { h.lossy("n2", loss{silent: true, from: h.moment()}) },
			[]string{"causal", "resurrection"},
		},
		{
			"a value on a disk that was set back",
			[]told{{id: 0, kind: Write, outcome: OK}, {id: 1, kind: Write, outcome: OK, must: []int{0}}},
			[]int{0, 1},
			func(h *history) { h.lossy("n2", loss{}) },
			[]string{"causal", "resurrection"},
		},
		{"a replaced tombstone", []told{
			{id: 0, kind: Write, outcome: OK},
			{id: 1, kind: Delete, outcome: OK, must: []int{0}},
			{id: 2, kind: Write, outcome: OK, must: []int{0, 1}},
		}, []int{2}, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := historyOf(tt.rows)
			if tt.lose != nil {
				tt.lose(h)
			}
			if got := checkers(h.checkFinal(0, idsOf(tt.live...))); !slices.Equal(got, tt.want) {
				t.Errorf("complaints of %v, want %v", got, tt.want)
			}
		})
	}
}

func checkers(list []Violation) []string { return Report{Violations: list}.Checkers() }

func TestShrinkFindsTheCulprits(t *testing.T) {
	p := Plan{}
	for i := range 20 {
		p.Ops = append(p.Ops, Op{ID: i})
		p.Faults = append(p.Faults, Fault{Node: i})
	}
	got := shrink(p, func(p Plan) (fails, more bool) {
		first := slices.ContainsFunc(p.Ops, func(o Op) bool { return o.ID == 3 })
		second := slices.ContainsFunc(p.Ops, func(o Op) bool { return o.ID == 17 })
		fault := slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Node == 11 })
		return first && second && fault, true
	})
	if len(got.Ops) != 2 || got.Ops[0].ID != 3 || got.Ops[1].ID != 17 || len(got.Faults) != 1 || got.Faults[0].Node != 11 {
		t.Errorf("shrunk to %v", got)
	}
}

func TestDrawDependsOnTheSeedAlone(t *testing.T) {
	for seed := range uint64(50) {
		if a, b := Draw(seed, Config{}).String(), Draw(seed, Config{}).String(); a != b {
			t.Fatalf("seed %d: two plans\n%s\n%s", seed, a, b)
		}
	}
	if Draw(1, Config{}).String() == Draw(2, Config{}).String() {
		t.Error("two seeds, one plan")
	}
}

// Scenes are played where nothing narrows the plan, each of them, and leave the
// rest as it is.
func TestScenesAreAdded(t *testing.T) {
	forgets := []FaultKind{PowerCut, Blackout, Wipe, Rollback, SyncError}
	for _, scene := range Scenes() {
		played := 0
		for seed := range uint64(200) {
			p, bare := Draw(seed, Config{Scenes: []Scene{scene}}), Draw(seed, Config{Scenes: []Scene{}})
			if !slices.Equal(p.Ops[:len(bare.Ops)], bare.Ops) {
				t.Fatalf("seed %d: the scene %s changes the operations beside it", seed, scene)
			}
			if len(p.Ops) > len(bare.Ops) {
				played++
			}
			has := func(kinds ...FaultKind) bool {
				return slices.ContainsFunc(p.Faults, func(f Fault) bool { return slices.Contains(kinds, f.Kind) })
			}
			if has(Rot) && has(forgets...) {
				t.Fatalf("seed %d: with the scene %s a record may rot of which the other copy is forgotten", seed, scene)
			}
			if slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.At >= p.Length }) {
				t.Fatalf("seed %d: a fault of the scene %s comes after the end", seed, scene)
			}
		}
		if played < 10 {
			t.Errorf("the scene %s was played by %d of 200 seeds", scene, played)
		}
	}
	for _, cfg := range []Config{{Ops: 5}, {Faults: []FaultKind{}}, {Workloads: []Workload{}}} {
		if p := Draw(1, cfg); slices.ContainsFunc(p.Ops, func(o Op) bool { return o.Key >= p.Keys }) || cfg.Ops > 0 && len(p.Ops) != cfg.Ops {
			t.Errorf("a scene in a plan narrowed to %v", cfg)
		}
	}
}

func TestConfigNarrows(t *testing.T) {
	for seed := range uint64(50) {
		p := Draw(seed, Config{Nodes: 4, Ops: 7, Faults: []FaultKind{Kill}, Workloads: []Workload{}})
		if p.Nodes != 4 || len(p.Ops) != 7 {
			t.Fatalf("%d nodes and %d operations", p.Nodes, len(p.Ops))
		}
		if slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Kind != Kill }) {
			t.Fatalf("faults %v", p.Faults)
		}
		if slices.ContainsFunc(p.Ops, func(o Op) bool { return o.Sloppy || o.Async || o.Condition != Always }) {
			t.Fatalf("operations %v", p.Ops)
		}
	}
}
