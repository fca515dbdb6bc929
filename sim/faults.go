package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/starling-kv/starling/node/storage/memory"
)

// FaultKind is something that goes wrong.
type FaultKind string

// The kinds of fault.
const (
	Kill        FaultKind = "kill"         // kill -9; the disk keeps all it was given
	PowerCut    FaultKind = "power cut"    // of one node: some of what was not synced is gone
	Blackout    FaultKind = "blackout"     // a power cut of all nodes
	Wipe        FaultKind = "wipe"         // a crash, then a start with an empty disk
	Rollback    FaultKind = "rollback"     // a crash, then a start with an older disk
	Pause       FaultKind = "pause"        // the node neither hears nor says anything
	Cut         FaultKind = "cut"          // a link, both ways
	CutOneWay   FaultKind = "one-way cut"  // a link, one way
	Isolate     FaultKind = "isolate"      // a node from all others
	Flap        FaultKind = "flap"         // a link, on and off
	Loss        FaultKind = "loss"         // of some messages
	Duplication FaultKind = "duplication"  // of some requests
	SlowNet     FaultKind = "slow network" // and with it far more reordering
	ClockJump   FaultKind = "clock jump"
	ClockDrift  FaultKind = "clock drift"
	CommitError FaultKind = "commit error" // nothing of a batch is done
	UnclearDisk FaultKind = "unclear disk" // a batch is done and reported as failed
	SyncError   FaultKind = "sync error"
	FullDisk    FaultKind = "full disk"
	SlowDisk    FaultKind = "slow disk"
	Rot         FaultKind = "rot" // one bit of what is on the disk is flipped
	Lag         FaultKind = "lag" // what one node says to another comes late
)

// FaultKinds lists those that are drawn: a lag is only part of scenes.
func FaultKinds() []FaultKind {
	return []FaultKind{
		Kill, PowerCut, Blackout, Wipe, Rollback, Pause, Cut, CutOneWay, Isolate, Flap, Loss, Duplication, SlowNet,
		ClockJump, ClockDrift, CommitError, UnclearDisk, SyncError, FullDisk, SlowDisk, Rot,
	}
}

// Fault is one thing that goes wrong, from At for the time For.
type Fault struct {
	At, For time.Duration
	Kind    FaultKind
	Node    int
	Other   int     // the other end of a link
	Key     int     // whose record rots: its number and one; 0: any
	Size    float64 // how bad, from 0 to 1
	Seed    uint64
}

// String is the line of a failure's report.
func (f Fault) String() string {
	line := fmt.Sprintf("%10v FAULT %s of n%d (n%d) for %v, size %.2f", f.At, f.Kind, f.Node, f.Other, f.For, f.Size)
	if f.Key > 0 {
		line += fmt.Sprintf(", k%d", f.Key-1)
	}
	return line
}

// drawFaults draws up to eight faults.
func drawFaults(rng *rand.Rand, p Plan, kinds map[FaultKind]bool) []Fault {
	var may []FaultKind
	for _, k := range FaultKinds() {
		if kinds[k] {
			may = append(may, k)
		}
	}
	count := rng.IntN(3 + len(p.Ops)/3)
	if len(may) == 0 {
		return nil
	}
	longest := p.Length / 2
	if p.Ages {
		longest = longestFault
	}
	faults := make([]Fault, 0, count)
	for range count {
		f := Fault{
			At:   time.Duration(rng.Int64N(int64(p.Length))),
			For:  time.Duration(rng.Int64N(int64(longest)) + 1),
			Kind: may[rng.IntN(len(may))], Node: rng.IntN(p.Nodes), Size: rng.Float64(), Seed: rng.Uint64(),
		}
		f.Other = (f.Node + 1 + rng.IntN(max(1, p.Nodes-1))) % p.Nodes
		faults = append(faults, f)
	}
	faults = append(faults, aimed(p, kinds, longest)...)
	slices.SortStableFunc(faults, func(a, b Fault) int { return int(a.At - b.At) })
	return faults
}

