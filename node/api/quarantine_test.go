package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
)

func quarantined(t *testing.T) []Quarantined {
	t.Helper()
	hostile := kv.Key{Bucket: "b", Name: hostileName}
	return []Quarantined{
		{Place{2, hostile}, epoch, QuarantineMaybeDeleted, twoSiblings(t)},
		{Place{7, kv.Key{Bucket: "b", Name: "k"}}, time.Time{}, QuarantineWaits, kv.Record{}},
		{Place{7, hostile}, epoch, QuarantineNotOwner, kv.Record{}},
	}
}

// TestQuarantinePages follows the pages to the end.
func TestQuarantinePages(t *testing.T) {
	n := start(t, new(scripted), func(o *Options) { o.Repairs = &repairs{quarantined: quarantined(t)} })
	a := n.adminGet("/quarantine?limit=2")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	golden(t, "quarantine.json", indent(t, a.body))
	var keys []string
	for next, first := "", true; next != "" || first; first = false {
		target := "/quarantine?limit=1"
		if !first {
			target += "&after=" + url.QueryEscape(next)
		}
		var page quarantinePage
		if a := n.adminGet(target); json.Unmarshal([]byte(a.body), &page) != nil || len(page.Records) != 1 {
			t.Fatalf("%s: %d %s", target, a.status, a.body)
		}
		keys = append(keys, page.Records[0].Why)
		next = page.Next
	}
	if got := strings.Join(keys, " "); got != "maybe_deleted waits not_owner" {
		t.Errorf("the pages hold %s", got)
	}
}

func TestQuarantineRefused(t *testing.T) {
	for _, c := range []struct {
		target string
		err    error
		status int
		want   string
	}{
		{"/quarantine?limit=0", nil, 400, "1 to 1000 records"},
		{"/quarantine?limit=1001", nil, 400, "1 to 1000 records"},
		{"/quarantine?limit=all", nil, 400, "1 to 1000 records"},
		{"/quarantine?after=7", nil, 400, "names no key"},
		{"/quarantine?after=65536/b/k", nil, 400, "what next says"},
		{"/quarantine?after=-1/b/k", nil, 400, "what next says"},
		{"/quarantine?page=2", nil, 400, "known here are after, limit"},
		{"/quarantine", errBroken, 500, "logged as request"},
	} {
		n := start(t, new(scripted), func(o *Options) { o.Repairs = &repairs{err: c.err} })
		if a := n.adminGet(c.target); a.status != c.status || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: %d %s", c.target, a.status, a.body)
		}
		if a := do(t, n.data, "GET", c.target, ""); a.status != 404 {
			t.Errorf("clients were shown what is in quarantine: %d", a.status)
		}
	}
}

// TestSettle: what is to be settled is named by key and hash, and every sibling
// is answered for.
func TestSettle(t *testing.T) {
	all := &repairs{quarantined: quarantined(t)}
	n := start(t, new(scripted), func(o *Options) { o.Repairs = all })
	target := "b/" + escape(hostileName) + "?hash=" + RecordHash(all.quarantined[0].Record)
	a := do(t, n.admin, "POST", "/quarantine/restore/"+target, "")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	golden(t, "restored.json", indent(t, a.body))
	if a := do(t, n.admin, "POST", "/quarantine/discard/"+target, ""); a.status != 200 || strings.Count(a.body, `"became":"discarded"`) != 3 {
		t.Errorf("%d %s", a.status, a.body)
	}
	hash := RecordHash(all.quarantined[0].Record)
	want := []string{fmt.Sprintf("restore %q %s", hostileName, hash), fmt.Sprintf("discard %q %s", hostileName, hash)}
	if !slices.Equal(all.settled, want) {
		t.Errorf("%q, want %q", all.settled, want)
	}
}

func TestSettleRefused(t *testing.T) {
	changed := &kv.Error{Code: kv.CodePrecondition, Message: "list it again"}
	for _, c := range []struct {
		target string
		err    error
		status int
		want   string
	}{
		{"b/k", nil, 400, "by the hash that /quarantine shows"},
		{"b/k?hash=7", nil, 400, "the hash that /quarantine shows"},
		{"b/k?hash=0123456789abcdef&n=3", nil, 400, "known here are hash"},
		{"b/?hash=0123456789abcdef", nil, 400, "the key is empty"},
		{"b/k?hash=0123456789abcdef", changed, 412, "list it again"},
		{"b/k?hash=0123456789abcdef", errBroken, 500, "logged as request"},
	} {
		for _, what := range []string{"/quarantine/restore/", "/quarantine/discard/"} {
			n := start(t, new(scripted), func(o *Options) { o.Repairs = &repairs{err: c.err} })
			if a := do(t, n.admin, "POST", what+c.target, ""); a.status != c.status || !strings.Contains(a.body, c.want) {
				t.Errorf("%s%s: %d %s", what, c.target, a.status, a.body)
			}
		}
	}
}

// TestReplicaInQuarantine: what is in quarantine is shown with its values, and
// apart from what the node serves.
func TestReplicaInQuarantine(t *testing.T) {
	held := heldRecords(t)[:1]
	held[0].Quarantined = true
	n := start(t, new(scripted), inspecting(&inspector{held: held}))
	var out replicaJSON
	a := n.adminGet("/replica/b/" + escape(hostileName) + "?values=true")
	if err := json.Unmarshal([]byte(a.body), &out); err != nil || out.Record != nil || out.Quarantine == nil {
		t.Fatalf("%v: %d %s", err, a.status, a.body)
	}
	if v := out.Quarantine.Siblings[2].Value; v == nil || string(*v) != "12345" {
		t.Errorf("%s", a.body)
	}
}

func FuzzPlace(f *testing.F) {
	f.Add("7/b/k")
	f.Add("0/b/%2F%00")
	f.Add("/b/k")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePlace(text)
		if err != nil {
			return
		}
		if again, err := parsePlace(p.String()); err != nil || again != p {
			t.Errorf("%q is %+v, which is written %q and read %+v, %v", text, p, p, again, err)
		}
	})
}
