package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Outcome is what the harness knows of an operation.
type Outcome string

// The outcomes. Unknown is not settled by anything that comes later.
const (
	Pending Outcome = "pending" // under way, or never begun
	OK      Outcome = "ok"
	Failed  Outcome = "failed" // a write: certainly not applied; a read: no answer
	Unknown Outcome = "unknown"
)

// record is an operation and what became of it. Moments are numbers of events,
// so that of any two it is known which came first.
type record struct {
	Op
	outcome    Outcome
	begin, end int           // 0: not yet
	since      time.Duration // the time of begin
	code       kv.Code

	// must are the writes that the server must know the write to replace, may
	// those that it may take it to: the causal history of the write, from below
	// and from above. For a read they are what its context stands for.
	must, may ids
	// replacesAll says that may has no bound: the write replaces what its
	// coordinator holds.
	replacesAll bool

	result  ids  // what a read returned
	deleted bool // it said that a delete is there
	floor   ids  // what it had to reflect
	writeID kv.WriteID
	acked   []string
	standIn map[string]string // of the nodes that acknowledged it, those that did for an owner, with it
	unsound bool              // a node that acknowledged it lost part of its disk since, and does not know
	lost    bool              // all of them lost part of theirs
}

// applied reports whether the write may have been applied by now.
func (r *record) applied() bool {
	return r.Kind != Read && r.begin > 0 && r.outcome != Failed
}

// strict reports whether promise 2 holds for the operation.
func (r *record) strict() bool { return !r.Sloppy }

// history is what happened in a run, as its clients saw it. It is written by
// the gate's goroutine.
type history struct {
	records []*record // by the ID of the operation
	moments int
	losses  map[string][]loss
	ages    bool // values expire, and deletes are reaped
	now     func() time.Duration
}

// loss is a moment at which a node's disk lost something.
type loss struct {
	at       int
	unsynced bool // only what had not been synced
	silent   bool // the node cannot have noticed
	from     int  // of a disk that was set back: when its backup was made
	owed     ids  // the writes that stand-ins were still holding for the node
}

func newHistory(p Plan, now func() time.Duration) *history {
	last := -1
	for _, o := range p.Ops {
		last = max(last, o.ID)
	}
	h := &history{records: make([]*record, last+1), losses: make(map[string][]loss), ages: p.Ages, now: now}
	for _, o := range p.Ops {
		h.records[o.ID] = &record{Op: o, outcome: Pending}
	}
	return h
}

func (h *history) moment() int {
	h.moments++
	return h.moments
}

func (h *history) lossy(node string, l loss) {
	l.at = h.moment()
	h.losses[node] = append(h.losses[node], l)
}

// judgeLosses sets what the losses so far mean for r.
func (h *history) judgeLosses(r *record) {
	hit := func(node string, silent bool) bool {
		return slices.ContainsFunc(h.losses[node], func(l loss) bool {
			return l.at > r.begin && (!l.unsynced || r.Async) && (l.silent || !silent)
		})
	}
	r.unsound = slices.ContainsFunc(r.acked, func(node string) bool { return hit(node, true) })
	r.lost = !slices.ContainsFunc(r.acked, func(node string) bool { return !hit(node, false) && !h.passedOn(r, node) })
}

// mayReturn reports whether what the write r replaced may show again: it was on a
// backup to which a disk was set back since without anybody knowing, and all that
// told of its replacement may have been folded or reaped before.
func (h *history) mayReturn(replaced int, r *record) bool {
	if !h.ages {
		return false
	}
	for _, losses := range h.losses {
		if slices.ContainsFunc(losses, func(l loss) bool {
			return l.silent && l.at > r.begin && l.from > h.records[replaced].begin
		}) {
			return true
		}
	}
	return false
}

// passedOn reports whether a stand-in had given the write to its owner when that
// one lost it: it keeps it no longer than until then.
func (h *history) passedOn(r *record, node string) bool {
	return slices.ContainsFunc(h.losses[r.standIn[node]], func(l loss) bool {
		return l.at > r.begin && !l.unsynced && !l.owed.has(r.ID)
	})
}

// holders are the nodes that an answer names: owners, and stand-ins, which are
// named as "stand-in for owner", with the owners of these.
func holders(acked, hinted []string) (all []string, standIn map[string]string) {
	all, standIn = slices.Clone(acked), make(map[string]string)
	for _, s := range hinted {
		name, owner, _ := strings.Cut(s, " for ")
		all = append(all, name)
		standIn[name] = owner
	}
	return all, standIn
}

