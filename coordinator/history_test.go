package coordinator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// This file runs clients against a cluster in any weather, keeps what they were
// told, and judges it afterwards without knowing how it came about:
//
//   - an acknowledged write shows in every later read that it has to meet, or a
//     write does that had seen it, or one that had seen that one;
//   - a write shows once, and not beside one that had seen it;
//   - a write that is said not to be applied never shows;
//   - who reads with the context of its own writes finds them at any r.

// act is one request of a client.
type act struct {
	kind      string        // put, delete, overwrite, create, get, or repeat of the last failed write
	via       int           // the node that is asked
	n, count  int           // r or w
	context   bool          // send the context
	pause     time.Duration // before it
	anonymous bool          // no write id
	sloppy    bool
}

// turn is a change of the weather.
type turn struct {
	at    time.Duration
	node  int
	fault trouble
	boot  bool // the node's store begins a new boot
	learn bool // the node learns a second layout
}

type scenario struct {
	seed    uint64
	clients [][]act
	weather []turn
}

const members, joining = 5, 2

func anyScenario(t *rapid.T) scenario {
	s := scenario{seed: rapid.Uint64().Draw(t, "seed")}
	millis := func(most int, label string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
	}
	kinds := []string{"put", "put", "put", "get", "get", "get", "delete", "overwrite", "create", "repeat", "repeat"}
	for range 3 {
		s.clients = append(s.clients, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) act {
			a := act{
				kind: rapid.SampledFrom(kinds).Draw(t, "kind"), via: rapid.IntRange(0, members+joining-1).Draw(t, "via"),
				n: rapid.SampledFrom([]int{3, 3, 3, 1, 2, 5}).Draw(t, "n"), context: rapid.Bool().Draw(t, "context"),
				anonymous: rapid.Bool().Draw(t, "anonymous"), sloppy: rapid.IntRange(0, 9).Draw(t, "sloppy") == 0,
			}
			a.count = rapid.IntRange(1, a.n).Draw(t, "count")
			a.pause = millis(300, "pause")
			return a
		}), 1, 10).Draw(t, "client"))
	}
	s.weather = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) turn {
		return turn{
			at: millis(2000, "at"), node: rapid.IntRange(0, members+joining-1).Draw(t, "node"), fault: anyTrouble(t, millis),
			boot: rapid.IntRange(0, 3).Draw(t, "boot") == 0, learn: rapid.IntRange(0, 3).Draw(t, "learn") == 0,
		}
	}), 0, 12).Draw(t, "weather")
	return s
}

func anyTrouble(t *rapid.T, millis func(int, string) time.Duration) trouble {
	var f trouble
	switch rapid.IntRange(0, 11).Draw(t, "trouble") {
	case 0:
		f.refused = true
	case 1:
		f.silent = true
	case 2:
		f.unknown = true
	case 3:
		f.slow = millis(600, "slow")
	case 4:
		f.loseReply = true
	case 5:
		f.recovering = true
	case 6:
		f.queue = millis(600, "queue")
	case 7:
		f.disk = millis(600, "disk")
	case 8:
		f.commit = errors.New("input/output error")
	case 9:
		f.door = &kv.Error{Code: kv.CodeOverloaded, Outcome: kv.NotApplied, Message: "too many updates are waiting"}
	case 10:
		f.suspected = true
	}
	return f
}

// written is one intended write, over all its attempts.
type written struct {
	put       Put
	shown     map[string]bool // the values that its client had seen, as far as a checker knows
	covers    map[string]bool // those that its context certainly covers
	own       []string        // earlier writes of its client that its context's floor reflects
	all       bool            // it may replace anything
	acked     time.Time       // zero: never
	n, w      int             // of the attempt that was acknowledged
	unapplied bool            // all attempts were said not to be applied
}

func (w *written) name() string { return w.put.ContentType }

// seenRead is the answer to one read.
type seenRead struct {
	begun   time.Time
	n, r    int
	own     []string // writes of the same client, whose context it carried
	values  []string
	deleted bool
}

// history is what the clients were told.
type history struct {
	mu     sync.Mutex
	writes map[string]*written
	reads  []seenRead
	broken []string
}

func (h *history) complainf(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = append(h.broken, fmt.Sprintf(format, args...))
}

// player is a client.
type player struct {
	w       *world
	h       *history
	name    int
	token   vclock.Token
	shown   map[string]bool // by what token covers, or may
	covers  map[string]bool // by what token certainly covers
	own     []string        // acknowledged to it
	failed  *written
	written int
}

func (p *player) play(acts []act) {
	for _, a := range acts {
		p.w.sleep(a.pause)
		switch {
		case a.kind == "get":
			p.get(a)
		case a.kind == "repeat" && p.failed != nil:
			p.attempt(a, p.failed)
		case a.kind != "repeat":
			p.attempt(a, p.begin(a))
		}
	}
}

func (p *player) get(a act) {
	r := seenRead{begun: time.Now(), n: a.n, r: a.count}
	g := Get{Key: key, Options: Options{N: a.n, R: Exactly(a.count), Timeout: 500 * time.Millisecond}}
	if a.context {
		g.Floor, r.own = p.token.Floor, slices.Clone(p.own)
	}
	got, err := p.w.nodes[a.via].Get(p.w.t.Context(), g)
	if err != nil {
		return
	}
	p.token, p.shown, p.covers = got.Token, map[string]bool{}, map[string]bool{}
	if a.context {
		p.own = r.own
	} else {
		p.own = nil // the floor is this read's alone
	}
	for _, v := range got.Values {
		r.values = append(r.values, v.Value.ContentType)
		p.shown[v.Value.ContentType], p.covers[v.Value.ContentType] = true, true
	}
	r.deleted = got.Deleted
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.h.reads = append(p.h.reads, r)
}

