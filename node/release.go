package node

import (
	"context"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

// release judges what is in quarantine, partition by partition, once the node
// has merged all that the other owners hold of it.
type release struct {
	*Core

	woken chan struct{}
	kept  atomic.Uint64 // records that stay in quarantine, as last judged
}

func newRelease(c *Core) *release { return &release{Core: c, woken: make(chan struct{}, 1)} }

// wake says that more has been merged.
func (r *release) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// Run judges until ctx ends, what is left of an earlier start first. What was
// kept is judged again after the next start.
func (r *release) Run(ctx context.Context) {
	judged := make(map[uint16]uint64) // by partition: the fall after which it was
	for {
		r.all(ctx, judged)
		select {
		case <-r.woken:
		case <-ctx.Done():
			return
		}
	}
}

func (r *release) all(ctx context.Context, judged map[uint16]uint64) {
	ports := repairPorts{r.Core}
	partitions, err := r.repairs.setback.Partitions()
	for _, p := range partitions {
		missing, fall := r.ledger.Sources(p, ports.Owners(p, kv.MaxN))
		if len(missing) > 0 || judged[p] >= fall || !r.admission.Registered() || ctx.Err() != nil {
			continue
		}
		done, err := r.repairs.setback.Release(ctx, p)
		if err != nil {
			r.world.Log.Warn("quarantine could not be judged", zap.Uint16("partition", p), zap.Error(err))
			continue
		}
		judged[p] = fall
		r.kept.Add(uint64(done.Kept))
		if done.Kept > 0 {
			r.world.Log.Warn("records of a disk that was set back stay in quarantine: no other owner has them, and they may have been deleted",
				zap.Uint16("partition", p), zap.Int("kept", done.Kept))
		}
	}
	if err != nil {
		r.world.Log.Warn("quarantine could not be read", zap.Error(err))
	}
}
