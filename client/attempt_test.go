package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
)

var key = kv.Key{Bucket: "b", Name: "k"}

// step is what a scripted transport does with one request.
type step struct {
	status int
	header string // "Name: value"
	body   string
	err    error // in place of an answer
	hang   bool  // until the request is given up
}

var refusal = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// transport answers by script and notes what it was asked.
type transport struct {
	steps []step
	asked []asked
}

type asked struct {
	host, method, query, body string
	header                    http.Header
	at                        time.Time
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	tr.asked = append(tr.asked, asked{r.URL.Host, r.Method, r.URL.RawQuery, string(body), r.Header, time.Now()})
	if len(tr.asked) > len(tr.steps) {
		return nil, fmt.Errorf("request %d is not in the script", len(tr.asked))
	}
	s := tr.steps[len(tr.asked)-1]
	switch {
	case s.hang:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case s.err != nil:
		return nil, s.err
	}
	resp := &http.Response{StatusCode: s.status, Header: http.Header{}, ContentLength: int64(len(s.body))}
	resp.Body = io.NopCloser(strings.NewReader(s.body))
	if name, value, ok := strings.Cut(s.header, ": "); ok {
		resp.Header.Set(name, value)
	}
	if strings.HasPrefix(s.body, "{") {
		resp.Header.Set("Content-Type", "application/json")
	}
	return resp, nil
}

func (tr *transport) hosts() string {
	hosts := make([]string, len(tr.asked))
	for i, a := range tr.asked {
		hosts[i] = a.host
	}
	return strings.Join(hosts, " ")
}

// scripted returns a client of endpoints a, b and c over the script.
func scripted(t *testing.T, steps ...step) (*Client, *transport) {
	t.Helper()
	tr := &transport{steps: steps}
	return open(t, Config{Transport: tr, Random: func() uint64 { return 0 }}, "http://a", "http://b", "http://c"), tr
}

func failure(outcome kv.Outcome) string {
	return fmt.Sprintf(`{"code":"quorum_unreached","message":"1 of 2","outcome":%q,"n":3,"w":2,"acked":["n1"],
		"failed":[{"node":"n2","reason":"refused"}]}`, outcome)
}

// A write is repeated at the next endpoint under the same id, and the outcome of
// all its attempts together is told.
func TestWriteAttempts(t *testing.T) {
	ok := step{status: 204}
	reset := step{err: errors.New("connection reset by peer")}
	tests := []struct {
		name    string
		steps   []step
		hosts   string
		outcome kv.Outcome // "" for success
		code    kv.Code
	}{
		{"first", []step{ok}, "a", "", ""},
		{"refused connection", []step{{err: refusal}, ok}, "a b", "", ""},
		{"lost connection", []step{reset, ok}, "a b", "", ""},
		{"unavailable", []step{{status: 503, body: failure(kv.NotApplied)}, ok}, "a b", "", ""},
		{"late", []step{{status: 504, body: failure(kv.Unknown)}, ok}, "a b", "", ""},
		{"overloaded", []step{{status: 429}, {status: 429}, {status: 429}, ok}, "a b c a", "", ""},
		{"bad gateway", []step{{status: 502, body: "<html>"}, ok}, "a b", "", ""},
		{"unknown for another reason", []step{{status: 500, body: failure(kv.Unknown)}, ok}, "a b", "", ""},
		{"hanging", []step{{hang: true}, ok}, "a b", "", ""},

		{"bad request", []step{{status: 400}}, "a", kv.NotApplied, kv.CodeBadRequest},
		{"condition", []step{{status: 412}}, "a", kv.NotApplied, kv.CodePrecondition},
		{"too large", []step{{status: 413}}, "a", kv.NotApplied, kv.CodeTooLarge},
		{"disk full", []step{{status: 507, body: `{"code":"disk_full","outcome":"not_applied"}`}}, "a", kv.NotApplied, kv.CodeDiskFull},
		{"fault that changed nothing", []step{{status: 500, body: failure(kv.NotApplied)}}, "a", kv.NotApplied, kv.CodeQuorumUnreached},
		{"condition after an attempt that may have met it", []step{reset, {status: 412}}, "a b", kv.Unknown, kv.CodePrecondition},
		{
			"unknown stays unknown", slices.Concat([]step{{hang: true}}, slices.Repeat([]step{{status: 503, body: failure(kv.NotApplied)}}, 7)),
			"a b c b c b a c", kv.Unknown, kv.CodeQuorumUnreached,
		},
		{"nobody there", slices.Repeat([]step{{err: refusal}}, 8), "a b c a b c a b", kv.NotApplied, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, tr := scripted(t, tt.steps...)
				_, err := c.Put(t.Context(), key, Value{Data: []byte("v")}, Write{Blind: true})
				if (err == nil) != (tt.outcome == "") || err != nil && OutcomeOf(err) != tt.outcome || CodeOf(err) != tt.code {
					t.Errorf("put: %v; want outcome %q and code %q", err, tt.outcome, tt.code)
				}
				if got := tr.hosts(); got != tt.hosts {
					t.Errorf("asked %s, want %s", got, tt.hosts)
				}
				id := tr.asked[0].header.Get("X-Starling-Write-Id")
				if _, err := kv.ParseWriteID(id); err != nil {
					t.Error(err)
				}
				for i, a := range tr.asked {
					if a.header.Get("X-Starling-Write-Id") != id || a.body != "v" || a.method != http.MethodPut {
						t.Errorf("attempt %d is another request: %+v", i+1, a)
					}
				}
			})
		})
	}
}

func TestReadAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := scripted(t, step{status: 500}, step{status: 504}, step{status: 200, body: "v"})
		if o, err := c.Get(t.Context(), key, Read{}); err != nil || string(o.Siblings[0].Data) != "v" || tr.hosts() != "a b c" {
			t.Errorf("get: %+v, %v, asked %s", o, err, tr.hosts())
		}
		c, tr = scripted(t, step{status: 404})
		if _, err := c.Get(t.Context(), key, Read{}); !IsNotFound(err) || len(tr.asked) != 1 {
			t.Errorf("get: %v, asked %s", err, tr.hosts())
		}
	})
}

// The waits double and are bounded; moving on from a refused connection costs
// none until all endpoints are tried.
func TestBackoff(t *testing.T) {
	tests := []struct {
		name string
		step step
		want []time.Duration
	}{
		{"answers", step{status: 503}, []time.Duration{50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 2000 * ms}},
		{"refusals", step{err: refusal}, []time.Duration{0, 0, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 2000 * ms}},
		{
			"attempts without an answer",
			step{hang: true},
			[]time.Duration{10050 * ms, 10100 * ms, 10200 * ms, 10400 * ms, 10800 * ms, 11600 * ms, 12000 * ms},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, tr := scripted(t, slices.Repeat([]step{tt.step}, 8)...)
				if _, err := c.Get(t.Context(), key, Read{}); err == nil {
					t.Fatal("the script has no success")
				}
				var got []time.Duration
				for i := 1; i < len(tr.asked); i++ {
					got = append(got, tr.asked[i].at.Sub(tr.asked[i-1].at))
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("waits %v, want %v", got, tt.want)
				}
			})
		})
	}
}

const ms = time.Millisecond

func TestJitterTakesUpToHalf(t *testing.T) {
	c := open(t, Config{}, "http://a")
	for range 1000 {
		if wait := c.backoff(course{attempts: 3}); wait <= 100*ms || wait > 200*ms {
			t.Fatalf("wait %v, want within (100ms, 200ms]", wait)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	tests := []struct {
		header string
		want   time.Duration
	}{
		{"Retry-After: 7", 7 * time.Second},
		{"Retry-After: 86400", maxRetryAfter},
		{"Retry-After: soon", 50 * ms},
		{"Retry-After: -1", 50 * ms},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			tr := &transport{steps: []step{{status: 503, header: tt.header}, {status: 200}}}
			c := open(t, Config{Transport: tr, Random: func() uint64 { return 0 }}, "http://a")
			if _, err := c.Get(t.Context(), key, Read{}); err != nil {
				t.Fatal(err)
			}
			if got := tr.asked[1].at.Sub(tr.asked[0].at); got != tt.want {
				t.Errorf("%s: waited %v, want %v", tt.header, got, tt.want)
			}
		})
	}
}

// A request whose time is too short for the next wait ends at once, with the
// error of the attempt that it had.
func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := scripted(t, step{status: 503, body: failure(kv.Unknown)})
		ctx, cancel := context.WithTimeout(t.Context(), 20*ms)
		defer cancel()
		start := time.Now()
		_, err := c.Put(ctx, key, Value{}, Write{Blind: true})
		told := CodeOf(err) == kv.CodeQuorumUnreached && errors.Is(err, context.DeadlineExceeded) && OutcomeOf(err) == kv.Unknown
		if !told || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}

		c, _ = scripted(t, step{hang: true})
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		start = time.Now()
		_, err = c.Put(ctx, key, Value{}, Write{Blind: true})
		if !errors.Is(err, context.Canceled) || OutcomeOf(err) != kv.Unknown || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}

		c, tr := scripted(t)
		_, err = c.Put(ctx, key, Value{}, Write{Blind: true})
		if !errors.Is(err, context.Canceled) || OutcomeOf(err) != kv.NotApplied || len(tr.asked) != 0 {
			t.Errorf("asked %d times: %v", len(tr.asked), err)
		}
	})
}

func TestOnRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var retries atomic.Int32
		tr := &transport{steps: []step{{status: 503}, {err: refusal}, {status: 204}}}
		c := open(t, Config{Transport: tr, OnRetry: func(error) { retries.Add(1) }}, "http://a", "http://b")
		if _, err := c.Put(t.Context(), key, Value{}, Write{Blind: true}); err != nil || retries.Load() != 2 {
			t.Errorf("%d retries told, %v; want 2", retries.Load(), err)
		}
	})
}

func TestAttemptsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{steps: slices.Repeat([]step{{status: 503}}, 3)}
		c := open(t, Config{Transport: tr, Attempts: 3}, "http://a")
		var failed *Error
		if _, err := c.Get(t.Context(), key, Read{}); !errors.As(err, &failed) || failed.Attempts != 3 || len(tr.asked) != 3 {
			t.Errorf("%d attempts: %v", len(tr.asked), err)
		}
	})
}

func TestErrorText(t *testing.T) {
	id, err := kv.ParseWriteID("01890a5d-ac96-774b-bcce-b302099a8057")
	if err != nil {
		t.Fatal(err)
	}
	e := &Error{Op: "put", Key: key, Attempts: 1, Endpoint: "http://a", Outcome: kv.NotApplied, WriteID: id, Err: fmt.Errorf("a: %w", refusal)}
	if got, want := e.Error(), "put b/k: a: dial tcp: connection refused; outcome not_applied"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	late := &kv.Error{Code: kv.CodeTimeout, Message: "late", Outcome: kv.Unknown}
	e = &Error{Op: "put", Key: key, Attempts: 3, Endpoint: "http://a", Outcome: kv.Unknown, WriteID: id, Err: late}
	const want = "put b/k: timeout: late: outcome unknown; after 3 attempts, the last at http://a; " +
		"repeat it under write id 01890a5d-ac96-774b-bcce-b302099a8057"
	if got := e.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
