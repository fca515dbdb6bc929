package coordinator

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
)

// The estimate settles around the 98th percentile of what it is shown, follows
// when that changes, and comes back.
func TestEstimateFollowsThePercentile(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	fast := func() time.Duration { return time.Duration((0.5 + random.ExpFloat64()) * float64(time.Millisecond)) }
	slow := func() time.Duration { return 20 * fast() }
	l := newLatencies()
	for _, tt := range []struct {
		name    string
		draw    func() time.Duration
		samples int
	}{{"from nothing", fast, 2000}, {"slower", slow, 2000}, {"fast again", fast, 6000}} {
		sample := make([]time.Duration, 10_000)
		for i := range sample {
			sample[i] = tt.draw()
		}
		slices.Sort(sample)
		p98 := float64(sample[9800])
		for range tt.samples {
			l.observe(1, tt.draw(), true)
		}
		var sum float64
		const many = 2000
		for range many {
			l.observe(1, tt.draw(), true)
			sum += l.of(1).p98
		}
		if mean := sum / many; math.Abs(math.Log(mean/p98)) > math.Log(1.3) {
			t.Errorf("%s: the estimate is %v, the percentile %v", tt.name, time.Duration(mean), time.Duration(p98))
		}
	}
}

func TestEstimateIsBounded(t *testing.T) {
	l := newLatencies()
	if got := l.hedgeDelay(1); got != firstGuess {
		t.Errorf("of a stranger: %v", got)
	}
	for range 100_000 {
		l.observe(1, 0, true)
		l.observe(2, time.Hour, true)
	}
	if fast, slow := l.hedgeDelay(1), l.hedgeDelay(2); fast != hedgeFloor || slow != hedgeCap {
		t.Errorf("%v and %v", fast, slow)
	}
	if p := l.of(2).p98; p > float64(mostEstimate) {
		t.Errorf("the estimate ran away to %v", time.Duration(p))
	}
}

// A call that was cancelled says only that the answer took longer than that.
func TestEstimateOfCancelledCalls(t *testing.T) {
	l := newLatencies()
	before := l.of(1).p98
	l.observe(1, time.Microsecond, false)
	if l.of(1).p98 != before {
		t.Error("an early cancellation counted as a fast answer")
	}
	l.observe(1, time.Second, false)
	if l.of(1).p98 <= before {
		t.Error("a late cancellation did not count")
	}
}

// A node once slow is tried again: it loses some of its estimate each time that
// it is passed over.
func TestOrder(t *testing.T) {
	l := newLatencies()
	for range 200 {
		l.observe(1, 50*time.Millisecond, true)
		l.observe(2, time.Millisecond, true)
		l.observe(3, 2*time.Millisecond, true)
	}
	class := func(id kv.NodeID) int {
		if id == 9 {
			return 0
		}
		return 1
	}
	ids := []kv.NodeID{1, 2, 3, 9}
	l.order(ids, 2, class)
	if want := []kv.NodeID{9, 2, 3, 1}; !slices.Equal(ids, want) {
		t.Errorf("order %v, want %v", ids, want)
	}
	passed := 0
	for ids[0] != 1 {
		l.observe(ids[0], time.Millisecond, true)
		l.order(ids, 1, func(kv.NodeID) int { return 0 })
		if passed++; passed > 10_000 {
			t.Fatal("never tried again")
		}
	}
}

// readsOf plays reads of two replicas that prefer the faster, and probes that
// are due, while each node answers as answer says. It returns how many reads
// asked node 1, and how many probes were made.
func readsOf(l *latencies, reads int, answer func(kv.NodeID) (time.Duration, bool)) (asked, probes int) {
	class := func(kv.NodeID) int { return classAlive }
	for range reads {
		ids := []kv.NodeID{1, 2}
		if probe := l.order(ids, 1, class); probe != 0 {
			probes++
			d, ok := answer(probe)
			l.observe(probe, d, ok)
		}
		if ids[0] == 1 {
			asked++
		}
		if d, ok := answer(ids[0]); ok {
			l.observe(ids[0], d, true)
		} else {
			l.observe(ids[0], l.hedgeDelay(ids[0])+time.Microsecond, false) // a hedge answered
		}
	}
	return asked, probes
}

