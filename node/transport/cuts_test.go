package transport_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/starling-kv/starling/node/transport"
)

// fragile is a connection that breaks, without a word to either side, once so
// many bytes went in one direction.
type fragile struct {
	net.Conn

	reads, writes atomic.Int64 // left
}

var errBroken = errors.New("broken on purpose")

func (c *fragile) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.reads.Add(-int64(n)) < 0 {
		c.Conn.Close()
		return 0, errBroken
	}
	return n, err
}

func (c *fragile) Write(b []byte) (int, error) {
	left := c.writes.Add(-int64(len(b)))
	if left >= 0 {
		return c.Conn.Write(b)
	}
	n, _ := c.Conn.Write(b[:max(0, left+int64(len(b)))])
	c.Conn.Close()
	return n, errBroken
}

// seed returns the seed of a random test, from the environment to replay one.
func seed(t *testing.T) uint64 {
	t.Helper()
	s, err := strconv.ParseUint(os.Getenv("TRANSPORT_TEST_SEED"), 10, 64)
	if err != nil {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with TRANSPORT_TEST_SEED=%d", s)
	return s
}

// The claims that a coordinator builds on, while connections break at random: a
// call that succeeded ran once and brought its own reply; one said not to have
// run did not, and never does later; none runs twice.
func TestErrorsTellTheTruthWhileConnectionsBreak(t *testing.T) {
	const callers, calls = 16, 200
	random := rand.New(rand.NewPCG(seed(t), 1))
	var mu sync.Mutex
	draw := func(n int64) int64 {
		mu.Lock()
		defer mu.Unlock()
		return random.Int64N(n)
	}
	c := newCluster(t)
	var handler counting
	b := c.start(2, &handler, "127.0.0.1:0", nil)
	a := c.start(1, echoing, "127.0.0.1:0", func(o *transport.Options) {
		o.RedialMin, o.RedialMax = time.Millisecond, time.Millisecond
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			broken := &fragile{Conn: nc}
			broken.reads.Store(draw(500_000))
			broken.writes.Store(draw(500_000))
			return broken, nil
		}
	})
	outcomes := make([][]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		outcomes[i] = make([]error, calls)
		all.Go(func() {
			for n := range calls {
				outcomes[i][n] = tracedCall(t, a, i, n)
			}
		})
	}
	all.Wait()
	a.Close()
	b.Close() // from here on nothing runs any more
	counts := make(map[string]int)
	for i, errs := range outcomes {
		for n, err := range errs {
			ran := handler.seen[traced(i, n)]
			counts[judgeOutcome(err)]++
			switch {
			case ran > 1:
				t.Errorf("call %d/%d ran %d times, error %v", i, n, ran, err)
			case err == nil && ran != 1:
				t.Errorf("call %d/%d succeeded and ran %d times", i, n, ran)
			case err != nil && transport.NotRun(err) && ran != 0:
				t.Errorf("call %d/%d ran, in spite of %v", i, n, err)
			}
		}
	}
	t.Logf("%d links, outcomes %v", a.Stats().Dials/2, counts)
	if counts["reply"] == 0 || counts["may have run"] == 0 || counts["not run"] == 0 {
		t.Errorf("the test tests nothing: %v", counts)
	}
}

func judgeOutcome(err error) string {
	switch {
	case err == nil:
		return "reply"
	case transport.NotRun(err):
		return "not run"
	default:
		return "may have run"
	}
}

// traced returns a body that names its call; some are large.
func traced(caller, n int) string {
	size := 100
	if n%20 == 0 {
		size = 100_000
	}
	return fmt.Sprintf("%d/%d/%s", caller, n, strings.Repeat("x", size))
}

func tracedCall(t *testing.T, a transport.Transport, caller, n int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	body := traced(caller, n)
	reply, err := a.Call(ctx, 2, 1, []byte(body))
	if err == nil && string(reply) != body {
		t.Errorf("call %d/%d got a reply of %d bytes that is not its own", caller, n, len(reply))
	}
	if ctx.Err() != nil {
		t.Errorf("call %d/%d was left to its deadline: %v", caller, n, err)
	}
	return err
}