// begin makes a new write. Its name travels as the content type, which a delete
// has as well as a value.
func (p *player) begin(a act) *written {
	p.written++
	w := &written{shown: map[string]bool{}, covers: map[string]bool{}, unapplied: true}
	w.put = Put{Key: key, ContentType: fmt.Sprintf("c%d.%d", p.name, p.written), Tombstone: a.kind == "delete"}
	if !a.anonymous {
		w.put.WriteID = p.w.writeID()
	}
	if a.context {
		w.put.Token, w.shown, w.covers, w.own = p.token, maps.Clone(p.shown), maps.Clone(p.covers), p.own
	}
	w.put.Overwrite, w.all = a.kind == "overwrite", a.kind == "overwrite"
	w.put.Condition.IfAbsent = a.kind == "create"
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.h.writes[w.name()] = w
	return w
}

func (p *player) attempt(a act, w *written) {
	put := w.put
	put.Options = Options{N: a.n, W: Exactly(a.count), Sloppy: a.sloppy, Timeout: 500 * time.Millisecond}
	done, err := p.w.nodes[a.via].Put(p.w.t.Context(), put)
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.failed = nil
	if err == nil {
		w.unapplied = false
		if !a.sloppy {
			w.acked, w.n, w.w = time.Now(), a.n, a.count
		}
		p.token = done.Token
		p.shown = maps.Clone(w.shown)
		p.shown[w.name()] = true
		p.covers = maps.Clone(w.covers)
		p.own = append(slices.Clone(w.own), w.name())
		return
	}
	var e *kv.Error
	if !errors.As(err, &e) || e.Outcome == "" {
		p.h.broken = append(p.h.broken, fmt.Sprintf("%s: an error without an outcome: %v", w.name(), err))
		return
	}
	w.unapplied = w.unapplied && e.Outcome == kv.NotApplied
	// Without an id, only a write that was not applied may be repeated.
	if e.Outcome == kv.NotApplied || !w.put.WriteID.IsZero() {
		p.failed = w
	}
}

// judge returns what is wrong with the history.
func (h *history) judge() []string {
	for i, r := range h.reads {
		for _, v := range r.values {
			w := h.writes[v]
			switch {
			case w == nil:
				h.complainf("read %d shows %s, which nobody wrote", i, v)
				continue
			case w.unapplied:
				h.complainf("read %d shows %s, which was not applied", i, v)
			}
			for _, u := range r.values {
				if h.writes[u] != nil && h.writes[u].covers[v] && u != v {
					h.complainf("read %d shows %s beside %s, which had seen it", i, v, u)
				}
			}
		}
		if !distinctNames(r.values) {
			h.complainf("read %d shows a write twice: %v", i, r.values)
		}
		for name, w := range h.writes {
			meets := !w.acked.IsZero() && w.acked.Before(r.begun) && r.r+w.w > max(r.n, w.n) || slices.Contains(r.own, name)
			if !meets {
				continue
			}
			// A delete may give way to a write that never saw it: it holds no value.
			// What it replaced stays replaced all the same.
			if !w.put.Tombstone && !h.reflected(name, r, map[string]bool{}) {
				h.complainf("read %d (n=%d, r=%d, %v, deleted %v) does not reflect %s (n=%d, w=%d, shown %v), own %v",
					i, r.n, r.r, r.values, r.deleted, name, w.n, w.w, slices.Sorted(maps.Keys(w.shown)), r.own)
			}
			for _, v := range r.values {
				if w.covers[v] && v != name {
					h.complainf("read %d shows %s, which the earlier %s replaced", i, v, name)
				}
			}
		}
	}
	slices.Sort(h.broken)
	return h.broken
}

// reflected reports whether r shows the write or one that had seen it, directly
// or through others, or whether a delete had.
func (h *history) reflected(name string, r seenRead, asked map[string]bool) bool {
	if w := h.writes[name]; slices.Contains(r.values, name) || w.put.Tombstone {
		return true
	}
	asked[name] = true
	for later, u := range h.writes {
		if had := u.shown[name] || u.all; had && !asked[later] && h.reflected(later, r, asked) {
			return true
		}
	}
	return false
}

func distinctNames(list []string) bool {
	sorted := slices.Sorted(slices.Values(list))
	return len(slices.Compact(sorted)) == len(list)
}

// live plays the scenario out, in a bubble of virtual time.
func (s scenario) live(t *testing.T) []string {
	t.Helper()
	h := &history{writes: map[string]*written{}}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, members, s.seed)
		second := w.grown(members + joining)
		for _, turn := range s.weather {
			time.AfterFunc(turn.at, func() { w.change(turn, second) })
		}
		var playing sync.WaitGroup
		for i, acts := range s.clients {
			p := &player{w: w, h: h, name: i, shown: map[string]bool{}, covers: map[string]bool{}}
			playing.Go(func() { p.play(acts) })
		}
		playing.Wait()
		w.sleep(3 * time.Second)
		for _, n := range w.nodes {
			n.set(trouble{})
		}
		reader := &player{w: w, h: h}
		for i := range w.nodes {
			reader.get(act{via: i, n: 5, count: 5})
		}
		w.close()
	})
	if len(h.reads) < 1 {
		h.complainf("nothing could be read in the end")
	}
	return h.judge()
}

func (w *world) change(turn turn, second ring.View) {
	n := w.nodes[turn.node]
	n.set(turn.fault)
	if turn.boot {
		n.restart()
	}
	if turn.learn {
		_ = n.Learn(second)
	}
}

func TestHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyScenario(rt)
		if broken := s.live(t); len(broken) > 0 {
			rt.Fatalf("%d things are wrong, among them: %s", len(broken), broken[0])
		}
	})
}
