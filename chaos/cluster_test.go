package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "starling-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "starling")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", binary, "../cmd/starling")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// cluster is a `starling dev` of real processes.
type cluster struct {
	t     *testing.T
	base  int
	dev   *exec.Cmd
	mu    sync.Mutex
	pids  map[string]int
	ready chan string // names, as they become ready
}

func startCluster(t *testing.T, nodes int) *cluster {
	t.Helper()
	c := &cluster{t: t, base: freePorts(t, nodes), pids: make(map[string]int), ready: make(chan string, 64)}
	// Not the test's context, which ends before the cleanup below.
	c.dev = exec.CommandContext(context.WithoutCancel(t.Context()), binary, "dev", "--nodes", strconv.Itoa(nodes),
		"--port-base", strconv.Itoa(c.base), "--dir", t.TempDir(), "-o", "json")
	var stderr bytes.Buffer
	c.dev.Stderr = &stderr
	events, err := c.dev.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.dev.Start(); err != nil {
		t.Fatal(err)
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(bufio.NewScanner(events))
	}()
	t.Cleanup(func() {
		_ = c.dev.Process.Signal(os.Interrupt)
		<-watched
		var exit *exec.ExitError
		if err := c.dev.Wait(); err != nil && !errors.As(err, &exit) {
			t.Errorf("dev: %v\n%s", err, stderr.String())
		}
	})
	c.await(nodes)
	return c
}

// watch follows the events of dev until it ends.
func (c *cluster) watch(lines *bufio.Scanner) {
	for lines.Scan() {
		var e struct {
			Event string `json:"event"`
			Name  string `json:"name"`
			PID   int    `json:"pid"`
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Event != "ready" {
			continue
		}
		c.mu.Lock()
		c.pids[e.Name] = e.PID
		c.mu.Unlock()
		c.ready <- e.Name
	}
}

// await waits until so many more nodes have become ready.
func (c *cluster) await(nodes int) {
	c.t.Helper()
	deadline := time.After(60 * time.Second)
	for range nodes {
		select {
		case <-c.ready:
		case <-deadline:
			c.t.Fatal("the nodes are not ready after 60 s")
		}
	}
}

func (c *cluster) endpoints() []string {
	urls := make([]string, len(c.names()))
	for i := range urls {
		urls[i] = fmt.Sprintf("http://127.0.0.1:%d", c.base+i+1)
	}
	return urls
}

func (c *cluster) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, len(c.pids))
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i+1)
	}
	return names
}

// kill ends the processes with SIGKILL, all before it returns.
func (c *cluster) kill(names ...string) {
	c.t.Helper()
	for _, n := range names {
		c.mu.Lock()
		pid := c.pids[n]
		c.mu.Unlock()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			c.t.Fatalf("kill %s: %v", n, err)
		}
	}
}

// restart brings nodes back that were killed.
func (c *cluster) restart(names ...string) {
	c.t.Helper()
	args := append([]string{"dev", "restart", "--port-base", strconv.Itoa(c.base)}, names...)
	if out, err := exec.CommandContext(c.t.Context(), binary, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("restart %v: %v\n%s", names, err, out)
	}
	c.await(len(names))
}

// freePorts returns a port base from which all ports of the nodes are free.
func freePorts(t *testing.T, nodes int) int {
	t.Helper()
	for base := 20000 + os.Getpid()%1000*10; base < 40000; base += 1000 {
		if portsFree(base, nodes) {
			return base
		}
	}
	t.Fatal("no free ports from 20000 to 40000")
	return 0
}

func portsFree(base, nodes int) bool {
	for i := 1; i <= nodes; i++ {
		for _, kind := range []int{0, 100, 200, 300} {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+kind+i))
			if err != nil {
				return false
			}
			_ = ln.Close()
		}
	}
	return true
}
