package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/starling-kv/starling/kv"
)

// TestQuarantineIsListed: what a disk that was set back held can be seen, page by
// page and value by value, and is counted.
func TestQuarantineIsListed(t *testing.T) {
	n := startCluster(t, 1)[0]
	large := strings.Repeat("x", 2*kv.InlineLimit)
	for i := range 3 {
		target := fmt.Sprintf("%s/kv/b/k%d?n=1", n.ClientURL(), i)
		if res := request(t, http.MethodPut, target, nil, strings.NewReader(large)); res.status != http.StatusNoContent {
			t.Fatalf("%d %s", res.status, res.body)
		}
	}
	if moved, err := n.repairs.setback.PutAway(t.Context()); err != nil || moved != 3 {
		t.Fatalf("%d put away, %v", moved, err)
	}
	n.repairs.release.moved()
	scrape(t, n, "starling_quarantine_records 3\n")

	type record struct {
		Key       string `json:"key"`
		Why       string `json:"why"`
		Since     string `json:"since"`
		Partition uint16 `json:"partition"`
	}
	var page struct {
		Total   int      `json:"total"`
		Records []record `json:"records"`
		Next    string   `json:"next"`
	}
	found := make(map[string]record)
	for next, pages := "?limit=2", 0; next != ""; pages++ {
		page.Next, page.Records = "", nil
		res := request(t, http.MethodGet, n.AdminURL()+"/quarantine"+next, nil, nil)
		if err := json.Unmarshal([]byte(res.body), &page); err != nil || page.Total != 3 || pages > 1 {
			t.Fatalf("page %d: %v, %d %s", pages, err, res.status, res.body)
		}
		for _, r := range page.Records {
			found[r.Key] = r
		}
		if next = ""; page.Next != "" {
			next = "?limit=2&after=" + url.QueryEscape(page.Next)
		}
	}
	if len(found) != 3 || found["k1"].Why != "waits" || found["k1"].Since == "" {
		t.Fatalf("%+v", found)
	}

	p := found["k1"].Partition
	if err := n.replica.Recover(t.Context(), p, n.replica.Number(p)+1); err != nil {
		t.Fatal(err)
	}
	res := request(t, http.MethodGet, n.AdminURL()+"/quarantine", nil, nil)
	if !strings.Contains(res.body, "maybe_deleted") {
		t.Errorf("after a round of reaping: %s", res.body)
	}
	res = request(t, http.MethodGet, n.AdminURL()+"/replica/b/k1?values=true", nil, nil)
	if !strings.Contains(res.body, `"record":null`) || !strings.Contains(res.body, `"quarantine":{`) || len(res.body) < len(large) {
		t.Errorf("/replica shows %.500s", res.body)
	}
}
