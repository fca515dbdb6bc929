// Package transporttest is the conformance suite of transport.Transport: what
// every implementation must do, whatever it runs on.
package transporttest

import (
	"context"
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
	Name string
	run  func(trial)
}

// Run makes the demand of a network on which nobody has joined yet.
func (c Case) Run(t *testing.T, join Join) {
	t.Helper()
	c.run(trial{t, join})
}

// trial is a run of one case.
type trial struct {
	*testing.T

	join Join
}

// Cases returns the suite, for those who cannot use subtests.
func Cases() []Case {
	return []Case{
		{"a call brings the reply and who asks", echo},
		{"many calls at once are not mixed up", manyAtOnce},
		{"bodies of every size arrive whole", sizes},
		{"bodies over the limit are refused", overTheLimit},
		{"nodes share no memory", noSharedMemory},
		{"a call needs a deadline", needsDeadline},
		{"a call whose context is over is not run", contextOver},
		{"the deadline travels", deadlineTravels},
		{"a call ends at its deadline", deadlineEnds},
		{"a cancellation reaches the handler", cancellation},
		{"the handler's context ends with the answer", contextEndsWithAnswer},
		{"an unknown node", unknownNode},
		{"a node that is not there", refused},
		{"a node that comes back", comesBack},
		{"a node that dies with the request", diesWithRequest},
		{"the caller closes", callerCloses},
		{"a busy node", busy},
		{"only the first answer counts", firstAnswer},
		{"an answer after the caller has gone", lateAnswer},
		{"an answer after the node has closed", answerAfterClose},
		{"slow requests delay nobody", slowRequests},
		{"a stalled node delays no other", stalledNode},
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
