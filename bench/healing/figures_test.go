package healing

import (
	"context"
	"flag"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/starling-kv/starling/antientropy"
)

var keys = flag.Int("healing.keys", 0, "measure with so many keys; 0: skip")

// TestFigures prints what the repairs cost. It judges nothing but that they do
// what they should.
func TestFigures(t *testing.T) {
	if *keys == 0 {
		t.Skip("a measurement of minutes: make healing")
	}
	c := newCluster(t)
	c.fill(0, *keys, firstSalt, 0, 1, 2)
	plain := c.fill(0, *keys, firstSalt, 0) // the same again: what a merge that changes nothing takes
	t.Logf("merges that change nothing: %.0f records/s", plain)
	c.exchange(t, "nothing differs")
	c.exchange(t, "nothing differs, again")

	const differ = 100
	step := *keys / differ
	for k := 0; k < *keys; k += step {
		c.fill(k, k+1, "second", k/step%nodes)
	}
	if healed := c.exchange(t, "100 keys differ"); healed < differ {
		t.Errorf("%d of %d keys were healed in one cycle", healed, differ)
	}
	c.exchange(t, "after that")

	c.stop(0)
	t.Logf("restart: takes part after %v", c.start(0).Round(time.Millisecond))
	c.exchange(t, "after the restart")

	c.empty(t)
}

// exchange compares every partition of every pair of nodes once.
func (c *cluster) exchange(t *testing.T, what string) (healed uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before, cpu, begun := c.traffic(), used(), time.Now()
	for _, pair := range []struct{ at, with int }{{0, 1}, {0, 2}, {1, 2}} {
		var last antientropy.Progress
		err := c.nodes[pair.at].Repair(ctx, antientropy.Selection{Node: id(pair.with)}, func(p antientropy.Progress) { last = p })
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		healed += last.Healed
	}
	t.Logf("%s: %v of CPU, %d bytes sent, %d keys healed, %v", what, (used() - cpu).Round(time.Millisecond),
		c.traffic()-before, healed, time.Since(begun).Round(time.Millisecond))
	return healed
}

// empty restarts a node with an empty disk, waits until it has everything, and
// compares that with plain stores of the same records on the same disk.
func (c *cluster) empty(t *testing.T) {
	t.Helper()
	c.stop(0)
	c.nodes[0].life++
	begun := time.Now()
	c.start(0)
	for !c.whole() {
		<-time.After(10 * time.Millisecond)
	}
	took := time.Since(begun)
	streamed := float64(*keys) / took.Seconds()
	if n := c.count(0); n != uint64(*keys) {
		t.Errorf("the emptied node holds %d of %d records", n, *keys)
	}
	plain := c.plain(*keys)
	t.Logf("emptied: %.0f records/s, plain stores %.0f/s, ratio %.2f", streamed, plain, streamed/plain)
}

// whole reports whether node 0 has merged everything from everybody.
func (c *cluster) whole() bool {
	st := c.nodes[0].Standing().Stats()
	return c.nodes[0].TakesPart() && st.Falls > 0 && st.Fallen == 0
}

func (c *cluster) count(i int) (n uint64) {
	for p := range uint16(partitions) {
		for _, tree := range c.nodes[i].Store().Trees(p) {
			n += tree.Count
		}
	}
	return n
}

// used is the CPU time of the process.
func used() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // it cannot fail for the process itself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
