package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/cmd/starling/internal/devcluster"
	"github.com/starling-kv/starling/node"
)

// devRun is starling dev under way, with nodes played by this binary.
type devRun struct {
	t      *testing.T
	base   int
	stop   context.CancelFunc
	events *json.Decoder
	ended  chan result
}

const devPatience = 20 * time.Second

func startDev(t *testing.T, args ...string) *devRun {
	t.Helper()
	t.Setenv(roleVar, "node")
	t.Setenv("XDG_RUNTIME_DIR", shortDir(t))
	t.Setenv("STARLING_ZONE", "of somebody else")
	d := &devRun{t: t, base: freePortBase(t), ended: make(chan result, 1)}
	ctx, stop := context.WithCancel(t.Context())
	d.stop = stop
	out, printed := io.Pipe()
	d.events = json.NewDecoder(out)
	args = append([]string{"dev", "-o", "json", "--port-base", strconv.Itoa(d.base)}, args...)
	go func() {
		var errOut strings.Builder
		w := &world{stdout: printed, stderr: &errOut, now: time.Now, getenv: os.Getenv}
		r := result{code: run(ctx, w, args)}
		r.err = errOut.String()
		d.ended <- r
		printed.Close()
	}()
	t.Cleanup(func() {
		stop()
		_, _ = io.Copy(io.Discard, out)
		<-d.ended
	})
	return d
}

