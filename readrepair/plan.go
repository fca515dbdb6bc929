package readrepair

import (
	"slices"

	"github.com/starling-kv/starling/kv"
)

// Reply is what an owner answered when it was asked for a key.
type Reply struct {
	From   kv.NodeID
	Record kv.Record
	// Standing says that the owner is in good standing, Reap under which number
	// of the key's partition the record was read.
	Standing bool
	Reap     uint64
}

// Repair says that an owner lacks what others hold.
type Repair struct {
	Behind  kv.NodeID
	Sources []kv.NodeID // from which it gets all, in this order
}

// plan says who is behind, in the order of the replies, and from whom each gets
// what it lacks: from one that has it all, if there is one. replies are of
// different owners.
func plan(replies []Reply) []Repair {
	replies = slices.DeleteFunc(slices.Clone(replies), outdated(replies))
	var merged kv.Record
	for _, r := range replies {
		merged = merged.Merge(r.Record)
	}
	whole := slices.DeleteFunc(slices.Clone(replies), func(r Reply) bool { return !r.Record.Covers(merged) })
	var repairs []Repair
	for _, r := range replies {
		if r.Record.Covers(merged) {
			continue
		}
		if len(whole) > 0 {
			// Those that are behind are spread over those that have it all.
			from := whole[len(repairs)%len(whole)]
			repairs = append(repairs, Repair{Behind: r.From, Sources: []kv.NodeID{from.From}})
			continue
		}
		repairs = append(repairs, Repair{Behind: r.From, Sources: sources(r, replies)})
	}
	return repairs
}

// outdated tells the replies that may be of a disk that was set back: of an owner
// that is not in good standing and knows of fewer rounds of reaping than one
// that is. They may hold what was reaped.
func outdated(replies []Reply) func(Reply) bool {
	var highest uint64
	for _, r := range replies {
		if r.Standing {
			highest = max(highest, r.Reap)
		}
	}
	return func(r Reply) bool { return !r.Standing && r.Reap < highest }
}

// sources are replies that together hold what r lacks, each something that those
// before it do not.
func sources(r Reply, replies []Reply) (from []kv.NodeID) {
	known := r.Record
	for _, other := range replies {
		if !known.Covers(other.Record) {
			known = known.Merge(other.Record)
			from = append(from, other.From)
		}
	}
	return from
}