// aimed draws, for some plans, faults that belong together: one node misses what
// is written, then a second one loses its disk, or part of it, while a third
// cannot be reached. Who is left must not take what the first two make of it for
// the truth.
func aimed(p Plan, kinds map[FaultKind]bool, longest time.Duration) []Fault {
	rng := generator(p.Seed, saltAim)
	aims := rng.IntN(2) == 0
	var losses []FaultKind
	for _, k := range []FaultKind{PowerCut, Wipe, Rollback, Rot} {
		if kinds[k] {
			losses = append(losses, k)
		}
	}
	if len(losses) == 0 || p.Nodes < 3 || !aims {
		return nil
	}
	w, r, ok := pair(rng, p.Ops, p.Length/8, longest)
	if !ok {
		return nil
	}
	at := w.At + (r.At-w.At)/3
	victim, behind, away := cast(rng, p, w, r)
	fault := func(at, span time.Duration, kind FaultKind, node int) Fault {
		at = max(at, 0)
		return Fault{At: at, For: min(span, longest), Kind: kind, Node: node, Other: away, Size: rng.Float64(), Seed: rng.Uint64()}
	}
	return []Fault{
		fault(w.At-10*time.Millisecond, at-w.At+10*time.Millisecond, Isolate, behind),
		fault(at, r.At-at+time.Second, Isolate, away),
		fault(at, time.Duration(rng.Int64N(int64(r.At-at)/4)), losses[rng.IntN(len(losses))], victim),
	}
}

// pair draws a write and a read of its key, from least to most later.
func pair(rng *rand.Rand, ops []Op, least, most time.Duration) (w, r Op, ok bool) {
	for range 50 {
		w, r = ops[rng.IntN(len(ops))], ops[rng.IntN(len(ops))]
		if w.Kind != Read && r.Kind == Read && w.Key == r.Key && r.At > w.At+least && r.At < w.At+most {
			return w, r, true
		}
	}
	return w, r, false
}

// cast draws three owners of the key, so that neither the write nor the read is
// asked of one that is cut off then. In a small cluster the second is the witness
// of the first: with it alone that one can start.
func cast(rng *rand.Rand, p Plan, w, r Op) (victim, behind, away int) {
	if p.Nodes == 3 {
		victim = r.Node
		if w.Node == (r.Node+1)%3 {
			victim = (r.Node + 2) % 3
		}
		return victim, (victim + 1) % 3, (victim + 2) % 3
	}
	layout := viewOf(p.Nodes).Active()[0]
	owners := slices.Clone(layout.Owners(layout.Partition(keyOf(w.Key).Hash()))[:3])
	for range 10 {
		rng.Shuffle(3, func(i, j int) { owners[i], owners[j] = owners[j], owners[i] })
		if victim, behind, away = int(owners[0])-1, int(owners[1])-1, int(owners[2])-1; behind != w.Node && away != r.Node {
			break
		}
	}
	return victim, behind, away
}

// strike makes the fault happen and returns what ends it, nil if it ends by
// itself.
func (w *world) strike(f Fault) (heal func()) {
	m := w.machines[f.Node]
	switch f.Kind {
	case Kill, PowerCut, Blackout, Wipe, Rollback:
		return w.strikeProcess(f, m)
	case Cut, CutOneWay, Isolate, Flap, Loss, Duplication, SlowNet, Lag, Pause:
		return w.strikeNetwork(f, m)
	case ClockJump:
		m.clock.offset.Add(jump(f))
		return nil
	case ClockDrift:
		m.clock.drift.Store(int64((f.Size - 0.5) * 2e8)) // up to a tenth
		return func() { m.clock.drift.Store(0) }
	case CommitError, UnclearDisk, SyncError, FullDisk, SlowDisk, Rot:
		return w.strikeDisk(f, m)
	}
	panic("unknown fault " + f.Kind)
}

// jump is how far the clock jumps, in nanoseconds: often seconds, at times years.
func jump(f Fault) int64 {
	reach := []time.Duration{time.Second, time.Minute, 10 * time.Minute, 10 * 365 * 24 * time.Hour}[f.Seed%4]
	return int64((f.Size*2 - 1) * float64(reach))
}

func (w *world) strikeProcess(f Fault, m *machine) func() {
	struck := []*machine{m}
	if f.Kind == Blackout {
		struck = w.machines
	}
	for _, m := range struck {
		m.down++
		w.end(f, m)
	}
	return func() {
		for _, m := range struck {
			m.down--
			w.revive(m)
		}
	}
}

// end ends the process of a node in the way of the fault.
func (w *world) end(f Fault, m *machine) {
	switch f.Kind {
	case Kill:
		m.crash(loseNothing, true)
	case PowerCut, Blackout:
		m.reboots++
		w.history.lossy(m.name, loss{unsynced: true})
		m.crash(memory.LoseSome(f.Seed), f.Size < 0.3)
	case Wipe:
		w.history.lossy(m.name, loss{owed: w.owed(m)})
		m.crash(memory.LoseAll, true)
		m.disk.Disk, m.backup = memory.New(), nil
	default: // Rollback
		if m.backup == nil {
			m.crash(memory.LoseAll, true)
			w.history.lossy(m.name, loss{unsynced: true})
			return
		}
		w.history.lossy(m.name, loss{silent: !w.noticeable(f), from: m.backed, owed: w.owed(m)})
		m.crash(memory.LoseAll, true)
		m.disk.Disk, m.backup = m.backup, nil
	}
}

