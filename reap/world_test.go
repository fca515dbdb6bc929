package reap

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// set is a set of the events of one key.
type set uint64

func (s set) has(e int) bool { return s>>e&1 == 1 }

// event is one attempt at a write.
type event struct {
	write   int
	dot     vclock.Dot
	seen    set // by its author
	expires time.Time
}

// intention is a write in all its attempts.
type intention struct {
	key     int
	sibling kv.Sibling
	seen    reading
	issued  time.Time
	ttl     time.Duration
}

// reading is what a client has read, said twice.
type reading struct {
	clock vclock.Clock
	seen  set
}

// place is what a member keeps of a key, for itself or as a hint.
type place struct {
	record kv.Record
	known  set // the events that it ever heard of
}

type modelNode struct {
	*model

	id     kv.NodeID
	ahead  time.Duration // of its clock
	places map[kv.Slot]place
	number uint64
	boot   uint64
	member *Member
	rounds []*round // of this life that have not ended
}

type model struct {
	t      *testing.T
	seed   uint64
	flaw   flaw
	rng    *rand.Rand
	now    time.Time
	view   ring.View
	nodes  []*modelNode
	events [modelKeys][]event
	writes []intention
	reads  [modelKeys][]reading
	flight []func()
	minted uint64
	trace  bool

	// What kind of a run it is.
	retries int           // how many of a hundred steps repeat a write; 0: writes have no ids
	haste   time.Duration // the longest step of time
	busy    int           // how many steps clients write for
	steps   int           // so far

	reaped, folded, expired, resent int
	wrong                           string
}

func modelKey(k int) kv.Key { return kv.Key{Bucket: "b", Name: string(rune('a' + k))} }

func ownSlot(k int) kv.Slot { return kv.Slot{Key: modelKey(k)} }

func viewOf(tb testing.TB, n, partitions int) ring.View {
	tb.Helper()
	members := make([]ring.Member, n)
	for i := range members {
		name := fmt.Sprintf("n%d", i+1)
		members[i] = ring.Member{ID: kv.NodeID(i + 1), Name: name, Address: name + ":1", Weight: 1}
	}
	l, err := ring.Compute(ring.ClusterID{7}, 1, members, partitions, nil)
	if err != nil {
		tb.Fatal(err)
	}
	v, err := ring.View{}.With(l)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func newModel(t *testing.T, seed uint64, f flaw, views []ring.View) *model {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 4))
	m := &model{t: t, seed: seed, flaw: f, rng: rng, now: time.UnixMilli(1_000_000), view: views[rng.IntN(len(views))]}
	if m.one(2) {
		m.retries = 4
	}
	m.busy = []int{50, modelSteps}[rng.IntN(2)]
	m.haste = []time.Duration{time.Second, 8 * time.Second}[rng.IntN(2)]
	for i := range m.view.Active()[0].Members() {
		n := &modelNode{model: m, id: kv.NodeID(i + 1), places: make(map[kv.Slot]place)}
		n.ahead = time.Duration(rng.Int64N(int64(maxAhead)))
		n.member = NewMember(n, n, n.clock)
		n.restart()
		m.nodes = append(m.nodes, n)
	}
	return m
}

func (n *modelNode) clock() time.Time { return n.now.Add(n.ahead) }

func (n *modelNode) restart() {
	n.minted++
	n.boot, n.rounds = n.minted, nil
}

func (m *model) mint() vclock.Actor {
	m.minted++
	return vclock.Actor(m.minted * 0x9e3779b97f4a7c15)
}

func (m *model) one(n int) bool { return m.rng.IntN(n) == 0 }

func (m *model) node() *modelNode { return m.nodes[m.rng.IntN(len(m.nodes))] }

func (m *model) logf(format string, args ...any) {
	if m.trace {
		m.t.Logf(format, args...)
	}
}

// send lets do happen at any later time, perhaps twice, perhaps never.
func (m *model) send(do func()) { m.flight = append(m.flight, do) }

