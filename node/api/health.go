package api

import (
	"fmt"

	"github.com/valyala/fasthttp"
)

const typeText = "text/plain; charset=utf-8"

// livez answers as long as the process can answer at all.
func (s *Server) livez(x *exchange) error {
	if _, err := parseQuery(x.query, []param[struct{}](nil)); err != nil {
		return err
	}
	x.answerBytes(fasthttp.StatusOK, typeText, []byte("ok\n"))
	return nil
}

type readyParams struct{ verbose bool }

var knownReadyParams = []param[readyParams]{
	{"verbose", func(p *readyParams, v string) (err error) {
		if p.verbose = v == ""; !p.verbose {
			p.verbose, err = parseBool(v)
		}
		return err
	}},
}

// readyz answers 200 if the node should be sent requests, else 503 with what
// is in the way.
func (s *Server) readyz(x *exchange) error {
	params, err := parseQuery(x.query, knownReadyParams)
	if err != nil {
		return err
	}
	var lines []byte
	ready := true
	for _, c := range s.inspector.Checks() {
		ready = ready && c.OK
		if params.verbose || !c.OK {
			lines = appendCheck(lines, c)
		}
	}
	status, verdict := fasthttp.StatusOK, "ready\n"
	if !ready {
		status, verdict = fasthttp.StatusServiceUnavailable, "not ready\n"
	}
	x.answerBytes(status, typeText, append(lines, verdict...))
	return nil
}

func appendCheck(dst []byte, c Check) []byte {
	mark := '+'
	if !c.OK {
		mark = '-'
	}
	dst = fmt.Appendf(dst, "[%c] %s", mark, c.Name)
	if c.Detail != "" {
		dst = fmt.Appendf(dst, ": %s", c.Detail)
	}
	return append(dst, '\n')
}

// cluster answers with what this node knows of its cluster.
func (s *Server) cluster(x *exchange) error {
	if _, err := parseQuery(x.query, []param[struct{}](nil)); err != nil {
		return err
	}
	x.answerJSON(fasthttp.StatusOK, s.inspector.Cluster())
	return nil
}
