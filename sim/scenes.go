package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Scene is a few operations and faults that belong together, played in half of
// the plans beside all else: what breaks there takes more steps in one order than
// come about by chance. It has a key and a client of its own, and its moments and
// roles are drawn.
type Scene string

// The scenes.
const (
	Lost   Scene = "lost"   // who lost a write is asked together with who missed it
	Kept   Scene = "kept"   // the only owner that took a write loses it; a stand-in has it
	Folded Scene = "folded" // clocks are folded while what was said before is under way
	Rotten Scene = "rotten" // a record rots twice, and writes meet it
)

// Scenes lists all of them.
func Scenes() []Scene { return []Scene{Lost, Kept, Folded, Rotten} }

// stage is a plan to which a scene is added.
type stage struct {
	*Plan

	rng    *rand.Rand
	rots   bool // records may rot, and so no disk may forget
	from   time.Duration
	key    int
	client int
}

// play adds a scene to half of the plans, one that goes with what the plan may
// contain already.
func (p Plan) play(cfg Config, rots bool) Plan {
	may := cfg.Scenes
	if may == nil && cfg.Ops == 0 && cfg.Faults == nil && cfg.Workloads == nil {
		may = Scenes()
	}
	fits := map[Scene]bool{Lost: true, Kept: !rots && p.Nodes > 3, Folded: true, Rotten: rots}
	may = slices.DeleteFunc(slices.Clone(may), func(s Scene) bool { return !fits[s] })
	rng := generator(p.Seed, saltScene)
	if rng.IntN(2) == 0 || len(may) == 0 || p.Nodes < 3 {
		return p
	}
	p.Keys += 1 + rng.IntN(32) // the last has the scene: its place should differ
	span := p.Length           // in half of the short plans most other faults have ended
	if !p.Ages {
		span *= 2
	}
	s := &stage{Plan: &p, rng: rng, rots: rots, from: time.Duration(rng.Int64N(int64(span)) + 1), key: p.Keys - 1}
	for _, o := range p.Ops {
		s.client = max(s.client, o.Client+1)
	}
	map[Scene]func(){Lost: s.lost, Kept: s.kept, Folded: s.folded, Rotten: s.rotten}[may[rng.IntN(len(may))]]()
	for _, f := range p.Faults {
		p.Length = max(p.Length, f.At+time.Millisecond)
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return p
}

// between draws a time.
func (s *stage) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.rng.Int64N(int64(most-least)))
}

func (s *stage) flip() bool { return s.rng.IntN(2) == 0 }

