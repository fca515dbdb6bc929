package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/internal/deadline"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

const (
	// lateAfter is when a request stops waiting for one node alone and brings
	// in another, hedging budget or not; see late.
	lateAfter = 400 * time.Millisecond
	// maxRestarts bounds how often a request starts again because views differ.
	// Views only grow, so that two are enough between edits of the layout.
	maxRestarts = 8
	// MaxTimeout bounds what a request may ask for.
	MaxTimeout = time.Minute
)

// Config says what a [Coordinator] works with. All fields are needed, but for
// Repairs: without, replicas that are behind stay so.
type Config struct {
	Self     kv.NodeID
	Cluster  Cluster
	Replicas Replicas
	Local    Local
	Repairs  Repairs
	Defaults Defaults
	Now      func() time.Time
	Random   func() uint64
	Log      *zap.Logger
}

// Coordinator carries requests over replicas. It is safe for concurrent use.
type Coordinator struct {
	Config

	latencies *latencies
	hedges    *budget
	stats     counters
	timers    sync.Pool // of stopped ones; most requests end long before theirs fires

	// base ends what goes on after answers were given; running waits for it.
	base    context.Context
	stop    context.CancelFunc
	closing sync.RWMutex // held for reading while running grows
	closed  bool
	running sync.WaitGroup
}

// New returns a coordinator. Close it to end what it still sends.
func New(cfg Config) *Coordinator {
	base, stop := context.WithCancel(context.Background())
	if cfg.Repairs == nil {
		cfg.Repairs = noRepairs{}
	}
	return &Coordinator{Config: cfg, latencies: newLatencies(), hedges: newBudget(), base: base, stop: stop}
}

// Close cancels all calls under way and waits until they have ended. Requests
// that come later are refused.
func (c *Coordinator) Close() {
	c.closing.Lock()
	c.closed = true
	c.closing.Unlock()
	c.stop()
	c.running.Wait()
}

// begin has Close wait for the end of something, which is told to c.running, and
// reports whether it does: after Close nothing is begun.
func (c *Coordinator) begin() bool {
	c.closing.RLock()
	defer c.closing.RUnlock()
	if !c.closed {
		c.running.Add(1)
	}
	return !c.closed
}

// spawn runs fn in a goroutine that Close waits for, unless that has begun.
func (c *Coordinator) spawn(fn func()) bool {
	if !c.begin() {
		return false
	}
	go func() {
		defer c.running.Done()
		fn()
	}()
	return true
}

// timer returns a timer that fires after d. It goes back with recycle.
func (c *Coordinator) timer(d time.Duration) *time.Timer {
	if t, ok := c.timers.Get().(*time.Timer); ok {
		t.Reset(d)
		return t
	}
	return time.NewTimer(d)
}

func (c *Coordinator) recycle(t *time.Timer) {
	t.Stop() // nothing is left in its channel then
	c.timers.Put(t)
}

// sleep waits for d. Its error is that of ctx, if that ends before.
func (c *Coordinator) sleep(ctx context.Context, d time.Duration) error {
	timer := c.timer(d)
	defer c.recycle(timer)
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// within bounds a request by its timeout and by the life of the coordinator.
//
// Requests do not wait for its end until their first alarm rings: nearly all have
// ended before, and the calls of the others end with it and tell.
func (c *Coordinator) within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	at := time.Now().Add(timeout)
	if sooner, ok := ctx.Deadline(); ok && sooner.Before(at) {
		at = sooner
	}
	within := &deadline.Context{Parent: ctx, Also: c.base, At: at}
	return within, within.End
}

var errClosed = errors.New("the node is shutting down")

// counters of a coordinator since its start.
type counters struct {
	hedges, probes, rescues, forwards, restarts, behind, unreached, warned atomic.Uint64
}

// Stats counts since the start of the coordinator.
type Stats struct {
	Hedges    uint64 // replicas asked because another was late, within the budget
	Probes    uint64 // nodes asked to see whether they are still slow, within the budget
	Rescues   uint64 // nodes asked because another did not answer for long
	Forwards  uint64 // writes handed to an owner to coordinate
	Restarts  uint64 // requests begun again because views differed
	Behind    uint64 // replicas seen to lack what others hold
	Unreached uint64 // requests that did not reach their count
	Siblings  uint64 // writes that left SiblingsWarn siblings or more
}

