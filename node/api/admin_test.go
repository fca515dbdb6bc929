package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// hostileName is a key that JSON cannot hold as it is.
const hostileName = "a/../\x00\xff ü"

// twoSiblings is a record with everything that a record can have.
func twoSiblings(t *testing.T) kv.Record {
	t.Helper()
	id := mustWriteID(t, testID)
	live := []kv.Version{
		value(1, "milk", typed("text/plain"), withMeta(kv.Meta{Name: "shelf", Value: "3"}), func(s *kv.Sibling) { s.WriteID = id }).Version,
		value(2, "", func(s *kv.Sibling) { s.Kind, s.Expires = kv.KindTombstone, epoch.Add(time.Hour).UnixMilli() }).Version,
		value(3, "12345", func(s *kv.Sibling) { s.External, s.Inline, s.Length = true, nil, 5000 }).Version,
	}
	return kv.Record{
		Set:  vclock.Set[kv.Sibling]{Clock: vclock.Clock{{Actor: 1, Counter: 4}, {Actor: 2, Counter: 1}, {Actor: 3, Counter: 1}}, Live: live},
		NMax: 5, IDs: []kv.IssuedID{{ID: id, Dots: []vclock.Dot{{Actor: 1, Counter: 1}}}}, IDFloor: kv.WriteID{15: 1},
		Mine: kv.Mine{Actor: 1, Boot: 0xb007},
	}
}

func heldRecords(t *testing.T) []Held {
	t.Helper()
	key := kv.Key{Bucket: "b", Name: hostileName}
	hint := twoSiblings(t)
	hint.Live = hint.Live[:1]
	return []Held{
		{Key: key, Partition: 17, Record: twoSiblings(t), Values: [][]byte{nil, nil, []byte("12345")}},
		{Key: key, Partition: 17, Target: "n3", Record: hint},
	}
}

func (n *node) adminGet(target string) answer {
	n.t.Helper()
	return do(n.t, n.admin, "GET", target, "")
}

func inspecting(i *inspector) func(*Options) { return func(o *Options) { o.Inspector = i } }

func TestReplica(t *testing.T) {
	n := start(t, new(scripted), inspecting(&inspector{held: heldRecords(t)}))
	a := n.adminGet("/replica/b/" + escape(hostileName) + "?values=true")
	if a.status != 200 || !json.Valid([]byte(a.body)) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	golden(t, "replica.json", indent(t, a.body))
}

func TestReplicaOfNothing(t *testing.T) {
	n := start(t, new(scripted))
	if a := n.adminGet("/replica/b/k"); a.body != `{"node":"n1","bucket":"b","key":"k","record":null,"hints":[]}`+"\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func indent(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(text), "", "  "); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestHashComparesReplicas: the hash covers what replicas share and no more.
func TestHashComparesReplicas(t *testing.T) {
	r := twoSiblings(t)
	other := r
	other.Mine = kv.Mine{}
	if RecordHash(r) != RecordHash(other) {
		t.Error("what is local changed the hash")
	}
	other.NMax++
	if RecordHash(r) == RecordHash(other) {
		t.Error("what is shared did not change the hash")
	}
}

func TestPartition(t *testing.T) {
	n := start(t, new(scripted), inspecting(&inspector{held: heldRecords(t)}))
	for target, want := range map[string]string{
		"/replica?partition=1": "", "/replica?partition=1&hints=true": "n3", "/replica?partition=0-1&brief=true": "",
	} {
		a := n.adminGet(target)
		if a.status != 200 || a.Header.Get("Content-Type") != typeNDJSON {
			t.Fatalf("%d %s", a.status, a.body)
		}
		var lines []heldJSON
		for line := range strings.Lines(a.body) {
			var h heldJSON
			if err := json.Unmarshal([]byte(line), &h); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, h)
		}
		if len(lines) != 1 || lines[0].Target != want || lines[0].Key != escape(hostileName) {
			t.Errorf("%s: %s", target, a.body)
		}
	}
}