// writes calls fn with every write of the key that may have been applied.
func (h *history) writes(key int, fn func(*record)) {
	for _, r := range h.records {
		if r != nil && r.Key == key && r.applied() {
			fn(r)
		}
	}
}

// tick is the resolution of the times of write ids and of siblings.
const tick = time.Millisecond

// mayReplace is what r may have been taken to replace by now. An overwrite may
// replace what was begun before its client heard how it ended, or so soon after
// it that the times of the two are one; what came later was not there to be
// overwritten, whatever attempt is still on its way.
func (h *history) mayReplace(r *record) ids {
	if !r.replacesAll {
		return r.may
	}
	all := slices.Clone(r.may)
	h.writes(r.Key, func(w *record) {
		if w != r && (r.end == 0 || w.begin < r.end || w.since < r.since+tick) {
			all = all.with(w.ID)
		}
	})
	return all
}

// context returns what a token stands for that came with these values: exactly
// the values and their histories, and perhaps any delete, if deletes may be
// beside them, and whatever may be gone by now.
func (h *history) context(key int, values ids, deleted bool) (must, may ids) {
	must, may = slices.Clone(values), slices.Clone(values)
	values.each(func(id int) {
		must = must.union(h.records[id].must)
		may = may.union(h.mayReplace(h.records[id]))
	})
	if deleted || h.ages {
		h.writes(key, func(w *record) {
			if deleted && w.Kind == Delete || h.gone(w) {
				may = may.with(w.ID).union(h.mayReplace(w))
			}
		})
	}
	return must, may
}

// explained reports whether the write w may rightly be missing from an answer
// that shows the given values and perhaps a delete: something replaced it that
// is there, or that was replaced in its turn.
func (h *history) explained(w *record, values ids, deleted bool) bool {
	if values.has(w.ID) || w.Kind == Delete && deleted || h.gone(w) {
		return true
	}
	_, may := h.context(w.Key, values, deleted)
	return may.has(w.ID)
}

// value is what the operation writes: its ID, and bytes to fill a large one.
func (o Op) value() []byte {
	v := "value-" + strconv.Itoa(o.ID)
	if o.Large {
		v += strings.Repeat(".", kv.InlineLimit)
	}
	return []byte(v)
}

// idOfValue returns the operation that wrote a value.
func idOfValue(b []byte) (int, error) {
	text, _, _ := strings.Cut(string(b), ".")
	id, err := strconv.Atoi(strings.TrimPrefix(text, "value-"))
	if err != nil {
		return 0, fmt.Errorf("no operation wrote the value %q", text)
	}
	return id, nil
}

// issue makes the id under which all attempts of the operation go, issued by the
// client's clock.
func (o Op) issue(seed uint64, now time.Time) kv.WriteID {
	draw := uint64(0)
	return kv.NewWriteID(now, func() uint64 {
		draw++
		return mix(seed, saltID, uint64(o.ID), draw)
	})
}

// ids is a set of operations.
type ids []uint64

func (s ids) has(id int) bool { return id/64 < len(s) && s[id/64]>>(id%64)&1 == 1 }

// with returns s and id.
func (s ids) with(id int) ids {
	out := make(ids, max(len(s), id/64+1))
	copy(out, s)
	out[id/64] |= 1 << (id % 64)
	return out
}

func (s ids) union(t ids) ids {
	out := make(ids, max(len(s), len(t)))
	copy(out, s)
	for i, w := range t {
		out[i] |= w
	}
	return out
}

// each calls fn with the members in ascending order.
func (s ids) each(fn func(id int)) {
	for i := range len(s) * 64 {
		if s.has(i) {
			fn(i)
		}
	}
}

// first returns the least member for which ok holds.
func (s ids) first(ok func(id int) bool) (int, bool) {
	for i := range len(s) * 64 {
		if s.has(i) && ok(i) {
			return i, true
		}
	}
	return 0, false
}

func (s ids) list() []int {
	out := []int{}
	s.each(func(id int) { out = append(out, id) })
	return out
}

func idsOf(list ...int) ids {
	var s ids
	for _, id := range list {
		s = s.with(id)
	}
	return s
}
