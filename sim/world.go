package sim

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// partitions of every simulated cluster: few, so that keys share them.
const partitions = 8

// world is one run: nodes, network, clients, and what they saw.
type world struct {
	sightings

	plan     Plan
	gate     *gate
	net      *network
	view     ring.View
	machines []*machine
	clients  []*client
	history  *history

	violations []Violation

	zero     time.Duration  // when the plan begins: once all nodes are in good standing
	busy     int            // clients that are not done
	requests sync.WaitGroup // of clients, under way
	zombies  sync.WaitGroup // processes that end
	heals    []*healing

	converged time.Duration // what the healed replicas took to be the same
	reaped    uint64        // records that ended processes changed in rounds of reaping
	early     uint64        // those that were reaped before all was healed
	restored  int           // values that a person restored from quarantine
}

// healing is the end of one fault. It comes once.
type healing struct {
	heal func()
}

func (h *healing) do() {
	if h.heal != nil {
		h.heal()
		h.heal = nil
	}
}

// Run draws the plan of a seed and carries it out in virtual time. One seed is
// one history: the report's trace is the same in every process, whatever the
// machine does meanwhile.
func Run(t *testing.T, seed uint64, cfg Config) Report {
	t.Helper()
	return Execute(t, Draw(seed, cfg))
}

// Execute carries out a plan. It must not be called inside a bubble.
func Execute(t *testing.T, p Plan) Report {
	t.Helper()
	return ExecuteLogged(t, p, io.Discard)
}

// ExecuteLogged is [Execute]. It writes a line for everything that goes into
// the trace to log.
func ExecuteLogged(t *testing.T, p Plan, log io.Writer) Report {
	t.Helper()
	var report Report
	synctest.Test(t, func(*testing.T) {
		w := newWorld(p)
		w.gate.log = log
		report = w.run()
	})
	return report
}

func newWorld(p Plan) *world {
	g := newGate()
	w := &world{plan: p, gate: g, net: newNetwork(g, p.Seed), history: newHistory(p, g.now), sightings: newSightings()}
	w.view = viewOf(p.Nodes)
	for i := range p.Nodes {
		w.machines = append(w.machines, newMachine(w, i))
	}
	for _, o := range p.Ops {
		for len(w.clients) <= o.Client {
			w.clients = append(w.clients, &client{w: w, index: len(w.clients), held: make(map[int][]heldToken)})
		}
	}
	byTime := slices.Clone(p.Ops)
	slices.SortStableFunc(byTime, func(a, b Op) int { return int(a.At - b.At) })
	for _, o := range byTime {
		c := w.clients[o.Client]
		c.ops = append(c.ops, o)
	}
	return w
}

// viewOf is the one layout of a cluster.
func viewOf(nodes int) ring.View {
	members := make([]ring.Member, nodes)
	for i := range members {
		members[i] = ring.Member{ID: idOf(i), Name: "n" + strconv.Itoa(i), Address: fmt.Sprintf("n%d:1", i), Weight: 1}
	}
	layout, err := ring.Compute(ring.ClusterID{1}, 1, members, partitions, nil)
	if err != nil {
		panic(err) // the members are right
	}
	view, err := ring.View{}.With(layout)
	if err != nil {
		panic(err) // an empty view takes any layout
	}
	return view
}

func (w *world) key(k int) kv.Key { return keyOf(k) }

func keyOf(k int) kv.Key { return kv.Key{Bucket: "b", Name: "k" + strconv.Itoa(k)} }

func (w *world) run() Report {
	for _, m := range w.machines {
		if err := m.start(); err != nil {
			panic(err) // nothing is wrong yet
		}
	}
	for !w.standing() {
		w.wait(10 * time.Millisecond)
	}
	w.zero = w.gate.now()
	w.busy = len(w.clients)
	for _, c := range w.clients {
		c.next()
	}
	for _, f := range w.plan.Faults {
		w.plot(f)
	}
	end := false
	w.gate.schedule(w.zero+w.plan.Length, "end of the plan", func() { end = true })
	w.gate.run(func() bool { return end && w.busy == 0 })
	w.early = w.reapedSoFar()
	w.heal()
	w.judge()
	w.restore()
	w.stop()
	return w.report()
}