// TestPartitionStreams: a partition that would fill many times the memory of
// the node goes through, one record after the other.
func TestPartitionStreams(t *testing.T) {
	held := heldRecords(t)[:1]
	held[0].Record.Live[0].Value.Inline = make([]byte, kv.InlineLimit)
	for len(held) < 8_000 {
		held = append(held, held...)
	}
	n := start(t, new(scripted), inspecting(&inspector{held: held}))
	w := dial(t, n.admin)
	before := heapInUse()
	w.send(request("GET", "/replica?partition=0"))
	resp, err := http.ReadResponse(w.in, &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines, scan := 0, bufio.NewScanner(resp.Body)
	for scan.Scan() {
		if lines++; lines == len(held)/2 {
			if grown := heapInUse() - before; grown > 16<<20 {
				t.Errorf("half way, %d MiB are held", grown>>20)
			}
		}
	}
	if scan.Err() != nil || lines != len(held) {
		t.Errorf("%d lines, %v", lines, scan.Err())
	}
}

// TestPartitionFails: an answer that broke off is not taken for a whole one.
func TestPartitionFails(t *testing.T) {
	n := start(t, new(scripted), inspecting(&inspector{held: heldRecords(t), err: errBroken}))
	w := dial(t, n.admin)
	w.send(request("GET", "/replica?partition=0"))
	if _, err := w.tryRead("GET"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read to the end: %v", err)
	}
}

func TestExplain(t *testing.T) {
	full := twoSiblings(t)
	part := kv.Record{Set: vclock.Set[kv.Sibling]{Clock: full.Clock[:1], Live: full.Live[:1]}, NMax: 3}
	n := start(t, new(scripted), inspecting(&inspector{explain: coordinator.Explanation{Partition: 17, N: 3, Holdings: []coordinator.Holding{
		{Node: 0xa1, Name: "n1", Owner: true, Alive: true, Standing: true, Record: full},
		{Node: 0xa2, Name: "n2", Owner: true, Alive: true, Record: part, Behind: true},
		{Node: 0xa3, Name: "n3", Owner: true, Err: errors.New("connection refused")},
		{Node: 0xa4, Name: "n4", Alive: true, Standing: true},
	}}}))
	a := n.adminGet("/explain/b/" + escape(hostileName) + "?n=4")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	golden(t, "explain.json", indent(t, a.body))
}

func TestCluster(t *testing.T) {
	a := start(t, new(scripted)).do("GET", "/cluster", "")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	golden(t, "cluster.json", indent(t, a.body))
}

func TestInspectionRefused(t *testing.T) {
	broken := &inspector{err: errBroken}
	for _, c := range []struct {
		name, target string
		inspector    *inspector
		status       int
		message      string
	}{
		{"no partition", "/replica", &inspector{}, 400, "partition=0 to partition=1"},
		{"partition too high", "/replica?partition=2", &inspector{}, 400, "partition=0 to partition=1"},
		{"partition below zero", "/replica?partition=-1", &inspector{}, 400, "the first and the last"},
		{"partition no number", "/replica?partition=x", &inspector{}, 400, "parameter partition"},
		{"partitions too high", "/replica?partition=0-2", &inspector{}, 400, "partition=0 to partition=1"},
		{"partitions backwards", "/replica?partition=1-0", &inspector{}, 400, "the first and the last"},
		{"partitions without an end", "/replica?partition=1-", &inspector{}, 400, "the first and the last"},
		{"no layout", "/replica?partition=0", &inspector{noLayout: true}, 503, "no layout"},
		{"unknown parameter", "/replica/b/k?value=true", &inspector{}, 400, "known here are values"},
		{"no key", "/replica/b", &inspector{}, 400, "names no key"},
		{"fault", "/replica/b/k", broken, 500, "logged as request"},
		{"explain: n", "/explain/b/k?n=17", &inspector{}, 400, "1 to 16"},
		{"explain: key", "/explain/b/%zz", &inspector{}, 400, "percent-encoding"},
		{"explain: fault", "/explain/b/k", broken, 500, "logged as request"},
		{"livez: parameter", "/livez?verbose", &inspector{}, 400, "there are none here"},
		{"cluster: parameter", "/cluster?x=1", &inspector{}, 400, "there are none here"},
		{"profile: path", "/debug/pprof/../../kv/b/k", &inspector{}, 404, "no such profile"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := start(t, new(scripted), inspecting(c.inspector)).adminGet(c.target)
			if a.status != c.status || !strings.Contains(a.body, c.message) {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}

func TestReadyz(t *testing.T) {
	good := Check{Name: "store", OK: true, Detail: "synced"}
	bad := Check{Name: "layout", Detail: "none known: waiting for a seed"}
	for _, c := range []struct {
		checks []Check
		query  string
		status int
		body   string
	}{
		{nil, "", 200, "ready\n"},
		{[]Check{good}, "", 200, "ready\n"},
		{[]Check{good, {Name: "peers", OK: true}}, "?verbose", 200, "[+] store: synced\n[+] peers\nready\n"},
		{[]Check{good, bad}, "", 503, "[-] layout: none known: waiting for a seed\nnot ready\n"},
		{[]Check{good, bad}, "?verbose=true", 503, "[+] store: synced\n[-] layout: none known: waiting for a seed\nnot ready\n"},
		{[]Check{good, bad}, "?verbose=false", 503, "[-] layout: none known: waiting for a seed\nnot ready\n"},
	} {
		a := start(t, new(scripted), inspecting(&inspector{checks: c.checks})).do("GET", "/readyz"+c.query, "")
		if a.status != c.status || a.body != c.body {
			t.Errorf("%+v%s: %d %q", c.checks, c.query, a.status, a.body)
		}
	}
}

func TestMetrics(t *testing.T) {
	n := start(t, new(scripted))
	n.do("PUT", "/kv/b/k", "milk")
	n.do("GET", "/nowhere", "")
	w := n.dial()
	w.send("BREW / HTTP/9\r\n\r\n")
	w.read("GET")
	w.closed()
	a := n.adminGet("/metrics")
	for _, line := range []string{
		`starling_http_requests_total{code="204",method="PUT",route="/kv/"} 1`,
		`starling_http_requests_total{code="404",method="GET",route="none"} 1`,
		`starling_http_requests_total{code="400",method="other",route="none"} 1`,
		`starling_http_request_seconds_count{method="PUT",route="/kv/"} 1`,
		`starling_http_received_bytes_total 4`,
		`starling_http_requests_in_flight 1`,
	} {
		if !strings.Contains(a.body, line+"\n") {
			t.Errorf("no %s in\n%s", line, a.body)
		}
	}
}

func TestProfiles(t *testing.T) {
	n := start(t, new(scripted))
	for target, want := range map[string]string{
		"/debug/pprof/":                  "Types of profiles available",
		"/debug/pprof/goroutine?debug=1": "goroutine profile",
		"/debug/pprof/cmdline":           "test",
	} {
		if a := n.adminGet(target); a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %.200q", target, a.status, a.body)
		}
	}
}