func (m *model) deliver() {
	if len(m.flight) == 0 {
		return
	}
	i := m.rng.IntN(len(m.flight))
	if !m.one(4) { // most messages take little time, some take very long
		i = max(i, len(m.flight)-1-m.rng.IntN(3))
	}
	do := m.flight[i]
	if !m.one(4) { // otherwise it comes again
		m.flight = slices.Delete(m.flight, i, i+1)
	}
	if !m.one(10) {
		do()
	}
}

func (m *model) step() {
	n, k := m.node(), m.rng.IntN(modelKeys)
	m.steps++
	switch p := m.rng.IntN(100); {
	case p < 55:
		m.deliver()
	case p < 60 && m.steps > m.busy:
		m.deliver()
	case p < 60:
		n.write(m.intend(n, k))
	case p < 60+m.retries:
		m.retry(n)
	case p < 65:
		at := n.places[ownSlot(k)]
		m.reads[k] = append(m.reads[k], reading{at.record.Clock, at.known})
	case p < 67:
		n.pull(m.node(), k)
	case p < 69:
		n.replay(k)
	case p < 74:
		n.offer(m.node(), ownSlot(k))
	case p < 79:
		m.meet(k)
	case p < 87:
		n.begin()
	case p < 89:
		m.logf("%d restarts", n.id)
		n.restart()
	default:
		m.now = m.now.Add(time.Duration(m.rng.Int64N(int64(m.haste))))
	}
}

// meet is a calm moment: every hint is replayed, and all members repair a key.
func (m *model) meet(k int) {
	var highest uint64
	for _, n := range m.nodes {
		highest = max(highest, n.number)
	}
	for _, n := range m.nodes {
		n.number = highest
	}
	for _, from := range slices.Concat(m.nodes, m.nodes) {
		for _, to := range m.nodes {
			hint := kv.Slot{Target: to.id, Key: modelKey(k)}
			to.merge(ownSlot(k), from.places[hint])
			delete(from.places, hint)
			to.merge(ownSlot(k), from.places[ownSlot(k)])
		}
	}
}

// intend makes a new write of a client that may have read something.
func (m *model) intend(n *modelNode, k int) int {
	in := intention{key: k, issued: n.clock(), sibling: kv.Sibling{Kind: kv.KindValue, N: uint8(len(m.nodes))}}
	switch at := n.places[ownSlot(k)]; m.rng.IntN(4) {
	case 0:
	case 1:
		if old := m.reads[k]; len(old) > 0 {
			in.seen = old[m.rng.IntN(len(old))]
		}
	default:
		in.seen = reading{at.record.Clock, at.known}
	}
	switch m.rng.IntN(10) {
	case 0, 1, 2, 3:
		in.sibling.Kind = kv.KindTombstone
	case 4, 5:
		in.ttl = time.Duration(1+m.rng.IntN(10)) * time.Second
	}
	if m.retries > 0 {
		in.sibling.WriteID = kv.NewWriteID(in.issued, m.rng.Uint64)
	}
	m.writes = append(m.writes, in)
	return len(m.writes) - 1
}

// retry repeats a write under its id at any member.
func (m *model) retry(n *modelNode) {
	if len(m.writes) == 0 {
		return
	}
	if w := len(m.writes) - 1 - m.rng.IntN(min(4, len(m.writes))); !m.writes[w].sibling.WriteID.IsZero() {
		n.write(w)
	}
}

// write gives a write a dot here and sends it to the others, some of whose
// places others take.
func (n *modelNode) write(w int) {
	in := n.writes[w]
	at := n.places[ownSlot(in.key)]
	id := in.sibling.WriteID
	if len(n.events[in.key]) >= 60 || !id.IsZero() &&
		(len(at.record.Attempts(id)) > 0 || n.clock().Sub(id.Issued()) > idWindow || id.Compare(at.record.IDFloor) <= 0) {
		return
	}
	// A coordinator searches for what its record has not seen; here the search
	// finds that it is folded, or the write is not done.
	if !at.record.Clock.Dominates(in.seen.clock) && in.seen.seen&^at.known != 0 {
		return
	}
	s := in.sibling
	s.Stamp = at.record.LatestStamp().Next(n.clock())
	e := event{write: w, seen: in.seen.seen}
	if in.ttl > 0 {
		e.expires = n.clock().Add(in.ttl)
		s.Expires = e.expires.UnixMilli()
	}
	at.record, e.dot = at.record.Put(s, in.seen.clock, n.boot, n.mint, time.Time{})
	at.known |= in.seen.seen | 1<<len(n.events[in.key])
	n.logf("%d gives write %d of key %d (kind %d, seen %b) as event %d the dot %v",
		n.id, w, in.key, s.Kind, e.seen, len(n.events[in.key]), e.dot)
	n.events[in.key] = append(n.events[in.key], e)
	n.places[ownSlot(in.key)] = at
	n.check(in.key)
	for _, to := range n.nodes {
		slot := ownSlot(in.key)
		if to == n {
			continue
		}
		if n.one(5) {
			slot.Target = to.id
			to = n.node()
		}
		n.offer(to, slot)
	}
}

