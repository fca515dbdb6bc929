// Package transport is how nodes talk: calls of opaque bodies from node to
// node, each with a deadline, many in flight at once, and errors that say
// whether the other side can have run the call. It knows nothing of records.
//
// There are two implementations of [Transport], judged by one conformance
// suite (package transporttest): [TCP] between processes and [Network] inside
// one, for tests and simulations. DESIGN.md says why TCP looks as it does.
package transport

import (
	"context"

	"github.com/starling-kv/starling/kv"
)

// Method says what a call asks for. The transport carries it and gives it no
// meaning.
type Method uint8

// Transport calls other nodes. It is safe for concurrent use.
type Transport interface {
	// Call sends body to a node and returns its reply. ctx must carry a deadline;
	// what is left of it travels along as a duration, for clocks differ between
	// nodes, and a cancelled call is cancelled over there too. body is copied
	// before Call returns; the reply belongs to the caller and is nil if empty.
	//
	// Every error is a [*CallError]; [NotRun] tells the ones after which the call
	// may be repeated elsewhere without a second thought.
	Call(ctx context.Context, to kv.NodeID, m Method, body []byte) ([]byte, error)
	// Go is Call for those who do not wait: it returns at once, and done is called
	// once with what Call would have returned, within 50 ms of the end of ctx at
	// the latest. done must return at once, as [Handler] must: it is called on the
	// read loop of the connection that brought the answer, or on any other
	// goroutine, also before Go returns. It costs no goroutine and no timer.
	Go(ctx context.Context, to kv.NodeID, m Method, body []byte, done func(reply []byte, err error))
	// Reachable returns nil if a connection that has passed its handshake stands,
	// and tries to make one otherwise. A node that refused within the last 100 ms
	// is answered for from memory. ctx must carry a deadline.
	Reachable(ctx context.Context, to kv.NodeID) error
	// Connected reports whether such a connection stands, without waiting.
	Connected(to kv.NodeID) bool
	// Close fails the calls in flight and waits for all that the transport
	// started. It is idempotent and takes seconds at most.
	Close() error
}

// Peer is who sent a request, as proven by the handshake.
type Peer struct {
	ID          kv.NodeID
	Name        string // the operator's name for it
	Incarnation uint64 // its start, counted by itself
}

// Handler answers requests.
//
// Handle is called on the read loop of the connection that brought the
// request, so it must not block: what takes long goes elsewhere, and calls
// [Request.Reply] when it is done. Requests of different connections are
// handled at the same time. Every request needs an answer in the end, also one
// whose caller has gone: until then it counts as being served, and their number
// is bounded.
//
// ctx ends when the caller gives up, its deadline passes, the connection is
// lost, the transport closes, or the request is answered.
//
// A panic of Handle is not recovered: it ends the process, because a node whose
// state is in doubt must not go on answering.
type Handler interface {
	Handle(ctx context.Context, req *Request)
}

// HandlerFunc is a function that is a [Handler].
type HandlerFunc func(ctx context.Context, req *Request)

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, req *Request) { f(ctx, req) }
