package antientropy

import (
	"cmp"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

// task is an exchange that is due.
type task struct {
	peer   kv.NodeID
	land   *territory // of the view under which they are shared
	shares []share
	eager  bool     // see exchange
	again  bool     // it looks whether what was healed is
	window Window   // what it looks through
	doubts []*doubt // the doubts that it ends, as far as this peer goes
}

// outcome is how a task ended.
type outcome struct {
	task

	verdicts []verdict // of the shares
	err      error
}

// schedule decides with whom to exchange what, and when. It is pure: the time
// and what is known of the peers are given, and one goroutine uses it.
type schedule struct {
	every, soon time.Duration
	parallel    int
	seed        uint64

	land    *territory
	peers   []*peerPlan // as in land
	doubts  []*doubt
	running int
}

// peerPlan is what is due with one peer.
type peerPlan struct {
	neighbor

	connected bool
	running   bool
	due       time.Time // of the next exchange of all shares
	marks     []uint16  // rising: to be exchanged at once
	again     []uint16  // rising: to be looked at again
	againAt   time.Time
	rounds    int       // of looking again, in a row
	failures  int       // of exchanges, in a row
	notBefore time.Time // while it fails
	looks     int       // how often it was compared with
	random    uint64    // its own, so that the order of events among peers does not matter
}

// jitter returns a random time from three to five quarters of the one given.
func (p *peerPlan) jitter(d time.Duration) time.Duration {
	p.random += 0x9e3779b97f4a7c15
	x := p.random // the finalizer of splitmix64 (Steele and others, 2014)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return d - d/4 + time.Duration(x%uint64(d/2+1))
}

// doubt is a leaf of this disk that has lost records, and the owners from which
// it was not merged since.
type doubt struct {
	partition uint16
	leaf      uint8
	from      []kv.NodeID
}

// survey makes the schedule follow the layouts and reports whether they changed.
func (s *schedule) survey(now time.Time, land *territory) bool {
	if s.land != nil && s.land.digest == land.digest {
		return false
	}
	before := s.peers
	s.land, s.peers = land, nil
	for _, n := range land.peers {
		i := slices.IndexFunc(before, func(p *peerPlan) bool { return p.id == n.id })
		if i < 0 {
			s.peers = append(s.peers, &peerPlan{neighbor: n, random: s.seed ^ uint64(n.id)})
			continue
		}
		before[i].neighbor = n
		before[i].due = now.Add(before[i].jitter(s.soon))
		s.peers = append(s.peers, before[i])
	}
	for _, d := range s.doubts {
		owners := land.owners(d.partition)
		d.from = slices.DeleteFunc(d.from, func(id kv.NodeID) bool { return !slices.Contains(owners, id) })
	}
	return true
}

// plan returns the peer's plan, nil if nothing is shared with it any more.
func (s *schedule) plan(id kv.NodeID) *peerPlan {
	i, ok := s.land.find(id)
	if !ok {
		return nil
	}
	return s.peers[i]
}

// mark asks for an exchange of partitions as soon as the peer can be reached.
func (s *schedule) mark(id kv.NodeID, partitions []uint16) {
	p := s.plan(id)
	if p == nil {
		return
	}
	for _, s := range pick(p.shares, partitions) {
		p.marks = insert(p.marks, s.partition)
	}
}

// doubt asks that the leaf be merged from every other owner.
func (s *schedule) doubt(self kv.NodeID, partition uint16, leaf uint8) {
	from := slices.DeleteFunc(slices.Clone(s.land.owners(partition)), func(id kv.NodeID) bool { return id == self })
	s.doubts = append(s.doubts, &doubt{partition, leaf, from})
}

// settled forgets the doubts that are ended, and returns the leaves of which
// none is left.
func (s *schedule) settled() []leafID {
	var over []leafID
	s.doubts = slices.DeleteFunc(s.doubts, func(d *doubt) bool {
		if len(d.from) == 0 {
			over = append(over, leafID{d.partition, d.leaf})
		}
		return len(d.from) == 0
	})
	return slices.DeleteFunc(over, func(id leafID) bool {
		return slices.ContainsFunc(s.doubts, func(d *doubt) bool { return d.partition == id.partition && d.leaf == id.leaf })
	})
}

// next returns the tasks to begin now, the most urgent first. sources says from
// which owners a partition has still to be merged.
func (s *schedule) next(now time.Time, connected func(kv.NodeID) bool, sources func(holding) []kv.NodeID) []task {
	for _, p := range s.peers {
		p.meet(now, connected(p.id), s.soon)
	}
	wanted := s.hunger(now, sources)
	byUrgency := slices.Clone(s.peers)
	slices.SortStableFunc(byUrgency, func(a, b *peerPlan) int {
		return cmp.Or(cmp.Compare(a.urgency(wanted), b.urgency(wanted)), a.due.Compare(b.due))
	})
	var tasks []task
	for _, p := range byUrgency {
		if s.running >= s.parallel {
			break
		}
		if !p.free(now) {
			continue
		}
		if t, ok := s.taskFor(now, p, wanted[p.id]); ok {
			p.running = true
			s.running++
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// meet notes whether the peer is connected. One that was away missed writes:
// it is met soon.
func (p *peerPlan) meet(now time.Time, connected bool, soon time.Duration) {
	if connected && !p.connected {
		p.due, p.notBefore, p.failures = now.Add(p.jitter(soon)), now, 0
	}
	p.connected = connected
}

func (p *peerPlan) reachable(now time.Time) bool { return p.connected && !now.Before(p.notBefore) }

func (p *peerPlan) free(now time.Time) bool { return p.reachable(now) && !p.running }

// urgency orders peers: first whom this node needs to be whole, then marks.
func (p *peerPlan) urgency(wanted map[kv.NodeID][]share) int {
	switch {
	case len(wanted[p.id]) > 0:
		return 0
	case len(p.marks) > 0:
		return 1
	}
	return 2
}

// hunger returns what this node needs to become whole, by the peer to take it
// from: each partition from one source at a time, the first in the order of
// owners that can be reached.
func (s *schedule) hunger(now time.Time, sources func(holding) []kv.NodeID) map[kv.NodeID][]share {
	wanted := make(map[kv.NodeID][]share) // looked up only, never walked
	for _, h := range s.land.holdings {
		left := sources(h)
		for _, d := range s.doubts {
			if d.partition == h.partition {
				left = unite(left, d.from)
			}
		}
		for _, id := range left {
			p := s.plan(id)
			if p == nil || !p.reachable(now) {
				continue
			}
			if i, ok := findShare(p.shares, h.partition); ok {
				wanted[id] = append(wanted[id], p.shares[i])
				break
			}
		}
	}
	return wanted
}

// taskFor returns what is to be done with a peer now. If what this node needs
// cannot be had, the other exchanges have their turn.
func (s *schedule) taskFor(now time.Time, p *peerPlan, wanted []share) (task, bool) {
	if len(wanted) > 0 && (p.failures == 0 || now.Before(p.due)) {
		return task{peer: p.id, land: s.land, shares: wanted, eager: true, doubts: s.doubtsOf(p.id, wanted)}, true
	}
	t := task{peer: p.id, land: s.land}
	switch {
	case !now.Before(p.due):
		t.shares, p.due = p.shares, now.Add(p.jitter(s.every))
	case len(p.marks) > 0:
		t.shares = pick(p.shares, p.marks)
	case len(p.again) > 0 && !now.Before(p.againAt):
		t.shares, t.again = pick(p.shares, p.again), true
	}
	if len(t.shares) == 0 {
		return task{}, false
	}
	p.marks, p.again = nil, nil
	t.window = 1 + Window(p.looks%windows)
	p.looks++
	return t, true
}

func (s *schedule) doubtsOf(id kv.NodeID, shares []share) []*doubt {
	var out []*doubt
	for _, d := range s.doubts {
		if _, ok := findShare(shares, d.partition); ok && slices.Contains(d.from, id) {
			out = append(out, d)
		}
	}
	return out
}

// finish notes how a task ended.
func (s *schedule) finish(now time.Time, o outcome) {
	s.running--
	p := s.plan(o.peer)
	if p == nil {
		return
	}
	p.running = false
	for _, d := range o.doubts {
		if i, ok := findShare(o.shares, d.partition); ok && o.verdicts[i] <= healed {
			d.from = slices.DeleteFunc(d.from, func(id kv.NodeID) bool { return id == o.peer })
		}
	}
	unsettled := o.with(healed, unfinished)
	switch {
	case o.err != nil || o.eager && len(o.with(unfinished)) > 0:
		p.fail(now, s, o)
	case o.eager:
		p.failures = 0
	case len(unsettled) == 0:
		p.failures, p.rounds = 0, 0
	default:
		p.failures = 0
		p.lookAgain(now, s, unsettled)
	}
}

// with returns the partitions of one of the verdicts, rising.
func (o outcome) with(verdicts ...verdict) []uint16 {
	var out []uint16
	for i, v := range o.verdicts {
		if slices.Contains(verdicts, v) {
			out = append(out, o.shares[i].partition)
		}
	}
	return out
}

// fail puts off what is due with the peer, longer after each failure.
func (p *peerPlan) fail(now time.Time, s *schedule, o outcome) {
	p.notBefore = now.Add(p.jitter(min(s.soon<<min(p.failures, 16), s.every)))
	p.failures++
	if o.eager {
		return // its sources are asked about again
	}
	for _, m := range o.with(healed, unfinished) {
		p.marks = insert(p.marks, m)
	}
}

// lookAgain has what was healed compared again soon, and less soon each time:
// until nothing differs, or until it is time for all shares anyway.
func (p *peerPlan) lookAgain(now time.Time, s *schedule, partitions []uint16) {
	wait := s.soon << min(p.rounds, 16)
	if wait >= s.every {
		p.rounds = 0
		return
	}
	p.rounds++
	p.again, p.againAt = partitions, now.Add(p.jitter(wait))
}

// insert adds a partition to a rising list that may hold it.
func insert(list []uint16, partition uint16) []uint16 {
	i, ok := slices.BinarySearch(list, partition)
	if ok {
		return list
	}
	return slices.Insert(list, i, partition)
}

// pick returns the shares of the partitions; both are rising.
func pick(shares []share, partitions []uint16) []share {
	out := make([]share, 0, len(partitions))
	for _, partition := range partitions {
		if i, ok := findShare(shares, partition); ok {
			out = append(out, shares[i])
		}
	}
	return out
}

// unite returns list with what it lacks of more, in a new slice if any.
func unite(list, more []kv.NodeID) []kv.NodeID {
	list = slices.Clip(list)
	for _, id := range more {
		if !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return list
}
