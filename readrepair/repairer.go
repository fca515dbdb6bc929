package readrepair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

const (
	settleTime = 100 * time.Millisecond // for writes that the read overtook
	queueLen   = 4096
	workers    = 8 // keys repaired at a time
	askTime    = 2 * time.Second
	nudgeTime  = 5 * time.Second
)

// Owners tells what the owners of a key hold.
type Owners interface {
	// Survey asks the first n owners of a key in every active layout. Those that
	// do not answer in time are left out.
	Survey(ctx context.Context, key kv.Key, n int) ([]Reply, error)
}

// Peers has nodes fetch what they lack.
type Peers interface {
	// Nudge asks one node to fetch keys from another and to merge them into what
	// it holds. held says of each key whether it holds it then, durably. A node
	// that is busy has no room, or refuses.
	Nudge(ctx context.Context, to, from kv.NodeID, keys []kv.Key, standIn bool) (
		held []bool, room int, pause time.Duration, err error)
}

// Config says what a [Repairer] works with. All fields are needed.
type Config struct {
	Owners Owners
	Peers  Peers
	Log    *zap.Logger
}

// Repairer repairs the keys of which it is told, each soon after and by one
// goroutine at a time. It is safe for concurrent use.
type Repairer struct {
	cfg  Config
	wake chan struct{}

	mu    sync.Mutex
	queue []suspect // in the order in which they are due
	keys  map[kv.Key]*state

	dropped, surveys, behind, healed, failed atomic.Uint64
}

// suspect is a key that is to be looked at.
type suspect struct {
	key kv.Key
	due time.Time
}

// state is that of a key which is in the queue, under repair, or both.
type state struct {
	n      int // the most owners of a read that differed, since the last look
	queued bool
	busy   bool
}

// Stats are counts since the start, but for the first.
type Stats struct {
	Waiting int    // keys to be looked at, at the moment
	Dropped uint64 // keys left alone because too many were waiting
	Surveys uint64 // keys whose owners were asked
	Behind  uint64 // owners that lacked something then
	Healed  uint64 // of these, owners that have it now
	Failed  uint64 // owners that have not, and keys whose owners could not be asked
}

// New returns a repairer. Run it.
func New(cfg Config) *Repairer {
	return &Repairer{cfg: cfg, wake: make(chan struct{}, 1), keys: make(map[kv.Key]*state)}
}

// Stats returns the counts so far.
func (r *Repairer) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{
		Waiting: len(r.queue), Dropped: r.dropped.Load(), Surveys: r.surveys.Load(),
		Behind: r.behind.Load(), Healed: r.healed.Load(), Failed: r.failed.Load(),
	}
}

// Behind has the first n owners of a key compared: a read of so many was given
// answers that differ. It returns at once.
func (r *Repairer) Behind(key kv.Key, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.keys[key]
	if s != nil && s.queued {
		s.n = max(s.n, n)
		return
	}
	if len(r.queue) >= queueLen {
		r.dropped.Add(1)
		return
	}
	if s == nil {
		s = new(state)
		r.keys[key] = s
	}
	s.n, s.queued = n, true
	r.queue = append(r.queue, suspect{key: key, due: time.Now().Add(settleTime)})
	if len(r.queue) == 1 {
		r.notify()
	}
}

func (r *Repairer) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run repairs until ctx ends, and what it began has ended.
func (r *Repairer) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, workers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		for {
			key, n, wait := r.next(time.Now())
			if n == 0 {
				timer.Reset(wait)
				break
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			running.Go(func() {
				r.repair(ctx, key, n)
				r.done(key)
				<-slots
			})
		}
	}
}

// idle is the pause when nothing is due: news wake the repairer.
const idle = time.Minute

// next takes the next key out of the queue if one is due; else n is 0, and the
// next will be due after wait. One that is under repair waits once more.
func (r *Repairer) next(now time.Time) (key kv.Key, n int, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 {
		first := r.queue[0]
		if first.due.After(now) {
			return kv.Key{}, 0, first.due.Sub(now)
		}
		r.queue = r.queue[1:]
		s := r.keys[first.key]
		if s.busy {
			r.queue = append(r.queue, suspect{key: first.key, due: now.Add(settleTime)})
			continue
		}
		s.queued, s.busy = false, true
		return first.key, s.n, 0
	}
	return kv.Key{}, 0, idle
}

func (r *Repairer) done(key kv.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.keys[key]; s.queued {
		s.busy = false
		return
	}
	delete(r.keys, key)
}

// repair asks the owners of a key, and has those that are behind fetch what they
// lack.
func (r *Repairer) repair(ctx context.Context, key kv.Key, n int) {
	replies, err := r.survey(ctx, key, n)
	if err != nil {
		r.failed.Add(1)
		r.cfg.Log.Debug("the owners of a key that differs cannot be asked", zap.Stringer("key", key), zap.Error(err))
		return
	}
	for _, p := range plan(replies) {
		r.behind.Add(1)
		if err := r.heal(ctx, key, p); err != nil {
			r.failed.Add(1)
			r.cfg.Log.Debug("a replica that is behind was not repaired",
				zap.Stringer("key", key), zap.Stringer("node", p.Behind), zap.Error(err))
			continue
		}
		r.healed.Add(1)
	}
}

// survey asks n owners, and more if the record is for more.
func (r *Repairer) survey(ctx context.Context, key kv.Key, n int) (replies []Reply, err error) {
	r.surveys.Add(1)
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for wide := n; wide > 0; {
		if replies, err = r.cfg.Owners.Survey(ctx, key, wide); err != nil {
			return nil, err
		}
		asked := wide
		wide = 0
		for _, reply := range replies {
			if most := int(reply.Record.NMax); most > max(asked, wide) {
				wide = most
			}
		}
	}
	return replies, nil
}

// heal has one owner fetch a key from each source.
func (r *Repairer) heal(ctx context.Context, key kv.Key, p Repair) error {
	ctx, cancel := context.WithTimeout(ctx, nudgeTime)
	defer cancel()
	for _, from := range p.Sources {
		held, _, _, err := r.cfg.Peers.Nudge(ctx, p.Behind, from, []kv.Key{key}, false)
		if err == nil && (len(held) != 1 || !held[0]) {
			err = errNotHeld
		}
		if err != nil {
			return fmt.Errorf("fetch from %v: %w", from, err)
		}
	}
	return nil
}

var errNotHeld = errors.New("the node did not take it")
