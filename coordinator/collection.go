package coordinator

import (
	"math"
	"time"

	"github.com/starling-kv/starling/kv"
)

// reply is what one node answered to a fetch.
type reply struct {
	FetchReply
	from  kv.NodeID
	owner kv.NodeID // for whom it counts: from itself, or the one it stands in for
	took  time.Duration
	err   error
}

// collection is what a read gathered: the merge of full states, which
// dominates every clock that was counted.
type collection struct {
	plan    plan
	tally   *Tally
	merged  kv.Record
	replies []reply // those that came, in order of arrival
	asked   uint64  // the reap number that all were to learn before they answered
	highest uint64  // of the reap numbers that owners in good standing know
}

// merges reports whether an answer may be part of the merge.
func (col collection) merges(r reply) bool {
	return r.err == nil && r.Reap >= col.asked && (r.Standing || r.Reap >= col.highest)
}

// number is the reap number under which the merge may be stored: the lowest of
// those under which its parts were read.
func (col collection) number() uint64 {
	lowest := uint64(math.MaxUint64)
	for _, r := range col.replies {
		if col.merges(r) && !r.Record.Absent() {
			lowest = min(lowest, r.Reap)
		}
	}
	return lowest
}

// behind lists the owners whose answers lack what others hold.
func (col collection) behind() []kv.NodeID {
	var ids []kv.NodeID
	for _, r := range col.replies {
		if r.err == nil && r.from == r.owner && !r.Record.Covers(col.merged) {
			ids = append(ids, r.from)
		}
	}
	return ids
}
