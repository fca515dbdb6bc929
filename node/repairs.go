package node

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/starling-kv/starling/antientropy"
	"github.com/starling-kv/starling/hints"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/readrepair"
	"github.com/starling-kv/starling/reap"
	"github.com/starling-kv/starling/standing"
)

// RepairOptions say when replicas are repaired. A zero field takes the default
// of the package that does it.
type RepairOptions struct {
	// Exchange is the time between two comparisons with one other node,
	// SecondLook how long a difference must last, and Scrub how long one reading
	// of the whole disk takes.
	Exchange, SecondLook, Scrub time.Duration
	// Chapter is how often at most a node tells the others how far it has come: a
	// disk that is set back by less than that may go unnoticed, and see
	// [standing.KeeperConfig] for when by more. Default 10 s.
	Chapter time.Duration
	// Patience is how long a start waits for members that would know if the disk
	// had been set back: see [standing.KeeperConfig]. Zero: for ever.
	Patience time.Duration
	// Reap says what of deletes, expired values and clocks is removed for good,
	// and ReapEvery how often it is looked for.
	Reap      reap.Rules
	ReapEvery time.Duration
}

// defaultChapter costs a synced fact on every member each time.
const defaultChapter = 10 * time.Second

// repairs are all that keeps a node's replicas like those of others. None of
// them knows of another: here they are joined.
type repairs struct {
	keeper    *standing.Keeper
	setback   standing.Setback
	release   *release
	restorer  *restorer
	admission *admission
	missed    *hints.Log
	replayer  *hints.Replayer
	reader    *readrepair.Repairer
	exchanger *antientropy.Exchanger
	answers   *antientropy.Responder
	member    *reap.Member
	reaper    *reap.Reaper
}

// makeRepairs makes the repairs of a node that can reach the others.
func (c *Core) makeRepairs() {
	log, view := c.world.Log, c.views.Current
	ports := repairPorts{c}
	r := &c.repairs
	o := c.opts.Repairs
	r.setback = standing.Setback{
		Self: c.id, Shelves: shelves{c.store, c.replica}, Facts: standingFacts{c.facts()}, View: view, Now: c.world.Now,
	}
	r.release, r.restorer, r.admission = newRelease(c), newRestorer(c), c.admission
	r.keeper = standing.NewKeeper(standing.KeeperConfig{
		Ledger: c.ledger, Announce: c.admission.announce, OnSetBack: c.putAway,
		Patience: o.Patience, Chapter: orDefault(o.Chapter, defaultChapter), Acknowledged: c.replica.Acknowledged,
		Random: c.world.Random, Log: log.Named("standing"),
	})
	r.exchanger = antientropy.New(antientropy.Config{
		Self: c.id, View: view, Local: ports, Leaves: ports, Values: ports, Doubts: doubtedLeaves{c}, Ledger: ports,
		Peers: c.client, Mover: c.client,
		Pressure: c.yields, Now: time.Now, Random: c.world.Random, Log: log.Named("antientropy"),
		Every: o.Exchange, SecondLook: o.SecondLook, Scrub: o.Scrub,
	})
	r.answers = antientropy.NewResponder(antientropy.ResponderConfig{
		Self: c.id, View: view, Local: ports, Ledger: ports, Starts: func() uint64 { return c.ledger.Life().Starts },
		Suspect: r.exchanger.Suspect,
	})
	r.missed = hints.NewLog(hints.LogConfig{Store: c.store, Mark: r.exchanger.Mark, Now: c.world.Now, Log: log.Named("hints")})
	r.replayer = hints.NewReplayer(hints.ReplayConfig{
		Self: c.id, Hints: r.missed, Store: c.store, Copies: c.store, Peers: c.client, Places: ports,
		Now: c.world.Now, Random: stream(c.world.Random), Log: log.Named("hints"),
	})
	r.reader = readrepair.New(readrepair.Config{Owners: surveys{c}, Peers: c.client, Log: log.Named("readrepair")})
	r.member = reap.NewMember(c.replica, ports, c.world.Now)
	r.reaper = reap.New(reap.Config{
		Rules: o.Reap, Self: c.id, Local: ports, Peers: reapPeers{c.client, c.id, r.member}, View: view,
		Lives: ports.Lives, Now: c.world.Now, Random: stream(c.world.Random), Log: log.Named("reap"), Every: o.ReapEvery,
	})
}

// stream returns a source of randomness for one goroutine, seeded from another:
// what several draw from one source depends on who is first.
func stream(random func() uint64) func() uint64 {
	var seed [32]byte
	for i := 0; i < len(seed); i += 8 {
		binary.LittleEndian.PutUint64(seed[i:], random())
	}
	return rand.NewChaCha8(seed).Uint64
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// stagger bounds how long after the start each of the repairs begins.
const stagger = time.Millisecond

// run starts the repairs; all of them end with ctx. They begin one after the
// other, at times that random draws: the periods of some are multiples of those
// of others, and from one moment they would wake up together for ever.
func (r *repairs) run(ctx context.Context, running *sync.WaitGroup, random func() uint64) {
	for _, fn := range []func(context.Context){
		r.keeper.Run, r.admission.Run, r.release.Run, r.missed.Run, r.replayer.Run, r.reader.Run, r.exchanger.Run, r.reaper.Run,
	} {
		later := time.NewTimer(time.Duration(random() % uint64(stagger)))
		running.Go(func() {
			select {
			case <-later.C:
			case <-ctx.Done():
			}
			fn(ctx)
		})
	}
}

// Missed implements [coordinator.Repairs].
func (r *repairs) Missed(target kv.NodeID, partition uint16, key kv.Key) {
	r.missed.Missed(target, partition, key)
}

// Behind implements [coordinator.Repairs].
func (r *repairs) Behind(key kv.Key, n int) { r.reader.Behind(key, n) }

// Reaping returns what the node has reaped since it started. It is there after
// Connect.
func (c *Core) Reaping() reap.Stats { return c.repairs.reaper.Stats() }

// putAway is called when the disk was set back, before the node takes part in
// anything.
func (c *Core) putAway(ctx context.Context, beyond uint64) (starts uint64, err error) {
	c.admission.close()
	if _, err := c.repairs.setback.PutAway(ctx); err != nil {
		return 0, err
	}
	c.repairs.release.moved()
	if err := c.store.RaiseStarts(beyond + 1); err != nil {
		return 0, err
	}
	return c.store.Starts(), nil
}

// pressed reports whether clients keep the store, or the machine, busy: repairs
// give way.
func (c *Core) pressed() bool {
	return c.store.Stats().QueueLen > pressure || c.world.Strained != nil && c.world.Strained()
}

// yields reports whether comparing has to wait: clients come first, and so do
// hints on their way from or to this node, since what they bring need not be
// found by comparison.
func (c *Core) yields() bool {
	replaying := time.Since(c.repairs.replayer.Progress()) < lull || time.Since(c.client.LastNudged()) < lull
	return replaying || c.pressed()
}

// lull is how long nothing is replayed before that counts as done.
const lull = time.Second

// pressure is how many updates wait in the queue of a busy store.
const pressure = 256
