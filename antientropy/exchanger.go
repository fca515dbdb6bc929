package antientropy

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// eagerShares is how many partitions this node takes from a source in one
// exchange to become whole. Several exchanges with it are under way at once.
const eagerShares = 2

// Config is what an [Exchanger] is made of. The ports, Self, View, Now, Random
// and Log are required; a zero elsewhere stands for the default. Ports and
// functions other than Random are safe for concurrent use.
type Config struct {
	Self   kv.NodeID
	View   func() ring.View
	Local  Local
	Leaves Leaves
	Values Values
	Doubts Doubts
	Ledger Ledger
	Peers  Peers
	Mover  Mover
	// Pressure reports whether clients keep this node's store so busy that
	// repairs should give way; at once. Nil: never.
	Pressure func() bool
	Now      func() time.Time
	// Random returns 64 random bits. It is called by [New] only, once.
	Random func() uint64
	Log    *zap.Logger

	// Every is the time between two exchanges with one peer, give or take a
	// quarter. Default 30 s.
	Every time.Duration
	// Soon is how long after a peer came back, or after something was healed,
	// they exchange again. Default 1 s.
	Soon time.Duration
	// SecondLook is how long a difference has to last to be more than a write
	// under way. Default 1 s.
	SecondLook time.Duration
	// Scrub is how long one walk over all leaves of this node takes. Default 24 h.
	Scrub time.Duration
	// Timeout is the deadline of one call; one that moves records has six times
	// as long. Default 5 s.
	Timeout time.Duration
	// Parallel bounds the peers with which exchanges are under way. Default 4.
	Parallel int
	// Streams bounds the exchanges with one peer while this node takes from it
	// what it needs to be in good standing: the syncs of the one cover for the work
	// of the others. Default 8.
	Streams int
}

func (c Config) withDefaults() Config {
	setDefault(&c.Every, 30*time.Second)
	setDefault(&c.Soon, time.Second)
	setDefault(&c.SecondLook, time.Second)
	setDefault(&c.Scrub, 24*time.Hour)
	setDefault(&c.Timeout, 5*time.Second)
	setDefault(&c.Parallel, 4)
	setDefault(&c.Streams, 8)
	if c.Pressure == nil {
		c.Pressure = func() bool { return false }
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Exchanger keeps what this node holds identical with what the other owners
// hold. Its methods are safe for concurrent use.
type Exchanger struct {
	Config

	surveyor surveyor
	seed     uint64
	counts   counts
	scrubber scrubber

	repairing chan struct{} // one slot: holds a token while a repair runs
	wake      chan struct{} // holds a token while there is something in the inbox

	mu    sync.Mutex
	inbox inbox
}

// inbox is what waits for the goroutine that schedules.
type inbox struct {
	marks    map[kv.NodeID][]uint16 // rising
	outcomes []outcome
	doubts   []leafID
}

// New returns an exchanger. It does nothing by itself until [Exchanger.Run] is
// called.
func New(c Config) *Exchanger {
	c = c.withDefaults()
	x := &Exchanger{Config: c, seed: c.Random(), wake: make(chan struct{}, 1), repairing: make(chan struct{}, 1)}
	x.surveyor.self = c.Self
	x.scrubber.wake = make(chan struct{}, 1)
	return x
}

// Mark asks for an exchange of a partition with a node as soon as that can be
// reached: the node is known to have missed something. Marks of what the two do
// not share are dropped.
func (x *Exchanger) Mark(target kv.NodeID, partition uint16) {
	x.post(func(in *inbox) {
		if in.marks == nil {
			in.marks = make(map[kv.NodeID][]uint16)
		}
		in.marks[target] = insert(in.marks[target], partition)
	})
}

func (x *Exchanger) post(add func(*inbox)) {
	x.mu.Lock()
	add(&x.inbox)
	x.mu.Unlock()
	signal(x.wake)
}

func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Run exchanges until the context ends, and returns when all that it began has
// ended. It is called once.
func (x *Exchanger) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { x.scrub(ctx) })

	s := &schedule{every: x.Every, soon: x.Soon, parallel: x.Parallel, seed: x.seed}
	for ctx.Err() == nil {
		for _, t := range x.pass(s) {
			running.Go(func() {
				o := x.perform(ctx, t)
				x.post(func(in *inbox) { in.outcomes = append(in.outcomes, o) })
			})
		}
		waitFor(ctx, x.wake, x.Soon/2)
		_ = sleep(ctx, gatherTime)
	}
}

