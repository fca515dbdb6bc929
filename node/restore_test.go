package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/reap"
	"github.com/starling-kv/starling/standing"
)

// listed is a record as /quarantine shows it.
type listed struct {
	Key  string `json:"key"`
	Why  string `json:"why"`
	Hash string `json:"hash"`
}

func listOf(t *testing.T, n *Node) map[string]listed {
	t.Helper()
	var page struct {
		Records []listed `json:"records"`
	}
	res := request(t, http.MethodGet, n.AdminURL()+"/quarantine", nil, nil)
	if err := json.Unmarshal([]byte(res.body), &page); err != nil {
		t.Fatalf("%v: %d %s", err, res.status, res.body)
	}
	out := make(map[string]listed)
	for _, r := range page.Records {
		out[r.Key] = r
	}
	return out
}

// settle restores or discards a record, and returns what became of its siblings.
func settle(t *testing.T, n *Node, what string, r listed) (became string, removed bool) {
	t.Helper()
	var out struct {
		Removed  bool `json:"removed"`
		Siblings []struct {
			Became string `json:"became"`
		} `json:"siblings"`
	}
	res := request(t, http.MethodPost, n.AdminURL()+"/quarantine/"+what+"/b/"+r.Key+"?hash="+r.Hash, nil, nil)
	if err := json.Unmarshal([]byte(res.body), &out); err != nil || res.status != http.StatusOK {
		t.Fatalf("%s %s: %v, %d %s", what, r.Key, err, res.status, res.body)
	}
	parts := make([]string, len(out.Siblings))
	for i, s := range out.Siblings {
		parts[i] = s.Became
	}
	return strings.Join(parts, " "), out.Removed
}

// until waits for something that comes about by itself.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for end := time.After(30 * time.Second); !done(); {
		select {
		case <-poll.C:
		case <-end:
			t.Fatalf("after 30 s still not: %s", what)
		}
	}
}

// TestRestoreWhatADiskHeld sets the disk of a node back behind rounds of reaping.
// What it held then goes into quarantine, and comes back as its restore promises.
func TestRestoreWhatADiskHeld(t *testing.T) {
	nodes, cfgs := startReaping(t, 3)
	n1 := nodes[0]
	const held = 1 // the node whose disk is set back
	url := func(key, query string) string { return n1.ClientURL() + "/kv/b/" + key + query }
	put := func(key, query, value string, header map[string]string) {
		t.Helper()
		if res := request(t, http.MethodPut, url(key, query), header, strings.NewReader(value)); res.status != http.StatusNoContent {
			t.Fatalf("put %s: %d %s", key, res.status, res.body)
		}
	}
	remove := func(key string) {
		t.Helper()
		if res := request(t, http.MethodDelete, url(key, "?overwrite=true&w=3"), nil, nil); res.status != http.StatusNoContent {
			t.Fatalf("delete %s: %d %s", key, res.status, res.body)
		}
	}
	reaped := func(key string) {
		t.Helper()
		until(t, key+" is reaped", func() bool {
			return !slices.ContainsFunc(nodes, func(n *Node) bool {
				return !strings.Contains(request(t, http.MethodGet, n.AdminURL()+"/replica/b/"+key, nil, nil).body, `"record":null`)
			})
		})
	}

	large := strings.Repeat("x", 3*kv.InlineLimit)
	kind := map[string]string{"Content-Type": "image/x-cat", "X-Starling-Meta-Name": "Tom"}
	put("only", "?w=3&ttl=1h", large, kind)
	for _, key := range []string{"beside", "same"} {
		put(key, "?w=3", "old", nil)
	}
	put("tombstone", "?w=3", "old", nil)
	put("replaced", "?w=3", "old", nil)
	expires := request(t, http.MethodGet, url("only", ""), nil, nil).header.Get("X-Starling-Expires")
	remove("tombstone")
	backup := setAside(t, nodes[held])
	nodes[held] = startNode(t, cfgs[held])
	waitReady(t, nodes[held])
	for _, key := range []string{"only", "beside", "same"} {
		remove(key)
		reaped(key)
	}
	reaped("tombstone")
	put("replaced", "?w=3&overwrite=true", "new", nil)
	put("beside", "?w=3", "new", nil)
	put("same", "?w=3", "old", nil)

	setBack(t, nodes[held], backup)
	nodes[held] = startNode(t, cfgs[held])
	waitReady(t, nodes[held])
	n2 := nodes[held]
	until(t, "four records stay in quarantine", func() bool {
		all := slices.Collect(maps.Values(listOf(t, n2)))
		return len(all) == 4 && !slices.ContainsFunc(all, func(r listed) bool { return r.Why != api.QuarantineMaybeDeleted })
	})
	all := listOf(t, n2)

	if became, removed := settle(t, n2, "restore", all["only"]); became != api.BecameRestored || !removed {
		t.Errorf("what nobody else has: %s, removed=%v", became, removed)
	}
	got := request(t, http.MethodGet, url("only", "?r=3"), nil, nil)
	if got.body != large || got.header.Get("Content-Type") != "image/x-cat" || got.header.Get("X-Starling-Meta-Name") != "Tom" {
		t.Errorf("restored: %d, %d bytes, %v", got.status, len(got.body), got.header)
	}
	was, _ := time.Parse(time.RFC3339, expires)
	is, err := time.Parse(time.RFC3339, got.header.Get("X-Starling-Expires"))
	if d := is.Sub(was).Abs(); err != nil || d > time.Second {
		t.Errorf("it expired at %s, and restored at %s", expires, got.header.Get("X-Starling-Expires"))
	}

	if became, removed := settle(t, n2, "restore", all["beside"]); became != api.BecameRestored || !removed {
		t.Errorf("beside another value: %s, removed=%v", became, removed)
	}
	two := request(t, http.MethodGet, url("beside", "?r=3"), nil, nil)
	if two.status != http.StatusMultipleChoices || !strings.Contains(two.body, "old") || !strings.Contains(two.body, "new") {
		t.Errorf("beside another value: %d %s", two.status, two.body)
	}
	if became, removed := settle(t, n2, "restore", all["same"]); became != api.BecameThere || !removed {
		t.Errorf("beside an equal value: %s, removed=%v", became, removed)
	}
	for key, want := range map[string]string{"same": "old", "replaced": "new"} {
		if one := request(t, http.MethodGet, url(key, "?r=3"), nil, nil); one.status != http.StatusOK || one.body != want {
			t.Errorf("%s: %d %q", key, one.status, one.body)
		}
	}
	if became, removed := settle(t, n2, "restore", all["tombstone"]); became != api.BecameDelete || removed {
		t.Errorf("a tombstone: %s, removed=%v", became, removed)
	}
	if became, removed := settle(t, n2, "discard", all["tombstone"]); became != api.BecameDiscarded || !removed {
		t.Errorf("a tombstone: %s, removed=%v", became, removed)
	}
	if rest := listOf(t, n2); len(rest) > 0 {
		t.Errorf("left in quarantine: %v", rest)
	}
	scrape(t, n2, "starling_quarantine_records 0\n")
	until(t, "the partition is forgotten", func() bool {
		known, err := n2.repairs.setback.Partitions()
		return err == nil && len(known) == 0
	})
}

