package standing

import (
	"cmp"
	"slices"
)

// Life is one start of a node. The zero Life is none.
type Life struct {
	// Starts counts the starts of the node's disk, this one included. It is
	// durable before anybody hears of the life.
	Starts uint64
	// Nonce is drawn anew by every process: a disk that was set back counts to
	// the same number again, but not under the same nonce.
	Nonce uint64
}

// compare orders lives by starts, then by nonce.
func (l Life) compare(m Life) int {
	return cmp.Or(cmp.Compare(l.Starts, m.Starts), cmp.Compare(l.Nonce, m.Nonce))
}

// Position is how far a node has come: a life is cut into chapters, from 0, so
// that a disk which is set back within one life is noticed too. The zero
// Position is that of a node never heard of.
type Position struct {
	Life

	Chapter uint64
}

// compare orders the positions of one past: by starts, then by chapter.
func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Starts, q.Starts), cmp.Compare(p.Chapter, q.Chapter))
}

// maxSince bounds the positions in a history since the last life that
// registered. Beyond it the oldest is forgotten; if another node still remembers
// that one, this node is taken for one that was set back, which costs it a
// catch-up.
const maxSince = 64

// History is the past that a disk remembers. Every position in it was durable
// on the disk before another node heard of it. So a position of which another
// node has heard, and which is not in it, was lost by the disk.
//
// Histories are values: operations return new ones.
type History struct {
	// Sure is the last position of the last life that registered. All that comes
	// before it is past, whoever remembers it: what had registered, the members
	// that were enough for Sure had found out.
	Sure Position
	// Since are the lives after it, which began and are not known to have
	// registered, and what the disk lost and has answered for by falling. They
	// are in the order of [Life]; the last one is the present life.
	Since []Position
}

// Tip returns the last position, which is that of the present life.
func (h History) Tip() Position {
	if n := len(h.Since); n > 0 {
		return h.Since[n-1]
	}
	return h.Sure
}

// Contains reports whether p is in the past of the disk.
func (h History) Contains(p Position) bool {
	return p.compare(h.Sure) <= 0 ||
		slices.ContainsFunc(h.Since, func(s Position) bool { return s.Life == p.Life && s.Chapter >= p.Chapter })
}

// Settled reports whether p is a position up to which the past is sure.
func (h History) Settled(p Position) bool { return p != (Position{}) && p.compare(h.Sure) <= 0 }

// begin returns the history with a new life.
func (h History) begin(l Life) History { return h.with(Position{Life: l}) }

// settle returns the history once its last life has registered.
func (h History) settle() History { return History{Sure: h.Tip()} }

// turn returns the history, which is settled, with a new chapter.
func (h History) turn() History {
	h.Sure.Chapter++
	return h
}

// atone returns the history of a disk that lost lost, has been emptied for it,
// and goes on as l, which counts more starts than lost. What else it lost is not
// answered for with it: that may be of another line of lives, with less starts.
func (h History) atone(lost Position, l Life) History {
	if !h.Contains(lost) {
		h = h.with(lost)
	}
	return h.begin(l)
}

func (h History) with(p Position) History {
	since := slices.Clone(h.Since)
	i, found := slices.BinarySearchFunc(since, p, func(p, q Position) int { return p.Life.compare(q.Life) })
	if found {
		since[i] = p
	} else {
		since = slices.Insert(since, i, p)
	}
	return History{Sure: h.Sure, Since: since[max(0, len(since)-maxSince):]}
}

// Remember is what a node does that remembers a position of another and is told
// that one's history: what it remembers from then on, and whether the history
// explains what it remembered. If it does not, the teller's disk was emptied or
// set back, or belongs to a copy of the node; the memory stays as it is until
// the teller has fallen and answered for it. Forgetting it before would be to
// destroy the evidence if the answer were lost.
func Remember(remembered Position, told History) (Position, bool) {
	if !told.Contains(remembered) {
		return remembered, false
	}
	return told.Tip(), true
}
