package storage

import (
	"maps"
	"slices"

	"github.com/starling-kv/starling/kv"
)

// Step is a read-modify-write of several records, hints and facts at once.
type Step struct {
	// Sync and Size are as in [Update].
	Sync bool
	Size int

	// Run reads what there is and says what becomes of it. Of it holds what
	// holds of Apply in [Update]. If it returns an error, nothing changes and
	// the error goes to Done; otherwise all changes are stored in one
	// transaction of the engine, or none of them. The transaction must be small
	// enough: otherwise Done is given [ErrTooLarge], and nothing changes. The
	// Tx is not to be used after Run.
	Run func(*Tx) error

	// Done is as in [Update].
	Done func(error)
}

// SubmitStep queues a step and returns at once, in one order with what
// [Store.Submit] and [Store.SubmitMeta] queue. The errors are the same.
func (s *Store) SubmitStep(step Step) error {
	if err := s.space.admit(false); err != nil {
		return err
	}
	return s.queue.put(task{
		size: step.Size, sync: step.Sync, done: step.Done,
		run: func(r *round) (bool, error) { return r.applyStep(step.Run) },
	})
}

// Tx is what the Run of a [Step] reads from and writes to.
type Tx struct {
	round  *round
	slots  []stagedSlot // in the order of their first Put
	facts  []stagedFact // in the order of their first SetFact
	placed map[string]int
}

type stagedSlot struct {
	slot   kv.Slot
	change Change
}

type stagedFact struct {
	name  string
	value []byte
}

// Boot returns the boot under which new actors are minted.
func (tx *Tx) Boot() uint64 { return tx.round.s.Boot() }

// Get returns the record in slot, as the step has made it so far. The errors
// are those of [Store.Get].
func (tx *Tx) Get(slot kv.Slot) (kv.Record, error) {
	if err := checkKey(slot.Key); err != nil {
		return kv.Record{}, err
	}
	key := slotAddress(slot).bytes()
	if i, ok := tx.placed[string(key)]; ok && !tx.slots[i].change.Same {
		return tx.slots[i].change.Record, nil
	}
	found, err := tx.round.stored(slot, key, false)
	return found.record, err
}

// Fact returns the fact stored under name, as the step has made it so far, nil
// if there is none. The bytes are not to be changed.
func (tx *Tx) Fact(name string) ([]byte, error) {
	at := metaAddress(name)
	key := at.bytes()
	if i, ok := tx.placed[string(key)]; ok {
		return tx.facts[i].value, nil
	}
	found, err := tx.round.entry(at, key)
	return found.fact, err
}

// HintTargets returns, sorted, the nodes for which there may be hints,
// [kv.Quarantine] left out: all for which there are, as of this step.
func (tx *Tx) HintTargets() []kv.NodeID {
	targets := slices.Sorted(maps.Keys(tx.round.s.targets))
	return slices.DeleteFunc(targets, func(id kv.NodeID) bool { return id == kv.Quarantine })
}

// Put changes what slot holds. Of several changes of a slot the last one
// counts, and replaces what was there before the step; external values that it
// holds may have come with an earlier one.
func (tx *Tx) Put(slot kv.Slot, c Change) {
	if i, again := tx.place(slotAddress(slot), len(tx.slots)); again {
		c.Blobs = slices.Concat(c.Blobs, tx.slots[i].change.Blobs)
		tx.slots[i].change = c
		return
	}
	tx.slots = append(tx.slots, stagedSlot{slot: slot, change: c})
}

// SetFact stores a fact under name, or removes it if value is nil.
func (tx *Tx) SetFact(name string, value []byte) {
	if i, again := tx.place(metaAddress(name), len(tx.facts)); again {
		tx.facts[i].value = value
		return
	}
	tx.facts = append(tx.facts, stagedFact{name: name, value: value})
}

// place returns where the change of an address is, which is next if it is the
// first.
func (tx *Tx) place(at address, next int) (i int, again bool) {
	key := string(at.bytes())
	if i, again = tx.placed[key]; !again {
		i, tx.placed[key] = next, next
	}
	return i, again
}

func (r *round) applyStep(run func(*Tx) error) (wrote bool, err error) {
	tx := &Tx{round: r, placed: make(map[string]int)}
	if err := run(tx); err != nil {
		return false, err
	}
	whole, made, err := tx.plan()
	if err != nil || len(made) == 0 {
		return false, err
	}
	if err := r.add(whole); err != nil {
		return false, err
	}
	for _, m := range made {
		r.keep(m.slot, m.key, m.next)
	}
	return true, nil
}

// made is what a step makes of one entry.
type made struct {
	slot kv.Slot // zero for a fact
	key  []byte
	next result
}

// plan joins the changes into one.
func (tx *Tx) plan() (whole plan, all []made, err error) {
	for _, x := range tx.slots {
		if x.change.Same {
			continue
		}
		if err := checkKey(x.slot.Key); err != nil {
			return plan{}, nil, err
		}
		key := slotAddress(x.slot).bytes()
		old, err := tx.round.stored(x.slot, key, false)
		if err != nil {
			return plan{}, nil, err
		}
		p, err := planChange(x.slot, key, old, x.change, tx.round.s.opts.Random)
		if err != nil {
			return plan{}, nil, err
		}
		whole.join(p)
		all = append(all, made{slot: x.slot, key: key, next: p.next})
	}
	for _, x := range tx.facts {
		if err := checkName(x.name); err != nil {
			return plan{}, nil, err
		}
		at := metaAddress(x.name)
		key := at.bytes()
		old, err := tx.round.entry(at, key)
		if err != nil {
			return plan{}, nil, err
		}
		p := planFact(key, x.value, old.ref, tx.round.s.opts.Random)
		whole.join(p)
		all = append(all, made{key: key, next: p.next})
	}
	return whole, all, nil
}

// join adds the operations of another plan, all but what its entry holds.
func (p *plan) join(o plan) {
	p.pieces = append(p.pieces, o.pieces...)
	p.entry = append(p.entry, o.entry...)
	p.deltas = append(p.deltas, o.deltas...)
	p.keeps = p.keeps || o.keeps
}
