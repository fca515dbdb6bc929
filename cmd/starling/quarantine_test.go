package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
)

// apartJSON is a record of /quarantine with siblings of 2 KiB.
func apartJSON(key, why string, siblings int) string {
	return fmt.Sprintf(`{"bucket":"b","key":%q,"partition":2,"since":"2026-11-22T10:00:00Z","why":%q,"hash":"%016x","siblings":[%s]}`,
		key, why, len(key), strings.TrimSuffix(strings.Repeat(`{"length":2048},`, siblings), ","))
}

// quarantine answers with a page. Its places are numbers of records.
func (f *fakeCluster) quarantine(w io.Writer, r *http.Request, name string) {
	from, _ := strconv.Atoi(r.URL.Query().Get("after"))
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		f.t.Error(err)
	}
	all := f.apart[name]
	to := min(from+limit, len(all))
	next := ""
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	f.answer(w, map[string]any{
		"node": name, "total": len(all), "records": json.RawMessage("[" + strings.Join(all[from:to], ",") + "]"), "next": next,
	})
}

// settle removes a record from quarantine, unless nothing of it lives then.
func (f *fakeCluster) settle(w http.ResponseWriter, node, target, query string) {
	what, key := path.Split(strings.TrimPrefix(target, "/"))
	what = strings.TrimSuffix(what, "/b/")
	at := slices.IndexFunc(f.apart[node], func(r string) bool {
		return strings.Contains(r, fmt.Sprintf(`"key":%q`, key)) && strings.Contains(r, strings.TrimPrefix(query, "hash="))
	})
	if at < 0 {
		w.WriteHeader(http.StatusPreconditionFailed)
		f.answer(w, kv.Error{Code: kv.CodePrecondition, Message: "list it again"})
		return
	}
	var out settledRecord
	if err := json.Unmarshal([]byte(f.apart[node][at]), &out); err != nil {
		f.t.Error(err)
	}
	out.Node, out.Removed = node, what == "discard"
	for i := range out.Siblings {
		became := api.BecameDiscarded
		if what == "restore" {
			became = append(f.became["b/"+key], api.BecameRestored)[i]
			out.Removed = out.Removed || became == api.BecameRestored || became == api.BecameThere
		}
		out.Siblings[i].Became = became
	}
	if out.Removed {
		f.apart[node] = slices.Delete(f.apart[node], at, at+1)
	}
	f.answer(w, out)
}

func TestQuarantine(t *testing.T) {
	f := newFakeCluster(t, 3)
	if r := starling(t, "", "quarantine"); r.code != 0 || strings.Count(r.out, "nothing") != 3 {
		t.Errorf("%+v", r)
	}
	all := make([]string, 2*maxQuarantinePage+1)
	for i := range all {
		all[i] = apartJSON(fmt.Sprintf("k%d", i), "maybe_deleted", 1)
	}
	old := strings.Replace(apartJSON("k1", "not_owner", 1), `"2026-11-22T10:00:00Z"`, "null", 1)
	f.apart = map[string][]string{"n1": {apartJSON("k0", "waits", 1), old}, "n2": all}
	f.nodes[2].Close()
	r := starling(t, "", "quarantine", "--limit=3")
	golden(t, "quarantine", r.out)
	if r.code != exitNoAnswer || !strings.Contains(r.err, "the quarantine of n3") {
		t.Errorf("%+v", r)
	}
	r = starling(t, "", "quarantine", "--limit=0", "-o", "json")
	var states []quarantineState
	err := json.Unmarshal([]byte(r.out), &states)
	if err != nil || len(states) != 3 || len(states[1].Records) != len(all) || states[2].Error == "" {
		t.Errorf("%v: %.500s", err, r.out)
	}
	if r := starling(t, "", "quarantine", "list", "--key=b/k700", "--node=n2"); r.code != 0 || strings.Count(r.out, "b/k700") != 1 ||
		strings.Count(r.out, "\n") != 2 {
		t.Errorf("one key of one node: %+v", r)
	}
	if r := starling(t, "", "quarantine", "--bucket=c"); strings.Contains(r.out, "b/") || strings.Count(r.out, "nothing") != 2 {
		t.Errorf("another bucket: %+v", r)
	}
}

