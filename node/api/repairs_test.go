package api

import (
	"strings"
	"testing"

	"github.com/starling-kv/starling/kv"
)

func TestRepairState(t *testing.T) {
	n := start(t, new(scripted))
	a := n.adminGet("/repairs")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	golden(t, "repairs.json", indent(t, a.body))
	if a := do(t, n.data, "GET", "/repairs", ""); a.status != 404 {
		t.Errorf("clients were shown the state of repairs: %d %s", a.status, a.body)
	}
}

func TestRepairIsAsked(t *testing.T) {
	asked := new(repairs)
	n := start(t, new(scripted), func(o *Options) { o.Repairs = asked })
	for target, want := range map[string]string{
		"/repair?partition=x":  "number of a partition",
		"/repair?partition=-1": "number of a partition",
		"/repair?bucket=a/b":   "letters, digits",
		"/repair?what=all":     "unknown parameter",
	} {
		if a := do(t, n.admin, "POST", target, ""); a.status != 400 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s, want %q", target, a.status, a.body, want)
		}
	}
	if a := do(t, n.admin, "POST", "/repair?bucket=carts&partition=7&node=n2", ""); a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := do(t, n.admin, "POST", "/repair", ""); a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if len(asked.asked) != 2 || asked.asked[0].Bucket != "carts" || *asked.asked[0].Partition != 7 || asked.asked[0].Node != "n2" ||
		asked.asked[1] != (Selection{}) {
		t.Errorf("asked %+v", asked.asked)
	}
	asked.err = &kv.Error{Code: kv.CodeOverloaded, Message: "a repair is under way"}
	if a := do(t, n.admin, "POST", "/repair", ""); a.status != 503 || !strings.Contains(a.body, "under way") {
		t.Errorf("%d %s", a.status, a.body)
	}
}
