package peer

import (
	"sync"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

// windowBits is how many calls of one sender may overtake one another: far more
// than a transport lets a node have in flight.
const windowBits = 1 << 15

// window tells calls from their copies by the numbers that their sender gave
// them, in the manner of an anti-replay window (RFC 4303, section 3.4.3): it
// knows which of the last windowBits numbers came, and takes none before those.
//
// Invariant: bit n % windowBits is that of number n for last-windowBits < n <= last.
type window struct {
	last uint64
	came [windowBits / 64]uint64
}

// take reports whether number n comes for the first time.
func (w *window) take(n uint64) bool {
	if n+windowBits <= w.last {
		return false
	}
	for ; w.last < n; w.last++ {
		if n-w.last > windowBits { // all that is known leaves
			*w = window{last: n - windowBits}
		}
		w.clear(w.last + 1)
	}
	word, bit := n/64%(windowBits/64), uint64(1)<<(n%64)
	first := w.came[word]&bit == 0
	w.came[word] |= bit
	return first
}

func (w *window) clear(n uint64) { w.came[n/64%(windowBits/64)] &^= uint64(1) << (n % 64) }

// copies tells copies for all senders. A process of a node is a sender of its
// own, as its numbers begin anew. It is safe for concurrent use.
type copies struct {
	mu      sync.Mutex
	senders map[kv.NodeID]*sender
}

type sender struct {
	incarnation uint64
	window      window
}

// first reports whether the call is no copy. What a process sent
// that is gone went with its connections, so one process a node is remembered.
func (c *copies) first(from transport.Peer, number uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.senders[from.ID]
	if s == nil || s.incarnation != from.Incarnation {
		if c.senders == nil {
			c.senders = make(map[kv.NodeID]*sender)
		}
		s = &sender{incarnation: from.Incarnation}
		c.senders[from.ID] = s
	}
	return s.window.take(number)
}
