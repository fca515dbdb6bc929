package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/starling-kv/starling/kv"
)

// inboxSize bounds the requests that wait for one node's handler, for each
// sender.
const inboxSize = 8192

// Network connects nodes inside one process, for tests and simulations. Nothing
// on it takes time, unless a handler does. Its nodes share no memory: bodies are
// copied. It uses no sockets and waits for nothing but channels, so it works
// within a testing/synctest bubble.
type Network struct {
	mu    sync.Mutex // never held across a wait
	nodes map[kv.NodeID]*endpoint
	cut   map[direction]bool
}

var errDown = errors.New("node is down")

type direction struct{ from, to kv.NodeID }

// NewNetwork returns a network without nodes and without faults.
func NewNetwork() *Network {
	return &Network{nodes: make(map[kv.NodeID]*endpoint), cut: make(map[direction]bool)}
}

// Join adds a node, and starts it anew if it was closed: its incarnation is one
// more than before. The node before must be closed.
func (n *Network) Join(id kv.NodeID, h Handler) Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := &endpoint{net: n, handler: h, self: Peer{ID: id, Name: id.String(), Incarnation: 1}, life: newLife()}
	if before := n.nodes[id]; before != nil {
		e.self.Incarnation = before.self.Incarnation + 1
	}
	n.nodes[id] = e
	return e
}

// Cut makes everything that is sent from one node to another vanish from now
// on, or arrive again. Nobody is told.
func (n *Network) Cut(from, to kv.NodeID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[direction{from, to}] = cut
}

// SetDown takes a node off the network, as the end of its process would: calls
// in flight from and to it are lost, later ones refused. Or it brings the node
// back.
func (n *Network) SetDown(id kv.NodeID, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.nodes[id]
	switch {
	case e == nil || e.closed:
	case down && e.life != nil:
		e.life.end(errDown)
		e.life = nil
	case !down && e.life == nil:
		e.life = newLife()
	}
}

func (n *Network) isCut(from, to kv.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[direction{from, to}]
}

// endpoint is one node's side of the network.
type endpoint struct {
	net     *Network
	self    Peer
	handler Handler
	running sync.WaitGroup

	// guarded by net.mu:
	closed bool
	life   *life // nil while down
}

// life is a time during which a node can be reached.
type life struct {
	ctx     context.Context
	end     context.CancelCauseFunc
	inboxes map[kv.NodeID]chan *Request // by sender; guarded by Network.mu
}

func newLife() *life {
	l := &life{inboxes: make(map[kv.NodeID]chan *Request)}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	return l
}

// cause returns why the life ended.
func (l *life) cause() error { return context.Cause(l.ctx) }

// exchange is one call on its way there and back.
type exchange struct {
	net      *Network
	from, to kv.NodeID
	here     *life
	there    *life
	request  *Request
	answer   chan answer // has room for the one answer
}

type answer struct {
	kind frameKind
	body []byte
}

// Call implements [Transport].
func (e *endpoint) Call(ctx context.Context, to kv.NodeID, m Method, body []byte) ([]byte, error) {
	deadline, err := checkCall(ctx, to, body, DefaultMaxBody)
	if err != nil {
		return nil, err
	}
	x := &exchange{net: e.net, from: e.self.ID, to: to, answer: make(chan answer, 1)}
	err = e.send(x, func(parent context.Context) *Request { //nolint:contextcheck // the receiver's life is not the caller's
		req := newRequest(parent, deadline, e.self, m, append([]byte(nil), body...))
		req.via = x
		return req
	})
	if err != nil {
		return nil, notRun(to, err)
	}
	a, err := x.wait(ctx)
	switch {
	case err != nil:
		return nil, mayHaveRun(to, err)
	case a.kind == kindRefuse:
		return nil, refused(to, a.body)
	}
	return a.body, nil
}

// Go implements [Transport].
func (e *endpoint) Go(ctx context.Context, to kv.NodeID, m Method, body []byte, done func(reply []byte, err error)) {
	body = bytes.Clone(body)
	if !e.start(func() { done(e.Call(ctx, to, m, body)) }) {
		done(nil, notRun(to, ErrClosed))
	}
}

// start runs f in a goroutine that Close waits for. It returns false if it is
// too late for that.
func (e *endpoint) start(f func()) bool {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	if !e.closed {
		e.running.Go(f)
	}
	return !e.closed
}