// A node that answers no more, or much slower, is avoided after some tens of
// reads, is not tried by reads after that, and gets its share again once it is
// well.
func TestSickNodesAreProbedNotTried(t *testing.T) {
	well := func(kv.NodeID) (time.Duration, bool) { return 2 * time.Millisecond, true }
	for name, sick := range map[string]func() (time.Duration, bool){
		"stalled": func() (time.Duration, bool) { return time.Second, false },
		"slow":    func() (time.Duration, bool) { return 20 * time.Millisecond, true },
	} {
		l := newLatencies()
		readsOf(l, 5000, well)
		ill := func(id kv.NodeID) (time.Duration, bool) {
			if id == 1 {
				return sick()
			}
			return well(id)
		}
		if asked, _ := readsOf(l, 200, ill); asked > 30 {
			t.Errorf("%s: %d of the first 200 reads asked it", name, asked)
		}
		asked, probes := readsOf(l, 50_000, ill)
		if asked > 0 || probes < 50_000/probeEvery-1 || probes > 50_000/probeEvery+1 {
			t.Errorf("%s: %d of 50,000 reads asked it, %d probes", name, asked, probes)
		}
		readsOf(l, (probation+1)*probeEvery, well)
		if got := l.believed()[1]; got > 4*time.Millisecond {
			t.Errorf("%s: after its recovery it is believed to take %v", name, got)
		}
		if asked, probes := readsOf(l, 10_000, well); asked < 1000 || probes > 0 {
			t.Errorf("%s: after its recovery %d of 10,000 reads asked it, %d probes", name, asked, probes)
		}
	}
}

// A node that loses one call in ten seldom has a row of good probes, and costs
// few reads when it has.
func TestLossyNodesAreAvoided(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	l := newLatencies()
	asked, _ := readsOf(l, 500_000, func(id kv.NodeID) (time.Duration, bool) {
		return time.Millisecond, id != 1 || random.IntN(10) > 0
	})
	if asked > 10_000 { // of which one in ten is late: one read in 500
		t.Errorf("%d of 500,000 reads asked it", asked)
	}
}

// Estimates that are beyond the longest wait do not keep a silent node in use.
func TestSilenceCountsHoweverLittleWasExpected(t *testing.T) {
	l := newLatencies()
	for range 1000 {
		l.observe(1, 40*time.Millisecond, true)
		l.observe(2, 50*time.Millisecond, true)
	}
	for range 20 {
		l.observe(1, hedgeCap, false)
	}
	if b := l.believed(); b[1] <= b[2] {
		t.Errorf("%v: the silent node is believed to be the faster", b)
	}
}

// What gossip believes dead is neither tried nor probed.
func TestDeadNodesAreNotProbed(t *testing.T) {
	l := newLatencies()
	for range 200 {
		l.observe(1, time.Second, true)
	}
	for range 10 * probeEvery {
		if id := l.order([]kv.NodeID{1, 2}, 1, func(id kv.NodeID) int { return map[kv.NodeID]int{1: classDead, 2: classAlive}[id] }); id != 0 {
			t.Fatal("it was probed")
		}
	}
}

func TestBudget(t *testing.T) {
	b := newBudget()
	spent := 0
	for b.spend() {
		spent++
	}
	if spent != budgetBurst {
		t.Errorf("%d at once, want %d", spent, budgetBurst)
	}
	const calls = 100_000
	spent = 0
	for range calls {
		b.earn(1)
		for b.spend() {
			spent++
		}
	}
	if share := float64(spent) / calls; share*callsPerHedge > 1 || share*callsPerHedge < 0.99 {
		t.Errorf("a share of %v", share)
	}
	b.earn(1 << 30)
	for spent = 0; b.spend(); {
		spent++
	}
	if spent != budgetBurst {
		t.Errorf("%d saved up, want %d", spent, budgetBurst)
	}
}
