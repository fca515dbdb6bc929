package standing

import (
	"slices"
	"testing"
)

func at(starts, nonce, chapter uint64) Position {
	return Position{Life: Life{Starts: starts, Nonce: nonce}, Chapter: chapter}
}

// TestRemember tells a member that remembers something a history.
func TestRemember(t *testing.T) {
	fresh := History{Since: []Position{at(1, 10, 0)}}
	told := History{Sure: at(4, 40, 2), Since: []Position{at(5, 50, 0), at(6, 60, 0)}}
	for _, c := range []struct {
		name       string
		remembered Position
		told       History
		want       Position
		ok         bool
	}{
		{"the first start", Position{}, fresh, at(1, 10, 0), true},
		{"a repetition", at(1, 10, 0), fresh, at(1, 10, 0), true},
		{"an empty disk", at(3, 30, 0), fresh, at(3, 30, 0), false},
		{"an empty disk that started once, as before", at(1, 99, 0), fresh, at(1, 99, 0), false},
		{"the next start", at(4, 40, 2), told, at(6, 60, 0), true},
		{"a member that was away", at(2, 20, 0), told, at(6, 60, 0), true},
		{"one that heard of an attempt to start", at(5, 50, 0), told, at(6, 60, 0), true},
		{"the same attempt on another disk", at(5, 51, 0), told, at(5, 51, 0), false},
		{"the attempt registered, and the disk forgot", at(5, 50, 1), told, at(5, 50, 1), false},
		{"a later chapter", at(4, 40, 3), told, at(4, 40, 3), false},
		{"a later start", at(7, 70, 0), told, at(7, 70, 0), false},
		{"a late copy of what was told in the chapter before", at(4, 40, 2), History{Sure: at(4, 40, 1)}, at(4, 40, 2), false},
		{"a chapter that was lost and answered for", at(5, 50, 3), History{Since: []Position{at(5, 50, 3), at(6, 60, 0)}}, at(6, 60, 0), true},
		{"the chapter after it", at(5, 50, 4), History{Since: []Position{at(5, 50, 3), at(6, 60, 0)}}, at(5, 50, 4), false},
		{"a new chapter", at(4, 40, 1), History{Sure: at(4, 40, 2)}, at(4, 40, 2), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := Remember(c.remembered, c.told); got != c.want || ok != c.ok {
				t.Errorf("remembers %v, explained %v; want %v, %v", got, ok, c.want, c.ok)
			}
		})
	}
}

func TestHistory(t *testing.T) {
	var h History
	same := func(what string, got History, sure Position, since ...Position) {
		t.Helper()
		if got.Sure != sure || !slices.Equal(got.Since, since) {
			t.Errorf("%s: %v, want %v and %v", what, got, sure, since)
		}
	}
	one := h.begin(Life{1, 10})
	same("the first start", one, Position{}, at(1, 10, 0))
	two := one.begin(Life{2, 20})
	same("a start before the last registered", two, Position{}, at(1, 10, 0), at(2, 20, 0))
	same("which leaves the other history as it was", one, Position{}, at(1, 10, 0))
	three := two.settle().turn()
	same("registered", two.settle(), at(2, 20, 0))
	same("a new chapter", three, at(2, 20, 1))
	same("registered again", three.settle(), at(2, 20, 1))
	same("lost a life", two.atone(at(5, 50, 3), Life{6, 60}), Position{}, at(1, 10, 0), at(2, 20, 0), at(5, 50, 3), at(6, 60, 0))
	same("lost an attempt", two.atone(at(1, 11, 0), Life{3, 20}), Position{}, at(1, 10, 0), at(1, 11, 0), at(2, 20, 0), at(3, 20, 0))
	same("lost chapters", three.atone(at(2, 20, 7), Life{3, 20}), at(2, 20, 1), at(2, 20, 7), at(3, 20, 0))
	same("nothing known to be lost", three.atone(Position{}, Life{3, 20}), at(2, 20, 1), at(3, 20, 0))
}

func TestHistoryIsBounded(t *testing.T) {
	var h History
	for i := range uint64(3 * maxSince) {
		h = h.begin(Life{i + 1, i})
	}
	if len(h.Since) != maxSince || h.Tip() != at(3*maxSince, 3*maxSince-1, 0) {
		t.Errorf("%d lives that end with %v", len(h.Since), h.Tip())
	}
	if got, err := decodeHistory(encodeHistory(h)); err != nil || !slices.Equal(got.Since, h.Since) {
		t.Errorf("the longest history cannot be stored: %v, %v", got, err)
	}
}
