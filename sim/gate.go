package sim

import (
	"cmp"
	"container/heap"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
)

// gate is the only thing in a run that lets anything happen. Nodes hand it what
// they send; it waits until every goroutine of the bubble is blocked, puts what
// came in the order of its identity, not of its coming, and releases one event
// at a time, in the order of virtual time. What a node does between two events
// follows from the first of them and from its own timers.
type gate struct {
	begun time.Time
	wake  chan struct{} // holds a token when there may be something new

	mu     sync.Mutex
	posted []posted

	// The rest is touched by the gate's goroutine alone.
	queue    events
	seen     map[string]uint64
	trace    *xxhash.Digest
	released int
	log      io.Writer // gets what goes into the trace
}

// posted is something that a node did and that is to have an effect elsewhere.
type posted struct {
	name  string // what it is: equal names are interchangeable
	admit func(id uint64)
}

// event is something that happens at a moment.
type event struct {
	at   time.Duration
	name string
	run  func()
}

func newGate() *gate {
	return &gate{begun: time.Now(), wake: make(chan struct{}, 1), seen: make(map[string]uint64), trace: xxhash.New(), log: io.Discard}
}

// now is the virtual time since the start of the run.
func (g *gate) now() time.Duration { return time.Since(g.begun) }

// post hands over what a goroutine of a node did. admit is called by the gate,
// once all is quiet, with a number that only depends on name and on how many of
// that name came before; it must return at once.
func (g *gate) post(name string, admit func(id uint64)) {
	g.mu.Lock()
	g.posted = append(g.posted, posted{name, admit})
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// schedule has run called at the moment at, or at once if that is past. It is
// for the gate's goroutine, which means: for what admit and run call.
func (g *gate) schedule(at time.Duration, name string, run func()) {
	heap.Push(&g.queue, event{max(at, g.now()), name, run})
}

// run releases events until done reports true while all is quiet.
func (g *gate) run(done func() bool) {
	for {
		synctest.Wait()
		g.admit()
		if done() {
			return
		}
		if len(g.queue) > 0 && g.queue[0].at <= g.now() {
			g.release(heap.Pop(&g.queue).(event)) //nolint:forcetypeassert,errcheck // the heap holds nothing else
			continue
		}
		g.sleep()
	}
}

func (g *gate) admit() {
	g.mu.Lock()
	fresh := g.posted
	g.posted = nil
	g.mu.Unlock()
	slices.SortStableFunc(fresh, func(a, b posted) int { return cmp.Compare(a.name, b.name) })
	for _, p := range fresh {
		g.seen[p.name]++
		p.admit(mix(hashOf(p.name), g.seen[p.name]))
	}
}

func (g *gate) release(e event) {
	g.released++
	g.notef("%d %s", e.at, e.name)
	e.run()
}

// notef adds a line to the trace.
func (g *gate) notef(format string, args ...any) {
	line := fmt.Appendf(nil, format+"\n", args...)
	_, _ = g.trace.Write(line)
	_, _ = g.log.Write(line)
}

// sleep lets virtual time pass until the next event, or until a node's timer
// made it do something.
func (g *gate) sleep() {
	if len(g.queue) == 0 {
		<-g.wake
		return
	}
	timer := time.NewTimer(g.queue[0].at - g.now())
	defer timer.Stop()
	select { // whichever it is, all that is ready is looked at next
	case <-timer.C:
	case <-g.wake:
	}
}

// events is a heap, the earliest first; names order what happens at one moment.
type events []event

func (q *events) Len() int { return len(*q) }

func (q *events) Less(i, j int) bool {
	a, b := (*q)[i], (*q)[j]
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.name, b.name)) < 0
}

func (q *events) Swap(i, j int) { (*q)[i], (*q)[j] = (*q)[j], (*q)[i] }

func (q *events) Push(x any) { *q = append(*q, x.(event)) } //nolint:forcetypeassert,errcheck // by container/heap's contract

func (q *events) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
