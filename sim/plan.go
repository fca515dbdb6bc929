package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/starling-kv/starling/node"
	"github.com/starling-kv/starling/reap"
)

// Plan is everything that is to be done in a run, drawn from its seed before it
// begins. A part of a plan is a plan too: that is how failures are shrunk.
type Plan struct {
	Seed   uint64
	Nodes  int
	Keys   int
	Length time.Duration // over which operations and faults are spread
	// Repairs say when the nodes repair, and what they reap.
	Repairs node.RepairOptions
	// Ages says that values expire and that deletes are reaped while the plan is
	// carried out. It takes long, and no clock is wrong in it: when something is
	// gone depends on clocks.
	Ages   bool
	Ops    []Op
	Faults []Fault
}

// Config narrows what is drawn. In the zero Config the seed decides it all.
type Config struct {
	Nodes     int           // 0: 3 to 5
	Ops       int           // 0: 5 to 30, in plans that age three times as many
	Length    time.Duration // 0: 100 ms to 6.4 s, in plans that age 50 s to 2 min; else none ages
	Faults    []FaultKind   // the kinds that may occur; nil: some of all kinds
	Workloads []Workload    // what clients do; nil: some of all
	Scenes    []Scene       // nil: any of them, where nothing else is narrowed but nodes and length
}

// Workload is a habit of clients. Those of a plan are combined.
type Workload string

// The workloads.
const (
	SingleWriters Workload = "single writers"    // each key is written by one client
	Contexts      Workload = "contexts"          // writers that read before they write
	Blind         Workload = "blind writers"     // writers that send no context
	Deletes       Workload = "deletes"           // and re-creation after them
	Quorums       Workload = "mixed n, r and w"  // else n=3, r=w=2
	Sloppy        Workload = "sloppy"            // stand-ins allowed
	Async         Workload = "async"             // acknowledged before they are synced
	ManyKeys      Workload = "many keys"         // else one or two hot ones
	Conditions    Workload = "conditions"        // If-Match, If-None-Match and overwrite
	Retries       Workload = "retries"           // failed writes repeated under the same id
	LargeValues   Workload = "large values"      // stored beside the record
	Floors        Workload = "reads with floors" // sessions
)

// Workloads lists all of them.
func Workloads() []Workload {
	return []Workload{SingleWriters, Contexts, Blind, Deletes, Quorums, Sloppy, Async, ManyKeys, Conditions, Retries, LargeValues, Floors}
}

// Draw returns the plan of a seed.
func Draw(seed uint64, cfg Config) Plan {
	rng := generator(seed, saltPlan)
	p := Plan{
		Seed: seed, Nodes: 3 + rng.IntN(3), Keys: 1 + rng.IntN(2),
		Length: time.Duration(float64(100*time.Millisecond) * float64(uint(1)<<rng.IntN(7))),
	}
	p.Repairs = node.RepairOptions{
		Exchange: time.Duration(1+rng.IntN(20)) * time.Second, SecondLook: 200 * time.Millisecond,
		Chapter: time.Duration(1+rng.IntN(200)) * time.Millisecond, Scrub: time.Hour,
		ReapEvery: time.Duration(200+rng.IntN(3000)) * time.Millisecond,
		Reap:      reap.Rules{After: time.Duration(rng.IntN(1000)) * time.Millisecond, FoldEntries: 1 + rng.IntN(4), FoldQuiet: time.Second},
	}
	ops := 5 + rng.IntN(26)
	habits := chosen(rng, Workloads(), cfg.Workloads)
	faults := chosen(rng, FaultKinds(), cfg.Faults)
	if faults[Rot] = faults[Rot] && (cfg.Faults != nil || rng.IntN(2) == 0); faults[Rot] {
		// Of what rots another owner has it; no other disk forgets that one.
		faults[PowerCut], faults[Blackout], faults[Wipe], faults[Rollback], faults[SyncError] = false, false, false, false, false
	}
	ages := generator(seed, saltAges)
	if p.Ages = ages.IntN(6) == 0 && cfg.Length == 0; p.Ages {
		p = p.age(ages)
		ops *= 3
		habits[Deletes], faults[ClockJump], faults[ClockDrift] = true, false, false
	}
	if generator(seed, saltAim).IntN(2) == 0 { // see aimed: a node takes a while to start again
		p.Length = max(p.Length, 3*time.Second)
	}
	override(&p.Nodes, cfg.Nodes)
	override(&ops, cfg.Ops)
	override(&p.Length, cfg.Length)
	if habits[ManyKeys] {
		p.Keys = 3 + rng.IntN(max(1, ops/3))
	}
	d := drawing{rng: rng, plan: &p, habits: habits, clients: 1 + rng.IntN(4)}
	for i := range ops {
		p.Ops = append(p.Ops, d.op(i))
	}
	if p.Ages {
		p.season(ages)
	}
	p.Faults = drawFaults(rng, p, faults)
	if p.Ages && faults[SlowNet] {
		p.Faults = append(p.Faults, p.slowness(ages)...)
		slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	}
	p = p.play(cfg, faults[Rot])
	if slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Kind == Rot }) {
		p.Repairs.Scrub = 5 * time.Second
	}
	return p
}

func override[T comparable](field *T, with T) {
	var zero T
	if with != zero {
		*field = with
	}
}

// chosen draws about half of all, or takes what was given.
func chosen[T comparable](rng *rand.Rand, all, given []T) map[T]bool {
	set := make(map[T]bool)
	for _, x := range all {
		set[x] = rng.IntN(2) == 0
	}
	if given != nil {
		clear(set)
		for _, x := range given {
			set[x] = true
		}
	}
	return set
}