// send puts a request into the inbox of its receiver, unless it is lost.
func (e *endpoint) send(x *exchange, request func(context.Context) *Request) error {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	there, err := e.route(x)
	if err != nil {
		return err
	}
	x.request = request(x.there.ctx)
	if e.net.cut[direction{x.from, x.to}] {
		return nil
	}
	inbox, ok := x.there.inboxes[x.from]
	if !ok {
		inbox = make(chan *Request, inboxSize)
		x.there.inboxes[x.from] = inbox
		there.running.Go(func() { there.serve(x.there, inbox) })
	}
	select {
	case inbox <- x.request:
		return nil
	default:
		return ErrQueueFull
	}
}

// route finds the receiver and both lives. It is called with net.mu held.
func (e *endpoint) route(x *exchange) (*endpoint, error) {
	there := e.net.nodes[x.to]
	switch {
	case e.closed:
		return nil, ErrClosed
	case e.life == nil:
		return nil, ErrUnreachable
	case there == nil:
		return nil, ErrUnknownPeer
	case there.life == nil:
		return nil, ErrRefused
	}
	x.here, x.there = e.life, there.life
	return there, nil
}

// serve is the read loop for one sender.
func (e *endpoint) serve(l *life, inbox <-chan *Request) {
	for {
		select {
		case <-l.ctx.Done():
			return
		case req := <-inbox:
			if l.ctx.Err() == nil { // whichever case was chosen
				e.handler.Handle(&req.ctx, req)
			}
		}
	}
}

// wait returns the answer, or why there is none. If several are there at once,
// the first of these counts: the answer, the end of a node, the caller's.
func (x *exchange) wait(ctx context.Context) (answer, error) {
	select {
	case a := <-x.answer:
		return a, nil
	case <-x.here.ctx.Done():
	case <-x.there.ctx.Done():
	case <-ctx.Done():
	}
	select {
	case a := <-x.answer:
		return a, nil
	default:
	}
	switch {
	case x.here.ctx.Err() != nil:
		return answer{}, fmt.Errorf("%w: %w", ErrLost, x.here.cause())
	case x.there.ctx.Err() != nil:
		return answer{}, ErrLost
	}
	if errors.Is(ctx.Err(), context.Canceled) && !x.net.isCut(x.from, x.to) {
		x.request.ctx.End()
	}
	return answer{}, ctx.Err()
}

func (x *exchange) reply(_ *Request, body []byte) {
	if len(body) > DefaultMaxBody {
		x.back(kindRefuse, appendRefusal(nil, refusedTooBig, ""))
		return
	}
	x.back(kindReply, append([]byte(nil), body...))
}

func (x *exchange) refuse(_ *Request, r refusal, text string) {
	x.back(kindRefuse, appendRefusal(nil, r, text))
}

// back delivers the one answer, unless it is lost.
func (x *exchange) back(kind frameKind, body []byte) {
	if x.there.ctx.Err() == nil && !x.net.isCut(x.to, x.from) {
		x.answer <- answer{kind, body}
	}
}

// Reachable implements [Transport].
func (e *endpoint) Reachable(ctx context.Context, to kv.NodeID) error {
	if _, err := checkCall(ctx, to, nil, 0); err != nil {
		return err
	}
	x, cut, err := e.look(to)
	switch {
	case err != nil:
		return notRun(to, err)
	case !cut:
		return nil
	}
	select { // nobody answers
	case <-ctx.Done():
		return notRun(to, fmt.Errorf("connecting: %w", ctx.Err()))
	case <-x.here.ctx.Done():
		return notRun(to, x.here.cause())
	}
}

// Connected implements [Transport]. No connection outlasts a cut, which TCP
// takes a moment to notice.
func (e *endpoint) Connected(to kv.NodeID) bool {
	_, cut, err := e.look(to)
	return err == nil && !cut
}

// look returns the way to a node, and whether it is cut there or back.
func (e *endpoint) look(to kv.NodeID) (x *exchange, cut bool, err error) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	x = &exchange{net: e.net, from: e.self.ID, to: to}
	_, err = e.route(x)
	return x, e.net.cut[direction{x.from, to}] || e.net.cut[direction{to, x.from}], err
}

// Close implements [Transport].
func (e *endpoint) Close() error {
	e.net.mu.Lock()
	e.closed = true
	if e.life != nil {
		e.life.end(ErrClosed)
		e.life = nil
	}
	e.net.mu.Unlock()
	return waitAtMost(&e.running, closeWait)
}
