package kv

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/vclock"
)

// The twin of this file keeps whole histories in place of what a Record sums
// up. A write is what a client intends; an attempt at it is an event, with the
// set of all events that the client had seen. A replica is the set of events
// that it knows of, and of those whose record it has held, from which it knows
// what write they belong to. A value is replaced if a later event had seen it.
// A write of which one attempt is replaced is dead, and so are all attempts.

type event int

type history map[event]bool

func (h history) with(o history) history {
	u := maps.Clone(h)
	maps.Copy(u, o)
	return u
}

// write is an intention. Its attempts all carry the context of the first.
type write struct {
	sibling Sibling // WriteID is zero for a client that gives none
	context context
}

// attempt is what became of a write at one replica.
type attempt struct {
	write int
	seen  history
	dot   vclock.Dot
}

// knowledge is what a replica knows, said twice.
type knowledge struct {
	record Record
	known  history // covered by the clock
	held   history // of those, the events whose record was here
}

// context is what a client has read, said twice.
type context struct {
	clock vclock.Clock
	known history
}

type world struct {
	writes   []write
	attempts []attempt // by event
	replicas []knowledge
	boots    []uint64 // of each replica, at present
	minted   uint64
	// sent is all that replicas ever sent, and their old disks: any of it may
	// arrive at any time, in any order, any number of times, or never.
	sent     []knowledge
	contexts []context // all that clients ever read, the first being nothing
}

func newWorld(replicas int) *world {
	nothing := knowledge{known: history{}, held: history{}}
	w := &world{sent: []knowledge{nothing}, contexts: []context{{nil, history{}}}}
	for i := range replicas {
		w.replicas = append(w.replicas, nothing)
		w.boots = append(w.boots, 0)
		w.reboot(i)
	}
	return w
}

func (w *world) reboot(i int) {
	w.minted++
	w.boots[i] = w.minted
}

// mint gives actors in no order, as random ones would come.
func (w *world) mint() vclock.Actor {
	w.minted++
	return vclock.Actor(w.minted * 0x9e3779b97f4a7c15)
}

func (w *world) read(i int) context {
	return context{w.replicas[i].record.Clock, w.replicas[i].known}
}

// intend makes a new write, whose id, if any, is issued after all earlier ones.
func (w *world) intend(t *rapid.T, c context) {
	n := len(w.writes)
	s := Sibling{
		Kind: KindValue, N: uint8(rapid.IntRange(1, 5).Draw(t, "n")),
		Inline: binary.AppendUvarint(nil, uint64(n)), Length: uint64(len(binary.AppendUvarint(nil, uint64(n)))),
	}
	if rapid.Float64Range(0, 1).Draw(t, "delete") < 0.2 {
		s.Kind, s.Inline, s.Length = KindTombstone, nil, 0
	}
	if rapid.Bool().Draw(t, "with id") {
		s.WriteID = NewWriteID(time.UnixMilli(int64(n+1)), func() uint64 { return uint64(n) })
	}
	w.writes = append(w.writes, write{s, c})
}

// attempt puts the n-th write at replica i.
func (w *world) attempt(t *rapid.T, i, n int) {
	k, in := w.replicas[i], w.writes[n]
	record, dot := k.record.Put(in.sibling, in.context.clock, w.boots[i], w.mint, time.Time{})
	for _, a := range w.attempts {
		if a.dot == dot {
			t.Fatalf("dot %v was given twice", dot)
		}
	}
	if record.Mine.Boot != w.boots[i] || record.Mine.Actor != dot.Actor {
		t.Fatalf("mine is %v after dot %v in boot %d", record.Mine, dot, w.boots[i])
	}
	self := history{event(len(w.attempts)): true}
	w.attempts = append(w.attempts, attempt{n, in.context.known, dot})
	w.replicas[i] = knowledge{record, k.known.with(in.context.known).with(self), k.held.with(self)}
}

func (w *world) receive(t *rapid.T, i int, o knowledge) {
	k := w.replicas[i]
	if k.record.Reused(o.record, w.boots[i]) {
		t.Fatalf("false alarm: %v is said to be used twice", k.record.Mine)
	}
	w.replicas[i] = k.merge(o)
	if got := w.replicas[i].record.Mine; got != k.record.Mine {
		t.Fatalf("a merge changed mine from %v to %v", k.record.Mine, got)
	}
}

