package api

import (
	"context"
	"encoding/json"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// error reads the body of a failure.
func (a answer) error(t *testing.T) kv.Error {
	t.Helper()
	var e kv.Error
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
	if a.Header.Get("Content-Type") != typeJSON {
		t.Errorf("content type %q", a.Header.Get("Content-Type"))
	}
	return e
}

func failing(err error) *scripted {
	return &scripted{
		get: func(context.Context, coordinator.Get) (coordinator.Got, error) { return coordinator.Got{}, err },
		put: func(context.Context, coordinator.Put) (coordinator.PutDone, error) { return coordinator.PutDone{}, err },
	}
}

// TestEveryCodeHasAStatus reads the codes out of package kv.
func TestEveryCodeHasAStatus(t *testing.T) {
	file, err := parser.ParseFile(gotoken.NewFileSet(), "../../kv/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "Code" {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			t.Fatalf("%s is no literal", spec.Names[0])
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		if found++; statuses[kv.Code(text)] == 0 {
			t.Errorf("%s (%q) has no status", spec.Names[0], text)
		}
		return true
	})
	if found < 15 {
		t.Errorf("only %d codes found", found)
	}
}

func TestFailures(t *testing.T) {
	full := &kv.Error{
		Code: kv.CodeQuorumUnreached, Message: "1 of 2 owners stored it", Outcome: kv.Unknown, N: 3, W: 2,
		Acked: []string{"n1"}, Hinted: []string{"n4 for n2"}, Failed: []kv.Failure{{Node: "n3", Reason: "refused"}},
		RetryAfter: 1500 * time.Millisecond,
	}
	for _, c := range []struct {
		name, method string
		err          error
		status       int
		body         string
		retryAfter   string
	}{
		{
			"everything", "PUT", full, 503,
			`{"code":"quorum_unreached","message":"1 of 2 owners stored it","outcome":"unknown","n":3,"w":2,"acked":["n1"],` +
				`"hinted":["n4 for n2"],"failed":[{"node":"n3","reason":"refused"}],"write_id":"` + testID + `"}` + "\n",
			"2",
		},
		{"a read has no outcome", "GET", &kv.Error{Code: kv.CodeTimeout, Message: "late"}, 504, `{"code":"timeout","message":"late",`, ""},
		{"unsaid outcome", "DELETE", &kv.Error{Code: kv.CodeTimeout, Message: "late"}, 504, `"outcome":"unknown"`, ""},
		{"not applied", "PUT", &kv.Error{Code: kv.CodePrecondition, Outcome: kv.NotApplied}, 412, `"outcome":"not_applied"`, ""},
		{"stale", "GET", &kv.Error{Code: kv.CodeStale, Message: "old"}, 504, `"code":"stale"`, ""},
		{"overloaded", "GET", &kv.Error{Code: kv.CodeOverloaded}, 503, `"code":"overloaded"`, "1"},
		{"disk full", "PUT", &kv.Error{Code: kv.CodeDiskFull}, 507, `"code":"disk_full"`, ""},
		{"siblings", "PUT", &kv.Error{Code: kv.CodeTooManySiblings}, 409, `"code":"too_many_siblings"`, ""},
		{"write id", "PUT", &kv.Error{Code: kv.CodeWriteIDReused}, 409, `"code":"write_id_reused"`, ""},
		{"too large", "PUT", &kv.Error{Code: kv.CodeTooLarge}, 413, `"code":"too_large"`, ""},
		{"a code of the future", "PUT", &kv.Error{Code: "unheard_of"}, 500, `"code":"unheard_of"`, ""},
		{"out of time", "PUT", context.DeadlineExceeded, 504, `"code":"timeout","message":"the time given ran out","outcome":"unknown"`, ""},
		{"shutting down", "GET", context.Canceled, 503, `"code":"not_ready"`, "1"},
		{"our own fault", "PUT", errBroken, 500, `"code":"internal","message":"an internal error, logged as request 1","outcome":"unknown"`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, failing(c.err))
			a := n.do(c.method, target("/kv/", c.method), "", headerWriteID+": "+testID)
			if a.status != c.status || !strings.Contains(a.body, c.body) {
				t.Errorf("%d %s", a.status, a.body)
			}
			if got := a.Header.Get("Retry-After"); got != c.retryAfter {
				t.Errorf("Retry-After %q, want %q", got, c.retryAfter)
			}
			if a.Header.Get(headerWriteID) != testID || a.error(t).WriteID != testID {
				t.Errorf("write id %q, want %q", a.Header.Get(headerWriteID), testID)
			}
			if full.WriteID != "" {
				t.Error("the coordinator's error was changed")
			}
		})
	}
}

// TestFaultsAreLogged: the client learns a number, the log the reason.
func TestFaultsAreLogged(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	n := start(t, failing(errBroken), func(o *Options) { o.Log = zap.New(core) })
	for range 2 {
		if a := n.do("GET", "/kv/b/k", ""); strings.Contains(a.body, "fire") {
			t.Errorf("the client was told %s", a.body)
		}
	}
	entries := logs.All()
	if len(entries) != 2 || entries[1].ContextMap()["request"] != "2" || entries[1].ContextMap()["error"] != errBroken.Error() {
		t.Errorf("logged %v", entries)
	}
}

// TestPanicIsContained: one request's fault in the code is not everybody's.
func TestPanicIsContained(t *testing.T) {
	n := start(t, &scripted{get: func(context.Context, coordinator.Get) (coordinator.Got, error) { panic("oh") }})
	w := n.dial()
	w.send(request("GET", "/kv/b/k"))
	if a := w.read("GET"); a.status != 500 || a.error(t).Code != kv.CodeInternal {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.closed()
	if a := n.do("GET", "/livez", ""); a.status != 200 {
		t.Errorf("then %d", a.status)
	}
}

func TestNotReady(t *testing.T) {
	n := start(t, new(scripted), func(o *Options) { o.Keyring = noKeyring })
	a := n.do("PUT", "/kv/b/k", "x")
	if e := a.error(t); a.status != 503 || e.Code != kv.CodeNotReady || e.Outcome != kv.NotApplied || a.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %+v", a.status, e)
	}
}