// owners draws an order of the first three owners of the key.
func (s *stage) owners() [3]int {
	layout := viewOf(s.Nodes).Active()[0]
	ids := layout.Owners(layout.Partition(keyOf(s.key).Hash()))
	out := [3]int{int(ids[0]) - 1, int(ids[1]) - 1, int(ids[2]) - 1}
	s.rng.Shuffle(3, func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// op adds an operation on three owners. What is moved in it is up to the caller.
func (s *stage) op(at time.Duration, kind Kind, node, w int) *Op {
	s.Ops = append(s.Ops, Op{
		ID: len(s.Ops), At: s.from + at, Client: s.client, Node: node, Key: s.key, Kind: kind,
		N: 3, R: 2, W: w, Context: LastContext, Timeout: s.between(time.Second, 3*time.Second) | 1,
	})
	return &s.Ops[len(s.Ops)-1]
}

// fault adds a fault that begins and ends at these moments of the scene.
func (s *stage) fault(from, to time.Duration, kind FaultKind, node, other int) *Fault {
	s.Faults = append(s.Faults, Fault{
		At: s.from + from, For: to - from, Kind: kind, Node: node, Other: other, Size: s.rng.Float64(), Seed: s.rng.Uint64(),
	})
	return &s.Faults[len(s.Faults)-1]
}

// lost has one owner miss a write and another one lose it; then the third cannot
// be reached any more. One that lost all may have caught up from the third before,
// but not from the one that missed the write.
//
// In a cluster of three a node can start with its witness alone, which is the next.
func (s *stage) lost() {
	kind := Rot
	if !s.rots {
		kind = []FaultKind{Wipe, Wipe, PowerCut}[s.rng.IntN(3)]
	}
	late := kind == Wipe && s.flip()
	cast := s.owners()
	victim, behind, away := cast[0], cast[1], cast[2]
	if s.Nodes == 3 {
		behind, away = (victim+1)%3, (victim+2)%3
		if late {
			behind, away = away, behind
		}
	}
	write := s.op(10*time.Millisecond, Write, []int{victim, away}[s.rng.IntN(2)], 2)
	loss := s.between(20*time.Millisecond, 300*time.Millisecond)
	if kind == PowerCut { // of what is not synced yet
		write.Async, loss = true, s.between(12*time.Millisecond, 40*time.Millisecond)
	}
	back, swap := loss+s.between(time.Millisecond, 200*time.Millisecond), loss
	missing, end := Isolate, swap+2*time.Second
	if late {
		swap = back + s.between(20*time.Millisecond, 600*time.Millisecond)
		missing, end = Kill, swap+4*time.Second // refused at once, and so not waited for
	}
	s.fault(0, swap, missing, behind, away)
	s.fault(loss, back, kind, victim, away).Key = 1 + s.key
	s.fault(swap, end, Isolate, away, behind)
	at := max(swap, back) + s.between(time.Millisecond, 100*time.Millisecond)
	for ; at < end; at += s.between(100*time.Millisecond, 500*time.Millisecond) {
		read := s.op(at, Read, []int{victim, behind}[s.rng.IntN(2)], 2)
		read.Context, read.Timeout = NoContext, s.between(50*time.Millisecond, 500*time.Millisecond)|1
	}
}

// kept has a write acknowledged by one owner and a stand-in, and that owner lose
// its disk before the others can be reached.
func (s *stage) kept() {
	cast := s.owners()
	s.op(10*time.Millisecond, Write, cast[0], 2).Sloppy = true
	loss := s.between(200*time.Millisecond, time.Second)
	back := loss + s.between(time.Millisecond, 500*time.Millisecond)
	s.fault(0, back, Isolate, cast[1], cast[0])
	s.fault(0, back, Isolate, cast[2], cast[0])
	s.fault(loss, back, Wipe, cast[0], cast[1])
}

// folded has a clock folded soon after a write replaced another one, both without
// a write id, which would be remembered, while some of what is said comes late.
func (s *stage) folded() {
	layout := viewOf(s.Nodes).Active()[0]
	owners := layout.Owners(layout.Partition(keyOf(s.key).Hash()))
	reaper, others := int(owners[0])-1, make([]int, 0, s.Nodes)
	for _, id := range owners[1:] {
		others = append(others, int(id)-1)
	}
	slices.Sort(others) // the order in which they are asked to confirm
	s.Repairs.ReapEvery = s.between(100*time.Millisecond, 400*time.Millisecond)
	s.Repairs.Reap.FoldEntries, s.Repairs.Reap.FoldQuiet = 1, s.between(50*time.Millisecond, 300*time.Millisecond)
	if s.rng.IntN(3) == 0 {
		s.meanwhile(reaper, others)
	} else {
		s.overtaken(reaper, others)
	}
}

// update adds a write that knows what the client read or wrote last.
func (s *stage) update(at time.Duration, node int) {
	o := s.op(at, Write, node, 1)
	o.N, o.Timeout = s.Nodes, 5*time.Second|1
}

// overtaken has the others hear late of the first write, of the member that is
// asked last, and perhaps that one of the second and of the round. Or only the
// first write comes late, and one of those that wait for it loses its disk, before
// the last was asked or after it, and perhaps comes back without a word of the
// reaper.
func (s *stage) overtaken(reaper int, others []int) {
	last, rest := others[len(others)-1], others[:len(others)-1]
	wipes := !s.rots && s.flip()
	end, hears := 6*time.Second, 6*time.Second
	if wipes {
		hears = 250 * time.Millisecond
	}
	s.update(10*time.Millisecond, last)
	s.update(s.between(20*time.Millisecond, 100*time.Millisecond), reaper)
	for _, to := range rest {
		s.fault(0, hears, Lag, last, to).Size = (3 + s.rng.Float64()) / 4
	}
	if s.rng.IntN(4) > 0 {
		s.fault(0, end, Lag, reaper, last).Size = (1 + s.rng.Float64()) / 3 // up to one to two seconds
	}
	if !wipes {
		return
	}
	victim, at := rest[s.rng.IntN(len(rest))], s.between(300*time.Millisecond, 1500*time.Millisecond)
	back := at + s.between(time.Millisecond, 100*time.Millisecond)
	s.fault(at, back, Wipe, victim, reaper)
	if s.flip() {
		s.fault(at, back+s.between(100*time.Millisecond, time.Second), Cut, victim, reaper)
	}
}

// meanwhile has all others hear late of the reaper, and makes two more writes, of
// which the second does not reach the author of the first.
func (s *stage) meanwhile(reaper int, others []int) {
	s.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	s.update(10*time.Millisecond, others[0])
	s.update(s.between(20*time.Millisecond, 100*time.Millisecond), reaper)
	for _, to := range others {
		s.fault(0, 4*time.Second, Lag, reaper, to).Size = 0.3 * s.rng.Float64()
	}
	at := s.between(150*time.Millisecond, 3*time.Second)
	cut := at + s.between(10*time.Millisecond, 50*time.Millisecond)
	s.update(at, others[1])
	s.fault(cut, cut+s.between(500*time.Millisecond, 2*time.Second), Cut, others[0], others[1])
	s.update(cut+s.between(time.Millisecond, 50*time.Millisecond), others[0])
}

// rotten has a record rot, be met by a write, and rot again once it is mended.
func (s *stage) rotten() {
	cast := s.owners()
	s.op(10*time.Millisecond, Write, cast[1], 3)
	at := time.Duration(0)
	for range 2 {
		at += s.between(500*time.Millisecond, 3*time.Second)
		s.fault(at, at+1, Rot, cast[0], cast[1]).Key = 1 + s.key
		s.op(at+s.between(time.Millisecond, 300*time.Millisecond), Write, cast[1], 2)
	}
}
