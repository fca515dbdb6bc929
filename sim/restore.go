package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
)

// apart is a record that a node has in quarantine.
type apart struct {
	m      *machine
	key    int
	record kv.Record
}

// restore does what a person might do at last who wants nothing lost: all that is
// still in quarantine is restored, and what has nothing to restore discarded.
// That replaces nothing, and shows nothing twice.
func (w *world) restore() {
	left := w.inQuarantine()
	if len(left) == 0 || len(w.violations) > 0 {
		return
	}
	before, err := w.holdings()
	w.must(err)
	given := make(map[int]kv.Record) // by key: the values that were restored
	judged := make(map[int]bool)     // keys of which the node itself judged a record meanwhile
	for _, q := range left {
		judged[q.key] = w.settle(q, given) || judged[q.key]
	}
	if rest := w.inQuarantine(); len(rest) > 0 {
		w.violatef("quarantine", "%d records are left of %d", len(rest), len(left))
	}
	w.converge()
	after, err := w.holdings()
	w.must(err)
	for k := range w.plan.Keys {
		if judged[k] {
			continue
		}
		w.checkRestored(k, mergeAll(before[w.key(k)], nil), given[k], mergeAll(after[w.key(k)], nil))
	}
}

// inQuarantine returns what the nodes have in quarantine, node by node.
func (w *world) inQuarantine() (all []apart) {
	numbers := make(map[kv.Key]int)
	for k := range w.plan.Keys {
		numbers[w.key(k)] = k
	}
	for _, m := range w.machines {
		w.must(m.process.Store().ScanQuarantineAfter(0, kv.Key{}, func(slot kv.Slot, r kv.Record) error {
			all = append(all, apart{m, numbers[slot.Key], r})
			return nil
		}))
	}
	return all
}

// settle restores a record, and adds to given what was written, or discards it if
// it has nothing to restore. It reports whether the node was quicker and judged
// the record by itself.
func (w *world) settle(q apart, given map[int]kv.Record) (judged bool) {
	done, err := w.decide(q, "restore", q.m.process.Restore)
	if err != nil {
		return isGone(err)
	}
	for i, v := range q.record.Live {
		if done.Became[i] == api.BecameRestored {
			r := given[q.key]
			r.Live = append(r.Live, v)
			given[q.key] = r
			w.restored++
		}
	}
	if !done.Removed {
		_, err = w.decide(q, "discard", q.m.process.Discard)
	}
	return isGone(err)
}

func isGone(err error) bool {
	e, ok := errors.AsType[*kv.Error](err)
	return ok && e.Code == kv.CodeNotFound
}

// decide has the node do what a person decided.
func (w *world) decide(
	q apart, what string, do func(context.Context, kv.Key, string) (api.Settled, error),
) (done api.Settled, err error) {
	over := false
	name := fmt.Sprintf("%s k%d in quarantine of %s", what, q.key, q.m.name)
	w.requests.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done, err = do(ctx, w.key(q.key), api.RecordHash(q.record))
		w.gate.post(name, func(uint64) { over = true })
	})
	w.gate.run(func() bool { return over })
	w.gate.notef("%s: %v, removed=%v, %v", name, done.Became, done.Removed, err)
	if err != nil && !isGone(err) {
		w.violatef("quarantine", "%s on a healed cluster: %v", name, err)
	}
	return done, err
}

// checkRestored checks what a key shows once values were restored: what it showed
// before, and these, each once. What expires is left out: time has passed.
func (w *world) checkRestored(k int, before, given, after kv.Record) {
	values, _ := after.Visible(time.Now())
	shown := w.visible(k, after)
	if len(values) != len(shown.list()) {
		w.violatef("quarantine", "k%d shows a value twice, after some were restored: %v", k, shown.list())
	}
	want := w.visible(k, before).union(w.visible(k, given))
	expires := func(id int) bool { return w.history.records[id].TTL != 0 }
	if !slices.Equal(slices.DeleteFunc(want.list(), expires), slices.DeleteFunc(shown.list(), expires)) {
		w.violatef("quarantine", "k%d showed %v; %v were restored; it shows %v", k,
			w.visible(k, before).list(), w.visible(k, given).list(), shown.list())
	}
}
