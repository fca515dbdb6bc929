package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
)

// holding is one record on one node: its own, or a hint for target.
type holding struct {
	m      *machine
	target kv.NodeID
	record kv.Record
}

// judge runs the checks on a healed and quiet cluster.
func (w *world) judge() {
	w.violations = append(w.violations, w.history.checkReads()...)
	byKey, err := w.holdings()
	w.must(err)
	for k := range w.plan.Keys {
		w.judgeKey(k, byKey[w.key(k)])
	}
	for _, m := range w.machines {
		w.checkTrees(m)
		for _, v := range w.lostValues(m) {
			w.violatef("disk", "%s: value %v of %v cannot be read", m.name, v.Dot, v.slot.Key)
		}
	}
	for k := range w.plan.Keys { // time passes in these, and with it goes what expires
		if merged := mergeAll(byKey[w.key(k)], nil); !merged.Absent() {
			w.checkAnswer(k, w.ownersOf(w.key(k), int(merged.NMax)), merged)
		}
	}
	w.countApart()
}

// countApart takes out of the violations what is only a false sibling. A write
// that was attempted at two nodes has two dots; a writer that has seen one of
// them replaces both, but who knows of the other alone cannot tell until it
// meets a record that knows of both. The final state is judged without mercy.
func (w *world) countApart() {
	w.violations = slices.DeleteFunc(w.violations, func(v Violation) bool {
		apart := v.again != nil && len(w.given[v.again.ID]) > 1
		if apart {
			w.falseSiblings++
		}
		return apart
	})
}

// holdings scans all disks, past all that reads or repairs.
func (w *world) holdings() (map[kv.Key][]holding, error) {
	found := make(map[kv.Key][]holding)
	var errs []error
	for _, m := range w.machines {
		store := m.process.Store()
		note := func(err error) {
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			}
		}
		for p := range uint16(partitions) {
			note(store.ScanPartition(p, func(k kv.Key, r kv.Record) error {
				found[k] = append(found[k], holding{m: m, record: r})
				return nil
			}))
		}
		for _, o := range w.machines {
			note(store.ScanHints(o.id, func(s kv.Slot, r kv.Record) error {
				found[s.Key] = append(found[s.Key], holding{m: m, target: o.id, record: r})
				return nil
			}))
		}
	}
	return found, errors.Join(errs...)
}

func (w *world) must(err error) {
	if err != nil {
		w.violatef("disk", "%v", err)
	}
}

func (w *world) judgeKey(k int, held []holding) {
	for _, h := range held {
		for _, v := range h.record.Live {
			w.dot(k, v.Dot, v.Value, h.m.name)
		}
		w.attempted(k, h.record)
	}
	merged := mergeAll(held, nil)
	w.checkOrders(k, held, merged)
	live := w.liveIDs(k, merged)
	w.gate.notef("k%d ends as %x", k, kv.AppendRecord(nil, merged))
	w.violations = append(w.violations, w.history.checkFinal(k, live)...)
	if merged.Absent() {
		return
	}
	owners := w.ownersOf(w.key(k), int(merged.NMax))
	w.checkAgreement(k, owners, merged)
}

// checkTrees checks that the hash trees of a node are those of its records.
func (w *world) checkTrees(m *machine) {
	store := m.process.Store()
	for p := range uint16(partitions) {
		want := make(map[uint8]merkle.Tree)
		w.must(store.ScanPartition(p, func(k kv.Key, r kv.Record) error {
			t := want[r.NMax]
			t.Apply(merkle.Delta{Leaf: k.Leaf(), Sum: kv.Digest(k, kv.AppendRecord(nil, r)), Count: 1})
			want[r.NMax] = t
			return nil
		}))
		for n := range uint8(kv.MaxN + 1) {
			if store.Tree(p, n) != want[n] {
				w.violatef("trees", "%s: the tree of partition %d and n=%d is not that of its records", m.name, p, n)
			}
		}
	}
}

// owed are the writes that stand-ins which are up hold for a node.
func (w *world) owed(m *machine) ids {
	var out ids
	for _, o := range w.machines {
		if o.process == nil {
			continue
		}
		_ = o.process.Store().ScanHints(m.id, func(s kv.Slot, r kv.Record) error { // what cannot be read is not held
			for _, write := range w.history.records {
				if write != nil && w.key(write.Key) == s.Key && w.within(write, r) {
					out = out.with(write.ID)
				}
			}
			return nil
		})
	}
	return out
}

// within reports whether a record of its key is known to contain a write.
func (w *world) within(write *record, r kv.Record) bool {
	for d := range w.given[write.ID] {
		if r.Clock.Covers(d) {
			return true
		}
	}
	return w.liveIDs(write.Key, r).has(write.ID)
}

// lostValues are the values of a node's own records that its disk does not have
// as they were.
func (w *world) lostValues(m *machine) []value {
	return slices.DeleteFunc(w.values(m), m.delivers)
}

// attempted notes the dots that a record remembers of each write.
func (w *world) attempted(k int, r kv.Record) {
	for _, i := range r.IDs {
		for _, rec := range w.history.records {
			if rec != nil && rec.Key == k && rec.applied() && (rec.writeID == i.ID) {
				for _, d := range i.Dots {
					w.give(rec, d)
				}
			}
		}
	}
}

