// Package peer is the protocol between nodes: the calls that a coordinator
// makes of replicas, and those by which nodes repair one another, carried over a
// transport, and their answers.
//
// Data move in one way only: a node pulls whole records from another and merges
// them itself, at its own pace. Who notices that a node is behind nudges it.
//
// Every request and reply is one of the messages of the package that makes the
// call, or of this one. A reply begins with a byte that says whether it is an
// answer or a refusal.
package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

// What a node can be asked.
const (
	methodFetch   transport.Method = 1
	methodStore   transport.Method = 2
	methodValue   transport.Method = 3
	methodForward transport.Method = 4

	methodPull     transport.Method = 5
	methodNudge    transport.Method = 6
	methodAnnounce transport.Method = 7
	methodCompare  transport.Method = 8
	methodChildren transport.Method = 9
	methodKeys     transport.Method = 10
	methodConfirm  transport.Method = 11
	methodApply    transport.Method = 12
	methodNumbers  transport.Method = 13
)

// maxPooled is the largest request buffer that is kept for the next request.
const maxPooled = 64 << 10

// The first byte of a reply.
const (
	replyAnswer  = 0
	replyRefusal = 1
)

var errEmptyReply = errors.New("a peer answered with an empty reply")

// Replica is what a node does of its own records.
type Replica interface {
	Fetch(req coordinator.FetchRequest) (coordinator.FetchReply, error)
	// FetchNow is Fetch, unless it returns waits: then Fetch would wait, or read
	// much, and FetchNow has done nothing.
	FetchNow(req coordinator.FetchRequest) (reply coordinator.FetchReply, waits bool, err error)
	Value(req coordinator.ValueRequest) ([]byte, error)
	Store(req coordinator.StoreRequest, done func(error))
}

// Client reaches the replicas of a cluster for a coordinator: others over the
// transport, this node's own directly. It is safe for concurrent use.
type Client struct {
	self      kv.NodeID
	local     Replica
	merger    Merger
	views     Views
	transport transport.Transport
	buffers   sync.Pool // of *[]byte, for requests
	forwards  atomic.Uint64
	nudges    chan struct{} // those under way that make this node pull
	nudged    atomic.Int64  // when the last of them ended, in nanoseconds of Unix time
	pressed   func() bool
	running   sync.WaitGroup // fetches of this node's own that wait
}

var _ coordinator.Replicas = (*Client)(nil)

// Config says what a [Client] works with. All fields are needed, save Pressed.
type Config struct {
	Self      kv.NodeID
	Local     Replica
	Merger    Merger
	Views     Views
	Transport transport.Transport
	// Pressed reports whether the node is so busy with requests that others
	// should leave it alone for a moment after each nudge. Nil: never.
	Pressed func() bool
}

// NewClient returns the client of a node.
func NewClient(cfg Config) *Client {
	c := &Client{
		self: cfg.Self, local: cfg.Local, merger: cfg.Merger, views: cfg.Views, transport: cfg.Transport,
		nudges: make(chan struct{}, nudgesAtOnce), pressed: cfg.Pressed,
	}
	c.buffers.New = func() any { return new([]byte) }
	return c
}

// Wait returns once nothing goes on that the calls of a coordinator began, which
// must be closed before.
func (c *Client) Wait() { c.running.Wait() }

// Fetch implements [coordinator.Replicas].
func (c *Client) Fetch(
	ctx context.Context, to kv.NodeID, req coordinator.FetchRequest, done func(coordinator.FetchReply, error),
) {
	if to == c.self {
		c.fetchHere(req, done)
		return
	}
	send(ctx, c, to, methodFetch, req, func(b []byte, err error) {
		if b, err = opened(b, err); err != nil {
			done(coordinator.FetchReply{}, err)
			return
		}
		done(coordinator.DecodeFetchReply(b))
	})
}

// fetchHere reads this node's own record at once, unless that waits.
func (c *Client) fetchHere(req coordinator.FetchRequest, done func(coordinator.FetchReply, error)) {
	got, waits, err := c.local.FetchNow(req)
	if !waits {
		done(got, err)
		return
	}
	c.running.Go(func() { done(c.local.Fetch(req)) })
}

