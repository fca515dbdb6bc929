package devcluster

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary plays other parts when this variable names one.
const roleVar = "DEVCLUSTER_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "node":
		playNode(os.Args[1:])
	case "supervisor":
		playSupervisor(os.Args[1:])
	default:
		goleak.VerifyTestMain(m)
	}
}

// patience bounds every wait of these tests; it is only used up by a failure.
const patience = 20 * time.Second

// playNode is a node: its manner, its admin address, and the address of a
// listener that it stays connected with, so that its end can be seen.
func playNode(args []string) {
	manner, admin, beacon := args[0], args[1], args[2]
	_ = os.Stdout.Sync()
	fmt.Printf("node with %s begins\n", manner)
	switch manner {
	case "early-death":
		for i := range 20 {
			fmt.Printf("last words %d\n", i)
		}
		os.Exit(3)
	case "deafness":
		signal.Ignore(syscall.SIGTERM)
	}
	if beacon != "" {
		conn, err := net.Dial("tcp", beacon)
		if err != nil {
			os.Exit(4)
		}
		defer conn.Close()
	}
	mux := http.NewServeMux()
	if manner != "sloth" {
		mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	}
	go func() { _ = http.ListenAndServe(admin, mux) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
	if manner == "deafness" {
		select {}
	}
}

// playSupervisor runs a cluster of two nodes until it is killed. Its arguments
// are the port base, the directory and the beacon.
func playSupervisor(args []string) {
	base, _ := strconv.Atoi(args[0])
	plan := Plan{Nodes: 2, PortBase: base}
	home, err := OpenHome(args[1], plan)
	if err != nil {
		panic(err)
	}
	cfg := fakeConfig(plan, home, args[2], nil)
	cfg.Report = func(e Event) { fmt.Println(e.Kind, e.Name) }
	control, err := Listen(context.Background(), home.Path+"/c/sock")
	if err != nil {
		panic(err)
	}
	panic(Run(context.Background(), cfg, control))
}

// fakeConfig is a cluster of nodes played by this binary, each with its manner.
func fakeConfig(p Plan, h Home, beacon string, manners map[string]string) Config {
	return Config{
		Nodes: p.Layout(), Home: h, Program: os.Args[0],
		Args: func(n Node) []string {
			manner := manners[n.Name]
			if manner == "" {
				manner = "grace"
			}
			return []string{manner, n.Admin, beacon}
		},
		Env:          append(os.Environ(), roleVar+"=node"),
		Report:       func(Event) {},
		ReadyTimeout: patience, StopTimeout: patience,
	}
}

// freePlan is a plan whose ports are free.
func freePlan(t *testing.T, nodes int) Plan {
	t.Helper()
	for range 100 {
		p := Plan{Nodes: nodes, PortBase: 10000 + rand.IntN(20000)}
		if CheckPorts(t.Context(), p.Layout()) == nil {
			return p
		}
	}
	t.Fatal("no free ports")
	return Plan{}
}

// run is a running cluster within a test.
type run struct {
	t      *testing.T
	home   Home
	socket string
	events chan Event
	stop   context.CancelFunc
	ended  chan error
}

func startRun(t *testing.T, nodes int, manners map[string]string, change func(*Config)) *run {
	t.Helper()
	plan := freePlan(t, nodes)
	home, err := OpenHome("", plan)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, home: home, socket: home.Path + "/c/sock", events: make(chan Event, 100), ended: make(chan error, 1)}
	cfg := fakeConfig(plan, home, "", manners)
	cfg.Report = func(e Event) { r.events <- e }
	if change != nil {
		change(&cfg)
	}
	control, err := Listen(t.Context(), r.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.ended <- Run(ctx, cfg, control) }()
	t.Cleanup(func() {
		stop()
		_ = r.end() // judged by the test, where it matters
		home.Close()
	})
	return r
}

// end waits for Run and returns its error; again, if called again.
func (r *run) end() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(patience):
		r.t.Fatal("Run does not return")
		return nil
	}
}

func (r *run) next() Event {
	r.t.Helper()
	select {
	case e := <-r.events:
		return e
	case <-time.After(patience):
		r.t.Fatal("no event")
		return Event{}
	}
}

// ready awaits the first events of a cluster, and returns the pids of its nodes.
func (r *run) ready(nodes int) map[string]int {
	r.t.Helper()
	pids := map[string]int{}
	for i := range nodes {
		e := r.next()
		if e.Kind != EventReady || e.Name != fmt.Sprintf("n%d", i+1) || e.PID == 0 {
			r.t.Fatalf("event %d: %+v", i, e)
		}
		pids[e.Name] = e.PID
	}
	return pids
}

func (r *run) ask(op Op, name string) ([]Status, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	return Ask(ctx, r.socket, op, name)
}

// states is what an order for the status answers, as "n1 ready, n2 down".
func (r *run) states() string {
	r.t.Helper()
	list, err := r.ask(OpStatus, "")
	if err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for s := range slices.Values(list) {
		all = append(all, s.Name+" "+s.State)
	}
	return strings.Join(all, ", ")
}