// offer sends what n holds of the key to a member, for itself or as a hint.
func (n *modelNode) offer(to *modelNode, slot kv.Slot) {
	from := kv.Slot{Key: slot.Key}
	if to == n && slot.Target == 0 {
		return
	}
	n.hand(from, to, slot, nil)
}

// hand sends what n holds at from, with the number as it was before it was read.
func (n *modelNode) hand(from kv.Slot, to *modelNode, slot kv.Slot, done func()) {
	number, carried := n.number, n.places[from]
	if n.flaw == flawReadBefore {
		n.send(func() { n.arrive(from, to, slot, n.number, carried, done) })
		return
	}
	n.send(func() { n.arrive(from, to, slot, number, carried, done) })
}

// arrive is what becomes of a message. Where it is refused, the sender learns
// the number, reads again and sends again.
func (n *modelNode) arrive(from kv.Slot, to *modelNode, slot kv.Slot, number uint64, carried place, done func()) {
	if number < to.number && n.flaw != flawTaken {
		number = to.number
		n.send(func() {
			n.number = max(n.number, number)
			n.resent++
			n.hand(from, to, slot, done)
		})
		return
	}
	to.merge(slot, carried)
	if done != nil {
		n.send(done)
	}
}

func (n *modelNode) merge(slot kv.Slot, in place) {
	at := n.places[slot]
	if at.record.Reused(in.record, n.boot) {
		n.failf("%d: a dot of %v was given twice", n.id, slot)
	}
	n.logf("%d merges %v %v into %v", n.id, slot, in.record.Set, at.record.Set)
	at.record = at.record.Merge(in.record)
	at.known |= in.known
	n.places[slot] = at
	if slot.Target == 0 {
		n.check(int(slot.Key.Name[0] - 'a'))
	}
}

// pull asks another member for a key, and merges what it answers unless that
// was read under a lower number than its own by then.
func (n *modelNode) pull(from *modelNode, k int) {
	if from == n {
		return
	}
	number := n.number
	n.send(func() {
		from.number = max(from.number, number)
		number, carried := from.number, from.places[ownSlot(k)]
		if n.flaw == flawReadBefore {
			n.send(func() { n.take(k, from.number, carried) })
			return
		}
		n.send(func() { n.take(k, number, carried) })
	})
}

func (n *modelNode) take(k int, number uint64, carried place) {
	if number >= n.number || n.flaw == flawTaken {
		n.merge(ownSlot(k), carried)
	}
}

// replay hands a hint to its owner, and drops it once the owner has it, if it
// has not changed.
func (n *modelNode) replay(k int) {
	to := n.node()
	slot := kv.Slot{Target: to.id, Key: modelKey(k)}
	if n.places[slot].record.Absent() {
		return
	}
	sent := digest(slot.Key, n.places[slot].record)
	own := func() {
		if at := n.places[slot]; digest(slot.Key, at.record) == sent {
			delete(n.places, slot)
		}
	}
	if to == n {
		n.merge(ownSlot(k), n.places[slot])
		own()
		return
	}
	n.hand(slot, to, ownSlot(k), own)
}

