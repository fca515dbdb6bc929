package kv

import (
	"strings"
	"time"
)

// Outcome is the truth about a write that did not succeed.
type Outcome string

// The outcomes of a failed write. A write that succeeded has none.
const (
	// NotApplied: no dot was committed and no state left the assigning replica;
	// the write is not visible now and never will be.
	NotApplied Outcome = "not_applied"
	// Unknown: the write may be visible, now or later. Repeat it under the same
	// write id, or read.
	Unknown Outcome = "unknown"
)

// Code says what went wrong, stable over versions, for programs.
type Code string

// The codes that a client may be told.
const (
	CodeBadRequest      Code = "bad_request"       // the request cannot be understood or makes no sense
	CodeBadContext      Code = "bad_context"       // the context token is malformed, forged or foreign
	CodeContextExpired  Code = "context_expired"   // the context token is too old: read again
	CodeNotFound        Code = "not_found"         // the key holds no value
	CodePrecondition    Code = "precondition"      // If-Match or If-None-Match did not hold
	CodeContextRequired Code = "context_required"  // a delete without a context
	CodeTooLarge        Code = "too_large"         // over a limit of size
	CodeTooManySiblings Code = "too_many_siblings" // the key must be resolved first
	CodeWriteIDExpired  Code = "write_id_expired"  // issued too long ago to be told from a new write
	CodeWriteIDReused   Code = "write_id_reused"   // the id named another value before
	CodeQuorumUnreached Code = "quorum_unreached"  // too few owners answered well
	CodeTimeout         Code = "timeout"           // the time given ran out
	CodeStale           Code = "stale"             // too few owners are as new as the context's floor
	CodeOverloaded      Code = "overloaded"        // a queue is full: try again later
	CodeDiskFull        Code = "disk_full"         // no room to store
	CodeNotReady        Code = "not_ready"         // this node has no layout yet
	CodeInternal        Code = "internal"          // a fault of ours
)

// Error is what a client is told. The message names the remedy where there is
// one. Acked, Hinted and Failed are names of nodes.
type Error struct {
	Code       Code          `json:"code"`
	Message    string        `json:"message"`
	Outcome    Outcome       `json:"outcome,omitempty"`
	N          int           `json:"n,omitempty"`
	R          int           `json:"r,omitempty"`
	W          int           `json:"w,omitempty"`
	Acked      []string      `json:"acked,omitempty"`
	Hinted     []string      `json:"hinted,omitempty"`
	Failed     []Failure     `json:"failed,omitempty"`
	WriteID    string        `json:"write_id,omitempty"`
	RetryAfter time.Duration `json:"-"`
	// Context is the token of what is known, where that helps: a 404 or 412.
	Context string `json:"-"`
}

// Failure says why one node did not count.
type Failure struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// Error returns the code, the message and the outcome.
func (e *Error) Error() string {
	parts := []string{string(e.Code), e.Message}
	if e.Outcome != "" {
		parts = append(parts, "outcome "+string(e.Outcome))
	}
	return strings.Join(parts, ": ")
}
