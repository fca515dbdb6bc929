package vclock

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// set makes a Set of the clock and the dots, with each dot's counter as value.
func set(clock Clock, live ...Dot) Set[int] {
	s := Set[int]{Clock: clock}
	for _, d := range live {
		s.Live = append(s.Live, Versioned[int]{Dot: d, Value: int(d.Counter)})
	}
	return s
}

func equal[V comparable](a, b Set[V]) bool {
	return a.Clock.Equal(b.Clock) && slices.Equal(a.Live, b.Live)
}

func TestSetMerge(t *testing.T) {
	for _, tt := range []struct {
		name         string
		a, b, merged Set[int]
	}{
		{"nothing known", set(nil), set(nil), set(nil)},
		{"one side new", set(nil), set(Clock{{1, 1}}, Dot{1, 1}), set(Clock{{1, 1}}, Dot{1, 1})},
		{
			"held by both",
			set(Clock{{1, 1}}, Dot{1, 1}), set(Clock{{1, 1}, {2, 1}}, Dot{1, 1}),
			set(Clock{{1, 1}, {2, 1}}, Dot{1, 1}),
		},
		{
			"replaced on one side",
			set(Clock{{1, 1}}, Dot{1, 1}), set(Clock{{1, 2}}, Dot{1, 2}),
			set(Clock{{1, 2}}, Dot{1, 2}),
		},
		{
			"removed on one side",
			set(Clock{{1, 1}}, Dot{1, 1}), set(Clock{{1, 1}}),
			set(Clock{{1, 1}}),
		},
		{
			"written at the same time",
			set(Clock{{1, 1}}, Dot{1, 1}), set(Clock{{2, 1}}, Dot{2, 1}),
			set(Clock{{1, 1}, {2, 1}}, Dot{1, 1}, Dot{2, 1}),
		},
		{
			"one in the middle of a run removed",
			set(Clock{{1, 3}}, Dot{1, 1}, Dot{1, 2}, Dot{1, 3}), set(Clock{{1, 3}}, Dot{1, 1}, Dot{1, 3}),
			set(Clock{{1, 3}}, Dot{1, 1}, Dot{1, 3}),
		},
		{
			"each replaced what the other did not know",
			set(Clock{{1, 2}, {2, 1}}, Dot{1, 2}), set(Clock{{1, 1}, {2, 2}}, Dot{1, 1}, Dot{2, 2}),
			set(Clock{{1, 2}, {2, 2}}, Dot{1, 2}, Dot{2, 2}),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.a.Merge(tt.b); !equal(got, tt.merged) {
				t.Errorf("a.Merge(b) = %v, want %v", got, tt.merged)
			}
			if got := tt.b.Merge(tt.a); !equal(got, tt.merged) {
				t.Errorf("b.Merge(a) = %v, want %v", got, tt.merged)
			}
		})
	}
}

func TestSetWrite(t *testing.T) {
	held := set(Clock{{1, 2}, {2, 1}}, Dot{1, 2}, Dot{2, 1})
	for _, tt := range []struct {
		name  string
		seen  Clock
		actor Actor
		dot   Dot
		after Set[int]
	}{
		{"blind", nil, 2, Dot{2, 2}, set(Clock{{1, 2}, {2, 2}}, Dot{1, 2}, Dot{2, 1}, Dot{2, 2})},
		{"having seen one", Clock{{1, 2}}, 2, Dot{2, 2}, set(Clock{{1, 2}, {2, 2}}, Dot{2, 1}, Dot{2, 2})},
		{"having seen all", held.Clock, 2, Dot{2, 2}, set(Clock{{1, 2}, {2, 2}}, Dot{2, 2})},
		{"having seen an earlier one", Clock{{1, 1}}, 2, Dot{2, 2}, set(Clock{{1, 2}, {2, 2}}, Dot{1, 2}, Dot{2, 1}, Dot{2, 2})},
		{"new actor", Clock{{1, 2}}, 3, Dot{3, 1}, set(Clock{{1, 2}, {2, 1}, {3, 1}}, Dot{2, 1}, Dot{3, 1})},
		{"having seen what is not here", Clock{{4, 2}}, 1, Dot{1, 3}, set(Clock{{1, 3}, {2, 1}, {4, 2}}, Dot{1, 2}, Dot{1, 3}, Dot{2, 1})},
		{"having seen this actor ahead", Clock{{1, 9}}, 1, Dot{1, 10}, set(Clock{{1, 10}, {2, 1}}, Dot{1, 10}, Dot{2, 1})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, dot := held.Write(tt.seen, tt.actor, int(tt.dot.Counter))
			if dot != tt.dot || !equal(got, tt.after) {
				t.Errorf("%v, %v, want %v, %v", got, dot, tt.after, tt.dot)
			}
			if !equal(held, set(Clock{{1, 2}, {2, 1}}, Dot{1, 2}, Dot{2, 1})) {
				t.Errorf("the operand became %v", held)
			}
		})
	}
}