func (k knowledge) merge(o knowledge) knowledge {
	return knowledge{k.record.Merge(o.record), k.known.with(o.known), k.held.with(o.held)}
}

// replaced returns the events that one of k had seen.
func (w *world) replaced(k knowledge) history {
	gone := history{}
	for e := range k.held {
		maps.Copy(gone, w.attempts[e].seen)
	}
	return gone
}

// expect builds the record that k's history calls for.
func (w *world) expect(k knowledge) Record {
	var r Record
	for e := range k.known {
		r.Clock = r.Clock.With(w.attempts[e].dot)
	}
	gone, dead, ids := w.replaced(k), map[int]bool{}, map[int][]vclock.Dot{}
	for e := range k.held {
		a := w.attempts[e]
		s := w.writes[a.write].sibling
		r.NMax = max(r.NMax, s.N)
		if !s.WriteID.IsZero() {
			dead[a.write] = dead[a.write] || gone[e]
			ids[a.write] = append(ids[a.write], a.dot)
		}
	}
	for e := range k.held {
		if a := w.attempts[e]; !gone[e] && !dead[a.write] {
			r.Live = append(r.Live, Version{Dot: a.dot, Value: w.writes[a.write].sibling})
		}
	}
	slices.SortFunc(r.Live, func(a, b Version) int { return a.Dot.Compare(b.Dot) })
	for n, dots := range ids {
		slices.SortFunc(dots, vclock.Dot.Compare)
		r.IDs = append(r.IDs, IssuedID{w.writes[n].sibling.WriteID, dots})
	}
	slices.SortFunc(r.IDs, func(a, b IssuedID) int { return a.ID.Compare(b.ID) })
	return r
}

func encoded(r Record) []byte { return AppendRecord(nil, r) }

func (w *world) check(t *rapid.T, k knowledge) {
	if want := w.expect(k); !bytes.Equal(encoded(k.record), encoded(want)) {
		t.Fatalf("record\n%+v\nwant\n%+v", k.record, want)
	}
	shown := map[WriteID]bool{}
	values, deleted := k.record.Visible(time.UnixMilli(0))
	for _, v := range values {
		if !v.Value.WriteID.IsZero() && shown[v.Value.WriteID] {
			t.Fatalf("write %v is shown twice", v.Value.WriteID)
		}
		shown[v.Value.WriteID] = true
	}
	if want := slices.ContainsFunc(k.record.Live, func(v Version) bool { return v.Value.Kind == KindTombstone }); deleted != want {
		t.Fatalf("deleted: %v, want %v", deleted, want)
	}
}

// TestRecordAgreesWithHistories runs random schedules of writes and deletes,
// of their retries at any replica at any later time, of messages that are lost,
// late and repeated, of commits that fail after the record was sent, of reboots
// and of disks restored to an old state.
func TestRecordAgreesWithHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(1, 4).Draw(t, "replicas"))
		replica := rapid.IntRange(0, len(w.replicas)-1)
		anySent := func(t *rapid.T) knowledge { return rapid.SampledFrom(w.sent).Draw(t, "sent") }
		anyContext := func(t *rapid.T) context { return rapid.SampledFrom(w.contexts).Draw(t, "context") }
		newest := func() int { return len(w.writes) - 1 }

		t.Repeat(map[string]func(*rapid.T){
			"read": func(t *rapid.T) {
				w.contexts = append(w.contexts, w.read(replica.Draw(t, "at")))
			},
			"write": func(t *rapid.T) {
				w.intend(t, anyContext(t))
				w.attempt(t, replica.Draw(t, "at"), newest())
			},
			"read and write": func(t *rapid.T) {
				i := replica.Draw(t, "at")
				w.intend(t, w.read(i))
				w.attempt(t, i, newest())
			},
			"retry": func(t *rapid.T) {
				if len(w.writes) == 0 {
					t.Skip("nothing to retry")
				}
				n := rapid.IntRange(0, newest()).Draw(t, "write")
				if !w.writes[n].sibling.WriteID.IsZero() {
					w.attempt(t, replica.Draw(t, "at"), n)
				}
			},
			"commit fails": func(t *rapid.T) {
				i := replica.Draw(t, "at")
				before := w.replicas[i]
				w.intend(t, anyContext(t))
				w.attempt(t, i, newest())
				w.sent = append(w.sent, w.replicas[i])
				before.record.Mine = Mine{}
				w.replicas[i] = before
			},
			"send": func(t *rapid.T) {
				w.sent = append(w.sent, w.replicas[replica.Draw(t, "from")])
			},
			"receive": func(t *rapid.T) {
				w.receive(t, replica.Draw(t, "at"), anySent(t))
			},
			"reboot": func(t *rapid.T) {
				w.reboot(replica.Draw(t, "at"))
			},
			"restore": func(t *rapid.T) {
				i := replica.Draw(t, "at")
				w.replicas[i] = anySent(t)
				w.reboot(i)
			},
			"": func(t *rapid.T) {
				for _, k := range w.replicas {
					w.check(t, k)
				}
			},
		})
		w.converge(t)
		w.laws(t, anySent)
	})
}

