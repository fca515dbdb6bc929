package reap

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Local is what this node holds.
type Local interface {
	// Number returns the reap number of a partition.
	Number(partition uint16) uint64
	// Root returns a number that changes whenever a record of the partition does.
	Root(partition uint16) uint64
	// Scan calls fn with every own record of a partition and its digest, in an
	// order that does not change, from the one that comes after a key; from the
	// first if that is zero. It ends with fn's error.
	Scan(partition uint16, after kv.Key, fn func(key kv.Key, r kv.Record, digest uint64) error) error
}

// Peers reaches the members of the cluster, this one included. Every context
// carries a deadline.
type Peers interface {
	Confirm(ctx context.Context, to kv.NodeID, req Request) (Reply, error)
	Apply(ctx context.Context, to kv.NodeID, req Request) (Reply, error)
	// Connected reports whether a connection to the node stands, without waiting.
	Connected(id kv.NodeID) bool
}

// Config is what a [Reaper] works with. A zero number or duration takes its
// default.
type Config struct {
	Rules

	Self  kv.NodeID
	Local Local
	Peers Peers
	View  func() ring.View
	Lives func() uint64 // that of [Node]
	Now   func() time.Time
	// Random spreads the cycles of nodes that started together. It is called by
	// Run only.
	Random func() uint64
	Log    *zap.Logger

	// Every is how long a cycle over the partitions takes at least. Default 1 min.
	Every time.Duration
	// Rescan is how long the cycles leave a partition alone in which nothing was
	// due and nothing that was there has become so, whatever was written since:
	// that is seldom due soon. Default a sixteenth of After, 10 min at most.
	Rescan time.Duration
	// Rate is how many records are looked at in a second at most. Default 5,000.
	Rate int
	// Timeout bounds one call. Default 5 s.
	Timeout time.Duration
}

// Result is what one pass over a partition did.
type Result struct {
	Rounds    int // begun
	Confirmed int // records that all members confirmed
	Reaped    int // records that this node then changed
	Refused   int // batches of records that wait for a member that refused or is missing
	// Oldest is the time of the oldest tombstone that is due and still there;
	// zero if none is.
	Oldest time.Time
	// Missing are the members without which no round was begun or ended.
	Missing []kv.NodeID
}

// Stats are counted since the start, but for the last two.
type Stats struct {
	// Rounds, Confirmed, Reaped and Refused are sums of those of [Result].
	Rounds, Confirmed, Reaped, Refused uint64

	// Oldest and Missing are what the last whole cycle found, as in [Result].
	Oldest  time.Time
	Missing []kv.NodeID
}

// Reaper drives the rounds of the partitions whose first owner is this node.
// Two reapers of one partition do no harm: a member confirms one of them.
type Reaper struct {
	Config

	mu    sync.Mutex
	stats Stats

	turn chan struct{} // held by the one pass that is under way
	// What follows belongs to its holder.
	scanned map[uint16]scan
	numbers map[uint16]uint64 // the highest that were heard of
}

// scan is what the last look at a partition found, if nothing in it was due.
type scan struct {
	at   time.Time
	root uint64
	next time.Time // nothing that was there is due before; zero: never
}

// holds reports whether another look would find nothing, or too little to be
// worth it yet.
func (s scan) holds(now time.Time, root uint64, rescan time.Duration) bool {
	if !s.next.IsZero() && !now.Before(s.next) {
		return false
	}
	return s.root == root || now.Sub(s.at) < rescan
}

// pause is the shortest wait that is worth a timer.
const pause = 10 * time.Millisecond

// attempts bounds the rounds for one batch whose number was too low.
const attempts = 3

// New returns a reaper. It does nothing until it is told to.
func New(cfg Config) *Reaper {
	cfg.Rules = cfg.withDefaults()
	setDefault(&cfg.Every, time.Minute)
	setDefault(&cfg.Rescan, min(cfg.After/16, 10*time.Minute))
	setDefault(&cfg.Rate, 5_000)
	setDefault(&cfg.Timeout, 5*time.Second)
	return &Reaper{
		Config: cfg, turn: make(chan struct{}, 1), scanned: make(map[uint16]scan), numbers: make(map[uint16]uint64),
	}
}

// Run reaps in cycles until ctx ends.
func (r *Reaper) Run(ctx context.Context) {
	for ctx.Err() == nil {
		begun := r.Now()
		r.cycle(ctx)
		every := r.Every - time.Duration(r.Random()%uint64(max(1, r.Every/8)))
		r.wait(ctx, max(every-r.Now().Sub(begun), pause))
	}
}

// Stats returns what has been done and what is waiting. It is safe for
// concurrent use.
func (r *Reaper) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Missing = slices.Clone(s.Missing)
	return s
}

// cycle makes a pass over each partition whose first owner is this node in the
// newest layout.
func (r *Reaper) cycle(ctx context.Context) {
	v := r.View()
	if len(v.Active()) == 0 {
		return
	}
	var all Result
	for p := range v.Active()[0].Partitions() {
		if owners := v.Active()[0].Owners(ring.Partition(p)); len(owners) == 0 || owners[0] != r.Self {
			continue
		}
		res, err := r.reap(ctx, uint16(p), r.Rescan)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.Log.Warn("deletes wait: a round of reaping came to nothing", zap.Int("partition", p), zap.Error(err))
		}
		all.Oldest = earlier(all.Oldest, res.Oldest)
		all.Missing = append(all.Missing, res.Missing...)
	}
	slices.Sort(all.Missing)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Oldest, r.stats.Missing = all.Oldest, slices.Compact(all.Missing)
}

// Reap makes one pass over the partition at once, whoever its first owner is.
// It goes on after an error, and returns the last.
func (r *Reaper) Reap(ctx context.Context, partition uint16) (Result, error) {
	return r.reap(ctx, partition, 0)
}

func (r *Reaper) reap(ctx context.Context, partition uint16, rescan time.Duration) (Result, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	p := &pass{Reaper: r, partition: partition}
	last, known := r.scanned[partition]
	root, now := r.Local.Root(partition), r.Now()
	if known && last.holds(now, root, rescan) {
		return Result{}, nil
	}
	delete(r.scanned, partition)
	err := p.run(ctx)
	if err == nil && !p.due {
		r.scanned[partition] = scan{at: now, root: root, next: p.next}
	}
	r.count(p.Result)
	return p.Result, err
}

func (r *Reaper) count(res Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Rounds += uint64(res.Rounds)
	r.stats.Confirmed += uint64(res.Confirmed)
	r.stats.Reaped += uint64(res.Reaped)
	r.stats.Refused += uint64(res.Refused)
}

// batchLen is how many records are looked at in one scan: rounds, and waiting
// for the rate, come between two scans.
const batchLen = 256

var errBatch = errors.New("the batch is full")

func (r *Reaper) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// earlier returns the earlier of two times; a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
