// Package transporttest is the conformance suite of transport.Transport: what
// every implementation must do, whatever it runs on.
package transporttest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

// Join starts a node on the network under test. A node that was closed may join
// again. The network closes all its nodes when the test ends.
type Join func(id kv.NodeID, h transport.Handler) transport.Transport

// Case is one demand of the suite.
type Case struct {
	Name   string
	run    func(trial)
	behind bool // calls are made with Go
}

// Run makes the demand of a network on which nobody has joined yet.
func (c Case) Run(t *testing.T, join Join) {
	t.Helper()
	if !c.behind {
		c.run(trial{t, join})
		return
	}
	c.run(trial{t, func(id kv.NodeID, h transport.Handler) transport.Transport { return behind{join(id, h)} }})
}

// behind makes its calls with Go, so that of those the same is asked as of Call.
type behind struct{ transport.Transport }

func (b behind) Call(ctx context.Context, to kv.NodeID, m transport.Method, body []byte) ([]byte, error) {
	done := make(chan result, 2) // a second answer must not go unnoticed
	b.Go(ctx, to, m, body, func(reply []byte, err error) { done <- result{reply, err} })
	r := <-done
	if len(done) > 0 {
		return nil, errors.New("a call was answered twice")
	}
	return r.reply, r.err
}

// trial is a run of one case.
type trial struct {
	*testing.T

	join Join
}

// Cases returns the suite, for those who cannot use subtests: every demand is
// made of Call, and of Go.
func Cases() []Case {
	all := demands()
	for _, c := range demands() {
		c.Name, c.behind = c.Name+", of calls that nobody waits for", true
		all = append(all, c)
	}
	return all
}

func demands() []Case {
	return []Case{
		{Name: "a call brings the reply and who asks", run: echo},
		{Name: "many calls at once are not mixed up", run: manyAtOnce},
		{Name: "bodies of every size arrive whole", run: sizes},
		{Name: "bodies over the limit are refused", run: overTheLimit},
		{Name: "nodes share no memory", run: noSharedMemory},
		{Name: "a call needs a deadline", run: needsDeadline},
		{Name: "a call whose context is over is not run", run: contextOver},
		{Name: "the deadline travels", run: deadlineTravels},
		{Name: "a call ends at its deadline", run: deadlineEnds},
		{Name: "a cancellation reaches the handler", run: cancellation},
		{Name: "the handler's context ends with the answer", run: contextEndsWithAnswer},
		{Name: "an unknown node", run: unknownNode},
		{Name: "a node that is not there", run: refused},
		{Name: "a node that comes back", run: comesBack},
		{Name: "a node that dies with the request", run: diesWithRequest},
		{Name: "the caller closes", run: callerCloses},
		{Name: "a busy node", run: busy},
		{Name: "only the first answer counts", run: firstAnswer},
		{Name: "an answer after the caller has gone", run: lateAnswer},
		{Name: "an answer after the node has closed", run: answerAfterClose},
		{Name: "slow requests delay nobody", run: slowRequests},
		{Name: "a stalled node delays no other", run: stalledNode},
	}
}

// Run runs the suite as subtests, each on a network of its own.
func Run(t *testing.T, network func(t *testing.T) Join) {
	t.Helper()
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) { c.Run(t, network(t)) })
	}
}

const (
	alice kv.NodeID = 0xa11ce
	bob   kv.NodeID = 0xb0b
	carol kv.NodeID = 0xca401
)

// patience bounds what must happen at once, on a busy machine.
const patience = 20 * time.Second

// within returns a context for one step of a test.
func within(t trial, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// receive waits for a value.
func receive[T any](t trial, from <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-from:
		return v
	case <-timer.C:
		t.Fatalf("never came: %s", what)
		panic("unreachable")
	}
}

// echoing answers a request with its own body.
var echoing = transport.HandlerFunc(func(_ context.Context, req *transport.Request) { req.Reply(req.Body) })

// silent answers nothing.
var silent = transport.HandlerFunc(func(context.Context, *transport.Request) {})

// served is a request together with the context of its handler.
type served struct {
	*transport.Request

	ctx context.Context
}

// collecting hands the requests over and leaves the answers to the test.
func collecting(room int) (transport.Handler, <-chan served) {
	requests := make(chan served, room)
	return transport.HandlerFunc(func(ctx context.Context, req *transport.Request) {
		requests <- served{req, ctx}
	}), requests
}

// result of a call that runs beside the test.
type result struct {
	reply []byte
	err   error
}

// calling starts a call to bob.
func calling(ctx context.Context, from transport.Transport, body string) <-chan result {
	done := make(chan result, 1)
	go func() {
		reply, err := from.Call(ctx, bob, 1, []byte(body))
		done <- result{reply, err}
	}()
	return done
}
