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

// maxLives bounds the lives in a history that never registered. Beyond it the
// oldest is forgotten; if another node still remembers that one, this node is
// taken for one that was set back, which costs it a catch-up.
const maxLives = 64

// History is the past that a disk remembers. Every position in it was durable
// on the disk before another node heard of it. So a position of which another
// node has heard, and which is not in it, was lost by the disk.
//
// Histories are values: operations return new ones.
type History struct {
	// Sure is the last position of the last life that registered, or that the
	// node was told of and has answered for by falling: all that comes before
	// it is past, whoever remembers it.
	Sure Position
	// Since are the lives after Sure, oldest first, which began and are not
	// known to have registered. They have no chapter but the first.
	Since []Life
}

// Tip returns the last position, which is that of the present life.
func (h History) Tip() Position {
	if n := len(h.Since); n > 0 {
		return Position{Life: h.Since[n-1]}
	}
	return h.Sure
}

// Contains reports whether p is in the past of the disk.
func (h History) Contains(p Position) bool {
	return p.compare(h.Sure) <= 0 || p.Chapter == 0 && slices.Contains(h.Since, p.Life)
}

// begin returns the history with a new life.
func (h History) begin(l Life) History {
	since := append(slices.Clone(h.Since), l)
	return History{Sure: h.Sure, Since: since[max(0, len(since)-maxLives):]}
}

// settle returns the history once its last life has registered.
func (h History) settle() History { return History{Sure: h.Tip()} }

// turn returns the history, which is settled, with a new chapter.
func (h History) turn() History {
	h.Sure.Chapter++
	return h
}

// atone returns the history of a disk that lost lost, has been emptied for it,
// and goes on as l, which counts more starts than lost.
func (h History) atone(lost Position, l Life) History {
	if h.Sure.compare(lost) > 0 {
		lost = h.Sure
	}
	since := slices.DeleteFunc(slices.Clone(h.Since), func(l Life) bool { return l.Starts <= lost.Starts })
	return History{Sure: lost, Since: since}.begin(l)
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