// What makes no sense is refused before anything is settled.
func TestQuarantineRefuses(t *testing.T) {
	f := newFakeCluster(t, 1)
	f.apart = map[string][]string{"n1": {apartJSON("k", "maybe_deleted", 1)}}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--limit=-1", exitUsage, "0 for all"},
		{"--node=nope", exitUsage, "no member is named nope"},
		{"--bucket=a/b", exitUsage, "letters, digits"},
		{"restore", exitUsage, "--all"},
		{"restore --all --key=b/k", exitUsage, "can't be used together"},
		{"restore --key=b/x", exitFailure, "nothing of b/x is in quarantine"},
		{"discard --all", exitUsage, "--yes"},
		{"discard --yes", exitUsage, "--key BUCKET/KEY"},
	} {
		r := starling(t, "", append([]string{"quarantine"}, strings.Fields(c.args)...)...)
		if r.code != c.code || !strings.Contains(r.err, c.want) {
			t.Errorf("%s: %+v", c.args, r)
		}
	}
	if f.count(http.MethodPost) > 0 {
		t.Error("something was settled")
	}
}

func TestQuarantineRestore(t *testing.T) {
	f := newFakeCluster(t, 2)
	if r := starling(t, "", "quarantine", "restore", "--all"); r.code != 0 || r.out != "nothing to restore is in quarantine\n" {
		t.Errorf("%+v", r)
	}
	f.apart = map[string][]string{
		"n1": {apartJSON("lost", "maybe_deleted", 1), apartJSON("tombstone", "maybe_deleted", 1)},
		"n2": {apartJSON("lost", "not_owner", 1), apartJSON("several", "maybe_deleted", 4)},
	}
	f.became = map[string][]string{
		"b/tombstone": {api.BecameDelete},
		"b/several":   {api.BecameThere, api.BecameReplaced, api.BecameReplaced},
	}
	r := starling(t, "", "quarantine", "restore", "--all")
	golden(t, "quarantine-restore", r.out)
	if r.code != 0 || r.err != "" || len(f.apart["n1"]) != 1 || len(f.apart["n2"]) != 0 {
		t.Errorf("%+v; left: %v", r, f.apart)
	}
	r = starling(t, "", "quarantine", "restore", "--key=b/tombstone", "-o", "json")
	var out []settledRecord
	err := json.Unmarshal([]byte(r.out), &out)
	if err != nil || r.code != 0 || len(out) != 1 || out[0].Removed || out[0].Siblings[0].Became != api.BecameDelete {
		t.Errorf("%v: %+v", err, r)
	}
}

// What fails is told, does not stop the rest, and stays.
func TestQuarantineRestoreFails(t *testing.T) {
	f := newFakeCluster(t, 1)
	f.apart = map[string][]string{"n1": {apartJSON("first", "waits", 1), apartJSON("second", "maybe_deleted", 1)}}
	f.use(func(_ string, r *http.Request) int {
		if strings.Contains(r.URL.Path, "/first") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	r := starling(t, "", "quarantine", "restore", "--bucket=b")
	if r.code != exitFailure || !strings.Contains(r.err, "restore failed for 1 of 2 records") || !strings.Contains(r.err, "b/first at n1") {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.out, "failed\n") || !strings.Contains(r.out, "1 record restored") || len(f.apart["n1"]) != 1 {
		t.Errorf("%+v; left: %v", r, f.apart)
	}
}

func TestQuarantineDiscard(t *testing.T) {
	f := newFakeCluster(t, 1)
	all := []string{apartJSON("k", "maybe_deleted", 1), apartJSON("other", "maybe_deleted", 2)}
	f.apart = map[string][]string{"n1": slices.Clone(all)}
	ask := func(answer string, args ...string) result {
		w := &world{stdin: strings.NewReader(answer), terminal: true}
		return starlingIn(t.Context(), w, append([]string{"quarantine", "discard"}, args...)...)
	}
	for _, answer := range []string{"", "\n", "no\n", "yours\n"} {
		r := ask(answer, "--all")
		if r.code != exitFailure || !strings.Contains(r.err, "Discard 2 records for good? [y/N] starling: nothing was discarded") {
			t.Errorf("%q: %+v", answer, r)
		}
	}
	if !slices.Equal(f.apart["n1"], all) {
		t.Errorf("discarded without a yes: left %v", f.apart["n1"])
	}
	golden(t, "quarantine-discard", ask("Yes\n", "--key=b/other").out)
	if !slices.Equal(f.apart["n1"], all[:1]) {
		t.Errorf("left %v", f.apart["n1"])
	}
	r := starling(t, "", "quarantine", "discard", "--all", "--yes", "-o", "json")
	var out []settledRecord
	if err := json.Unmarshal([]byte(r.out), &out); err != nil || r.code != 0 || len(out) != 1 || !out[0].Removed || len(f.apart["n1"]) != 0 {
		t.Errorf("%v: %+v; left: %v", err, r, f.apart)
	}
}
