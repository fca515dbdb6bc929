package kv

import (
	"bytes"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/vclock"
)

func at(ms int64) time.Time { return time.UnixMilli(ms) }

func tombstone() Sibling { return Sibling{Kind: KindTombstone, N: 3} }

func TestReaped(t *testing.T) {
	dots := func(list ...vclock.Dot) []vclock.Dot { return list }
	deleted := put(put(Record{}, value("v", idOf(5)), nil, 1), tombstone(), vclock.Clock{{Actor: 1, Counter: 1}}, 2)
	two := put(put(Record{}, value("v", WriteID{}), nil, 1), value("w", WriteID{}), nil, 2)
	rewritten := put(put(put(Record{}, value("u", idOf(5)), nil, 1), value("v", idOf(6)), vclock.Clock{{Actor: 1, Counter: 1}}, 2),
		value("w", idOf(7)), vclock.Clock{{Actor: 2, Counter: 1}}, 3)
	for _, tt := range []struct {
		name    string
		record  Record
		reaping Reaping
		clock   vclock.Clock // nil: nothing is left
		live    []string
		ids     int
		mine    bool
	}{
		{"nothing", deleted, Reaping{}, deleted.Clock, nil, 1, true},
		{"all", deleted, Reaping{Drop: dots(vclock.Dot{Actor: 2, Counter: 1}), Forget: at(6)}, nil, nil, 0, false},
		{"all but an id", deleted, Reaping{Drop: dots(vclock.Dot{Actor: 2, Counter: 1}), Forget: at(5)}, deleted.Clock, nil, 1, true},
		{
			"one of two, whose event stays seen", two,
			Reaping{Drop: dots(vclock.Dot{Actor: 1, Counter: 1})},
			two.Clock,
			[]string{"w"},
			0, true,
		},
		{
			"and is folded", two,
			Reaping{Drop: dots(vclock.Dot{Actor: 2, Counter: 1}), Fold: true},
			vclock.Clock{{Actor: 1, Counter: 1}},
			[]string{"v"},
			0, false,
		},
		{"nothing to fold", two, Reaping{Fold: true}, two.Clock, []string{"v", "w"}, 0, true},
		{"ids that are needed", rewritten, Reaping{Fold: true}, rewritten.Clock, []string{"w"}, 3, true},
		{"one id that is not", rewritten, Reaping{Forget: at(6), Fold: true}, rewritten.Clock[1:], []string{"w"}, 2, true},
		{"no ids", rewritten, Reaping{Forget: at(8), Fold: true}, rewritten.Clock[2:], []string{"w"}, 0, true},
		{"of nothing", Record{}, Reaping{Fold: true}, nil, nil, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.record.Reaped(tt.reaping)
			if !got.Clock.Equal(tt.clock) || !slices.Equal(shown(got), tt.live) || len(got.IDs) != tt.ids || (got.Mine != Mine{}) != tt.mine {
				t.Errorf("%+v", got)
			}
			if !got.Absent() && got.NMax != tt.record.NMax {
				t.Errorf("n_max went from %d to %d", tt.record.NMax, got.NMax)
			}
		})
	}
}

// Nobody can tell ids that were forgotten from later ones: they stay refused.
func TestReapedRaisesTheFloor(t *testing.T) {
	r := put(put(Record{}, value("u", idOf(5)), nil, 1), value("v", idOf(6)), vclock.Clock{{Actor: 1, Counter: 1}}, 2)
	got := r.Reaped(Reaping{Forget: at(6), Fold: true})
	if got.IDFloor != idOf(5) {
		t.Errorf("floor %v, want %v", got.IDFloor, idOf(5))
	}
	if m := r.Merge(got); m.Attempts(idOf(5)) != nil || m.Attempts(idOf(6)) == nil {
		t.Errorf("merged with the whole record: %+v", m)
	}
}

// Whatever the reaping, what is left can be stored, shows nothing new, and
// equal records stay equal, whoever may continue them.
func TestReapedOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := records().Draw(t, "record")
		p := Reaping{Forget: at(rapid.Int64Range(0, 1<<41).Draw(t, "forget")), Fold: rapid.Bool().Draw(t, "fold")}
		for _, v := range r.Live {
			if rapid.Bool().Draw(t, "drop") {
				p.Drop = append(p.Drop, v.Dot)
			}
		}
		got := r.Reaped(p)
		if _, err := DecodeRecord(AppendRecord(nil, got)); err != nil {
			t.Errorf("%+v becomes %+v: %v", r, got, err)
		}
		for _, v := range got.Live {
			if !r.Holds(v.Dot) || slices.Contains(p.Drop, v.Dot) {
				t.Errorf("%v is live", v.Dot)
			}
		}
		other := r
		other.Mine = Mine{Actor: 99, Boot: 3}
		if !bytes.Equal(AppendRecord(nil, got), AppendRecord(nil, other.Reaped(p))) {
			t.Error("it depends on who does it")
		}
		if again := got.Reaped(p); !bytes.Equal(AppendRecord(nil, got), AppendRecord(nil, again)) {
			t.Errorf("twice is not once: %+v, then %+v", got, again)
		}
	})
}