// Kind is what an operation does.
type Kind string

// The kinds of operation.
const (
	Read   Kind = "read"
	Write  Kind = "write"
	Delete Kind = "delete"
)

// Context says which token an operation sends.
type Context string

// The contexts.
const (
	NoContext   Context = "blind"
	LastContext Context = "context" // of the client's last answer for the key
	OldContext  Context = "old context"
)

// Condition says under which condition a write is made.
type Condition string

// The conditions.
const (
	Always    Condition = ""
	IfMatch   Condition = "if-match" // what the client read last
	IfAbsent  Condition = "if-none-match-any"
	Overwrite Condition = "overwrite"
)

// Op is one operation of one client. Its ID is its place in the whole plan and
// names the value that it writes.
type Op struct {
	ID        int
	At        time.Duration // not before this, nor before the client's last one ended
	Client    int
	Node      int // that is asked
	Key       int
	Kind      Kind
	N, R, W   int
	Sloppy    bool
	Async     bool
	HedgeAll  bool
	Context   Context
	Condition Condition
	WriteID   bool
	Retry     bool // on another node, under the same write id, while not acknowledged
	Large     bool
	TTL       time.Duration // of the value; 0: it stays
	Timeout   time.Duration
}

// String is the line of a failure's report.
func (o Op) String() string {
	words := []string{fmt.Sprintf("%10v client %d, node n%d: #%d %s k%d n=%d", o.At, o.Client, o.Node, o.ID, o.Kind, o.Key, o.N)}
	if o.Kind == Read {
		words = append(words, fmt.Sprintf("r=%d", o.R))
	} else {
		words = append(words, fmt.Sprintf("w=%d", o.W))
	}
	for _, flag := range []struct {
		on   bool
		word string
	}{
		{o.Sloppy, "sloppy"},
		{o.Async, "async"},
		{o.HedgeAll, "hedge=all"},
		{o.WriteID, "id"},
		{o.Retry, "retry"},
		{o.Large, "large"},
		{true, string(o.Context)},
		{o.Condition != Always, string(o.Condition)},
	} {
		if flag.on {
			words = append(words, flag.word)
		}
	}
	if o.TTL > 0 {
		words = append(words, "ttl="+o.TTL.String())
	}
	return strings.Join(append(words, "timeout="+o.Timeout.String()), " ")
}

// drawing draws operations one after the other.
type drawing struct {
	rng     *rand.Rand
	plan    *Plan
	habits  map[Workload]bool
	clients int
}

func (d drawing) percent(p int) bool { return d.rng.IntN(100) < p }

// sometimes is what a workload makes of one operation in so many percent.
func (d drawing) sometimes(habit Workload, percent int) bool {
	hit := d.percent(percent)
	return hit && d.habits[habit]
}

func (d drawing) op(id int) Op {
	rng := d.rng
	o := Op{
		ID: id, At: time.Duration(rng.Int64N(int64(d.plan.Length))), Client: rng.IntN(d.clients), Node: rng.IntN(d.plan.Nodes),
		Key: rng.IntN(d.plan.Keys), N: min(3, d.plan.Nodes), R: 2, W: 2, Kind: Write, Context: NoContext,
		Sloppy: d.sometimes(Sloppy, 50), Async: d.sometimes(Async, 40), HedgeAll: d.percent(10),
		WriteID: d.percent(50), Large: d.sometimes(LargeValues, 25),
		// Odd, so that no fraction of it meets another timer.
		Timeout: time.Duration(rng.Int64N(int64(2*time.Second))+int64(50*time.Millisecond)) | 1,
	}
	if d.habits[SingleWriters] {
		o.Key = o.Client % d.plan.Keys
	}
	if d.sometimes(Quorums, 60) {
		o.N = 1 + rng.IntN(d.plan.Nodes)
		o.R, o.W = 1+rng.IntN(o.N), 1+rng.IntN(o.N)
	}
	switch {
	case d.percent(40):
		o.Kind = Read
	case d.sometimes(Deletes, 30):
		o.Kind = Delete
	}
	d.context(&o)
	if o.Kind != Read {
		d.condition(&o)
		o.Retry = d.sometimes(Retries, 70)
		o.WriteID = o.WriteID || o.Retry || o.Kind == Delete // by its id a tombstone is known again
	}
	return o
}

func (d drawing) context(o *Op) {
	share := 50
	switch {
	case d.habits[Contexts] && d.habits[Blind]:
	case d.habits[Contexts]:
		share = 95
	case d.habits[Blind]:
		share = 10
	}
	if o.Kind == Delete || d.percent(share) {
		o.Context = LastContext
		if d.percent(15) {
			o.Context = OldContext
		}
	}
	if o.Kind == Read && !d.habits[Floors] {
		o.Context = NoContext
	}
}

func (d drawing) condition(o *Op) {
	c := []Condition{IfMatch, IfAbsent, Overwrite}[d.rng.IntN(3)]
	if d.sometimes(Conditions, 40) && (o.Kind == Write || c == IfMatch) {
		o.Condition = c
	}
}

// String lists the plan as a person would read it, in the order of time.
func (p Plan) String() string {
	type line struct {
		at   time.Duration
		text string
	}
	lines := make([]line, 0, len(p.Ops)+len(p.Faults))
	for _, o := range p.Ops {
		lines = append(lines, line{o.At, o.String()})
	}
	for _, f := range p.Faults {
		lines = append(lines, line{f.At, f.String()})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes, %d keys, %v\n", p.Nodes, p.Keys, p.Length)
	for _, l := range lines {
		b.WriteString(l.text + "\n")
	}
	return b.String()
}
