package hints

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

const (
	sweepEvery  = 500 * time.Millisecond // between looks for who is owed something
	copiesEvery = 5 * time.Second        // between looks for who is owed copies
	routeEvery  = 5 * time.Minute        // between looks for what a target away owns no longer
	backoff     = 250 * time.Millisecond // after the first failure; doubles
	mostBackoff = 15 * time.Second
	workers     = 8 // targets served at a time
)

// ReplayConfig says what a [Replayer] works with. All fields are needed.
type ReplayConfig struct {
	Self   kv.NodeID
	Hints  *Log // of what was missed; it must run, too
	Store  Store
	Copies Copies
	Peers  Peers
	Places Places
	Now    func() time.Time
	Random func() uint64 // called by one goroutine
	Log    *zap.Logger
}

// Replayer gives owners what they missed and what was kept in their place, each
// as soon as it can be reached, as fast as it grants. Targets are served
// independently, each by one goroutine at a time. What is owed is in the store,
// so that a restart of either side changes nothing.
type Replayer struct {
	cfg                          ReplayConfig
	replayed, redirected, failed atomic.Uint64
	turned                       atomic.Int64 // when a turn made progress, in nanoseconds of Unix time

	mu     sync.Mutex
	copies map[kv.NodeID]Amount // as of the last look
}

// NewReplayer returns a replayer. Run it.
func NewReplayer(cfg ReplayConfig) *Replayer {
	return &Replayer{cfg: cfg, copies: make(map[kv.NodeID]Amount)}
}

// Owed is what this node keeps for another.
type Owed struct {
	Target  kv.NodeID
	Missed  Amount // keys of which the target missed a write
	Copies  Amount // records kept in its place, as of the last look
	Dropped uint64 // hints for it that were dropped at a limit, since the start
}

// Stats are what is owed, by target, and counts since the start.
type Stats struct {
	Owed       []Owed // sorted by target
	Replayed   uint64 // debts that their targets hold now
	Redirected uint64 // debts that were given other targets
	Failed     uint64 // turns that failed
}

// Stats returns what is owed at the moment.
func (r *Replayer) Stats() Stats {
	missed, dropped := r.cfg.Hints.owed()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Replayed: r.replayed.Load(), Redirected: r.redirected.Load(), Failed: r.failed.Load()}
	targets := slices.Concat(slices.Collect(maps.Keys(missed)), slices.Collect(maps.Keys(dropped)), slices.Collect(maps.Keys(r.copies)))
	slices.Sort(targets)
	for _, id := range slices.Compact(targets) {
		s.Owed = append(s.Owed, Owed{Target: id, Missed: missed[id], Copies: r.copies[id], Dropped: dropped[id]})
	}
	return s
}

// Progress returns when a target last took something that it is owed; zero Unix
// time if none has since the start.
func (r *Replayer) Progress() time.Time { return time.Unix(0, r.turned.Load()) }

// publish makes known what a pass has left.
func (p *pass) publish() {
	if !p.copies {
		p.cfg.Hints.aged(p.target, p.stay.Oldest, p.begun)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Replayer.copies[p.target] = p.stay; p.stay.Count == 0 {
		delete(p.Replayer.copies, p.target)
	}
}

// Run serves the targets until ctx ends, and what it began has ended.
func (r *Replayer) Run(ctx context.Context) {
	select {
	case <-r.cfg.Hints.counted:
	case <-ctx.Done():
		return
	}
	s := &schedule{Replayer: r, targets: make(map[kv.NodeID]*target), ends: make(chan *target, workers)}
	defer s.running.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-s.ends:
			s.end(t)
		case <-timer.C:
		}
		now := time.Now()
		s.sweep(now)
		s.begin(ctx, now)
		timer.Reset(max(0, s.next().Sub(now)))
	}
}

// target is whoever is owed something.
type target struct {
	id      kv.NodeID
	due     time.Time // of the next turn
	busy    bool      // a turn is under way
	away    bool      // cannot be reached
	pass    *pass     // nil between two
	stages  []bool    // passes that are still to be made: of copies?
	stuck   bool      // something stayed
	backoff time.Duration
	result  outcome
	random  *rand.Rand // its own, so that the order of turns that end at once does not matter

	routed   uint64 // the digest of the places that the last pass without it went by
	routedAt time.Time
}

// schedule is the state of a running [Replayer], all of its one goroutine.
type schedule struct {
	*Replayer

	targets   map[kv.NodeID]*target
	copiesFor []kv.NodeID // as of the last look
	sweepAt   time.Time
	copiesAt  time.Time
	open      int // turns under way
	ends      chan *target
	running   sync.WaitGroup
}

// around returns a time between half of d and one and a half.
func around(d time.Duration, random uint64) time.Duration {
	return d/2 + time.Duration(random%uint64(d))
}

