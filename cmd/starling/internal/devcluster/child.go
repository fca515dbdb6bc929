package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// state is what a child is doing.
type state string

const (
	stateDown     state = "down"
	stateStarting state = "starting"
	stateReady    state = "ready"
	stateStopping state = "stopping"
)

// child is one node and its process, if it has one. It is owned by the
// goroutine of Run; what other goroutines need of it they are given.
type child struct {
	node  Node
	state state
	life  int // counts starts, to tell late news of an earlier process

	cmd   *exec.Cmd
	stdin io.Closer          // open as long as this process lives: the child's leash
	quiet context.CancelFunc // ends the probe
	kill  *time.Timer        // ends the patience of a stop
	logAt int64              // where in the log this life begins

	again   bool   // start when the process has ended
	onReady []done // told when the node is ready, or cannot be
	onExit  []done // told when the process has ended
}

// done takes the outcome of an order. Its channel has room for it.
type done chan<- error

// news is what other goroutines tell the one of Run about a process.
type news struct {
	c    *child
	life int
	// ended is how the process ended; empty says that it is ready.
	ended string
}

// start runs the node's command, with a pipe as standard input that nobody
// writes to: it ends with this process, however that ends.
func (s *supervisor) start(ctx context.Context, c *child) error {
	log, err := os.OpenFile(s.Home.Log(c.node.Name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // nothing was written through it
	if c.logAt, err = log.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	cmd := exec.Command(s.Program, s.Args(c.node)...) //nolint:gosec,noctx // our own binary; ended by hand, politely
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = s.Env
	detach(cmd)
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", c.node.Name, err)
	}
	c.cmd, c.state, c.again = cmd, stateStarting, false
	c.life++
	probing, quiet := context.WithCancel(ctx)
	c.quiet = quiet
	s.watch(c, c.life)
	s.probe(probing, c, c.life)
	return nil
}

// watch waits for the process of this life and tells how it ended.
func (s *supervisor) watch(c *child, life int) {
	cmd := c.cmd
	s.helpers.Go(func() {
		_ = cmd.Wait() // ProcessState says more
		s.news <- news{c, life, cmd.ProcessState.String()}
	})
}

// probe asks the node whether it is ready until it is, and tells so.
func (s *supervisor) probe(ctx context.Context, c *child, life int) {
	url := "http://" + c.node.Admin + "/readyz"
	s.helpers.Go(func() {
		ticker := time.NewTicker(probeInterval)
		defer ticker.Stop()
		for !s.ready(ctx, url) {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
		select {
		case s.news <- news{c, life, ""}:
		case <-ctx.Done():
		}
	})
}

// stop asks the process to end, and kills it when it takes too long.
func (s *supervisor) stop(c *child) {
	if c.state == stateDown || c.state == stateStopping {
		return
	}
	c.state = stateStopping
	c.quiet()
	process := c.cmd.Process
	if err := terminate(process); err != nil {
		_ = process.Kill() // gone, or as good as
	}
	c.kill = time.AfterFunc(s.StopTimeout, func() { _ = process.Kill() })
}

// ended settles c after its process has ended.
func (c *child) ended() {
	c.state = stateDown
	c.quiet()
	_ = c.stdin.Close()
	if c.kill != nil {
		c.kill.Stop()
		c.kill = nil
	}
	tell(&c.onExit, nil)
}

func (c *child) pid() int {
	if c.state == stateDown {
		return 0
	}
	return c.cmd.Process.Pid
}

func tell(waiting *[]done, err error) {
	for _, d := range *waiting {
		d <- err
	}
	*waiting = nil
}

const (
	tailBytes = 8 << 10
	tailLines = 10
)

// tail returns the last lines that the present life of c has logged.
func (s *supervisor) tail(c *child) []string {
	f, err := os.Open(s.Home.Log(c.node.Name))
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // only read
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	from := max(c.logAt, size-tailBytes)
	b := make([]byte, size-from)
	if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if from > c.logAt && len(lines) > 1 {
		lines = lines[1:] // cut in the middle
	}
	return lines[max(0, len(lines)-tailLines):]
}
