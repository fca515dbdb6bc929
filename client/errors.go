package client

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/starling-kv/starling/kv"
)

// Error says that a request failed, after all its attempts.
type Error struct {
	Op       string // "get", "head", "put", "delete"
	Key      kv.Key
	Attempts int
	Endpoint string // of the last attempt
	// Outcome is the truth about a write over all its attempts; empty for a
	// read. One attempt that may have been applied makes all of it unknown.
	Outcome kv.Outcome
	// WriteID is that of the write, under which it can be repeated.
	WriteID kv.WriteID
	// Err is why the last attempt failed: a [*kv.Error] if a node answered.
	Err error
}

// Error returns one line.
func (e *Error) Error() string {
	parts := []string{fmt.Sprintf("%s %s: %v", e.Op, e.Key, e.Err)}
	if e.Outcome != "" && kvError(e.Err) == nil {
		parts = append(parts, "outcome "+string(e.Outcome))
	}
	if e.Attempts > 1 {
		parts = append(parts, fmt.Sprintf("after %d attempts, the last at %s", e.Attempts, e.Endpoint))
	}
	if e.Outcome == kv.Unknown {
		parts = append(parts, "repeat it under write id "+e.WriteID.String())
	}
	return strings.Join(parts, "; ")
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// IsNotFound reports whether err says that a key holds no value.
func IsNotFound(err error) bool { return CodeOf(err) == kv.CodeNotFound }

// CodeOf returns the code of the answer within err, or "" if no node answered.
func CodeOf(err error) kv.Code {
	if e := kvError(err); e != nil {
		return e.Code
	}
	return ""
}

// OutcomeOf returns whether the write that ended with err may have happened. It
// is NotApplied for an error that no write was sent with.
func OutcomeOf(err error) kv.Outcome {
	if e, ok := errors.AsType[*Error](err); ok && e.Outcome != "" {
		return e.Outcome
	}
	return kv.NotApplied
}

// ContextOf returns the context that came with the answer within err: that of a
// key without a value, for a write that takes its place.
func ContextOf(err error) string {
	if e := kvError(err); e != nil {
		return e.Context
	}
	return ""
}

func kvError(err error) *kv.Error {
	e, _ := errors.AsType[*kv.Error](err)
	return e
}

// unsent reports whether err, of a transport, says that no connection was made.
func unsent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// attemptOutcome is what a failed attempt of a write may have done.
func attemptOutcome(status int, err error) kv.Outcome {
	e := kvError(err)
	switch {
	case e == nil && unsent(err):
		return kv.NotApplied
	case e == nil:
		return kv.Unknown
	case e.Outcome != "":
		return e.Outcome
	case status >= http.StatusInternalServerError:
		return kv.Unknown
	}
	return kv.NotApplied
}

// repeatable reports whether another attempt may do better. A write under one
// id may be repeated as often as a read.
func repeatable(write bool, status int, err error) bool {
	switch {
	case kvError(err) == nil:
		return true
	case status == http.StatusTooManyRequests:
		return true
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return true
	case status >= http.StatusInternalServerError:
		return !write || attemptOutcome(status, err) == kv.Unknown
	}
	return false
}
