package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

// release judges what is in quarantine, partition by partition, once the node
// has merged all that the other owners hold of it, and counts it.
type release struct {
	*Core

	woken chan struct{}
	moves atomic.Uint64 // how often all of the disk was put into quarantine
	held  atomic.Uint64 // records in quarantine

	mu    sync.Mutex
	fewer map[uint16]struct{} // partitions from which records were taken since they were counted
}

func newRelease(c *Core) *release {
	return &release{Core: c, woken: make(chan struct{}, 1), fewer: make(map[uint16]struct{})}
}

// wake says that more has been merged.
func (r *release) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// moved says that more has been put into quarantine.
func (r *release) moved() {
	r.moves.Add(1)
	r.wake()
}

// taken says that a record of a partition was taken out of quarantine.
func (r *release) taken(partition uint16) {
	r.mu.Lock()
	r.fewer[partition] = struct{}{}
	r.mu.Unlock()
	r.wake()
}

// recount has partitions counted again from which records were taken.
func (r *release) recount(known map[uint16]apart) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.fewer {
		known[p] = apart{judged: known[p].judged}
	}
	clear(r.fewer)
}

// apart is what is known of the records in quarantine of a partition.
type apart struct {
	records uint64
	moves   uint64 // as of when they were counted
	judged  uint64 // the fall after which they were judged; 0: not since the start
}

// Run judges until ctx ends, what is left of an earlier start first. What was
// kept is judged again after the next start.
func (r *release) Run(ctx context.Context) {
	r.moved()
	known := make(map[uint16]apart)
	for {
		select {
		case <-r.woken:
		case <-ctx.Done():
			return
		}
		if err := r.all(ctx, known); err != nil && ctx.Err() == nil {
			r.world.Log.Warn("quarantine could not be read", zap.Error(err))
		}
	}
}

// all judges whatever can be judged. It keeps in known what is in quarantine.
func (r *release) all(ctx context.Context, known map[uint16]apart) error {
	partitions, err := r.repairs.setback.Partitions()
	if err != nil {
		return err
	}
	r.recount(known)
	maps.DeleteFunc(known, func(p uint16, _ apart) bool { return !slices.Contains(partitions, p) })
	var held uint64
	for _, p := range partitions {
		known[p], err = r.partition(ctx, p, known[p])
		if err != nil {
			r.world.Log.Warn("quarantine could not be judged", zap.Uint16("partition", p), zap.Error(err))
		}
		held += known[p].records
	}
	r.held.Store(held)
	return nil
}

// partition counts what is in quarantine of a partition, where more may have
// come, and judges it, where that is due. It returns what is there then.
func (r *release) partition(ctx context.Context, p uint16, was apart) (apart, error) {
	if moves := r.moves.Load(); was.moves < moves {
		was.records, was.moves = 0, moves
		err := r.store.ScanQuarantine(p, func(kv.Key, kv.Record) error {
			was.records++
			return ctx.Err()
		})
		if err != nil {
			return was, err
		}
		if was.records == 0 {
			was.judged = 0 // so that what is known of the partition is forgotten
		}
	}
	missing, fall := r.ledger.Sources(p, repairPorts{r.Core}.Owners(p, kv.MaxN))
	if len(missing) > 0 || was.judged >= fall || !r.admission.Registered() || ctx.Err() != nil {
		return was, ctx.Err()
	}
	done, err := r.repairs.setback.Release(ctx, p)
	if err != nil {
		return was, err
	}
	if done.Kept > 0 {
		r.world.Log.Warn("records of a disk that was set back stay in quarantine: no other owner has them, and they may have been deleted: "+
			"see starling quarantine", zap.Uint16("partition", p), zap.Int("kept", done.Kept))
	}
	was.judged, was.records = fall, uint64(done.Kept)
	return was, nil
}
