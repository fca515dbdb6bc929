package node

import (
	"context"
	"flag"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/starling-kv/starling/antientropy"
	"github.com/starling-kv/starling/hints"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/reap"
)

var update = flag.Bool("update", false, "write the golden files")

// TestMetricNames: what operators have in their dashboards does not change
// unseen. Go's own metrics are not ours.
func TestMetricNames(t *testing.T) {
	nodes := startCluster(t, 3)
	request(t, http.MethodGet, nodes[0].ClientURL()+"/kv/b/k", nil, nil) // a reading of how fast another is
	scrape(t, nodes[0], "starling_coordinator_peer_p98_seconds{peer=\"n")
	res := scrape(t, nodes[0], "starling_antientropy_oldest_clean_seconds ")
	names := make(map[string]bool)
	for line := range strings.Lines(res.body) {
		if kind, ok := strings.CutPrefix(line, "# TYPE starling_"); ok {
			names["starling_"+kind] = true
		}
	}
	got := strings.Join(slices.Sorted(maps.Keys(names)), "")
	path := filepath.Join("testdata", "metrics.golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update and look at the difference. Got:\n%s", path, got)
	}
	for _, line := range []string{
		`starling_standing_registered 1`, `starling_standing_partitions 64`, `starling_standing_fallen_partitions 0`,
		`starling_hints_owed{target="n2"} 0`, `starling_reap_missing{member="n3"} 0`, `starling_reap_waiting_seconds 0`,
	} {
		if !strings.Contains(res.body, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if problems, err := promlint.New(strings.NewReader(res.body)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// scrape asks until the metrics of n contain text: some have no value at first.
func scrape(t *testing.T, n *Node, text string) response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		res := request(t, http.MethodGet, n.AdminURL()+"/metrics", nil, nil)
		if res.status == http.StatusOK && strings.Contains(res.body, "\n"+text) {
			return res
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d, no %s: %s", res.status, text, res.body)
		case <-poll.C:
		}
	}
}

// TestDebts: labels are those of members, whatever nodes are owed something.
func TestDebts(t *testing.T) {
	now := time.Unix(1_000, 0)
	amount := func(count int, age time.Duration) hints.Amount {
		return hints.Amount{Count: count, Bytes: int64(100 * count), Oldest: now.Add(-age)}
	}
	s := repairSample{at: now, hints: hints.Stats{Owed: []hints.Owed{
		{Target: 2, Missed: amount(3, time.Second), Copies: amount(1, 4*time.Second), Dropped: 7},
		{Target: 8, Missed: amount(1, time.Second)},
		{Target: 9, Copies: amount(2, 2*time.Second), Dropped: 1},
	}}}
	got := debts(s, []namedMember{{kv.NodeID(2), "n2"}, {kv.NodeID(3), "n3"}})
	want := []debt{{"n2", 4, 400, 4, 7}, {"n3", 0, 0, 0, 0}, {formerMembers, 3, 300, 2, 1}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestAges: the age of what never was is unknown, and that of a delete that
// does not wait is none.
func TestAges(t *testing.T) {
	at := time.Unix(50, 0)
	for _, c := range []struct {
		name string
		s    repairSample
		want float64
	}{
		{"antientropy_oldest_clean_seconds", repairSample{at: at}, unknown},
		{"antientropy_oldest_clean_seconds", repairSample{at: at, exchanges: antientropy.Stats{OldestClean: time.Unix(45, 0)}}, 5},
		{"reap_waiting_seconds", repairSample{at: at}, 0},
		{"reap_waiting_seconds", repairSample{at: at, reaping: reap.Stats{Oldest: time.Unix(20, 0)}}, 30},
		{"reap_waiting_seconds", repairSample{at: at, reaping: reap.Stats{Oldest: time.Unix(60, 0)}}, 0}, // by another clock
	} {
		i := slices.IndexFunc(repairMetrics, func(m repairMetric) bool {
			return strings.Contains(m.desc.String(), `"starling_`+c.name+`"`)
		})
		if i < 0 {
			t.Fatalf("there is no metric %s", c.name)
		}
		if got := repairMetrics[i].of(c.s); got != c.want && (!math.IsNaN(got) || !math.IsNaN(c.want)) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