func TestSetWithoutHoldsReplaced(t *testing.T) {
	s := set(Clock{{1, 2}, {2, 1}}, Dot{1, 2}, Dot{2, 1})
	less := s.Without(func(v Versioned[int]) bool { return v.Dot == Dot{1, 2} })
	if want := set(s.Clock, Dot{2, 1}); !equal(less, want) {
		t.Errorf("Without left %v, want %v", less, want)
	}
	if !equal(less.Merge(s), less) {
		t.Error("a merge brought back what was taken out")
	}
	for _, tt := range []struct {
		dot             Dot
		holds, replaced bool
	}{
		{Dot{1, 1}, false, true},
		{Dot{1, 2}, false, true},
		{Dot{1, 3}, false, false},
		{Dot{2, 1}, true, false},
		{Dot{3, 1}, false, false},
	} {
		if less.Holds(tt.dot) != tt.holds || less.Replaced(tt.dot) != tt.replaced {
			t.Errorf("%v: Holds %v, Replaced %v, want %v, %v", tt.dot, less.Holds(tt.dot), less.Replaced(tt.dot), tt.holds, tt.replaced)
		}
	}
}

// answerToWrite is the token that a client gets for a write (see [Token]): its
// next reads must reflect all that is known, but its next write may replace
// more than before only if its own value is all there is.
func answerToWrite(sent Token, s Set[int], dot Dot) Token {
	t := Token{Seen: sent.Seen, Floor: sent.Floor.Merge(s.Clock)}
	if len(s.Live) == 1 && s.Holds(dot) {
		t.Seen = s.Clock
	}
	return t
}

// TestChainedWritesSpareTheUnseen: a client that writes again and again without
// reading must not replace what another client left there meanwhile.
func TestChainedWritesSpareTheUnseen(t *testing.T) {
	var s Set[int]
	var token Token
	var dot Dot
	chain := func(v int, seen func(Token) Clock) {
		s, dot = s.Write(seen(token), 1, v)
		token = answerToWrite(token, s, dot)
	}
	seen := func(t Token) Clock { return t.Seen }
	chain(1, seen)
	chain(2, seen)
	if got := values(s); !slices.Equal(got, []int{2}) {
		t.Fatalf("alone, the second write left %v, want it to replace the first", got)
	}
	s, _ = s.Write(nil, 1, 100) // another client, unseen by the first
	chain(3, seen)
	chain(4, seen)
	if got := values(s); !slices.Equal(got, []int{100, 3, 4}) {
		t.Errorf("seen spared %v, want the unseen 100 kept and 3 and 4 beside it", got)
	}
	chain(5, func(t Token) Clock { return t.Floor })
	if got := values(s); !slices.Equal(got, []int{5}) {
		t.Errorf("had writes replaced by the floor, 100 were lost: got %v", got)
	}
}

// TestOnlyWhatWasShownIsReplaced runs clients that read now and then and write
// much at replicas that hear of one another now and then. Every value must stay
// until a client that was shown it, or that wrote it, writes.
func TestOnlyWhatWasShownIsReplaced(t *testing.T) {
	type client struct {
		token Token
		shown map[int]bool
	}
	rapid.Check(t, func(t *rapid.T) {
		replicas := make([]Set[int], 3)
		clients := []client{{shown: map[int]bool{}}, {shown: map[int]bool{}}, {shown: map[int]bool{}}}
		writerHadSeen := []map[int]bool{}
		replica := rapid.IntRange(0, len(replicas)-1)
		who := rapid.IntRange(0, len(clients)-1)
		t.Repeat(map[string]func(*rapid.T){
			"read": func(t *rapid.T) {
				r, c := replicas[replica.Draw(t, "at")], &clients[who.Draw(t, "client")]
				c.token = Token{Seen: c.token.Seen.Merge(r.Clock), Floor: c.token.Floor.Merge(r.Clock)}
				for _, v := range r.Live {
					c.shown[v.Value] = true
				}
			},
			"write": func(t *rapid.T) {
				at, c := replica.Draw(t, "at"), &clients[who.Draw(t, "client")]
				v := len(writerHadSeen)
				writerHadSeen = append(writerHadSeen, maps.Clone(c.shown))
				var dot Dot
				replicas[at], dot = replicas[at].Write(c.token.Seen, Actor(at+1), v)
				c.token = answerToWrite(c.token, replicas[at], dot)
				c.shown[v] = true
			},
			"hear": func(t *rapid.T) {
				to, from := replica.Draw(t, "to"), replica.Draw(t, "from")
				replicas[to] = replicas[to].Merge(replicas[from])
			},
			"": func(t *rapid.T) {
				all := replicas[0].Merge(replicas[1]).Merge(replicas[2])
				for v := range writerHadSeen {
					shown := slices.ContainsFunc(writerHadSeen, func(seen map[int]bool) bool { return seen[v] })
					if !shown && !slices.Contains(values(all), v) {
						t.Fatalf("value %d is gone, and nobody who wrote after it had been shown it", v)
					}
				}
			},
		})
	})
}

func values(s Set[int]) []int {
	out := make([]int, len(s.Live))
	for i, v := range s.Live {
		out[i] = v.Value
	}
	return out
}
