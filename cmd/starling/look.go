package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/starling-kv/starling/kv"
)

const (
	lookTimeout = 5 * time.Second
	maxLook     = 16 << 20 // bytes of an answer about the cluster
)

var lookClient = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}

// look gets one JSON document about the cluster.
func look(ctx context.Context, target string, into any) error {
	return ask(ctx, http.MethodGet, target, into)
}

// ask sends a request without a body to a node and reads the JSON document that
// it answers with, within lookTimeout.
func ask(ctx context.Context, method, target string, into any) error {
	return askFor(ctx, lookTimeout, method, target, into)
}

// askFor is ask with a time of its own.
func askFor(ctx context.Context, most time.Duration, method, target string, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, silentFor(most))
	defer cancel()
	body, err := open(ctx, method, target)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // read to its end, or given up
	document, err := io.ReadAll(io.LimitReader(body, maxLook))
	if err != nil {
		return silent(ctx, target, err)
	}
	if err := json.Unmarshal(document, into); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return nil
}

func silentFor(d time.Duration) error { return fmt.Errorf("silent for %v", d) }

// open sends a request and returns the body of the answer, if that is a good
// one. A node that does not answer has an exit code of its own.
func open(ctx context.Context, method, target string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := lookClient.Do(req)
	if err != nil {
		return nil, silent(ctx, target, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or given up
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxLook))
	if err != nil {
		return nil, silent(ctx, target, err)
	}
	return nil, refusal(target, resp.Status, body)
}

// silent is the error of a node that does not answer, or whose answer broke off.
func silent(ctx context.Context, target string, err error) error {
	where := target
	if u, parsed := url.Parse(target); parsed == nil {
		where = u.Scheme + "://" + u.Host
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return &exitError{exitNoAnswer, fmt.Errorf("%s does not answer: %w", where, err)}
}

// refusal is what a node answered in place of a document.
func refusal(target, status string, body []byte) error {
	var told kv.Error
	if json.Unmarshal(body, &told) == nil && told.Code == kv.CodeBadRequest {
		return usage("%w", &told)
	}
	if told.Code != "" {
		return &told
	}
	return fmt.Errorf("%s: status %s: %.200s", target, status, strings.TrimSpace(string(body)))
}

// stream opens an answer of any length, of which some has to come within
// lookTimeout whenever it is read. Close it.
func stream(ctx context.Context, target string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &streamed{ctx: ctx, cancel: cancel, target: target}
	timer := time.AfterFunc(lookTimeout, func() { cancel(silentFor(lookTimeout)) })
	defer timer.Stop()
	body, err := open(ctx, http.MethodGet, target)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	s.body = body
	return s, nil
}

// streamed is the body of an answer that is read as it comes.
type streamed struct {
	ctx    context.Context //nolint:containedctx // of the request
	cancel context.CancelCauseFunc
	target string
	body   io.ReadCloser
}

// Read implements [io.Reader].
func (s *streamed) Read(p []byte) (int, error) {
	timer := time.AfterFunc(lookTimeout, func() { s.cancel(silentFor(lookTimeout)) })
	defer timer.Stop()
	n, err := s.body.Read(p)
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return n, err
	}
	return n, silent(s.ctx, s.target, err)
}

// Close implements [io.Closer].
func (s *streamed) Close() error {
	s.cancel(nil)
	return s.body.Close()
}
