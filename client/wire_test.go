package client

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// Over real sockets: a node that is gone, one that cuts its answer short, one
// that hangs up, and one that answers.
func TestRealFailures(t *testing.T) {
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("only this"))
	}))
	defer cut.Close()
	hangup := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangup.Close()
	var served atomic.Int32
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		_, _ = w.Write([]byte("whole"))
	}))
	defer good.Close()

	gone := refused(t)
	c := open(t, Config{}, gone, cut.URL, hangup.URL, good.URL)
	o, err := c.Get(t.Context(), key, Read{})
	if err != nil || string(o.Siblings[0].Data) != "whole" || served.Load() != 1 {
		t.Fatalf("got %+v, %v", o, err)
	}
	if _, err := open(t, Config{Attempts: 2}, gone).Get(t.Context(), key, Read{}); !unsent(err) {
		t.Errorf("%v is not told as a refused connection", err)
	}
}

// Whatever an endpoint answers, the client returns a value or an error.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "text/plain", "c", "1", []byte("v"))
	f.Add(300, "application/json", "c", "2", []byte(listOfTwo))
	f.Add(503, "application/json", "", "-1", []byte(failure("unknown")))
	f.Add(404, "text/html; charset=\xff", "", "x", []byte("\xff"))
	f.Fuzz(func(t *testing.T, status int, contentType, context, number string, body []byte) {
		h := http.Header{}
		for name, value := range map[string]string{
			"Content-Type": contentType, headerContext: context, headerSiblings: number, "Retry-After": number, headerMeta + "A": context,
		} {
			h.Set(name, value)
		}
		a := answer{status: status, header: h, length: int64(len(body)), body: body}
		if e := a.failure(); e != nil {
			if e.Code == "" || e.Message == "" && !a.isJSON() || e.RetryAfter < 0 || e.RetryAfter > time.Minute {
				t.Fatalf("failure %+v", e)
			}
			return
		}
		if s := a.summary(); s.Siblings < 0 {
			t.Fatalf("summary %+v", s)
		}
		if o, err := a.object(); err == nil && o.Context != context {
			t.Fatalf("object %+v", o)
		}
	})
}
