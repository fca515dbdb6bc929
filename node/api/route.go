package api

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// A handler answers an exchange, or returns why it cannot.
type handler func(s *Server, x *exchange) error

// port says which listener a connection came in by, as a set of one.
type port uint8

const (
	dataPort port = 1 << iota
	adminPort
)

// A route is what is served under a path: that path alone or, if it ends in a
// slash, all beneath it. Paths are compared with the raw request target, byte
// for byte; nothing is decoded or tidied before a route is chosen.
type route struct {
	path  string
	ports port
	verbs []verb
}

// A verb is a method of a route.
type verb struct {
	method string
	handle handler
}

// get is the verbs of what can only be looked at.
func get(h handler) []verb { return []verb{{fasthttp.MethodGet, h}, {fasthttp.MethodHead, h}} }

// routes is all that is served, and where.
var routes = []route{
	{"/kv/", dataPort | adminPort, []verb{
		{fasthttp.MethodGet, (*Server).get},
		{fasthttp.MethodHead, (*Server).get},
		{fasthttp.MethodPut, (*Server).put},
		{fasthttp.MethodDelete, (*Server).remove},
	}},
	{"/livez", dataPort | adminPort, get((*Server).livez)},
	{"/readyz", dataPort | adminPort, get((*Server).readyz)},
	{"/cluster", dataPort | adminPort, get((*Server).cluster)},
	{"/metrics", adminPort, get((*Server).metricsPage)},
	{"/replica", adminPort, get((*Server).partition)},
	{"/replica/", adminPort, get((*Server).replica)},
	{"/explain/", adminPort, get((*Server).explainKey)},
	{"/quarantine", adminPort, get((*Server).quarantine)},
	{"/quarantine/restore/", adminPort, []verb{{fasthttp.MethodPost, (*Server).restore}}},
	{"/quarantine/discard/", adminPort, []verb{{fasthttp.MethodPost, (*Server).discard}}},
	{"/repairs", adminPort, get((*Server).repairState)},
	{"/repair", adminPort, []verb{{fasthttp.MethodPost, (*Server).repair}}},
	{"/debug/pprof/", adminPort, get((*Server).profile)},
}

func (r *route) matches(path []byte, p port) bool {
	if r.ports&p == 0 {
		return false
	}
	if strings.HasSuffix(r.path, "/") {
		return bytes.HasPrefix(path, []byte(r.path))
	}
	return string(path) == r.path
}

// methods lists the methods of the route as Allow does.
func (r *route) methods() string {
	names := make([]string, len(r.verbs))
	for i, v := range r.verbs {
		names[i] = v.method
	}
	return strings.Join(names, ", ")
}

// noRoute stands for the route of requests that have none.
const noRoute = "none"

// dispatch has the exchange answered.
func (s *Server) dispatch(x *exchange) {
	label := noRoute
	s.metrics.inFlight.Inc()
	defer func() {
		if p := recover(); p != nil {
			s.fail(x, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			x.framing.last = true
		}
		s.metrics.inFlight.Dec()
		s.metrics.answered(label, knownMethod(x.method()), x, time.Since(x.began))
	}()
	r, err := s.route(x)
	if r != nil {
		label = r.path
	}
	switch {
	case errors.Is(err, errHangup):
		x.gone = true
		x.setStatus(statusHangup)
	case err != nil:
		s.fail(x, err)
	}
}

// statusHangup is how metrics count requests whose client hung up.
const statusHangup = 499

// route finds who answers and lets them.
func (s *Server) route(x *exchange) (*route, error) {
	path, query, err := splitTarget(x.target())
	if err != nil {
		return nil, err
	}
	for i := range routes {
		if r := &routes[i]; r.matches(path, x.conn.port) {
			x.path, x.query = path[len(r.path):], query
			return r, r.serve(s, x)
		}
	}
	return nil, &httpError{
		status: fasthttp.StatusNotFound, code: codeNoRoute,
		message: "nothing is served under this path: keys are under /kv/{bucket}/{key}",
	}
}

func (r *route) serve(s *Server, x *exchange) error {
	for _, v := range r.verbs {
		if v.method != string(x.method()) {
			continue
		}
		if x.framing.length != 0 && v.method != fasthttp.MethodPut {
			return badRequest("a " + v.method + " has no body")
		}
		return v.handle(s, x)
	}
	return &httpError{
		status: fasthttp.StatusMethodNotAllowed, code: codeMethod, allow: r.methods(),
		message: "this path is served with " + r.methods(),
	}
}