// gatherTime is for how long news are gathered: of exchanges that end together,
// with one commit, all have ended when it is decided what comes next.
const gatherTime = time.Millisecond

// waitFor returns when there is something new, after d, or when the context
// ends: what is to be done follows from the state then, not from the reason.
func waitFor(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// pass brings the schedule up to date and returns the tasks to begin.
func (x *Exchanger) pass(s *schedule) []task {
	now := x.Now()
	if land := x.surveyor.territory(x.View()); s.survey(now, land) {
		x.counts.survey(now, land)
	}
	x.mu.Lock()
	in := x.inbox
	x.inbox = inbox{}
	x.mu.Unlock()

	slices.SortStableFunc(in.outcomes, func(a, b outcome) int { return cmp.Compare(a.peer, b.peer) })
	for _, o := range in.outcomes {
		s.finish(now, o)
	}
	for _, target := range slices.Sorted(maps.Keys(in.marks)) {
		s.mark(target, in.marks[target])
	}
	for _, d := range in.doubts {
		s.doubt(x.Self, d.partition, d.leaf)
	}
	for _, d := range s.settled() {
		x.Doubts.Trust(d.partition, d.leaf)
	}
	if !x.Ledger.Registered() {
		return nil
	}
	behind := 0
	tasks := s.next(now, x.Peers.Connected, func(h holding) []kv.NodeID {
		sources, _ := x.Ledger.Sources(h.partition, h.owners)
		if len(sources) > 0 {
			behind++
		}
		return sources
	})
	x.counts.progress(len(s.land.holdings), behind)
	return tasks
}

// perform runs one task. An eager one is dealt to several streams, each of which
// goes on until it fails: none depends on how far another is, so that a run
// replays.
func (x *Exchanger) perform(ctx context.Context, t task) outcome {
	o := outcome{task: t, verdicts: make([]verdict, len(t.shares))}
	for i := range o.verdicts {
		o.verdicts[i] = unfinished
	}
	if !t.eager {
		o.err = x.stripe(ctx, o, compareShares, 0, 1)
		x.report(o)
		return o
	}
	errs := make([]error, x.Streams)
	var running sync.WaitGroup
	for i := range errs {
		running.Go(func() { errs[i] = x.stripe(ctx, o, eagerShares, i, len(errs)) })
	}
	running.Wait()
	o.err = errors.Join(errs...)
	x.report(o)
	return o
}

// stripe runs every so many of the exchanges of a task, each of size partitions.
func (x *Exchanger) stripe(ctx context.Context, o outcome, size, first, every int) error {
	for i := first * size; i < len(o.shares); i += every * size {
		end := min(i+size, len(o.shares))
		e := &exchange{Exchanger: x, peer: o.peer, land: o.land, shares: o.shares[i:end], eager: o.eager, window: o.window}
		err := x.converse(ctx, e)
		copy(o.verdicts[i:end], e.verdicts)
		if err != nil {
			return err
		}
	}
	return nil
}

// converse runs one exchange and keeps what came of it.
func (x *Exchanger) converse(ctx context.Context, e *exchange) error {
	began, owed := x.Now(), x.owed(e)
	err := e.run(ctx)
	x.counts.add(e, began)
	for _, o := range owed {
		if e.verdicts[e.index(o.partition)] <= healed {
			err = errors.Join(err, x.Ledger.Merged(o.partition, e.peer, e.starts, o.epoch))
		}
	}
	return err
}

// debt is a partition that an exchange merges from a source.
type debt struct {
	partition uint16
	epoch     uint64
}

// owed returns of which partitions an exchange that is to begin is the merge
// that is missing.
func (x *Exchanger) owed(e *exchange) []debt {
	if !e.eager {
		return nil
	}
	var out []debt
	for _, s := range e.shares {
		sources, epoch := x.Ledger.Sources(s.partition, e.land.owners(s.partition))
		if slices.Contains(sources, e.peer) {
			out = append(out, debt{s.partition, epoch})
		}
	}
	return out
}

func (x *Exchanger) report(o outcome) {
	fields := []zap.Field{
		zap.Stringer("peer", o.peer), zap.Int("partitions", len(o.shares)), zap.Bool("catch_up", o.eager),
		zap.Int("healed", len(o.with(healed))), zap.Int("unfinished", len(o.with(unfinished))),
	}
	if o.err != nil {
		x.Log.Debug("an exchange with a peer was put off", append(fields, zap.Error(o.err))...)
		return
	}
	x.Log.Debug("exchanged with a peer", fields...)
}
