package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/replica"
	"github.com/starling-kv/starling/standing"
)

// admission opens a node for records: once enough members know of its life, and
// it knows of every round of reaping that they do. A disk that was emptied has
// forgotten them, and what was read before such a round may still be on its way.
// It implements [replica.Standing].
type admission struct {
	*standing.Ledger

	core  *Core
	open  atomic.Bool
	woken chan struct{}

	mu      sync.Mutex
	numbers map[uint16]uint64 // the highest that members told
}

var _ replica.Standing = (*admission)(nil)

func newAdmission(c *Core) *admission {
	return &admission{Ledger: c.ledger, core: c, woken: make(chan struct{}, 1), numbers: make(map[uint16]uint64)}
}

// Registered implements [replica.Standing].
func (a *admission) Registered() bool { return a.open.Load() && a.Ledger.Registered() }

// Doubt implements [replica.Standing]. The leaf is checked soon.
func (a *admission) Doubt(partition uint16, leaf uint8) {
	a.Ledger.Doubt(partition, leaf)
	a.core.repairs.exchanger.Suspect(partition, leaf)
}

// close shuts the node until it is registered again.
func (a *admission) close() { a.open.Store(false) }

// announce tells a member of this life of the node, and asks for its numbers as
// long as they may be news.
func (a *admission) announce(ctx context.Context, to kv.NodeID, what standing.Announcement) (standing.Known, error) {
	known, err := a.core.client.Announce(ctx, to, what)
	if err != nil || !known.Stored || a.open.Load() {
		return known, err
	}
	told, err := a.core.client.Numbers(ctx, to)
	if err != nil {
		return known, err
	}
	a.mu.Lock()
	for _, n := range told {
		a.numbers[n.Partition] = max(a.numbers[n.Partition], n.Number)
	}
	a.mu.Unlock()
	select {
	case a.woken <- struct{}{}:
	default:
	}
	return known, nil
}

// How soon it is noticed that the node is registered, and that it is no longer.
const (
	openingPoll = 10 * time.Millisecond
	closingPoll = 250 * time.Millisecond
)

// Run opens the node whenever it may be, until ctx ends.
func (a *admission) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if !a.open.Load() && a.Ledger.Registered() {
			if err := a.learn(ctx); err == nil {
				a.open.Store(true)
			} else {
				a.core.world.Log.Warn("the reap numbers of the others could not be stored; trying again", zap.Error(err))
			}
		}
		if timer.Reset(openingPoll); a.open.Load() {
			timer.Reset(closingPoll)
		}
		select {
		case <-a.woken:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// learn makes the numbers of the members this node's own.
func (a *admission) learn(ctx context.Context) error {
	a.mu.Lock()
	numbers := maps.Clone(a.numbers)
	a.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(numbers)) {
		if numbers[p] <= a.core.replica.Number(p) {
			continue
		}
		if err := a.core.replica.Recover(ctx, p, numbers[p]); err != nil {
			return err
		}
	}
	return nil
}
