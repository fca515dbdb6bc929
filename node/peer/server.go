package peer

import (
	"context"
	"fmt"
	"sync"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/ring"
)

// maxAside bounds the requests that are served beside the read loops.
const maxAside = 1024

// Coordinator takes the writes that other nodes hand to this one.
type Coordinator interface {
	Forwarded(ctx context.Context, req coordinator.ForwardRequest) (coordinator.PutDone, error)
}

// Server answers what other nodes ask of this one. Most fetches, and stores, are
// short and answered on the read loop of their connection, the store's answer
// from its commit; whatever waits is served aside, in a bounded number of
// goroutines.
type Server struct {
	Handlers

	forwards copies
	mending  map[transport.Method]handler // never changes

	aside   chan struct{}
	pulls   chan struct{}
	looks   chan struct{}
	running sync.WaitGroup
}

// Handlers are what a node does for others. What repairs ask of a nil one is
// refused.
type Handlers struct {
	Replica     Replica
	Coordinator Coordinator
	// Learn makes the views that requests bring known to this node, durably,
	// before it returns.
	Learn func(ring.View) error

	Source     Source
	Nudges     Nudges
	Lives      Lives
	Exchanges  Exchanges
	ReapRounds ReapRounds
}

// NewServer returns a server.
func NewServer(h Handlers) *Server {
	s := &Server{
		Handlers: h, aside: make(chan struct{}, maxAside),
		pulls: make(chan struct{}, pullsAtOnce), looks: make(chan struct{}, looksAtOnce),
	}
	s.mending = s.repairs()
	return s
}

// Wait returns once nothing is served any more; the transport must be closed
// before, so that nothing new comes.
func (s *Server) Wait() { s.running.Wait() }

// Handle implements [transport.Handler].
func (s *Server) Handle(ctx context.Context, req *transport.Request) {
	switch req.Method {
	case methodFetch:
		m, err := coordinator.DecodeFetchRequest(req.Body)
		if atOnce(m.Fence, err) {
			s.fetch(req, m)
			return
		}
		s.fetchAside(req, m, err)
	case methodStore:
		m, err := coordinator.DecodeStoreRequest(req.Body)
		if atOnce(m.Fence, err) {
			s.store(req, m)
			return
		}
		s.storeAside(req, m, err)
	case methodValue:
		m, err := coordinator.DecodeValueRequest(req.Body)
		s.serve(req, m.Fence, err, true, func() {
			b, err := s.Replica.Value(m)
			answer(req, b, err)
		})
	case methodForward:
		s.takeForward(ctx, req)
	default:
		if handle, ok := s.mending[req.Method]; ok {
			handle(ctx, req)
			return
		}
		req.Refuse(fmt.Sprintf("method %d is not known to this version", req.Method))
	}
}

// atOnce reports whether a request that does not wait needs nothing of serve:
// the most frequent ones go without its functions, which would be allocated.
func atOnce(f coordinator.Fence, err error) bool { return err == nil && len(f.Full) == 0 }

func (s *Server) fetchAside(req *transport.Request, m coordinator.FetchRequest, err error) {
	s.serve(req, m.Fence, err, false, func() { s.fetch(req, m) })
}

func (s *Server) storeAside(req *transport.Request, m coordinator.StoreRequest, err error) {
	s.serve(req, m.Fence, err, false, func() { s.store(req, m) })
}

func (s *Server) store(req *transport.Request, m coordinator.StoreRequest) {
	s.Replica.Store(m, func(err error) { answer(req, nil, err) })
}

// serve runs do, aside if it waits or if there is a view to be learnt first.
func (s *Server) serve(req *transport.Request, f coordinator.Fence, err error, waits bool, do func()) {
	switch {
	case err != nil:
		answer(req, nil, notApplied(err))
	case len(f.Full) > 0:
		s.besides(req, func() {
			if err := s.teach(f); err != nil {
				answer(req, nil, notApplied(err))
				return
			}
			do()
		})
	case waits:
		s.besides(req, do)
	default:
		do()
	}
}

// notApplied is the refusal of a request that was not begun.
func notApplied(err error) error {
	return &kv.Error{Code: kv.CodeInternal, Outcome: kv.NotApplied, Message: err.Error()}
}

func (s *Server) besides(req *transport.Request, do func()) {
	select {
	case s.aside <- struct{}{}:
	default:
		req.Refuse("too many requests under way")
		return
	}
	s.running.Go(func() {
		defer func() { <-s.aside }()
		do()
	})
}

// teach merges a view that came along because ours was seen to be different.
func (s *Server) teach(f coordinator.Fence) error {
	v, err := ring.DecodeView(f.Full)
	if err != nil {
		return fmt.Errorf("view of a peer: %w", err)
	}
	return s.Learn(v)
}

func (s *Server) fetch(req *transport.Request, m coordinator.FetchRequest) {
	got, waits, err := s.Replica.FetchNow(m)
	if waits {
		s.fetchWaiting(req, m)
		return
	}
	reply(req, got, err)
}

func (s *Server) fetchWaiting(req *transport.Request, m coordinator.FetchRequest) {
	s.besides(req, func() {
		got, err := s.Replica.Fetch(m)
		reply(req, got, err)
	})
}

// takeForward takes a write that was handed on, once: to give it a dot again
// after its first attempt was reported as not applied would make that a lie.
// Everything else that nodes ask may come as often as it likes.
func (s *Server) takeForward(ctx context.Context, req *transport.Request) {
	rd := wire.NewReader(req.Body)
	number, body := rd.Uvarint(), rd.Rest()
	if rd.Err() == nil && !s.forwards.first(req.From, number) {
		req.Refuse("a copy of a call that came before, or one that is very late")
		return
	}
	m, err := coordinator.DecodeForwardRequest(body)
	s.serve(req, m.Fence, err, true, func() { s.forward(ctx, req, m) })
}

func (s *Server) forward(ctx context.Context, req *transport.Request, m coordinator.ForwardRequest) {
	done, err := s.Coordinator.Forwarded(ctx, m)
	reply(req, done, err)
}

// replies are buffers for answers, which the transport copies.
var replies = sync.Pool{New: func() any { return new([]byte) }}

// reply answers with a message, or with the refusal err.
func reply[M message](req *transport.Request, m M, err error) {
	if err != nil {
		answer(req, nil, err)
		return
	}
	buf, _ := replies.Get().(*[]byte) // the pool makes nothing else
	*buf = m.Append(append((*buf)[:0], replyAnswer))
	req.Reply(*buf)
	if cap(*buf) <= maxPooled {
		replies.Put(buf)
	}
}

func answer(req *transport.Request, body []byte, err error) {
	if err != nil {
		req.Reply(coordinator.AppendError([]byte{replyRefusal}, err))
		return
	}
	req.Reply(append([]byte{replyAnswer}, body...))
}
