package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

// endpoint is the transport of one life of a node. Nothing that is asked of it
// is answered but by the gate.
type endpoint struct {
	net     *network
	id      kv.NodeID
	self    transport.Peer
	handler transport.Handler
	dead    atomic.Bool
	served  sync.WaitGroup

	life context.Context //nolint:containedctx // ends with the process
	end  context.CancelFunc
}

var _ transport.Transport = (*endpoint)(nil)

// join adds the transport of a node that starts.
func (n *network) join(id kv.NodeID, name string, incarnation uint64, h transport.Handler) *endpoint {
	e := &endpoint{net: n, id: id, handler: h, self: transport.Peer{ID: id, Name: name, Incarnation: incarnation}}
	e.life, e.end = context.WithCancel(context.Background())
	n.endpoints.Store(id, e)
	return e
}

// kill ends the endpoint as the end of its process does.
func (e *endpoint) kill(reset bool) {
	e.dead.Store(true)
	e.end()
	e.net.drop(e, reset)
}

// exchange is one call on its way there and back.
type exchange struct {
	net    *network
	name   string
	from   *endpoint
	to     kv.NodeID
	method transport.Method
	body   []byte
	ctx    context.Context //nolint:containedctx // of the caller
	budget time.Duration
	reach  bool // asks for a connection only

	done func(reply) // called once, by the gate

	// Of the gate's goroutine:
	id       uint64
	finished bool
	serving  *endpoint // that was handed the request
	cancel   context.CancelFunc
}

type reply struct {
	body []byte
	err  error
}

// Call implements [transport.Transport].
func (e *endpoint) Call(ctx context.Context, to kv.NodeID, m transport.Method, body []byte) ([]byte, error) {
	x := &exchange{to: to, method: m, body: bytes.Clone(body)}
	return x.wait(ctx, e)
}

// Go implements [transport.Transport].
func (e *endpoint) Go(ctx context.Context, to kv.NodeID, m transport.Method, body []byte, done func(reply []byte, err error)) {
	x := &exchange{to: to, method: m, body: bytes.Clone(body)}
	var expire func() bool
	x.done = func(r reply) {
		expire()
		done(r.body, r.err)
	}
	if err := x.prepare(ctx, e); err != nil {
		done(nil, err)
		return
	}
	expire = context.AfterFunc(ctx, x.expire)
	x.post()
}

// Reachable implements [transport.Transport].
func (e *endpoint) Reachable(ctx context.Context, to kv.NodeID) error {
	x := &exchange{to: to, reach: true}
	_, err := x.wait(ctx, e)
	if call, ok := errors.AsType[*transport.CallError](err); ok {
		call.MayHaveRun = false
	}
	return err
}

// wait makes the exchange and waits for its end.
func (x *exchange) wait(ctx context.Context, from *endpoint) ([]byte, error) {
	result := make(chan reply, 1)
	x.done = func(r reply) { result <- r }
	if err := x.prepare(ctx, from); err != nil {
		return nil, err
	}
	x.post()
	select {
	case r := <-result:
		return r.body, r.err
	case <-ctx.Done():
	}
	x.expire()
	r := <-result
	return r.body, r.err
}

// prepare fills in what the exchange needs, or says why it cannot be made.
func (x *exchange) prepare(ctx context.Context, from *endpoint) error {
	deadline, ok := ctx.Deadline()
	var err error
	switch {
	case !ok:
		err = transport.ErrNoDeadline
	case ctx.Err() != nil:
		err = ctx.Err()
	case from.dead.Load():
		err = transport.ErrClosed
	case len(x.body) > transport.DefaultMaxBody:
		err = fmt.Errorf("%w: %d bytes", transport.ErrTooLarge, len(x.body))
	default:
		x.net, x.from, x.ctx = from.net, from, ctx
		x.budget = time.Until(deadline)
		x.name = x.describe(deadline.Sub(from.net.gate.begun))
		return nil
	}
	return &transport.CallError{Peer: x.to, Err: err}
}

func (x *exchange) post() { x.net.gate.post(x.name, x.admit) }

// expire gives the exchange up: its caller does not wait any more.
func (x *exchange) expire() { x.net.gate.post("give up "+x.name, x.giveUp) }

// describe names the exchange by all that tells it from others: operations start
// at different moments, so that the deadline stands for the operation.
func (x *exchange) describe(deadline time.Duration) string {
	what := "reach"
	if !x.reach {
		what = "call " + strconv.Itoa(int(x.method)) + " " + strconv.FormatUint(hashOf(string(x.body)), 36)
	}
	return x.from.self.Name + ">" + x.to.String() + " " + what + " by " + strconv.FormatInt(int64(deadline), 10)
}

