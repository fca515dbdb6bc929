package api

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/starling-kv/starling/kv"
)

// Repairs shows what keeps this node's replicas like those of others, has them
// compared at once, and settles what is in quarantine.
type Repairs interface {
	// Repairs returns the state of all repairs of this node.
	Repairs() RepairState
	// Repair begins to compare what the selection names with all other owners. It
	// returns at once; a [kv.Error] says why it was not begun.
	Repair(s Selection) error
	// Quarantine returns up to limit of the records in quarantine that come after
	// a place, from the first if it is zero, and whether there are more.
	Quarantine(ctx context.Context, after Place, limit int) (records []Quarantined, more bool, err error)
	// Restore writes again the values of the record in quarantine that has this
	// key and [RecordHash], as new writes that replace nothing, each acknowledged
	// by a quorum of owners, unless the value is there already or was replaced.
	// If any of them lives then, the record is removed. Values that could not be
	// written stay in quarantine; restoring again skips the others. A [kv.Error]
	// says what failed.
	Restore(ctx context.Context, key kv.Key, hash string) (Settled, error)
	// Discard removes the record in quarantine that has this key and [RecordHash],
	// values and all. A [kv.Error] says why it did not.
	Discard(ctx context.Context, key kv.Key, hash string) (Settled, error)
}

// Selection is what is to be repaired; the zero Selection is all of the node.
type Selection struct {
	Bucket    string // one bucket, empty: all
	Partition *int   // one partition, nil: all
	Node      string // with one other node, empty: with all
}

// RepairState is how far this node's replicas are from those of others, as far
// as it knows. Ages are in seconds.
type RepairState struct {
	Node string `json:"node"`
	// Standing says whether readers may count this node, and why not.
	Standing StandingState `json:"standing"`
	Hints    []HintState   `json:"hints"` // by node that they are owed to
	// Found and Healed count keys that were seen to differ, and that were made
	// equal, since the start.
	Found  uint64 `json:"found"`
	Healed uint64 `json:"healed"`
	// OldestClean is the age of the oldest comparison, over all partitions and
	// other owners, that found nothing; null before each has had one.
	OldestClean *float64 `json:"oldest_clean_seconds"`
	// Reads counts the keys that reads had repaired.
	Reads uint64 `json:"read_repairs"`
	// Quarantined counts the records in quarantine at the moment, those of a disk
	// that was set back: neither served nor discarded.
	Quarantined uint64    `json:"quarantined"`
	Reap        ReapState `json:"reap"`
	// Run is the last repair that was asked for; null if none was.
	Run *RepairRun `json:"run"`
}

// StandingState says whether readers may count a node.
type StandingState struct {
	Registered bool   `json:"registered"` // enough members know of this start
	Fallen     int    `json:"fallen"`     // partitions that are not counted yet
	Partitions int    `json:"partitions"` // that the node owns
	Cause      string `json:"cause,omitempty"`
	Doubted    int    `json:"doubted"` // ranges of keys with damaged records
	Pulled     uint64 `json:"pulled"`  // records fetched to catch up, since the start
}

// HintState is what is owed to one node.
type HintState struct {
	Node    string  `json:"node"`
	Count   uint64  `json:"count"`
	Bytes   uint64  `json:"bytes"`
	Oldest  float64 `json:"oldest_seconds"`
	Dropped uint64  `json:"dropped"` // for lack of room, left to comparisons
}

// ReapState is how deletes are removed for good.
type ReapState struct {
	Reaped  uint64   `json:"reaped"`
	Waiting float64  `json:"waiting_seconds"` // of the delete that is due the longest
	Missing []string `json:"missing,omitempty"`
}

// RepairRun is one repair that was asked for.
type RepairRun struct {
	Began time.Time `json:"began"`
	Done  int       `json:"done"`  // comparisons of a partition with a node
	Total int       `json:"total"` // of them
	Keys  uint64    `json:"keys"`  // that differed
	Heal  uint64    `json:"healed"`
	Bytes uint64    `json:"bytes"` // that were exchanged
	Ended bool      `json:"ended"`
	Error string    `json:"error,omitempty"`
}

// repairState answers with the state of all repairs.
func (s *Server) repairState(x *exchange) error {
	x.answerJSON(fasthttp.StatusOK, s.repairs.Repairs())
	return nil
}

var knownRepairParams = []param[Selection]{
	{"bucket", func(p *Selection, v string) error {
		p.Bucket = v
		return kv.Key{Bucket: v, Name: "any"}.Validate()
	}},
	{"partition", func(p *Selection, v string) error {
		partition, err := strconv.Atoi(v)
		if err != nil || partition < 0 {
			return fmt.Errorf("%q: use the number of a partition, as status --key shows it", v)
		}
		p.Partition = &partition
		return nil
	}},
	{"node", func(p *Selection, v string) error {
		p.Node = v
		return nil
	}},
}

// repair begins a repair and answers with the state, from which progress can be
// read by asking again.
func (s *Server) repair(x *exchange) error {
	what, err := parseQuery(x.query, knownRepairParams)
	if err != nil {
		return err
	}
	if err := s.repairs.Repair(what); err != nil {
		return err
	}
	x.answerJSON(fasthttp.StatusAccepted, s.repairs.Repairs())
	return nil
}
