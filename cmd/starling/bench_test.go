package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/starling-kv/starling/bench"
)

// benchRun measures for as long as a test can wait.
func benchRun(t *testing.T, args ...string) result {
	t.Helper()
	quick := []string{"bench", "run", "--keys=50", "--connections=2", "--warm-up=0s", "--duration=200ms"}
	return starling(t, "", slices.Concat(quick, args)...)
}

func TestBenchRun(t *testing.T) {
	f := newFakeCluster(t, 1)
	svg := filepath.Join(t.TempDir(), "run.svg")
	r := benchRun(t, "--workload=F", "--overwrites=1", "--n=3", "--no-sync", "--write-ids", "--svg="+svg, "-o", "json")
	var got bench.Result
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != 0 {
		t.Fatalf("%v: %+v", err, r)
	}
	if got.Done == 0 || got.Missing+got.Failed() != 0 || got.Keys != 50 || got.ByKind["modify"].Done == 0 || !got.Tokens {
		t.Errorf("%+v", got)
	}
	if len(f.stored()) != 50 {
		t.Errorf("%d keys are stored", len(f.stored()))
	}
	if q := f.query("PUT"); q.Get("n") != "3" || q.Get("sync") != "false" || q.Has("overwrite") {
		t.Errorf("query of the last write: %v", q)
	}
	picture, err := os.ReadFile(svg)
	if err != nil || !strings.Contains(string(picture), "</svg>") {
		t.Errorf("picture: %v", err)
	}
}

func TestBenchRunTable(t *testing.T) {
	newFakeCluster(t, 1)
	r := benchRun(t, "--rate=100", "--no-tokens")
	for _, want := range []string{"open loop, 100 requests a second", "PER SECOND", "sent after it was due"} {
		if !strings.Contains(r.out, want) || r.code != 0 {
			t.Errorf("no %q: %+v", want, r)
		}
	}
	// Without a preload and tokens kept, reads find nothing and writes look first.
	newFakeCluster(t, 1)
	r = benchRun(t, "--no-preload")
	for _, want := range []string{"reads found no value", "writes had to read their key first"} {
		if !strings.Contains(r.out, want) || r.code != 0 {
			t.Errorf("no %q: %+v", want, r)
		}
	}
}

func TestBenchErrors(t *testing.T) {
	newFakeCluster(t, 1)
	for _, tt := range []struct {
		args   []string
		remedy string
	}{
		{[]string{"bench", "--workload=e"}, "there are none here"},
		{[]string{"bench", "--workload=z"}, "reads, writes, mix"},
		{[]string{"bench", "--keys=0"}, "one key or more"},
		{[]string{"bench", "--key-size=2"}, "need 6 or more"},
		{[]string{"bench", "--own=100"}, "use 1 to 99"},
		{[]string{"bench", "compare", "--only=mysql"}, "use some of echo, skeleton, starling"},
		{[]string{"bench", "compare", "--rows=scans"}, "use some of reads, writes"},
		{[]string{"bench", "compare", "--rounds=0"}, "more than 0"},
	} {
		r := starling(t, "", tt.args...)
		if r.code != exitUsage || !strings.Contains(r.err, tt.remedy) {
			t.Errorf("%v: %+v", tt.args, r)
		}
	}
	if r := starling(t, "", "bench", "--endpoint=http://127.0.0.1:1", "--no-preload"); r.code != exitFailure {
		t.Errorf("nobody there: %+v", r)
	}
}

func TestBenchComparisonTable(t *testing.T) {
	report := &bench.Report{
		Config: bench.ReportConfig{
			Rounds: 5, Seconds: 5, Keys: 1_000_000, LargeKeys: 100_000, KeySize: 16, Overwrites: 2, Cores: 2, Kernel: "6.18", Go: "go1.26",
		},
		Systems: []bench.ReportSystem{
			{Name: "starling", Version: "abc", Setting: "3 nodes"},
			{Name: "etcd", Missing: "there is no etcd on this machine: apt-get install etcd-server"},
		},
		Rows: []bench.ReportRow{{Row: bench.Row{Name: "mix"}, Cells: []bench.ReportCell{{
			Variant: "starling async", Throughput: 45678.9, Slowest: 44000, Fastest: 47000, P50: 1.25, P99: 3.5, P999: 9,
			Per100k: 3.14, OfSkeleton: 0.87, StarlingOver: 1, Others: 0.4, Failed: 1, Missing: 2,
		}}}},
	}
	var out strings.Builder
	if err := printPage(&out, func(p *page) { tableOfComparison(p, report) }); err != nil {
		t.Fatal(err)
	}
	golden(t, "comparison", out.String())
}

// A cluster that is started for a run is stopped after it.
func TestBenchOwnCluster(t *testing.T) {
	t.Setenv(roleVar, "real")
	t.Setenv("XDG_RUNTIME_DIR", shortDir(t))
	base := strconv.Itoa(freePortBase(t))
	args := []string{"--own=2", "--port-base=" + base, "-o", "json", "--set=log-level=error"}
	for range 2 { // the ports are free again
		var got bench.Result
		r := benchRun(t, args...)
		if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != 0 || got.Done == 0 || got.Failed()+got.Missing != 0 {
			t.Fatalf("%v: %+v", err, r)
		}
		if runtime.GOOS == "linux" && got.CPU == nil {
			t.Error("the processor time of the nodes is missing")
		}
	}
	r := benchRun(t, slices.Concat(args, []string{"--set=durability=maybe"})...)
	if r.code != exitFailure || !strings.Contains(r.err, "--durability") {
		t.Errorf("nodes that do not start: %+v", r)
	}
}

// Starling, the skeleton and the echo server in one comparison, twice over.
func TestBenchCompare(t *testing.T) {
	t.Setenv(roleVar, "real")
	t.Setenv("XDG_RUNTIME_DIR", shortDir(t))
	dir := t.TempDir()
	report := filepath.Join(dir, "report.json")
	r := starling(t, "", "bench", "compare", "--rounds=2", "--seconds=0.2", "--warm-up=0s", "--keys=50", "--overwrites=0",
		"--only=echo,skeleton,starling", "--rows=reads,mix-4", "--port-base="+strconv.Itoa(freePortBase(t)),
		"--dir="+dir, "--json="+report, "--svg="+filepath.Join(dir, "report.svg"))
	if r.code != 0 || strings.Count(r.err, "round 2 of 2") != 8 {
		t.Fatalf("%+v", r)
	}
	var got bench.Report
	text, err := os.ReadFile(report)
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil || len(got.Rows) != 2 || len(got.Rows[1].Cells) != 5 {
		t.Fatalf("%v: %+v", err, got)
	}
	for _, row := range got.Rows {
		for _, c := range row.Cells {
			if c.Rounds != 2 || c.Throughput == 0 || c.Failed+c.Missing != 0 || c.OfSkeleton == 0 {
				t.Errorf("%s: %+v", row.Name, c)
			}
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