// longestSecret is how long a node may take to tell the others how far it has
// come: a chapter, a review of the keeper, and a call.
const longestSecret = time.Second

// noticeable reports whether a node must find out before it takes part that its
// disk was set back: the backup is old enough for it to have told all others
// since, and nothing has kept it from that.
func (w *world) noticeable(f Fault) bool {
	from := f.At - f.age()
	return f.age() >= longestSecret && !slices.ContainsFunc(w.plan.Faults, func(o Fault) bool {
		return o != f && o.At <= f.At && o.At+o.For >= from
	})
}

// age is how old the backup of a rollback is.
func (f Fault) age() time.Duration { return f.At - time.Duration(float64(f.At)*f.Size) }

// revive starts a node that nothing keeps down. A disk that cannot be written
// may keep it from starting; then it is tried again.
func (w *world) revive(m *machine) {
	if m.down > 0 || m.process != nil {
		return
	}
	slow := m.disk.slow.Swap(0)
	defer m.disk.slow.Store(slow)
	if err := m.start(); err != nil {
		w.gate.schedule(w.gate.now()+100*time.Millisecond, "start "+m.name, func() { w.revive(m) })
	}
}

func (w *world) strikeNetwork(f Fault, m *machine) func() {
	n := w.net
	other := w.machines[f.Other]
	switch f.Kind {
	case Pause:
		n.held[m.id] = max(n.held[m.id], w.gate.now()+f.For)
		return nil
	case Cut:
		return n.cutting(link{m.id, other.id}, link{other.id, m.id})
	case CutOneWay:
		return n.cutting(link{m.id, other.id})
	case Isolate:
		var links []link
		for _, o := range w.machines {
			if o != m {
				links = append(links, link{m.id, o.id}, link{o.id, m.id})
			}
		}
		return n.cutting(links...)
	case Flap:
		return w.flapping(f, link{m.id, other.id}, link{other.id, m.id})
	case Loss:
		p := f.Size / 2
		n.loss = append(n.loss, &p)
		return func() { n.loss = remove(n.loss, &p) }
	case Duplication:
		p := f.Size
		n.twice = append(n.twice, &p)
		return func() { n.twice = remove(n.twice, &p) }
	case Lag:
		l := &lag{link{m.id, other.id}, time.Duration(f.Size * float64(longestLag))}
		n.lags = append(n.lags, l)
		return func() { n.lags = remove(n.lags, l) }
	default:
		d := time.Duration(f.Size * float64(300*time.Millisecond))
		n.slow = append(n.slow, &d)
		return func() { n.slow = remove(n.slow, &d) }
	}
}

// flapping cuts links and heals them, again and again.
func (w *world) flapping(f Fault, links ...link) func() {
	period := f.For/8 + time.Millisecond
	var heal func()
	over := false
	var turn func()
	turn = func() {
		switch {
		case over:
			return
		case heal == nil:
			heal = w.net.cutting(links...)
		default:
			heal()
			heal = nil
		}
		w.gate.schedule(w.gate.now()+period, "flap "+f.String(), turn)
	}
	turn()
	return func() {
		over = true
		if heal != nil {
			heal()
		}
	}
}

func (w *world) strikeDisk(f Fault, m *machine) func() {
	d := m.disk
	switch f.Kind {
	case CommitError:
		d.FailCommit(1+int(f.Seed%3), errDisk)
		return nil
	case UnclearDisk:
		d.unclear.Store(true)
		return nil
	case SyncError:
		m.shaky = true
		d.FailSync(1+int(f.Seed%3), errDisk)
		return nil
	case Rot:
		w.rot(f, m)
		return nil
	case FullDisk:
		const vast = 1 << 40
		d.SetCapacity(vast)
		free, _ := d.Free() // of a memory disk never fails
		d.SetCapacity(vast - int(free) + int(f.Size*2*lowWater))
		return func() { d.SetCapacity(0) }
	default:
		slow := int64(f.Size * float64(time.Second))
		d.slow.Add(slow)
		return func() { d.slow.Add(-min(slow, d.slow.Load())) }
	}
}
