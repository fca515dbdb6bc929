package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/starling-kv/starling/bench"
)

const (
	nodes = 3

	startTime = 60 * time.Second
	stopTime  = 10 * time.Second
	pollEvery = 100 * time.Millisecond
	// callTime is how long one request may take.
	callTime = 10 * time.Second
)

// Place is where a system lives on this machine.
type Place struct {
	Dir  string // for its data, which stays from start to start
	Port int    // the first of ten that it may use on 127.0.0.1
}

func (p Place) address(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port+i)) }

// process is a running server.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start runs a program that logs into dir, until it is stopped or ctx ends.
func start(ctx context.Context, dir, name, program string, args ...string) (*process, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()                                 //nolint:errcheck // nothing was written through it
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // a store that the operator installed
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // however it ended
	}()
	return p, nil
}

func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTime):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return fmt.Errorf("%s did not end when asked to, and was killed", p.cmd.Path)
}

// cluster implements [bench.Instance].
type cluster struct {
	processes []*process
	dial      func(ctx context.Context, i int) (bench.Conn, error)
}

func (c *cluster) Dial(bench.Variant, bool) bench.Dial { return c.dial }

func (c *cluster) PIDs() []int {
	pids := make([]int, len(c.processes))
	for i, p := range c.processes {
		pids[i] = p.cmd.Process.Pid
	}
	return pids
}

func (c *cluster) Stop() error {
	errs := make([]error, len(c.processes))
	for i, p := range c.processes {
		errs[i] = p.stop()
	}
	return errors.Join(errs...)
}

// await asks until ready says nil, a process ends, or it takes too long. Then it
// stops the cluster.
func (c *cluster) await(ctx context.Context, ready func(context.Context) error) (*cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("not ready after %v: %w", startTime, err), c.Stop())
		case <-time.After(pollEvery):
		}
		for _, p := range c.processes {
			select {
			case <-p.done:
				return nil, errors.Join(fmt.Errorf("%s ended: see the log in %s", p.cmd.Path, p.cmd.Dir), c.Stop())
			default:
			}
		}
	}
}

// launch starts the processes of a cluster, or none.
func launch(n int, one func(i int) (*process, error)) (*cluster, error) {
	c := &cluster{}
	for i := range n {
		p, err := one(i)
		if err != nil {
			return nil, errors.Join(err, c.Stop())
		}
		c.processes = append(c.processes, p)
	}
	return c, nil
}

// find looks for a program and asks it for its version: the first line that
// holds the word.
func find(ctx context.Context, program, flag, word, debian string) (path, version, missing string) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", "", fmt.Sprintf("there is no %s on this machine: apt-get install %s", program, debian)
	}
	out, err := exec.CommandContext(ctx, path, flag).CombinedOutput() //nolint:gosec // a store that the operator installed
	if err != nil {
		return path, "", fmt.Sprintf("%s %s: %v", path, flag, err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, word) {
			return path, strings.TrimSpace(line), ""
		}
	}
	return path, strings.TrimSpace(string(out)), ""
}
