package api

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/vclock"
)

// Server answers the clients of one node on its data port, and its operator on
// its admin port. It is safe for concurrent use.
type Server struct {
	kv        KV
	inspector Inspector
	repairs   Repairs
	keyring   func() *vclock.Keyring
	metrics   *metrics
	scrape    http.Handler // answers /metrics
	log       *zap.Logger
	limits    Limits

	requests *limiter // requests on keys under way
	refusals pacer    // of requests beyond
	held     budget   // bytes of bodies and heads
	faults   atomic.Uint64

	// base is the parent of all requests; stop ends them.
	base context.Context
	stop context.CancelFunc

	closing   atomic.Bool // set with mu held
	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	gone      chan struct{} // closed when closing and nothing is left of the above
}

// New returns a server without listeners. Close it to end what it serves.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	limits, err := o.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registry)
	if err != nil {
		return nil, err
	}
	s := &Server{
		kv: o.KV, inspector: o.Inspector, repairs: o.Repairs, keyring: o.Keyring, log: o.Log, limits: limits,
		metrics: m, scrape: promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{}),
		requests:  newLimiter(limits.Requests, o.Late),
		held:      budget{limit: int64(limits.HeldBytes)},
		listeners: map[net.Listener]struct{}{},
		conns:     map[*conn]struct{}{},
		gone:      make(chan struct{}),
	}
	s.base, s.stop = context.WithCancel(context.Background())
	return s, m.showLimit(o.Registry, s.requests)
}

// Serve answers clients who connect to ln until the server is closed, and then
// returns nil; or until ln fails, and then returns why. It closes ln.
func (s *Server) Serve(ln net.Listener) error { return s.serve(ln, dataPort) }

// ServeAdmin does as [Server.Serve] does, and answers what only the operator
// should reach too.
func (s *Server) ServeAdmin(ln net.Listener) error { return s.serve(ln, adminPort) }

func (s *Server) serve(ln net.Listener, p port) error {
	if !s.addListener(ln) {
		return ln.Close()
	}
	defer s.removeListener(ln)
	for {
		c, err := s.accept(ln)
		switch {
		case err == nil:
			s.open(c, p)
		case s.closing.Load():
			return nil
		default:
			return err
		}
	}
}

// accept waits for a connection. Having run out of file descriptors or memory
// passes, so it is waited out.
func (s *Server) accept(ln net.Listener) (net.Conn, error) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		c, err := ln.Accept()
		var passing interface{ Temporary() bool }
		if err == nil || !errors.As(err, &passing) || !passing.Temporary() {
			return c, err
		}
		s.log.Warn("accept failed", zap.Error(err), zap.Duration("again_in", pause))
		select {
		case <-time.After(pause):
		case <-s.base.Done():
			return nil, err
		}
	}
}

// open starts to serve a connection, or refuses it if there are too many.
func (s *Server) open(nc net.Conn, p port) {
	c := newConn(s, nc, p)
	s.mu.Lock()
	full, closing := len(s.conns) >= s.limits.Connections, s.closing.Load()
	if !full && !closing {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	switch {
	case closing:
		_ = nc.Close()
	case full:
		s.metrics.shed("connections")
		c.turnAway()
	default:
		s.metrics.connections.Inc()
		go c.serve()
	}
}

// forget is called by a connection when it has ended.
func (s *Server) forget(c *conn) {
	s.metrics.connections.Dec()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.noteGone()
}

func (s *Server) addListener(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) removeListener(ln net.Listener) {
	_ = ln.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
	s.noteGone()
}

// noteGone is called with mu held after something has ended.
func (s *Server) noteGone() {
	if s.closing.Load() && len(s.listeners) == 0 && len(s.conns) == 0 {
		close(s.gone)
	}
}

// lastWord is how long handlers have to return once their contexts are ended.
const lastWord = 2 * time.Second

// Close stops listening, lets the requests that have come in be answered, and
// closes their connections. When ctx ends first, it ends the contexts of the
// requests, cuts their connections, and returns the reason of ctx. It may be
// called again, and then waits likewise.
func (s *Server) Close(ctx context.Context) error {
	defer s.stop()
	s.closeListeners()
	for _, c := range s.openConns() {
		c.closeIfIdle()
	}
	select {
	case <-s.gone:
		return nil
	case <-ctx.Done():
	}
	s.stop()
	for _, c := range s.openConns() {
		_ = c.Conn.Close()
	}
	select {
	case <-s.gone:
	case <-time.After(lastWord):
	}
	return context.Cause(ctx)
}

func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.closing.CompareAndSwap(false, true)
	for ln := range s.listeners {
		_ = ln.Close()
	}
	if first {
		s.noteGone()
	}
}

func (s *Server) openConns() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}