// copies are those of one record at several replicas, and a twin of each in a
// world in which nothing is ever reaped.
type copies struct {
	real, twin []Record
	reads      [][2]vclock.Clock // what clients have seen, in both worlds
	writes     int
}

func (c *copies) write(t *rapid.T, i int) {
	seen := rapid.SampledFrom(c.reads).Draw(t, "seen")
	if rapid.Bool().Draw(t, "of here") {
		seen = [2]vclock.Clock{c.real[i].Clock, c.twin[i].Clock}
	}
	c.writes++
	s := value(strconv.Itoa(c.writes), WriteID{})
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		s = tombstone()
	case 1:
		s.Expires = expiry
	}
	actor := vclock.Actor(1 + rapid.IntRange(0, 2).Draw(t, "actor") + 3*i)
	if c.writes > reapedAt {
		actor += 100 // all have begun a new boot
	}
	c.real[i] = put(c.real[i], s, seen[0], actor)
	c.twin[i] = put(c.twin[i], s, seen[1], actor)
	c.reads = append(c.reads, [2]vclock.Clock{c.real[i].Clock, c.twin[i].Clock})
}

func (c *copies) merge(i, j int) {
	c.real[i], c.twin[i] = c.real[i].Merge(c.real[j]), c.twin[i].Merge(c.twin[j])
}

const (
	expiry   = 1000
	reapedAt = 1 << 16 // writes are counted from here after the reaping
)

func visibleLater(r Record) []string {
	live, _ := r.Visible(at(expiry))
	texts := make([]string, 0, len(live))
	for _, v := range live {
		texts = append(texts, string(v.Value.Inline))
	}
	slices.Sort(texts)
	return texts
}

// TestReapedCopiesMeet is the claim on which rounds rest: where all copies were
// equal, some of them may be reaped and some not, and whatever is written and
// merged from then on, exactly the values show that would show if none were.
func TestReapedCopiesMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &copies{real: make([]Record, 3), twin: make([]Record, 3), reads: make([][2]vclock.Clock, 1)}
		act := func(n int) {
			for range rapid.IntRange(0, n).Draw(t, "steps") {
				i, j := rapid.IntRange(0, 2).Draw(t, "at"), rapid.IntRange(0, 2).Draw(t, "from")
				if rapid.Bool().Draw(t, "merges") {
					c.merge(i, j)
				} else {
					c.write(t, i)
				}
			}
		}
		act(8)
		for range 2 {
			c.merge(0, 1)
			c.merge(0, 2)
			c.merge(1, 0)
			c.merge(2, 0)
		}
		c.writes = reapedAt
		p := reapingOf(c.real[0], rapid.Bool().Draw(t, "fold"))
		for i := range c.real {
			if rapid.Bool().Draw(t, "hears") {
				c.real[i] = c.real[i].Reaped(p)
			}
		}
		act(8)
		for i := range c.real {
			for j := range c.real {
				m, twin := c.real[i].Merge(c.real[j]), c.twin[i].Merge(c.twin[j])
				if got, want := visibleLater(m), visibleLater(twin); !slices.Equal(got, want) {
					t.Fatalf("after %+v, %d and %d show %q, want %q", p, i, j, got, want)
				}
			}
		}
	})
}

// reapingOf takes out all that a round may.
func reapingOf(r Record, fold bool) Reaping {
	p := Reaping{Fold: fold}
	whole := true
	for _, v := range r.Live {
		whole = whole && (v.Value.Kind == KindTombstone || v.Value.Expires != 0)
	}
	for _, v := range r.Live {
		if whole || v.Value.Expires != 0 {
			p.Drop = append(p.Drop, v.Dot)
		}
	}
	return p
}

// A key that is written through hundreds of restarts, each with an actor of its
// own, keeps a short clock and so a short token.
func TestFoldingKeepsTheClockShort(t *testing.T) {
	keyring := vclock.NewKeyring([]byte("secret"), []byte("cluster"), func() time.Time { return at(1 << 40) })
	seal := func(c vclock.Clock) int { return len(keyring.Seal(vclock.Token{Seen: c, Floor: c}, "b", "k")) }
	var folded, plain Record
	longest := 0
	for restart := range 500 {
		mint := by(vclock.Actor(restart+1) << 32)
		for range 3 {
			s := value("v", idOf(1000*restart+1))
			folded, _ = folded.Put(s, folded.Clock, uint64(restart), mint, never)
			plain, _ = plain.Put(s, plain.Clock, uint64(restart), mint, never)
		}
		longest = max(longest, seal(folded.Clock))
		if restart%20 == 0 {
			folded = folded.Reaped(Reaping{Forget: at(int64(1000 * restart)), Fold: true})
		}
	}
	if longest > 500 || seal(plain.Clock) < 6000 || len(AppendRecord(nil, folded)) > 1500 {
		t.Errorf("tokens of %d characters at most, of %d unfolded; record of %d bytes",
			longest, seal(plain.Clock), len(AppendRecord(nil, folded)))
	}
}