// reapedSoFar counts the records that nodes changed in rounds that they drove.
func (w *world) reapedSoFar() uint64 {
	sum := w.reaped
	for _, m := range w.machines {
		if m.process != nil {
			sum += m.process.Reaping().Reaped
		}
	}
	return sum
}

// plot schedules a fault and its end.
func (w *world) plot(f Fault) {
	if f.Kind == Rollback {
		m := w.machines[f.Node]
		w.gate.schedule(w.zero+f.At-f.age(), "backup of "+m.name, func() { m.backup, m.backed = m.disk.Clone(), w.history.moment() })
	}
	w.gate.schedule(w.zero+f.At, f.String(), func() {
		h := &healing{heal: w.strike(f)}
		w.heals = append(w.heals, h)
		w.gate.schedule(w.zero+f.At+f.For, "end of "+f.String(), h.do)
	})
}

// stop ends all processes, and waits for everything that they began.
func (w *world) stop() {
	for _, m := range w.machines {
		m.crash(loseNothing, true)
	}
	synctest.Wait()
	w.zombies.Wait()
	w.requests.Wait()
}

// abandon tells the clients of a process that it has ended.
func (w *world) abandon(p *process) {
	orphans := make([]*attempt, 0, len(p.attempts))
	for a := range p.attempts {
		orphans = append(orphans, a)
	}
	slices.SortFunc(orphans, func(a, b *attempt) int { return a.record.ID - b.record.ID })
	for _, a := range orphans {
		delete(p.attempts, a)
		w.gate.schedule(w.gate.now(), fmt.Sprintf("#%d loses its node", a.record.ID), func() { a.finish(answer{err: errGone}) })
	}
}

// idle is called by each client once it is done.
func (w *world) idle() { w.busy-- }

// ended is called after each operation.
func (w *world) ended(r *record) {
	if r.Kind == Read && r.outcome == OK {
		w.violations = append(w.violations, w.history.checkRead(r)...)
	}
}

func (w *world) violatef(checker, format string, args ...any) {
	w.violations = append(w.violations, Violation{Checker: checker, Text: fmt.Sprintf(format, args...)})
}

// sightings are the dots seen anywhere in a run, with what they stood for.
type sightings struct {
	byDot map[sightedDot]sighting
	given map[int]map[vclock.Dot]bool // by operation: the dots of its attempts

	falseSiblings int
	valuesRot     bool // some did
}

func (s *sightings) give(r *record, d vclock.Dot) {
	if s.given[r.ID] == nil {
		s.given[r.ID] = make(map[vclock.Dot]bool)
	}
	s.given[r.ID][d] = true
}

type sightedDot struct {
	key int
	dot vclock.Dot
}

type sighting struct {
	checksum uint64
	id       kv.WriteID
	kind     kv.Kind
	where    string
}

func newSightings() sightings {
	return sightings{byDot: make(map[sightedDot]sighting), given: make(map[int]map[vclock.Dot]bool)}
}

// dot checks that one dot is one value, wherever and whenever it is seen.
func (w *world) dot(key int, d vclock.Dot, s kv.Sibling, where string) {
	now := sighting{checksum: s.Checksum, id: s.WriteID, kind: s.Kind, where: where}
	if id, ok := w.wrote(key, s); ok {
		w.give(w.history.records[id], d)
	}
	before, known := w.byDot[sightedDot{key, d}]
	if !known {
		w.byDot[sightedDot{key, d}] = now
		return
	}
	if before.checksum != now.checksum || before.id != now.id || before.kind != now.kind {
		w.violatef("dot uniqueness", "k%d: dot %v stands for one value in %s and for another in %s", key, d, before.where, where)
	}
}
