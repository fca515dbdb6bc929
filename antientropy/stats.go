package antientropy

import (
	"sync"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Stats is what the exchanges that this node began have come to since the start.
type Stats struct {
	Exchanges uint64 // that came to an end, a partition with one peer each
	Clean     uint64 // of these, the ones in which nothing differed
	PutOff    uint64 // that were given up, to be tried again
	// KeysDiffer counts keys that were found to differ for longer than a write
	// takes, and KeysHealed those that both nodes were brought to agree on.
	KeysDiffer, KeysHealed uint64
	// StreamedRecords and StreamedBytes came as whole leaves.
	StreamedRecords, StreamedBytes uint64
	// ComparedBytes is the length of the messages that compare, requests and
	// replies; the records moved are not in it.
	ComparedBytes uint64
	// OldestClean is when the pair of partition and peer that was compared least
	// recently was last found to be the same on both sides. A pair that was not
	// since it came to be, or since the start, counts from then. Zero: this node
	// shares nothing.
	OldestClean time.Time
	// CatchUp is the way of this node back to good standing.
	CatchUp CatchUp
	Scrub   ScrubStats
}

// CatchUp says how far a node is that merges what it owns from the other
// owners. Nothing is to be done if Done is Partitions.
type CatchUp struct {
	Partitions int // owned
	Done       int // of these, merged from every other owner
	// Records and Bytes were streamed to get there since the start.
	Records, Bytes uint64
}

// ScrubStats is what the walk over this node's own leaves has found.
type ScrubStats struct {
	Leaves  uint64 // checked
	Damaged uint64 // of these, not in order
	// Values counts those read that records keep outside, ValuesLost those of them
	// that were damaged or missing, and ValuesHealed those that were fetched anew.
	Values, ValuesLost, ValuesHealed uint64
}

// counts collects the Stats.
type counts struct {
	mu    sync.Mutex
	stats Stats
	clean map[pair]time.Time
}

// pair is a partition that this node shares with a peer.
type pair struct {
	peer      kv.NodeID
	partition uint16
}

// add counts an exchange that began at a moment and may have failed.
func (c *counts) add(e *exchange, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.stats
	s.KeysDiffer += e.tally.differ
	s.KeysHealed += e.tally.healed
	s.StreamedRecords += e.tally.records
	s.StreamedBytes += e.tally.bytes
	s.ComparedBytes += e.tally.compared
	if e.eager {
		s.CatchUp.Records += e.tally.records
		s.CatchUp.Bytes += e.tally.bytes
	}
	for i, v := range e.verdicts {
		switch {
		case v == unfinished:
			s.PutOff++
			continue
		case v == same && !e.eager: // an eager one does not look at what the peer lacks
			s.Clean++
			if p := (pair{e.peer, e.shares[i].partition}); !c.clean[p].IsZero() { // still shared
				c.clean[p] = began
			}
		}
		s.Exchanges++
	}
}

// progress notes of how many partitions something has still to be merged.
func (c *counts) progress(owned, behind int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.CatchUp.Partitions, c.stats.CatchUp.Done = owned, owned-behind
}

func (c *counts) scrubbed(damaged bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Scrub.Leaves++
	if damaged {
		c.stats.Scrub.Damaged++
	}
}

func (c *counts) values(checked, lost, healed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Scrub.Values += uint64(checked)
	c.stats.Scrub.ValuesLost += uint64(lost)
	c.stats.Scrub.ValuesHealed += uint64(healed)
}

// survey drops the pairs that are not shared any more and begins to count for
// those that are new.
func (c *counts) survey(now time.Time, land *territory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clean := make(map[pair]time.Time)
	for _, n := range land.peers {
		for _, s := range n.shares {
			p := pair{n.id, s.partition}
			clean[p] = now
			if at, ok := c.clean[p]; ok {
				clean[p] = at
			}
		}
	}
	c.clean = clean
}

// Stats returns the counts as of now.
func (x *Exchanger) Stats() Stats {
	c := &x.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	for _, at := range c.clean { // the minimum, in whatever order
		if s.OldestClean.IsZero() || at.Before(s.OldestClean) {
			s.OldestClean = at
		}
	}
	return s
}
