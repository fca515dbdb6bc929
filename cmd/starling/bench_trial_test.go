package main

import (
	"encoding/json"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/starling-kv/starling/bench"
)

// benchTrial runs a measurement that starts its own cluster, for as long as a
// test can wait.
func benchTrial(t *testing.T, report any, args ...string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("it needs addresses of loopback beside 127.0.0.1, and /proc")
	}
	t.Setenv(roleVar, "real")
	t.Setenv("XDG_RUNTIME_DIR", shortDir(t))
	quick := []string{
		"--keys=50", "--connections=4", "--warm-up=0s", "--duration=300ms", "-o", "json", "--set=durability=async",
		"--dir=" + t.TempDir(), "--port-base=" + strconv.Itoa(freePortBase(t)),
	}
	r := starling(t, "", slices.Concat([]string{"bench"}, args, quick)...)
	if err := json.Unmarshal([]byte(r.out), report); err != nil || r.code != 0 {
		t.Fatalf("%v: %+v", err, r)
	}
}

func TestBenchGray(t *testing.T) {
	var got grayReport
	benchTrial(t, &got, "gray", "--onset=300ms")
	if got.Peak.Throughput == 0 || got.Healthy.Reads.P50 == 0 || got.Healthy.PeerCalls == 0 || len(got.Faults) != 3 {
		t.Fatalf("%+v", got)
	}
	for _, f := range got.Faults {
		if f.During.Reads.P50 == 0 || f.During.Writes.P50 == 0 || f.ReadsP99 == 0 || f.During.Counts.Failed() != 0 {
			t.Errorf("%+v", f)
		}
	}
}

func TestBenchGrayTable(t *testing.T) {
	phase := bench.Phase{Name: "slow", Seconds: 1, Reads: bench.Latency{P99: 3}, Writes: bench.Latency{P99: 2}, Extra: 0.01}
	healthy := phase
	healthy.Reads.P99 = 2
	f := grayFault{Fault: "slow", Detected: settled{Seconds: 0.25, OK: true}, During: phase}
	f.judge(healthy)
	if !f.Met || f.ReadsP99 != 1.5 || f.WritesP99 != 1 {
		t.Errorf("%+v", f)
	}
	f.During.Extra = 0.06
	if f.judge(healthy); f.Met {
		t.Error("too many extra calls were let pass")
	}
	g := &grayTrial{trial: &trial{trialFlags: new(trialFlags)}, report: &grayReport{Healthy: healthy, Faults: []grayFault{f}}}
	var out strings.Builder
	if err := printPage(&out, g.table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"slow", "0.25 s", "not in 0.00 s", "1.50", "missed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestBenchOverload(t *testing.T) {
	var got overloadReport
	benchTrial(t, &got, "overload", "--flood-connections=100", "--aftermath=300ms")
	o := got.Overload
	if got.Peak.Throughput == 0 || got.Normal.Throughput == 0 || o.Throughput == 0 || got.Aftermath.Throughput == 0 ||
		got.Offered < 9*got.Peak.Throughput || got.Sent < o.Throughput || o.Counts.GivenUp == 0 {
		t.Errorf("%+v", got)
	}
}

func TestBenchMemory(t *testing.T) {
	var got memoryReport
	benchTrial(t, &got, "memory", "--settle=100ms")
	if len(got.Looks) < 4 || got.Looks[0].Keys != 0 || got.Met {
		t.Fatalf("%+v", got)
	}
	for _, l := range got.Looks {
		if l.Resident.Anon == 0 || l.Live == 0 || l.Most < l.Resident.Anon {
			t.Errorf("%+v", l)
		}
	}
}

// Clients that route spare the calls by which writes are handed on.
func TestBenchGrowth(t *testing.T) {
	var got growthReport
	benchTrial(t, &got, "growth", "--key-counts=50,100", "--clusters=5", "--idle=100ms")
	if len(got.Rows) != 4 || got.Rows[0].Keys != 50 || got.Rows[1].Keys != 100 || got.Rows[3].Nodes != 5 {
		t.Fatalf("%+v", got)
	}
	for _, r := range got.Rows {
		if r.Load.Throughput == 0 || r.CPU == 0 || r.Growth == 0 || r.Load.Counts.Failed()+r.Load.Counts.Missing != 0 {
			t.Errorf("%+v", r)
		}
	}
	if plain, routed := got.Rows[2].Load.PeerCalls, got.Rows[3].Load.PeerCalls; routed >= plain {
		t.Errorf("%.2f calls for a routed request, %.2f for any", routed, plain)
	}
}