// Stats returns the counts so far.
func (c *Coordinator) Stats() Stats {
	return Stats{
		Hedges: c.stats.hedges.Load(), Probes: c.stats.probes.Load(), Rescues: c.stats.rescues.Load(), Forwards: c.stats.forwards.Load(),
		Restarts: c.stats.restarts.Load(), Behind: c.stats.behind.Load(), Unreached: c.stats.unreached.Load(),
		Siblings: c.stats.warned.Load(),
	}
}

// resolve checks a request at the door and fills in defaults, so that what is
// forwarded means the same on nodes with other defaults.
func (c *Coordinator) resolve(key kv.Key, o Options) (Options, error) {
	if err := key.Validate(); err != nil {
		return o, badRequest("%v", err)
	}
	if o.N == 0 {
		o.N = c.Defaults.N
	}
	if o.N < 1 || o.N > kv.MaxN {
		return o, badRequest("n=%d: use 1 to %d replicas", o.N, kv.MaxN)
	}
	if o.R == (Count{}) {
		o.R = c.Defaults.R
	}
	if o.W == (Count{}) {
		o.W = c.Defaults.W
	}
	if o.Timeout == 0 {
		o.Timeout = c.Defaults.Timeout
	}
	if o.Timeout < 0 || o.Timeout > MaxTimeout {
		return o, badRequest("timeout=%v: use more than 0 and at most %v", o.Timeout, MaxTimeout)
	}
	o.R, o.W = Exactly(o.R.Of(o.N)), Exactly(o.W.Of(o.N))
	return o, nil
}

func badRequest(format string, args ...any) *kv.Error {
	return &kv.Error{Code: kv.CodeBadRequest, Outcome: kv.NotApplied, Message: fmt.Sprintf(format, args...)}
}

// late is when a request stops waiting for one node alone. Deadlines are told
// by the clock of the runtime, not by Config.Now, which may be set or be wrong.
func late(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(lateAfter, max(time.Until(deadline)/4, time.Millisecond))
	}
	return lateAfter
}

// early is late for what is done on behalf of a write that was routed here: it is
// over before the routing loses patience with this node.
func early(ctx context.Context) time.Duration { return late(ctx) / 8 * 7 }

// restarting runs try under the view of the moment, again while replicas turn
// out to know more.
func (c *Coordinator) restarting(ctx context.Context, key kv.Key, n int, try func(plan) error) error {
	for range maxRestarts {
		if c.base.Err() != nil {
			return errClosing
		}
		p, err := newPlan(c.Cluster.View(), key, n)
		if err != nil {
			return err
		}
		err = try(p)
		stale, ok := errors.AsType[*StaleViewError](err)
		if !ok {
			return err
		}
		if err := c.learn(stale); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return &kv.Error{
		Code: kv.CodeNotReady, Outcome: kv.NotApplied, RetryAfter: time.Second,
		Message: "the nodes do not yet agree on the cluster's layouts: try again in a moment",
	}
}

var errClosing = &kv.Error{
	Code: kv.CodeNotReady, Outcome: kv.NotApplied, RetryAfter: time.Second,
	Message: "this node is shutting down: ask another",
}

// learn merges the view of a replica that refused because it knows more.
func (c *Coordinator) learn(stale *StaleViewError) error {
	c.stats.restarts.Add(1)
	if err := c.Cluster.Learn(stale.View); err != nil {
		return &kv.Error{Code: kv.CodeInternal, Outcome: kv.NotApplied, Message: "learn a peer's layouts: " + err.Error()}
	}
	return nil
}

// counted counts a request that did not reach its count, and returns its error.
func (c *Coordinator) counted(err error) error {
	if e, ok := errors.AsType[*kv.Error](err); ok && (e.Code == kv.CodeQuorumUnreached || e.Code == kv.CodeTimeout) {
		c.stats.unreached.Add(1)
	}
	return err
}

func (c *Coordinator) mint() vclock.Actor {
	for {
		if a := vclock.Actor(c.Random()); a != 0 {
			return a
		}
	}
}