// converge has every replica hear of every other. All must then be equal, and
// every write that any of them has held is visible or was seen by another write.
func (w *world) converge(t *rapid.T) {
	all := w.replicas[0]
	for _, k := range w.replicas[1:] {
		all = all.merge(k)
	}
	w.check(t, all)
	for i := range w.replicas {
		for j := range w.replicas {
			w.receive(t, i, w.replicas[(i+j)%len(w.replicas)])
		}
		if got := w.replicas[i].record; !bytes.Equal(encoded(got), encoded(all.record)) {
			t.Fatalf("replica %d ended as\n%+v, others as\n%+v", i, got, all.record)
		}
	}
	for e := range all.held {
		n := w.attempts[e].write
		live := slices.ContainsFunc(all.record.Live, func(v Version) bool { return w.attemptAt(v.Dot).write == n })
		if !live && !w.seenByAnother(all.held, n) {
			t.Fatalf("write %d is lost: no other had seen any attempt at it", n)
		}
		if live && w.seenByAnother(all.held, n) {
			t.Fatalf("write %d was brought back: another had seen an attempt at it", n)
		}
	}
}

func (w *world) attemptAt(d vclock.Dot) attempt {
	return w.attempts[slices.IndexFunc(w.attempts, func(a attempt) bool { return a.dot == d })]
}

func (w *world) seenByAnother(held history, n int) bool {
	for later := range held {
		for e := range w.attempts[later].seen {
			if held[e] && w.attempts[e].write == n && w.attempts[later].write != n {
				return true
			}
		}
	}
	return false
}

// laws checks the algebra of Merge, and Covers against it, on states that
// really occurred.
func (w *world) laws(t *rapid.T, state func(*rapid.T) knowledge) {
	x, y, z := state(t), state(t), state(t)
	w.check(t, x.merge(y).merge(z))
	w.check(t, x.merge(y.merge(z)))
	checkLaws(t, x.record, y.record, z.record)
}

func checkLaws(t *rapid.T, a, b, c Record) {
	ab, ba := encoded(a.Merge(b)), encoded(b.Merge(a))
	if !bytes.Equal(ab, ba) {
		t.Fatal("merge is not commutative")
	}
	if !bytes.Equal(encoded(a.Merge(b).Merge(c)), encoded(a.Merge(b.Merge(c)))) {
		t.Fatal("merge is not associative")
	}
	if !bytes.Equal(encoded(a.Merge(a)), encoded(a)) ||
		!bytes.Equal(encoded(a.Merge(b).Merge(a)), ab) || !bytes.Equal(encoded(a.Merge(b).Merge(b)), ab) {
		t.Fatal("merge is not idempotent")
	}
	checkCovers(t, a, b)
	checkCovers(t, b, a)
	checkCovers(t, a.Merge(b), c)
	checkCovers(t, a.Merge(b).Merge(c), b)
}

func checkCovers(t *rapid.T, r, o Record) {
	if unchanged := bytes.Equal(encoded(r.Merge(o)), encoded(r)); r.Covers(o) != unchanged {
		t.Fatalf("Covers says %v, and a merge leaves it unchanged: %v\n%+v\n%+v", r.Covers(o), unchanged, r, o)
	}
}
