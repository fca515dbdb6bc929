package devcluster

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunAndStop(t *testing.T) {
	r := startRun(t, 3, nil, nil)
	pids := r.ready(3)
	if got := r.states(); got != "n1 ready, n2 ready, n3 ready" {
		t.Errorf("states: %s", got)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Errorf("stopped by its context: %v", err)
	}
	for name, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	if _, err := r.ask(OpStatus, ""); err == nil || !strings.Contains(err.Error(), "no dev cluster") {
		t.Errorf("after the end: %v", err)
	}
}

func TestKilledFromOutside(t *testing.T) {
	r := startRun(t, 2, nil, nil)
	pids := r.ready(2)
	if err := syscall.Kill(pids["n2"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e := r.next()
	if e.Kind != EventEnded || e.Name != "n2" || e.PID != pids["n2"] || e.How != "signal: killed" || e.Asked || e.Log != r.home.Log("n2") {
		t.Errorf("event %+v", e)
	}
	if len(e.Output) != 1 || e.Output[0] != "node with grace begins" {
		t.Errorf("last lines %q", e.Output)
	}
	if got := r.states(); got != "n1 ready, n2 down" {
		t.Errorf("states: %s", got)
	}
	if _, err := r.ask(OpKill, "n2"); err == nil || !strings.Contains(err.Error(), "dev restart n2") {
		t.Errorf("kill of a dead node: %v", err)
	}

	if _, err := r.ask(OpRestart, "n2"); err != nil {
		t.Fatal(err)
	}
	if e := r.next(); e.Kind != EventReady || e.Name != "n2" || e.PID == pids["n2"] {
		t.Errorf("event %+v", e)
	}
	if got := r.states(); got != "n1 ready, n2 ready" {
		t.Errorf("states: %s", got)
	}
}

func TestOrders(t *testing.T) {
	r := startRun(t, 2, nil, nil)
	pids := r.ready(2)
	if _, err := r.ask(OpRestart, "n1"); err != nil {
		t.Fatal(err)
	}
	if e := r.next(); e.Kind != EventEnded || !e.Asked || e.How != "signal: terminated" || e.PID != pids["n1"] {
		t.Errorf("end of a restarted node: %+v", e)
	}
	if e := r.next(); e.Kind != EventReady || e.Name != "n1" {
		t.Errorf("start of a restarted node: %+v", e)
	}
	if _, err := r.ask(OpKill, "n2"); err != nil {
		t.Fatal(err)
	}
	if e := r.next(); e.Name != "n2" || !e.Asked || e.How != "signal: killed" {
		t.Errorf("end of a killed node: %+v", e)
	}
	if _, err := r.ask(OpKill, "n9"); err == nil || err.Error() != `there is no node "n9": name one of n1, n2` {
		t.Errorf("kill of a stranger: %v", err)
	}
	if _, err := r.ask(OpStop, ""); err != nil {
		t.Error(err)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

func TestEarlyDeath(t *testing.T) {
	r := startRun(t, 2, map[string]string{"n1": "sloth", "n2": "early-death"}, nil)
	err := r.end()
	if err == nil || !strings.Contains(err.Error(), "node n2 ended before the cluster was ready (exit status 3)") ||
		!strings.Contains(err.Error(), "last words 19") || strings.Contains(err.Error(), "last words 9\n") ||
		!strings.Contains(err.Error(), r.home.Log("n2")) {
		t.Errorf("got %v", err)
	}
}

func TestNeverReady(t *testing.T) {
	r := startRun(t, 2, map[string]string{"n2": "sloth"}, func(c *Config) { c.ReadyTimeout = 500 * time.Millisecond })
	if _, err := r.ask(OpRestart, "n1"); err == nil || !strings.Contains(err.Error(), "not ready yet") {
		t.Errorf("order while booting: %v", err)
	}
	if err := r.end(); err == nil || !strings.Contains(err.Error(), "n2") || !strings.Contains(err.Error(), "node with sloth begins") {
		t.Errorf("got %v", err)
	}
}

func TestDeathOfARestartedNode(t *testing.T) {
	manners := map[string]string{}
	r := startRun(t, 1, manners, nil)
	r.ready(1)
	if _, err := r.ask(OpKill, "n1"); err != nil {
		t.Fatal(err)
	}
	manners["n1"] = "early-death" // read by Run after the order below
	if _, err := r.ask(OpRestart, "n1"); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("restart: %v", err)
	}
	if got := r.states(); got != "n1 down" {
		t.Errorf("states: %s", got)
	}
}

func TestDeafNodeIsKilled(t *testing.T) {
	r := startRun(t, 1, map[string]string{"n1": "deafness"}, func(c *Config) { c.StopTimeout = 300 * time.Millisecond })
	r.ready(1)
	if _, err := r.ask(OpRestart, "n1"); err != nil {
		t.Fatal(err)
	}
	if e := r.next(); e.How != "signal: killed" || !e.Asked {
		t.Errorf("event %+v", e)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

func TestMissingProgram(t *testing.T) {
	r := startRun(t, 2, nil, func(c *Config) { c.Program = filepath.Join(t.TempDir(), "nothing") })
	if err := r.end(); err == nil || !strings.Contains(err.Error(), "start node n1") {
		t.Errorf("got %v", err)
	}
}

// Children end when their supervisor is killed with kill -9.
func TestSupervisorDies(t *testing.T) {
	beacon, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer beacon.Close()
	plan := freePlan(t, 2)
	parent := exec.Command(os.Args[0], strconv.Itoa(plan.PortBase), filepath.Join(t.TempDir(), "home"), beacon.Addr().String())
	parent.Env = append(os.Environ(), roleVar+"=supervisor")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"ready n1", "ready n2"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("supervisor said %q, want %q", lines.Text(), want)
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	for range 2 {
		conn, err := beacon.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("a child is still there: %v", err)
		}
		conn.Close()
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "own", "8700.sock")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), path); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("second cluster: %v", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	l.Close()
	l, err = Listen(t.Context(), path)
	if err != nil {
		t.Fatalf("over the socket of a killed cluster: %v", err)
	}
	l.Close()

	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), filepath.Join(open, "s")); err == nil || !strings.Contains(err.Error(), "only you") {
		t.Errorf("in a directory open to all: %v", err)
	}
	_, err = Ask(t.Context(), filepath.Join(dir, "none"), OpStatus, "")
	if err == nil || !strings.Contains(err.Error(), "starling dev") {
		t.Errorf("nobody there: %v", err)
	}
}
