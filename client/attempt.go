package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Waits between attempts double from the first to the last, each shortened by a
// random part of up to half. A node that asks to be left alone is asked again
// after maxRetryAfter at the latest.
const (
	firstWait     = 50 * time.Millisecond
	maxWait       = 2 * time.Second
	maxRetryAfter = 30 * time.Second
)

// maxAnswer bounds the bytes of one answer: far above the largest object and
// its encoding.
const maxAnswer = 64 << 20

// request is one request in all its attempts.
type request struct {
	op       string
	method   string
	key      kv.Key
	query    url.Values
	header   http.Header
	body     []byte
	deadline time.Duration // of one attempt
	write    kv.WriteID    // zero for a read
}

func (r request) isWrite() bool { return !r.write.IsZero() }

// course is how the failed attempts of a request went.
type course struct {
	attempts int
	tried    map[*endpoint]int
	outcome  kv.Outcome
	last     error
	at       string // the endpoint of the last attempt
}

// do tries req until an attempt succeeds, none can do better, the attempts are
// used up or ctx ends.
func (c *Client) do(ctx context.Context, req request) (answer, error) {
	if err := errors.Join(req.key.Validate(), validHeader(req.header)); err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", req.op, req.key, err)
	}
	run := course{tried: map[*endpoint]int{}}
	for {
		e, wait := c.pool.pick(c.cfg.Now(), run.tried)
		if err := c.sleep(ctx, max(wait, c.backoff(run))); err != nil {
			return answer{}, run.failure(req, run.abandoned(err))
		}
		ans, err := c.attempt(ctx, e, req)
		if err == nil {
			return ans, nil
		}
		run.note(req, e, ans.status, err)
		if ctx.Err() != nil || run.attempts >= c.cfg.Attempts || !repeatable(req.isWrite(), ans.status, err) {
			return answer{}, run.failure(req, err)
		}
		c.cfg.OnRetry(err)
	}
}

// attempt sends req to e once and notes what that says of e.
func (c *Client) attempt(ctx context.Context, e *endpoint, req request) (answer, error) {
	ans, err := c.exchange(ctx, e, req)
	if err != nil {
		if ctx.Err() == nil {
			c.pool.failed(e, c.cfg.Now())
		}
		return answer{}, fmt.Errorf("%s: %w", e.base.Host, err)
	}
	failure := ans.failure()
	if failure == nil {
		c.pool.answered(e, c.cfg.Now(), 0)
		return ans, nil
	}
	c.pool.answered(e, c.cfg.Now(), min(failure.RetryAfter, maxRetryAfter))
	return ans, failure
}

// exchange sends req to e and reads the whole answer.
func (c *Client) exchange(ctx context.Context, e *endpoint, req request) (answer, error) {
	late := fmt.Errorf("no answer within %s: %w", req.deadline, context.DeadlineExceeded)
	limited, cancel := context.WithTimeoutCause(ctx, req.deadline, late)
	defer cancel()
	ans, err := c.roundTrip(limited, target(e.base, req.key, req.query.Encode()), req)
	if wrapped, ok := errors.AsType[*url.Error](err); ok { // repeats method and address
		err = wrapped.Err
	}
	if err != nil && limited.Err() != nil {
		err = context.Cause(limited)
	}
	return ans, err
}

func (c *Client) roundTrip(ctx context.Context, u *url.URL, req request) (answer, error) {
	hr, err := http.NewRequestWithContext(ctx, req.method, u.Scheme+"://"+u.Host, bytes.NewReader(req.body))
	if err != nil {
		return answer{}, err
	}
	hr.URL, hr.Header = u, req.header.Clone()
	resp, err := c.http.Do(hr)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or given up
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return answer{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength, body: body}, err
}

// backoff is the wait before the next attempt: none before the first, and none
// when nobody was reached and the next endpoint is another.
func (c *Client) backoff(run course) time.Duration {
	if run.attempts == 0 || unsent(run.last) && c.pool.untried(c.cfg.Now(), run.tried) {
		return 0
	}
	wait := min(maxWait, firstWait<<min(run.attempts-1, 10))
	return wait - time.Duration(c.cfg.Random()%uint64(wait/2))
}

// sleep waits, or returns at once if ctx would end first.
func (c *Client) sleep(ctx context.Context, wait time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && wait > 0 && deadline.Sub(c.cfg.Now()) < wait {
		return context.DeadlineExceeded
	}
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note adds a failed attempt. Once one of them may have been applied, the
// outcome stays unknown, whatever a later answer says of its own attempt.
func (r *course) note(req request, e *endpoint, status int, err error) {
	r.attempts++
	r.tried[e]++
	r.last, r.at = err, e.base.String()
	if !req.isWrite() {
		return
	}
	if r.outcome != kv.Unknown {
		r.outcome = attemptOutcome(status, err)
	}
	if answered := kvError(err); answered != nil {
		answered.Outcome = r.outcome
	}
}

// abandoned is the error of a request whose next attempt err forbids.
func (r *course) abandoned(err error) error {
	if r.last == nil {
		return err
	}
	return fmt.Errorf("%w; no time for another attempt: %w", r.last, err)
}

func (r *course) failure(req request, err error) error {
	if req.isWrite() && r.outcome == "" {
		r.outcome = kv.NotApplied
	}
	return &Error{
		Op: req.op, Key: req.key, Attempts: r.attempts, Endpoint: r.at,
		Outcome: r.outcome, WriteID: req.write, Err: err,
	}
}