// shortDir is a temporary directory whose path leaves room for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // t.TempDir has the name of the test in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func freePortBase(t *testing.T) int {
	t.Helper()
	for base := 10000 + os.Getpid()%10000; base < 32000; base += 17 {
		if devcluster.CheckPorts(t.Context(), devcluster.Plan{Nodes: 3, PortBase: base}.Layout()) == nil {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// end waits for the command and returns what it left behind.
func (d *devRun) end() result {
	d.t.Helper()
	select {
	case r := <-d.ended:
		d.ended <- r
		return r
	case <-time.After(devPatience):
		d.t.Fatal("starling dev does not end")
		return result{}
	}
}

// next is the next event that it prints.
func (d *devRun) next() devcluster.Event {
	d.t.Helper()
	var e devcluster.Event
	if err := d.events.Decode(&e); err != nil {
		d.t.Fatal(err)
	}
	return e
}

// do runs another command of dev against it.
func (d *devRun) do(args ...string) result {
	return starling(d.t, "", append([]string{"dev", "--port-base", strconv.Itoa(d.base)}, args...)...)
}

// begin runs another command while the test reads events.
func (d *devRun) begin(args ...string) <-chan result {
	done := make(chan result, 1)
	go func() { done <- d.do(args...) }()
	return done
}

// config is the configuration that a node was started with.
func (d *devRun) config(e devcluster.Event) node.Config {
	d.t.Helper()
	resp, err := http.Get(e.Admin + "/config")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var cfg node.Config
	if err := json.NewDecoder(resp.Body).Decode(&cfg); err != nil { //nolint:musttag // both ends are this test
		d.t.Fatal(err)
	}
	return cfg
}

func TestDev(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	d := startDev(t, "--nodes=2", "--zones=2", "--dir="+dir, "--set", "durability=async")
	first, second := d.next(), d.next()
	url := fmt.Sprintf("http://127.0.0.1:%d", d.base+1)
	if first.Kind != devcluster.EventReady || first.Name != "n1" || first.PID == 0 || first.Client != url {
		t.Errorf("first event %+v", first)
	}
	one, two := d.config(first), d.config(second)
	want := node.Config{
		Name: "n2", Dir: filepath.Join(dir, "n2", "data"),
		Listen: fmt.Sprintf("127.0.0.1:%d", d.base+2), Admin: fmt.Sprintf("127.0.0.1:%d", d.base+102),
		Peer: fmt.Sprintf("127.0.0.1:%d", d.base+202), Gossip: fmt.Sprintf("127.0.0.1:%d", d.base+302),
		Seeds: []string{one.Gossip}, Secret: one.Secret, RejoinEmpty: true, Zone: "z2",
		Weight: 1, Expect: 1, Partitions: 1024, Async: true, Defaults: two.Defaults, MaxValue: 4 << 20,
		Repairs: two.Repairs, RecordCache: 128 << 20,
	}
	if !reflect.DeepEqual(two, want) || len(two.Secret) != 32 || two.Defaults.N != 2 {
		t.Errorf("second node: got  %+v\nwant %+v", two, want)
	}
	if !one.Bootstrap || one.Expect != 2 || two.Bootstrap {
		t.Errorf("who makes the cluster: %+v, %+v", one, two)
	}

	if r := d.do("status"); r.code != 0 || !strings.Contains(r.out, "n2    ready") {
		t.Errorf("status: %+v", r)
	}
	if r := d.do("run", "--nodes=2"); r.code == 0 || !strings.Contains(r.err, "runs already") {
		t.Errorf("a second cluster: %+v", r)
	}
	killed := d.begin("kill", "n2")
	if e := d.next(); e.Name != "n2" || e.How != "signal: killed" {
		t.Errorf("event %+v", e)
	}
	if r := <-killed; r != (result{out: "n2 is killed\n"}) {
		t.Errorf("kill: %+v", r)
	}
	if r := d.do("restart", "n3"); r.code != exitFailure || !strings.Contains(r.err, "name one of n1, n2") {
		t.Errorf("restart of a stranger: %+v", r)
	}
	restarted := d.begin("restart", "n2")
	if e := d.next(); e.Kind != devcluster.EventReady || e.Name != "n2" || e.PID == second.PID {
		t.Errorf("event %+v", e)
	}
	if r := <-restarted; r != (result{out: "n2 is ready\n"}) {
		t.Errorf("restart: %+v", r)
	}
	killed = d.begin("kill", "n1", "n2")
	d.next()
	d.next()
	if r := <-killed; r != (result{out: "n1 is killed\nn2 is killed\n"}) {
		t.Errorf("kill of both: %+v", r)
	}
	restarted = d.begin("restart", "n1", "n2", "n3")
	d.next()
	d.next()
	if r := <-restarted; r.code != exitFailure || r.out != "n1 is ready\nn2 is ready\n" || !strings.Contains(r.err, `no node "n3"`) {
		t.Errorf("restart of both and a stranger: %+v", r)
	}
	if r := d.do("stop"); r != (result{out: "the cluster is down\n"}) {
		t.Errorf("stop: %+v", r)
	}
	if r := d.end(); r.code != 0 || r.err != "" {
		t.Errorf("after stop: %+v", r)
	}
	if _, err := os.Stat(filepath.Join(dir, "secret")); err != nil {
		t.Error(err)
	}
}

func TestDevEndsWithItsContext(t *testing.T) {
	d := startDev(t, "--nodes=1")
	home := filepath.Dir(filepath.Dir(d.next().Log))
	d.stop()
	if r := d.end(); r.code != 0 || r.err != "" {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(home); !os.IsNotExist(err) {
		t.Errorf("the temporary directory %s is still there: %v", home, err)
	}
	if r := d.do("status"); r.code != exitFailure || !strings.Contains(r.err, "starling dev") {
		t.Errorf("status afterwards: %+v", r)
	}
}

func TestDevReportsABadSetting(t *testing.T) {
	d := startDev(t, "--nodes=2", "--set", "durability=maybe")
	r := d.end()
	if r.code != exitFailure || !strings.Contains(r.err, "--durability") || !strings.Contains(r.err, "ended before the cluster was ready") {
		t.Errorf("%+v", r)
	}
}

func TestDevPrinter(t *testing.T) {
	event := func(kind string, i int) devcluster.Event {
		return devcluster.Event{
			Kind: kind, Name: fmt.Sprintf("n%d", i), PID: 4710 + i, Client: fmt.Sprintf("http://127.0.0.1:970%d", i),
			Admin: fmt.Sprintf("http://127.0.0.1:980%d", i), Log: fmt.Sprintf("/tmp/dev/n%d/log", i),
		}
	}
	killed, failed, asked := event(devcluster.EventEnded, 1), event(devcluster.EventEnded, 2), event(devcluster.EventEnded, 1)
	killed.How, asked.How, asked.Asked = "signal: killed", "signal: terminated", true
	failed.How, failed.Output = "exit status 1", []string{"one", "two"}
	var out strings.Builder
	p := devPrinter{out: &out, nodes: 2, portBase: 9700}
	for _, e := range []devcluster.Event{
		event(devcluster.EventReady, 1), event(devcluster.EventReady, 2), killed, event(devcluster.EventReady, 1), failed, asked,
	} {
		p.report(e)
	}
	golden(t, "dev", out.String())
}
