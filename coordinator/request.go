package coordinator

import (
	"fmt"
	"strconv"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// Count is how many replicas must answer: a number, or a word that depends on
// n. The zero Count chooses nothing: in a request it stands for the default, and
// as a default for a quorum.
type Count struct {
	word   countWord
	number int
}

type countWord uint8

const (
	countUnset countWord = iota
	countQuorum
	countAll
	countNumber
)

const wordAll = "all"

// The counts that have names.
var (
	One    = Exactly(1)
	Quorum = Count{word: countQuorum}
	All    = Count{word: countAll}
)

// Exactly returns the Count of that many replicas.
func Exactly(k int) Count { return Count{word: countNumber, number: k} }

// ParseCount reads a number from 1 to [kv.MaxN], "one", "quorum" or "all".
func ParseCount(s string) (Count, error) {
	switch s {
	case "one":
		return One, nil
	case "quorum":
		return Quorum, nil
	case wordAll:
		return All, nil
	}
	k, err := strconv.Atoi(s)
	if err != nil || k < 1 || k > kv.MaxN {
		return Count{}, fmt.Errorf("%q: use a number from 1 to %d, one, quorum or all", s, kv.MaxN)
	}
	return Exactly(k), nil
}

// Of returns how many of n replicas c asks for; it may exceed n.
func (c Count) Of(n int) int {
	switch c.word {
	case countAll:
		return n
	case countNumber:
		return c.number
	case countQuorum, countUnset:
	}
	return n/2 + 1
}

// String returns what [ParseCount] reads.
func (c Count) String() string {
	switch c.word {
	case countAll:
		return wordAll
	case countNumber:
		return strconv.Itoa(c.number)
	case countQuorum, countUnset:
	}
	return "quorum"
}

// Hedge says when a read asks more replicas than it needs.
type Hedge uint8

// The ways to hedge.
const (
	HedgeAuto Hedge = iota // ask one more when an answer is late, within a budget
	HedgeOff               // ask one more only on an error
	HedgeAll               // ask all n at once
)

// ParseHedge reads "auto", "off" or "all".
func ParseHedge(s string) (Hedge, error) {
	switch s {
	case "auto":
		return HedgeAuto, nil
	case "off":
		return HedgeOff, nil
	case wordAll:
		return HedgeAll, nil
	}
	return 0, fmt.Errorf("%q: use auto, off or all", s)
}

// Durability says what a replica has done when it acknowledges.
type Durability uint8

// The durabilities. The default is the choice of the node that stores.
const (
	DurabilityDefault Durability = iota
	DurabilitySync               // synced to disk
	DurabilityAsync              // handed to the operating system
)

// Options are what every request may choose. The zero Options ask for the
// cluster's defaults.
type Options struct {
	Durability
	N       int // replicas; 0: the default
	R       Count
	W       Count
	Sloppy  bool          // let other nodes stand in for owners out of reach
	Timeout time.Duration // from arrival to answer; 0: the default
	Hedge   Hedge
}

// Get asks for a key.
type Get struct {
	Options
	Key kv.Key
	// Floor is what the answer must reflect: the floor of the client's token.
	Floor vclock.Clock
	// FloorReap is the reap number of that token.
	FloorReap uint64
	// Monotonic holds the answer back until so many owners hold it that every
	// later read of as many answers reflects it.
	Monotonic bool
	// NoValues leaves external values unread, for a HEAD.
	NoValues bool
}

// Put asks to write a value, or to delete where Tombstone is set.
type Put struct {
	Options
	Key         kv.Key
	Tombstone   bool
	Value       []byte
	ContentType string
	Meta        []kv.Meta // sorted by name
	// TTL is how long the value is shown, from when the coordinating replica
	// gives its dot, by that replica's clock: [MinTTL] to [MaxTTL], to the
	// millisecond. Zero: for ever.
	TTL time.Duration
	// Token is what the client has seen; the zero Token replaces nothing.
	Token vclock.Token
	// Overwrite replaces all that the coordinating replica holds, in place of
	// what the token has seen.
	Overwrite bool
	WriteID   kv.WriteID
	Condition Condition
}

// Condition is what must hold of a key's values for a write to happen. It is
// judged on a read quorum merged into the coordinating replica: it narrows
// races, it does not lock.
type Condition struct {
	IfMatch     []uint64 // one of these ETags; nil: no condition
	IfMatchAny  bool     // any value: If-Match: *
	IfNoneMatch []uint64 // none of these ETags
	IfAbsent    bool     // no value: If-None-Match: *
}

// IsZero reports whether nothing is asked.
func (c Condition) IsZero() bool {
	return c.IfMatch == nil && !c.IfMatchAny && c.IfNoneMatch == nil && !c.IfAbsent
}

// Value is a sibling with its bytes.
type Value struct {
	kv.Version
	Data []byte // nil where values were not asked for
}

// Got is the answer to a [Get]. Values is empty for a key that has none.
type Got struct {
	Values []Value
	// Deleted says that the key was deleted, beside what Values shows.
	Deleted bool
	Token   vclock.Token
	ETag    uint64
	// Behind are the owners that were seen to be behind, as names.
	Behind []string
}

// PutDone is the answer to a [Put] that reached its count.
type PutDone struct {
	Token    vclock.Token
	Dot      vclock.Dot
	ETag     uint64
	Siblings int // live values after the write, at the coordinating replica
	Acked    []string
	Hinted   []string // "stand-in for owner"
	WriteID  kv.WriteID
}

// Defaults apply where a request chooses nothing.
type Defaults struct {
	N       int
	R, W    Count
	Timeout time.Duration
}