// mergeAll merges records in the given order, or as they come.
func mergeAll(held []holding, order []int) kv.Record {
	var merged kv.Record
	for i := range held {
		if order != nil {
			i = order[i]
		}
		merged = merged.Merge(held[i].record)
	}
	merged.Mine = kv.Mine{}
	return merged
}

// checkOrders checks that the order in which replicas meet does not matter.
func (w *world) checkOrders(k int, held []holding, merged kv.Record) {
	rng := generator(w.plan.Seed, saltExchange)
	want := kv.AppendRecord(nil, merged)
	for range 4 {
		order := rng.Perm(len(held))
		if got := kv.AppendRecord(nil, mergeAll(held, order)); !bytes.Equal(got, want) {
			w.violatef("convergence", "k%d: merging in the order %v gives another record", k, order)
			return
		}
	}
}

// liveIDs are the operations whose siblings are live in r.
func (w *world) liveIDs(k int, r kv.Record) ids {
	var live ids
	for _, v := range r.Live {
		id, ok := w.wrote(k, v.Value)
		if !ok {
			w.violatef("set", "k%d holds a value that nobody wrote, under %v", k, v.Dot)
			continue
		}
		live = live.with(id)
	}
	return live
}

// wrote returns the operation that wrote a sibling: values differ from one
// another, and every delete has a write id.
func (w *world) wrote(k int, s kv.Sibling) (int, bool) {
	i := slices.IndexFunc(w.history.records, func(r *record) bool {
		if r == nil || r.Key != k || r.begin == 0 {
			return false
		}
		if s.Kind == kv.KindTombstone {
			return r.Kind == Delete && r.writeID == s.WriteID
		}
		return r.Kind == Write && kv.Checksum(r.value()) == s.Checksum
	})
	return i, i >= 0
}

func (w *world) ownersOf(k kv.Key, n int) []*machine {
	layout := w.view.Active()[0]
	all := layout.Owners(layout.Partition(k.Hash()))
	owners := make([]*machine, 0, n)
	for _, id := range all[:min(n, len(all))] {
		owners = append(owners, w.machines[int(id)-1])
	}
	return owners
}

// checkAgreement checks that all owners hold the same bytes.
//
// While the judge reads, a round of reaping may be applied by one member after
// the other: if they differ, they are looked at once more, and may then agree on
// less than merged. Whether that is too little, checkAnswer finds.
func (w *world) checkAgreement(k int, owners []*machine, merged kv.Record) {
	if w.allHold(k, owners, merged) {
		return
	}
	w.wait(settling)
	if w.allHold(k, owners, w.ownRecord(k, owners[0])) {
		return
	}
	for _, m := range owners {
		if !w.allHold(k, []*machine{m}, merged) {
			w.violatef("convergence", "k%d: a healed cluster was left alone, and %s holds %v, all together %v",
				k, m.name, w.ownRecord(k, m), merged)
		}
	}
}

// allHold reports whether all owners hold want, byte for byte.
func (w *world) allHold(k int, owners []*machine, want kv.Record) bool {
	encoded := kv.AppendRecord(nil, want)
	return !slices.ContainsFunc(owners, func(m *machine) bool {
		return !bytes.Equal(kv.AppendRecord(nil, w.ownRecord(k, m)), encoded)
	})
}

func (w *world) ownRecord(k int, m *machine) kv.Record {
	own, _, err := m.process.Replica().Holds(w.key(k))
	w.must(err)
	return own
}

// checkAnswer reads from all owners, through a node that the seed draws, and
// from one owner each.
func (w *world) checkAnswer(k int, owners []*machine, live kv.Record) {
	n := len(owners)
	asked := w.machines[mix(w.plan.Seed, saltExchange)%uint64(len(w.machines))]
	w.checkGet(k, asked, n, n, live)
	for _, m := range owners {
		w.checkGet(k, m, n, 1, live)
	}
}

func (w *world) checkGet(k int, m *machine, n, r int, live kv.Record) {
	var got coordinator.Got
	var err error
	done := false
	before := w.visible(k, live)
	w.requests.Go(func() {
		got, err = m.process.Coordinator().Get(context.Background(), coordinator.Get{
			Key: w.key(k), Options: coordinator.Options{N: n, R: coordinator.Exactly(r)},
		})
		w.gate.post(fmt.Sprintf("final read of k%d", k), func(uint64) { done = true })
	})
	w.gate.run(func() bool { return done })
	if err != nil {
		w.violatef("availability", "k%d: r=%d of %d through %s on a healed cluster: %v", k, r, n, m.name, err)
		return
	}
	var shown ids
	for _, v := range got.Values {
		if id, err := idOfValue(v.Data); err == nil {
			shown = shown.with(id)
		}
	}
	if after := w.visible(k, live); !slices.Equal(shown.list(), before.list()) && !slices.Equal(shown.list(), after.list()) {
		w.violatef("convergence", "k%d: r=%d of %d through %s shows %v, the replicas hold %v", k, r, n, m.name, shown.list(), after.list())
	}
}

// visible are the writes whose values r shows at the moment.
func (w *world) visible(k int, r kv.Record) ids {
	var out ids
	values, _ := r.Visible(time.Now())
	for _, v := range values {
		if id, ok := w.wrote(k, v.Value); ok {
			out = out.with(id)
		}
	}
	return out
}