// begin starts a round with all that the member finds worth it.
func (n *modelNode) begin() {
	rules := modelRules
	if n.flaw == flawIDs {
		rules.IDMemory = time.Millisecond
	}
	if n.flaw == flawEarly {
		rules.Skew = -3 * time.Second
	}
	var items []Item
	confirmed := make(map[kv.Key]kv.Record)
	for k := range modelKeys {
		r := n.places[ownSlot(k)].record
		if reaping, due, ok := rules.judge(r, n.clock()); ok {
			items = append(items, Item{Key: modelKey(k), Digest: digest(modelKey(k), r), Due: due, Reaping: reaping})
			confirmed[modelKey(k)] = r
		}
	}
	if len(items) == 0 {
		return
	}
	r := newRound(n.id, n.view, 0, 0, 1+n.number, items)
	if n.flaw == flawMissing {
		r.members = r.members[:len(r.members)-1]
	}
	n.rounds = append(n.rounds, r)
	n.logf("%d begins round %d of %+v", n.id, r.Number, items)
	n.ask(r, confirmed)
}

// ask goes on with a round.
func (n *modelNode) ask(r *round, confirmed map[kv.Key]kv.Record) {
	id, more := r.next()
	if !more {
		if r.confirmed() {
			n.applyEverywhere(r, confirmed)
		}
		return
	}
	to, req, asked := n.nodes[id-1], r.Request, r.asked
	n.send(func() {
		reply, err := to.member.Confirm(n.t.Context(), req)
		if err != nil {
			n.failf("confirm: %v", err)
		}
		n.logf("%d answers round %d with %+v", to.id, req.Number, reply)
		n.send(func() {
			if slices.Contains(n.rounds, r) && r.asked == asked && r.take(reply) == nil {
				n.ask(r, confirmed)
			}
		})
	})
}

func (n *modelNode) applyEverywhere(r *round, confirmed map[kv.Key]kv.Record) {
	for _, to := range n.nodes {
		n.send(func() {
			n.logf("%d applies round %d", to.id, r.Number)
			if n.flaw == flawNotEqual {
				for _, it := range r.Items {
					at := to.places[kv.Slot{Key: it.Key}]
					at.record = confirmed[it.Key].Reaped(it.Reaping)
					to.places[kv.Slot{Key: it.Key}] = at
				}
				return
			}
			if _, err := to.member.Apply(n.t.Context(), r.Request); err != nil {
				n.failf("apply: %v", err)
			}
		})
	}
}

// The ports of the member.

func (n *modelNode) View() ring.View { return n.view }

func (n *modelNode) Standing(uint16) bool { return true }

func (n *modelNode) Lives() uint64 { return 0 } // no disk is lost

func (n *modelNode) Step(_ context.Context, sync bool, fn func(Tx) error) error {
	return fn(&modelTx{modelNode: n, confirming: sync})
}

type modelTx struct {
	*modelNode

	confirming bool
}

func (tx *modelTx) HintTargets() []kv.NodeID {
	if tx.flaw == flawOwnOnly {
		return nil
	}
	targets := make([]kv.NodeID, len(tx.nodes))
	for i, n := range tx.nodes {
		targets[i] = n.id
	}
	return targets
}

func (tx *modelTx) Get(slot kv.Slot) (kv.Record, error) {
	return tx.places[slot].record, nil
}

func (tx *modelTx) Put(slot kv.Slot, r kv.Record) {
	at := tx.places[slot]
	tx.logf("%d: %v becomes %v", tx.id, slot, r.Set)
	switch {
	case r.Absent():
		tx.reaped++
	case len(r.Live) < len(at.record.Live):
		tx.expired++
	default:
		tx.folded++
	}
	if tx.flaw == flawMine {
		r.Mine = at.record.Mine
	}
	at.record = r
	tx.places[slot] = at
}

func (tx *modelTx) Number(uint16) (uint64, error) {
	switch {
	case tx.flaw == flawAdopted && tx.confirming:
		return 0, nil
	case tx.flaw == flawNotRaised && !tx.confirming:
		return math.MaxUint64, nil // or it would not reap what it has not confirmed
	}
	return tx.number, nil
}

func (tx *modelTx) Raise(_ uint16, to uint64) {
	if tx.flaw != flawNotRaised {
		tx.number = max(tx.number, to)
	}
}