// startReaping starts nodes of one partition that remove deletes soon, at
// addresses that stay theirs.
func startReaping(t *testing.T, k int) (nodes []*Node, cfgs []Config) {
	t.Helper()
	seeds := make([]string, 0, k)
	for i := range k {
		cfg := configOf(t, i, k, seeds)
		cfg.Partitions = 1
		cfg.Repairs = RepairOptions{ReapEvery: 200 * time.Millisecond, Reap: reap.Rules{After: time.Second}}
		n := startNode(t, cfg)
		cfg.Listen, cfg.Admin, cfg.Peer = n.listeners.client.Addr().String(), n.listeners.admin.Addr().String(), n.listeners.peer.Addr().String()
		cfg.Gossip = n.gossip.Address()
		seeds = append(seeds, cfg.Gossip)
		nodes, cfgs = append(nodes, n), append(cfgs, cfg)
	}
	for _, n := range nodes {
		waitReady(t, n)
	}
	return nodes, cfgs
}

// setAside closes a node and returns a copy of its directory.
func setAside(t *testing.T, n *Node) (backup string) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	backup = t.TempDir() + "/backup"
	if err := os.CopyFS(backup, os.DirFS(n.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	return backup
}

// setBack closes a node and puts a copy of an earlier state in place of its
// directory.
func setBack(t *testing.T, n *Node, backup string) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(n.cfg.Dir, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
}

// TestSettleRefused: nothing is settled that was not shown, that the node will
// judge by itself, or while another record is.
func TestSettleRefused(t *testing.T) {
	nodes := startCluster(t, 2)
	n := nodes[0]
	if res := request(t, http.MethodPut, n.ClientURL()+"/kv/b/k?n=2&w=2", nil, strings.NewReader("milk")); res.status != http.StatusNoContent {
		t.Fatalf("%d %s", res.status, res.body)
	}
	if err := nodes[1].Close(); err != nil {
		t.Fatal(err)
	}
	if moved, err := n.repairs.setback.PutAway(t.Context()); err != nil || moved != 1 {
		t.Fatalf("%d put away, %v", moved, err)
	}
	k := listOf(t, n)["k"]
	refused := func(why, key, hash string, status int, want string) {
		t.Helper()
		for _, what := range []string{"restore", "discard"} {
			target := fmt.Sprintf("%s/quarantine/%s/b/%s?hash=%s", n.AdminURL(), what, key, hash)
			if res := request(t, http.MethodPost, target, nil, nil); res.status != status || !strings.Contains(res.body, want) {
				t.Errorf("%s %s: %d %s", what, why, res.status, res.body)
			}
		}
		if again := listOf(t, n)["k"]; again.Hash != k.Hash {
			t.Fatalf("%s: it changed", why)
		}
	}
	refused("what is not there", "x", k.Hash, http.StatusNotFound, "see starling quarantine")
	refused("another record", "k", "0123456789abcdef", http.StatusPreconditionFailed, "list it again")
	n.repairs.restorer.turn <- struct{}{}
	refused("a second one", "k", k.Hash, http.StatusServiceUnavailable, "when that is done")
	<-n.repairs.restorer.turn

	target := n.AdminURL() + "/quarantine/restore/b/k?hash=" + k.Hash
	res := request(t, http.MethodPost, target, nil, nil)
	if res.status == http.StatusOK || !strings.Contains(res.body, "n2") || listOf(t, n)["k"] != k {
		t.Errorf("without a quorum: %d %s", res.status, res.body)
	}
	if err := n.ledger.Fall(standing.CauseSetBack); err != nil {
		t.Fatal(err)
	}
	refused("what is judged later", "k", k.Hash, http.StatusServiceUnavailable, "n2 must be up")
}

// TestRestoreIsRepeated: a restore of which it is not known whether it wrote is
// the same write when it is tried again, and what two nodes have in quarantine
// is restored once.
func TestRestoreIsRepeated(t *testing.T) {
	first := configOf(t, 0, 2, nil)
	first.Defaults = coordinator.Defaults{Timeout: time.Second}
	n1 := startNode(t, first)
	n2 := startNode(t, configOf(t, 1, 2, []string{n1.gossip.Address()}))
	waitReady(t, n1)
	waitReady(t, n2)
	res := request(t, http.MethodPut, n1.ClientURL()+"/kv/b/k?n=2&w=2", nil, strings.NewReader("milk"))
	if res.status != http.StatusNoContent {
		t.Fatalf("%d %s", res.status, res.body)
	}
	for _, n := range []*Node{n1, n2} {
		if moved, err := n.repairs.setback.PutAway(t.Context()); err != nil || moved != 1 {
			t.Fatalf("%d put away, %v", moved, err)
		}
	}
	k := listOf(t, n1)["k"]
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	t.Cleanup(free)
	busy := func(*storage.Tx) error { <-release; return nil }
	if err := n2.store.SubmitStep(storage.Step{Run: busy, Done: func(error) {}}); err != nil {
		t.Fatal(err)
	}
	target := n1.AdminURL() + "/quarantine/restore/b/k?hash=" + k.Hash
	if res = request(t, http.MethodPost, target, nil, nil); res.status == http.StatusOK || !strings.Contains(res.body, `"outcome":"unknown"`) {
		t.Fatalf("while an owner stores nothing: %d %s", res.status, res.body)
	}
	if listOf(t, n1)["k"] != k {
		t.Error("it was removed without a quorum")
	}
	free()
	if len(n1.repairs.restorer.unsure) != 1 {
		t.Errorf("write ids kept: %v", n1.repairs.restorer.unsure)
	}
	// As it would be written if no owner that is asked had the first attempt.
	q, err := n1.repairs.restorer.find(kv.Key{Bucket: "b", Name: "k"}, k.Hash)
	if err != nil {
		t.Fatal(err)
	}
	v := coordinator.Value{Version: q.Live[0], Data: []byte("milk")}
	if err := n1.repairs.restorer.write(t.Context(), q, v, n1.repairs.restorer.idOf(q)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{n1, n2} {
		if became, removed := settle(t, n, "restore", k); became != api.BecameThere || !removed {
			t.Errorf("%s: %s, removed=%v", n.cfg.Name, became, removed)
		}
	}
	if got := request(t, http.MethodGet, n2.ClientURL()+"/kv/b/k?n=2&r=2", nil, nil); got.status != http.StatusOK || got.body != "milk" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if len(n1.repairs.restorer.unsure) != 0 {
		t.Errorf("write ids kept: %v", n1.repairs.restorer.unsure)
	}
}
