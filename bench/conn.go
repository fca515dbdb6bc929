package bench

import (
	"context"
	"errors"
	"fmt"
)

// Conn is one connection to a system under load, used by one goroutine. Every
// call has a deadline of its own. After an error that is no [*StatusError] the
// connection is closed and replaced.
type Conn interface {
	// Get reads a key. A key without a value is an answer, not an error.
	Get(key []byte) (Answer, error)
	// Put writes a key. The token, nil for none, says what the write replaces.
	Put(key, value, token []byte) (Answer, error)
	Close() error
}

// Dial opens connection i of a run. It returns soon after ctx ends.
type Dial func(ctx context.Context, i int) (Conn, error)

// Answer is what a system said.
type Answer struct {
	Found    bool   // of a read
	Siblings int    // values beside one another, of which a write must see all
	Token    []byte // of the connection, valid until its next call; nil: none
}

// StatusError is an answer other than yes. The connection can go on.
type StatusError struct {
	Status string // "503 overloaded"
}

func (e *StatusError) Error() string { return "answered " + e.Status }

// kindOf names an error for a count of errors.
func kindOf(err error) string {
	if s, ok := errors.AsType[*StatusError](err); ok {
		return s.Status
	}
	if timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && timeout.Timeout() {
		return "no answer in time"
	}
	return fmt.Sprintf("connection: %v", cause(err))
}

// cause strips what differs from connection to connection, as addresses do.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
