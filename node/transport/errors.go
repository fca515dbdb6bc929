package transport

import (
	"errors"
	"fmt"

	"github.com/starling-kv/starling/kv"
)

// Reasons for which a call has no reply; a [*CallError] wraps one of them, or
// the error of the caller's context.
var (
	// ErrRefused: nobody listens at the node's address; its process is not there.
	ErrRefused = errors.New("connection refused")
	// ErrUnreachable: no connection could be made, and it is not known why.
	ErrUnreachable = errors.New("unreachable")
	// ErrHandshake: a node answered, but one of the two sides declined the other;
	// a [*HandshakeError] says which and why.
	ErrHandshake = errors.New("handshake refused")
	// ErrUnknownPeer: no address is known for the node.
	ErrUnknownPeer = errors.New("unknown node")
	// ErrQueueFull: too many calls or bytes to this node are waiting already.
	ErrQueueFull = errors.New("queue to node full")
	// ErrBusy: the node declined the call without running it.
	ErrBusy = errors.New("node busy")
	// ErrTooLarge: the body or the reply is over the limit.
	ErrTooLarge = errors.New("body over the limit")
	// ErrReplyDropped: the call ran, but its reply found the queue back full.
	ErrReplyDropped = errors.New("reply dropped, queue from node full")
	// ErrLost: the connection ended before the reply came.
	ErrLost = errors.New("connection lost")
	// ErrClosed: this transport is closed.
	ErrClosed = errors.New("transport closed")
	// ErrNoDeadline: the caller's context has no deadline.
	ErrNoDeadline = errors.New("context without a deadline: give the call one")
)

// CallError says why a call has no reply and whether it can have run.
type CallError struct {
	Peer kv.NodeID
	// MayHaveRun is false only if the handler provably never saw the request and
	// never will.
	MayHaveRun bool
	Err        error
}

// Error names the node, what is known of the call, and the reason.
func (e *CallError) Error() string {
	known := "not run"
	if e.MayHaveRun {
		known = "may have run"
	}
	return fmt.Sprintf("call to node %v %s: %v", e.Peer, known, e.Err)
}

// Unwrap returns the reason.
func (e *CallError) Unwrap() error { return e.Err }

// NotRun reports whether err proves that the call was not run and never will
// be. False means that it may have run.
func NotRun(err error) bool {
	call, ok := errors.AsType[*CallError](err)
	return ok && !call.MayHaveRun
}

func notRun(to kv.NodeID, err error) error { return &CallError{Peer: to, Err: err} }

func mayHaveRun(to kv.NodeID, err error) error {
	return &CallError{Peer: to, MayHaveRun: true, Err: err}
}

// refusal is why a request has no reply although its answer came. It travels as
// one byte, followed by a text for people.
type refusal uint8

const (
	refusedBusy    refusal = 1 // not run
	refusedDropped refusal = 2 // run; the queue back to the caller is full
	refusedTooBig  refusal = 3 // run; the reply is over the limit
)

// maxRefusalText bounds the text of a refusal, in bytes.
const maxRefusalText = 256

func appendRefusal(dst []byte, r refusal, text string) []byte {
	return append(append(dst, byte(r)), text[:min(len(text), maxRefusalText)]...)
}

// refused turns what appendRefusal wrote into the caller's error. A refusal that
// this version does not know may have run.
func refused(to kv.NodeID, body []byte) error {
	if len(body) == 0 {
		return mayHaveRun(to, ErrBusy)
	}
	text := body[1:min(len(body), 1+maxRefusalText)]
	switch refusal(body[0]) {
	case refusedBusy:
		return notRun(to, fmt.Errorf("%w: %q", ErrBusy, text))
	case refusedDropped:
		return mayHaveRun(to, ErrReplyDropped)
	case refusedTooBig:
		return mayHaveRun(to, fmt.Errorf("reply: %w", ErrTooLarge))
	default:
		return mayHaveRun(to, fmt.Errorf("%w: refusal %d: %q", ErrBusy, body[0], text))
	}
}
