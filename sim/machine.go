package sim

import (
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// secret seals the tokens of every simulated cluster.
var secret = []byte("a secret that all nodes of a simulated cluster share")

// lowWater is the free space under which the nodes refuse writes. It leaves the
// margin in which a node can still store what it needs to go on.
const lowWater = 4 << 10

// machine is one node over all its lives: its disk, its clock, and the process
// that runs on them, if any.
type machine struct {
	w      *world
	index  int
	id     kv.NodeID
	name   string
	disk   *disk
	backup *memory.Disk // an earlier state of the disk
	backed int          // the moment of it
	shaky  bool         // a sync may have failed: a crash takes what it was for
	bound  ring.ClusterID
	boots  int // of the process
	// reboots counts those of the operating system, which forgets what it had
	// not written to the disk.
	reboots int
	clock   clock

	process *process // nil while the node is down
	down    int      // faults that keep it from starting
}

// process is one life of a node.
type process struct {
	*node.Core
	endpoint *endpoint
	tokens   *vclock.Keyring
	attempts map[*attempt]bool // of clients, under way
}

// clock is the wall clock of one node. It is set by the gate and read by the
// node at any time.
type clock struct {
	begun  time.Time
	offset atomic.Int64 // nanoseconds
	drift  atomic.Int64 // nanoseconds a second
}

func (c *clock) now() time.Time {
	elapsed := time.Since(c.begun)
	drifted := int64(elapsed.Seconds() * float64(c.drift.Load()))
	return c.begun.Add(elapsed + time.Duration(c.offset.Load()+drifted))
}

func newMachine(w *world, index int) *machine {
	name := fmt.Sprintf("n%d", index)
	m := &machine{w: w, index: index, name: name, id: idOf(index), disk: newDisk(mix(w.plan.Seed, saltDisk, uint64(index)))}
	m.clock.begun = w.gate.begun
	return m
}

// idOf is the same in all runs, for the sake of readable traces.
func idOf(index int) kv.NodeID { return kv.NodeID(index + 1) }

// Cluster and Bind implement [membership.Binder].
func (m *machine) Cluster() (ring.ClusterID, bool) { return m.bound, m.bound != ring.ClusterID{} }

// Bind is called on the goroutine that starts the node.
func (m *machine) Bind(id ring.ClusterID) error {
	m.bound = id
	return nil
}

var _ membership.Binder = (*machine)(nil)

// start runs the production constructor on the machine's disk.
func (m *machine) start() error {
	m.boots++
	pause := m.disk.pausing(m.boots)
	random := newStream(m.w.plan.Seed, saltNode, uint64(m.index), uint64(m.boots))
	world := node.World{
		Engine: m.disk.open(), Binder: m, Now: m.clock.now, Random: random.next,
		OSBoot: fmt.Sprintf("%s boot %d", m.name, m.reboots), Log: zap.NewNop(),
	}
	core, err := node.OpenCore(m.id, world, node.Options{
		Storage: storage.Options{
			Free: m.disk.Free, LowWater: lowWater, Gather: pause, Answered: pause, Cache: m.disk.newCache(m.boots),
		},
		Defaults: coordinator.Defaults{N: 3, Timeout: 5 * time.Second}, Sync: true,
		Repairs: m.w.plan.Repairs,
	})
	if err != nil {
		return err
	}
	p := &process{Core: core, attempts: make(map[*attempt]bool)}
	if err := core.Views().Learn(m.w.view); err != nil {
		return fmt.Errorf("%w, then %w", err, core.Close())
	}
	err = core.Connect(m.believesAlive, func(h transport.Handler) (transport.Transport, error) {
		p.endpoint = m.w.net.join(m.id, m.name, core.Store().Starts(), h)
		return p.endpoint, nil
	})
	if err != nil {
		return fmt.Errorf("%w, then %w", err, core.Close())
	}
	id := m.w.view.Cluster()
	p.tokens = vclock.NewKeyring(secret, id[:], m.clock.now)
	m.process = p
	return nil
}

// believesAlive stands for what gossip would say: right, after a while.
func (m *machine) believesAlive(id kv.NodeID) bool { return m.w.net.up(id) && !m.w.net.deaf(m.id, id) }

// crash ends the process at this very moment. Of what was not synced forgets
// says what the disk forgets; reset says whether others are told by the operating
// system. The goroutines of the process end by themselves, out of reach of disk
// and network.
func (m *machine) crash(forgets memory.Loss, reset bool) {
	if m.shaky {
		m.w.history.lossy(m.name, loss{unsynced: true})
	}
	m.disk.Crash(forgets)
	p := m.process
	if p == nil {
		return
	}
	m.process = nil
	m.w.reaped += p.Reaping().Reaped
	p.endpoint.kill(reset)
	m.w.abandon(p)
	m.w.zombies.Go(func() { _ = p.Close() }) // its disk is gone, as it will say
}

func loseNothing(int, int) bool { return false }

// standing reports whether the node counts for all that it owns.
func (m *machine) standing() bool {
	if m.process == nil {
		return false
	}
	s := m.process.Standing().Stats()
	return s.Registered && s.Fallen == 0 && s.Doubted == 0 && !s.Pending
}

// failed reports whether the process refuses writes because its disk erred.
func (m *machine) failed() bool {
	return m.process != nil && m.process.Store().Stats().State == storage.StateFailed
}