// wait leaves the target alone for about d.
func (t *target) wait(now time.Time, d time.Duration) { t.due = now.Add(around(d, t.random.Uint64())) }

// retreat leaves the target alone for a while, and longer each time.
func (t *target) retreat(now time.Time) {
	t.backoff = min(max(2*t.backoff, backoff), mostBackoff)
	t.wait(now, t.backoff)
}

// sweep looks for new targets, when it is time.
func (s *schedule) sweep(now time.Time) {
	if now.Before(s.sweepAt) {
		return
	}
	s.sweepAt = now.Add(around(sweepEvery, s.cfg.Random()))
	if !now.Before(s.copiesAt) {
		s.copiesAt = now.Add(copiesEvery)
		if ids, err := s.cfg.Copies.HintTargets(); err == nil {
			s.copiesFor = ids
		}
	}
	for _, id := range slices.Concat(s.cfg.Hints.targets(), s.copiesFor) {
		if s.targets[id] == nil {
			t := &target{id: id, random: rand.New(rand.NewPCG(s.cfg.Random(), uint64(id)))}
			t.wait(now, sweepEvery)
			s.targets[id] = t
		}
	}
}

// inOrder lists the targets, those that waited longest first.
func (s *schedule) inOrder() []*target {
	return slices.SortedFunc(maps.Values(s.targets), func(a, b *target) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.id, b.id))
	})
}

// begin begins the turns that are due.
func (s *schedule) begin(ctx context.Context, now time.Time) {
	for _, t := range s.inOrder() {
		if t.busy || t.due.After(now) || s.open == workers || !s.prepare(t, now) {
			continue
		}
		t.busy = true
		s.open++
		s.running.Go(func() {
			t.result = t.pass.turn(ctx)
			s.ends <- t
		})
	}
}

// prepare reports whether there is something to do for t, which is then set up.
func (s *schedule) prepare(t *target, now time.Time) bool {
	away := !s.cfg.Peers.Connected(t.id)
	if t.away != away {
		if t.pass != nil {
			t.pass.end()
		}
		t.away, t.pass, t.stages, t.backoff = away, nil, nil, 0
	}
	if t.pass == nil && len(t.stages) == 0 && !s.plan(t, now) {
		return false
	}
	if t.pass == nil {
		t.pass, t.stages = s.newPass(t.id, t.stages[0], away), t.stages[1:]
	}
	return true
}

// plan chooses the passes to be made for t, if it is time for any.
func (s *schedule) plan(t *target, now time.Time) bool {
	places := s.cfg.Places.Digest()
	if t.away && t.routed == places && now.Sub(t.routedAt) < routeEvery {
		t.wait(now, sweepEvery)
		return false
	}
	if t.away {
		t.routed, t.routedAt = places, now
	}
	t.stages, t.stuck = s.stages(t.id), false
	if len(t.stages) == 0 {
		delete(s.targets, t.id)
	}
	return len(t.stages) > 0
}

// stages are the passes to be made for a target: the copies are data and go
// first.
func (s *schedule) stages(id kv.NodeID) (stages []bool) {
	if slices.Contains(s.copiesFor, id) {
		stages = append(stages, true)
	}
	if slices.Contains(s.cfg.Hints.targets(), id) {
		stages = append(stages, false)
	}
	return stages
}

// end takes the outcome of a turn.
func (s *schedule) end(t *target) {
	t.busy = false
	s.open--
	now := time.Now()
	if t.result.progress {
		t.backoff = 0
		s.turned.Store(now.UnixNano())
	}
	switch r := t.result; {
	case r.err != nil:
		s.failed.Add(1)
		s.cfg.Log.Debug("a node did not take what it is owed", zap.Stringer("node", t.id), zap.Error(r.err))
		t.retreat(now)
	case !r.over:
		t.due = now.Add(r.wait)
	default:
		s.over(t, now)
	}
}

// over ends a pass.
func (s *schedule) over(t *target, now time.Time) {
	left := t.pass.stay.Count > 0 || t.pass.damaged
	if t.pass.copies && !left {
		s.copiesFor = slices.DeleteFunc(s.copiesFor, func(id kv.NodeID) bool { return id == t.id })
	}
	t.pass, t.stuck = nil, t.stuck || left
	switch {
	case len(t.stages) > 0:
		t.due = now
	case t.away && t.stuck:
		t.wait(now, sweepEvery)
	case t.stuck:
		t.retreat(now)
	default:
		delete(s.targets, t.id)
	}
}

// next is when there is something to do that no turn announces.
func (s *schedule) next() time.Time {
	next := s.sweepAt
	for _, t := range s.inOrder() {
		if !t.busy && s.open < workers && t.due.Before(next) {
			next = t.due
		}
	}
	return next
}