// Store implements [coordinator.Replicas].
func (c *Client) Store(ctx context.Context, to kv.NodeID, req coordinator.StoreRequest, done func(error)) {
	if to == c.self {
		c.local.Store(req, done)
		return
	}
	send(ctx, c, to, methodStore, req, func(b []byte, err error) {
		_, err = opened(b, err)
		done(err)
	})
}

// Value implements [coordinator.Replicas].
func (c *Client) Value(ctx context.Context, to kv.NodeID, req coordinator.ValueRequest) ([]byte, error) {
	if to == c.self {
		return c.local.Value(req)
	}
	return c.call(ctx, to, methodValue, req)
}

// Forward implements [coordinator.Replicas].
func (c *Client) Forward(ctx context.Context, to kv.NodeID, req coordinator.ForwardRequest) (coordinator.PutDone, error) {
	b, err := c.call(ctx, to, methodForward, numbered{req, c.forwards.Add(1)})
	if err != nil {
		return coordinator.PutDone{}, err
	}
	return coordinator.DecodePutDone(b)
}

// numbered is a message by whose number its receiver knows copies of the call.
type numbered struct {
	message

	number uint64
}

// Append appends the number and the message.
func (n numbered) Append(dst []byte) []byte {
	return n.message.Append(binary.AppendUvarint(dst, n.number))
}

// Reachable implements [coordinator.Replicas].
func (c *Client) Reachable(ctx context.Context, to kv.NodeID) error {
	if to == c.self {
		return nil
	}
	return c.transport.Reachable(ctx, to)
}

// Connected implements [coordinator.Replicas].
func (c *Client) Connected(id kv.NodeID) bool { return id == c.self || c.transport.Connected(id) }

// message is a request or a reply.
type message interface {
	Append(dst []byte) []byte
}

// ask sends one message of a repair and decodes the answer. That the transport
// declines it is told as that the node is busy, which it is.
func ask[Reply any](
	ctx context.Context, c *Client, to kv.NodeID, m transport.Method, msg message, decode func([]byte) (Reply, error),
) (reply Reply, err error) {
	b, err := c.call(ctx, to, m, msg)
	switch {
	case errors.Is(err, transport.ErrBusy) || errors.Is(err, transport.ErrQueueFull):
		return reply, coordinator.MarkNotRun(errBusy(err.Error()))
	case err != nil:
		return reply, err
	}
	return decode(b)
}

// call sends one message and returns the answer without its first byte.
func (c *Client) call(ctx context.Context, to kv.NodeID, m transport.Method, msg message) ([]byte, error) {
	buf := c.buffer()
	*buf = msg.Append(*buf)
	b, err := c.transport.Call(ctx, to, m, *buf)
	c.recycle(buf)
	return opened(b, err)
}

// send sends one message and does not wait for the answer.
func send[M message](
	ctx context.Context, c *Client, to kv.NodeID, m transport.Method, msg M, done func(reply []byte, err error),
) {
	buf := c.buffer()
	*buf = msg.Append(*buf)
	c.transport.Go(ctx, to, m, *buf, done)
	c.recycle(buf)
}

// buffer returns an empty buffer for a request.
func (c *Client) buffer() *[]byte {
	buf, _ := c.buffers.Get().(*[]byte) // the pool makes nothing else
	*buf = (*buf)[:0]
	return buf
}

func (c *Client) recycle(buf *[]byte) {
	if cap(*buf) <= maxPooled {
		c.buffers.Put(buf)
	}
}

// opened takes a reply apart: what follows its first byte, or the refusal.
func opened(b []byte, err error) ([]byte, error) {
	switch {
	case err != nil && transport.NotRun(err):
		return nil, coordinator.MarkNotRun(err)
	case err != nil:
		return nil, err
	case len(b) == 0:
		return nil, errEmptyReply
	case b[0] == replyRefusal:
		return nil, coordinator.DecodeError(b[1:])
	}
	return b[1:], nil
}
