package vclock

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// The twin of this file keeps what a Set summarises: the whole history. It
// knows no actors, counters, clocks or dots. A write is an event with the set
// of all events that its author had seen. A replica is the set of all events
// that it has heard of. A value is replaced if a later event that the replica
// has heard of had seen it. That is all, and it is plainly right.

type event int

type history map[event]bool

func (h history) with(o history) history {
	u := maps.Clone(h)
	maps.Copy(u, o)
	return u
}

// knowledge is what a replica knows, said twice.
type knowledge struct {
	set  Set[event]
	twin history
}

// context is what a client has read, said twice.
type context struct {
	clock Clock
	twin  history
}

type world struct {
	seen     []history // of the author of each event
	dots     []Dot     // of each event
	replicas []knowledge
	actors   []Actor // of each replica, at present
	minted   Actor
	// sent is all that replicas ever sent, and their old disks: any of it may
	// arrive at any time, in any order, any number of times, or never.
	sent     []knowledge
	contexts []context // all that clients ever read, the first being nothing
}

func newWorld(replicas int) *world {
	w := &world{contexts: []context{{nil, history{}}}, sent: []knowledge{{twin: history{}}}}
	for range replicas {
		w.replicas = append(w.replicas, knowledge{twin: history{}})
		w.actors = append(w.actors, 0)
		w.reboot(len(w.actors) - 1)
	}
	return w
}

// reboot gives the replica a new actor.
func (w *world) reboot(i int) {
	w.minted++
	// Not in the order of minting: fresh actors sort between older ones.
	w.actors[i] = w.minted * 0x9e3779b97f4a7c15
}

func (w *world) write(t *rapid.T, i int, c context) {
	e := event(len(w.seen))
	set, dot := w.replicas[i].set.Write(c.clock, w.actors[i], e)
	for other, d := range w.dots {
		if d == dot {
			t.Fatalf("events %d and %d were both given dot %v", other, e, dot)
		}
	}
	w.seen, w.dots = append(w.seen, c.twin), append(w.dots, dot)
	w.replicas[i] = knowledge{set, w.replicas[i].twin.with(c.twin).with(history{e: true})}
}

func (k knowledge) merge(o knowledge) knowledge {
	return knowledge{k.set.Merge(o.set), k.twin.with(o.twin)}
}

// live returns the events of h that no event of h had seen.
func (w *world) live(h history) history {
	live := maps.Clone(h)
	for later := range h {
		for e := range w.seen[later] {
			delete(live, e)
		}
	}
	return live
}

// check compares what k says in the one way and in the other.
func (w *world) check(t *rapid.T, k knowledge) {
	live := history{}
	for _, v := range k.set.Live {
		live[v.Value] = true
		if v.Dot != w.dots[v.Value] || !k.set.Clock.Covers(v.Dot) {
			t.Fatalf("event %d stands under dot %v in %v", v.Value, v.Dot, k.set)
		}
	}
	if want := w.live(k.twin); !maps.Equal(live, want) {
		t.Fatalf("live: %v, want %v", live, want)
	}
	for a := range live {
		for b := range live {
			if w.seen[a][b] {
				t.Fatalf("false sibling: the author of %d had seen %d", a, b)
			}
		}
	}
	for e, d := range w.dots {
		if k.set.Clock.Covers(d) != k.twin[event(e)] {
			t.Fatalf("clock %v covers %d: %v, want %v", k.set.Clock, e, !k.twin[event(e)], k.twin[event(e)])
		}
	}
}

// TestSetAgreesWithHistories runs random schedules of writes with contexts
// fresh, stale, united or none at all, of messages that are lost, late and
// repeated, of reboots and of disks restored to an old state.
func TestSetAgreesWithHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(1, 4).Draw(t, "replicas"))
		replica := rapid.IntRange(0, len(w.replicas)-1)
		anySent := func(t *rapid.T) knowledge { return rapid.SampledFrom(w.sent).Draw(t, "sent") }
		anyContext := func(t *rapid.T) context { return rapid.SampledFrom(w.contexts).Draw(t, "context") }
		read := func(i int) context { return context{w.replicas[i].set.Clock, w.replicas[i].twin} }

		t.Repeat(map[string]func(*rapid.T){
			"read": func(t *rapid.T) {
				w.contexts = append(w.contexts, read(replica.Draw(t, "at")))
			},
			"unite contexts": func(t *rapid.T) {
				a, b := anyContext(t), anyContext(t)
				w.contexts = append(w.contexts, context{a.clock.Merge(b.clock), a.twin.with(b.twin)})
			},
			"write": func(t *rapid.T) {
				w.write(t, replica.Draw(t, "at"), anyContext(t))
			},
			"write blindly": func(t *rapid.T) {
				w.write(t, replica.Draw(t, "at"), w.contexts[0])
			},
			"read and write": func(t *rapid.T) {
				i := replica.Draw(t, "at")
				w.write(t, i, read(i))
			},
			"send": func(t *rapid.T) {
				w.sent = append(w.sent, w.replicas[replica.Draw(t, "from")])
			},
			"receive": func(t *rapid.T) {
				i := replica.Draw(t, "at")
				w.replicas[i] = w.replicas[i].merge(anySent(t))
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

// converge has every replica hear of every other: all must then be equal, and
// every write that any of them knows must be live or seen by a later one.
func (w *world) converge(t *rapid.T) {
	all := w.replicas[0]
	for _, k := range w.replicas[1:] {
		all = all.merge(k)
	}
	w.check(t, all)
	for i, k := range w.replicas {
		for j := range w.replicas {
			k = k.merge(w.replicas[(i+j)%len(w.replicas)])
		}
		if !equal(k.set, all.set) {
			t.Fatalf("replica %d ended as %v, others as %v", i, k.set, all.set)
		}
	}
}

// laws checks the algebra of Merge on three states that really occurred.
func (w *world) laws(t *rapid.T, state func(*rapid.T) knowledge) {
	a, b, c := state(t), state(t), state(t)
	w.check(t, a.merge(b).merge(c))
	if !equal(a.set.Merge(b.set), b.set.Merge(a.set)) {
		t.Fatal("not commutative")
	}
	if !equal(a.set.Merge(b.set).Merge(c.set), a.set.Merge(b.set.Merge(c.set))) {
		t.Fatal("not associative")
	}
	if ab := a.set.Merge(b.set); !equal(a.set.Merge(a.set), a.set) || !equal(ab.Merge(b.set), ab) || !equal(ab.Merge(a.set), ab) {
		t.Fatal("not idempotent")
	}
}