// Connected implements [transport.Transport].
func (e *endpoint) Connected(to kv.NodeID) bool {
	return !e.dead.Load() && e.net.up(to) && !e.net.deaf(e.id, to)
}

// Close implements [transport.Transport]. The gate need not run any more.
func (e *endpoint) Close() error {
	if !e.dead.Swap(true) {
		e.net.gate.post("close "+e.self.Name, func(uint64) { e.kill(true) })
	}
	e.end()
	e.served.Wait()
	return nil
}

func (x *exchange) admit(id uint64) {
	x.id = id
	if x.from.dead.Load() {
		x.finish(x.failed(false, transport.ErrClosed))
		return
	}
	x.net.open = append(x.net.open, x)
	if x.net.lost(id) {
		return
	}
	x.net.gate.schedule(x.net.leaving(x.from.id, id)+x.net.delay(x.from.id, x.to, id), x.name, func() { x.arrive(true) })
}

// arrive is the moment at which the request, or a second copy of it, is there.
func (x *exchange) arrive(first bool) {
	n := x.net
	if n.isCut(x.from.id, x.to) {
		return
	}
	if until, ok := n.paused(x.to); ok {
		n.gate.schedule(until+n.jitter(x.id), x.name, func() { x.arrive(first) })
		return
	}
	there := n.endpoint(x.to)
	switch {
	case first && there == nil:
		x.back("unknown", mix(x.id, 1), x.failed(false, transport.ErrUnknownPeer))
	case first && there.dead.Load():
		x.back("refused", mix(x.id, 1), x.failed(false, transport.ErrRefused))
	case first && x.reach:
		x.back("reached", mix(x.id, 1), reply{})
	case there != nil && !there.dead.Load() && (first || there == x.serving): // a copy ends with its connection
		x.serve(there, first)
	}
}

// serve hands the request to its node. Nobody waits for the answer to a copy.
func (x *exchange) serve(there *endpoint, first bool) {
	ctx, cancel := context.WithCancel(there.life)
	answer := func([]byte, error) { cancel() }
	if first {
		x.serving, x.cancel = there, cancel
		answer = func(body []byte, err error) { x.answered(there, body, err) }
		if x.net.doubled(x.id) {
			x.net.gate.schedule(x.net.gate.now()+x.net.delay(x.from.id, x.to, mix(x.id, 3)), "again "+x.name, func() { x.arrive(false) })
		}
	}
	req := transport.NewRequest(ctx, time.Now().Add(x.budget), x.from.self, x.method, bytes.Clone(x.body), answer)
	there.served.Go(func() { req.Serve(there.handler) })
}

// answered takes the answer from the node's goroutine.
func (x *exchange) answered(there *endpoint, body []byte, err error) {
	r := reply{body: body}
	if len(body) == 0 {
		r.body = nil
	}
	if err != nil {
		r = x.failed(!errors.Is(err, transport.ErrBusy), err)
	}
	name := "answer " + x.name
	x.net.gate.post(name, func(id uint64) {
		x.cancel()
		if !there.dead.Load() && !x.net.lost(id) {
			x.back("answer", id, r)
		}
	})
}

// back sends r to the caller.
func (x *exchange) back(what string, id uint64, r reply) {
	n := x.net
	at := n.leaving(x.to, id) + n.delay(x.to, x.from.id, id)
	x.returning(at, what+" "+x.name, r)
}

func (x *exchange) returning(at time.Duration, name string, r reply) {
	n := x.net
	n.gate.schedule(at, name, func() {
		if until, ok := n.paused(x.from.id); ok {
			x.returning(until+n.jitter(x.id), name, r)
			return
		}
		if !n.isCut(x.to, x.from.id) {
			x.finish(r)
		}
	})
}

// giveUp ends a call whose caller does not wait any more.
func (x *exchange) giveUp(uint64) {
	n := x.net
	n.gate.schedule(n.gate.now(), "give up "+x.name, func() {
		if x.finished {
			return
		}
		x.finish(x.failed(true, x.ctx.Err()))
		if x.cancel != nil && errors.Is(x.ctx.Err(), context.Canceled) && !n.isCut(x.from.id, x.to) {
			n.gate.schedule(n.gate.now()+n.delay(x.from.id, x.to, mix(x.id, 2)), "cancel "+x.name, x.cancel)
		}
	})
}

func (x *exchange) failed(mayHaveRun bool, err error) reply {
	return reply{err: &transport.CallError{Peer: x.to, MayHaveRun: mayHaveRun, Err: err}}
}

// finish completes the call, once.
func (x *exchange) finish(r reply) {
	if x.finished {
		return
	}
	x.finished = true
	x.net.open = slices.DeleteFunc(x.net.open, func(y *exchange) bool { return y == x })
	x.done(r)
}
