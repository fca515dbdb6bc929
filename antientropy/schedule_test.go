package antientropy

import (
	"slices"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
)

// planner is a schedule of node 1 among three, of eight partitions, and what it
// is told.
type planner struct {
	*schedule

	t       *testing.T
	now     time.Time
	away    map[kv.NodeID]bool
	sources map[uint16][]kv.NodeID
}

func newPlanner(t *testing.T) *planner {
	t.Helper()
	p := &planner{
		schedule: &schedule{every: 30 * time.Second, soon: time.Second, parallel: 4},
		t:        t, now: time.Unix(1e9, 0), away: make(map[kv.NodeID]bool), sources: make(map[uint16][]kv.NodeID),
	}
	p.survey(p.now, newTerritory(viewOf(t, layoutOf(t, 1, nil, 8, 3)), 1))
	return p
}

// after returns what begins when so much time has passed.
func (p *planner) after(d time.Duration) []task {
	p.now = p.now.Add(d)
	return p.next(p.now, func(id kv.NodeID) bool { return !p.away[id] }, func(h holding) []kv.NodeID { return p.sources[h.partition] })
}

// settle lets time pass and everything be found the same until nothing is due
// before the next cycle.
func (p *planner) settle() {
	for range 4 {
		p.finishAll(p.after(time.Second), same, nil)
	}
}

func (p *planner) finishAll(tasks []task, v verdict, err error) {
	for _, t := range tasks {
		o := outcome{task: t, verdicts: slices.Repeat([]verdict{v}, len(t.shares)), err: err}
		p.finish(p.now, o)
	}
}

func (p *planner) want(tasks []task, what string, peers ...kv.NodeID) {
	p.t.Helper()
	got := make([]kv.NodeID, 0, len(tasks))
	for _, t := range tasks {
		got = append(got, t.peer)
	}
	slices.Sort(got)
	if !slices.Equal(got, peers) {
		p.t.Errorf("%s: exchanges with %v, not with %v", what, got, peers)
	}
}

func TestScheduleOfACycle(t *testing.T) {
	p := newPlanner(t)
	p.want(p.after(0), "at the start")
	tasks := p.after(1300 * time.Millisecond)
	p.want(tasks, "soon", 2, 3)
	for _, task := range tasks {
		if len(task.shares) != 8 || task.eager {
			t.Errorf("%+v", task)
		}
	}
	p.want(p.after(time.Minute), "while they are under way")
	p.finishAll(tasks, same, nil)
	p.want(p.after(0), "after a minute", 2, 3)
}

func TestScheduleMeetsEveryPeerOnceACycle(t *testing.T) {
	p := newPlanner(t)
	met := make(map[kv.NodeID]int)
	through := make(map[Window]int)
	for range 2 * 600 {
		tasks := p.after(500 * time.Millisecond)
		for _, task := range tasks {
			met[task.peer]++
			through[task.window]++
		}
		p.finishAll(tasks, same, nil)
	}
	for id := kv.NodeID(2); id <= 3; id++ { // every 22.5 to 37.5 s
		if met[id] < 16 || met[id] > 26 {
			t.Errorf("%d exchanges with %v in ten minutes", met[id], id)
		}
	}
	for w := Window(1); w <= windows; w++ {
		if through[w] < 8 {
			t.Errorf("%d exchanges of %v through window %d", through[w], met, w)
		}
	}
}

func TestScheduleWhenAPeerComesBack(t *testing.T) {
	p := newPlanner(t)
	p.settle()
	p.away[2] = true
	p.finishAll(p.after(time.Minute), same, nil)
	delete(p.away, 2)
	p.want(p.after(0), "as it comes back")
	p.want(p.after(1300*time.Millisecond), "a second later", 2)
}

func TestScheduleOfMarks(t *testing.T) {
	p := newPlanner(t)
	p.settle()
	p.away[2] = true
	p.after(0)
	p.mark(2, []uint16{5, 6, 99})
	p.mark(7, []uint16{5})
	p.want(p.after(0), "marks of a peer that is away")
	delete(p.away, 2)
	tasks := p.after(0)
	p.want(tasks, "marks", 2)
	if got := tasks[0].shares; len(got) != 2 || got[0].partition != 5 || got[1].partition != 6 {
		t.Errorf("marked partitions: %v", got)
	}
	p.finishAll(tasks, unfinished, errRefused)
	p.want(p.after(100*time.Millisecond), "a failure was just now")
	tasks = p.after(1300 * time.Millisecond)
	p.want(tasks, "again after a failure", 2)
	p.finishAll(tasks, same, nil)
}

func TestScheduleBacksOff(t *testing.T) {
	p := newPlanner(t)
	p.away[3] = true
	tries := 0
	for range 2 * 120 {
		tasks := p.after(500 * time.Millisecond)
		tries += len(tasks)
		p.finishAll(tasks, unfinished, errRefused)
	}
	if tries < 6 || tries > 14 {
		t.Errorf("%d tries in two minutes with a peer that always fails", tries)
	}
}

func TestScheduleLooksAtWhatWasHealed(t *testing.T) {
	p := newPlanner(t)
	p.away[3] = true
	p.after(0)
	tasks := p.after(1300 * time.Millisecond)
	p.want(tasks, "soon", 2)
	o := outcome{task: tasks[0], verdicts: make([]verdict, 8)}
	o.verdicts[3], o.verdicts[4] = healed, left
	p.finish(p.now, o)
	tasks = p.after(1300 * time.Millisecond)
	p.want(tasks, "what was healed", 2)
	if got := tasks[0].shares; len(got) != 1 || got[0].partition != 3 {
		t.Errorf("partitions that were healed: %v", got)
	}
	rounds := 1
	for range 2 * 20 { // it is never the same
		p.finishAll(tasks, healed, nil)
		tasks = p.after(500 * time.Millisecond)
		rounds += len(tasks)
	}
	if rounds < 3 || rounds > 5 {
		t.Errorf("%d looks in 20 s at what never becomes the same", rounds)
	}
}

func TestScheduleOfCatchUp(t *testing.T) {
	p := newPlanner(t)
	p.settle()
	p.sources = map[uint16][]kv.NodeID{1: {2, 3}, 2: {3, 2}, 3: {2}}
	tasks := p.after(0)
	p.want(tasks, "at once", 2, 3)
	for _, task := range tasks {
		want := map[kv.NodeID]int{2: 2, 3: 1}[task.peer]
		if !task.eager || len(task.shares) != want {
			t.Errorf("from node %v: %+v", task.peer, task)
		}
	}
	p.sources = map[uint16][]kv.NodeID{1: {3}, 2: {2}}
	p.finishAll(tasks, healed, nil)
	p.away[3] = true
	tasks = p.after(0)
	p.want(tasks, "from the other source", 2)
	p.finishAll(tasks, unfinished, nil)
	p.want(p.after(100*time.Millisecond), "a source did not give all")
	p.want(p.after(1300*time.Millisecond), "again", 2)
}

func TestCatchUpThatFailsLeavesRoomForTheRest(t *testing.T) {
	p := newPlanner(t)
	p.sources = map[uint16][]kv.NodeID{1: {2}}
	whole := 0
	for range 2 * 300 {
		for _, t := range p.after(500 * time.Millisecond) {
			if t.eager {
				p.finishAll([]task{t}, unfinished, nil)
				continue
			}
			p.finishAll([]task{t}, same, nil)
			if t.peer == 2 {
				whole++
			}
		}
	}
	if whole < 4 {
		t.Errorf("%d exchanges in five minutes with a source from which one partition cannot be had", whole)
	}
}

func TestScheduleOfDoubts(t *testing.T) {
	p := newPlanner(t)
	p.settle()
	p.doubt(1, 4, 200)
	tasks := p.after(0)
	p.want(tasks, "one owner after the other", tasks[0].peer)
	if !tasks[0].eager || len(tasks[0].doubts) != 1 {
		t.Errorf("%+v", tasks[0])
	}
	p.doubt(1, 4, 201) // after the exchange began: it does not count for this
	p.finishAll(tasks, same, nil)
	if over := p.settled(); len(over) > 0 {
		t.Errorf("settled by one owner of two: %v", over)
	}
	p.finishAll(p.after(0), unfinished, nil)
	if over := p.settled(); len(over) > 0 {
		t.Errorf("settled by an owner that did not give all: %v", over)
	}
	for range 4 {
		p.finishAll(p.after(2*time.Second), healed, nil)
	}
	if over := p.settled(); len(over) != 2 || over[0].leaf != 200 || len(p.doubts) != 0 {
		t.Errorf("settled by both owners: %v", over)
	}
}

func TestScheduleIsBounded(t *testing.T) {
	p := newPlanner(t)
	p.parallel = 1
	p.after(0)
	tasks := p.after(2 * time.Second)
	if len(tasks) != 1 {
		t.Fatalf("%d exchanges at once", len(tasks))
	}
	if more := p.after(time.Second); len(more) > 0 {
		t.Errorf("%d exchanges beside the one", len(more))
	}
	p.finishAll(tasks, same, nil)
	if more := p.after(0); len(more) != 1 || more[0].peer == tasks[0].peer {
		t.Errorf("then %+v", more)
	}
}

func TestScheduleFollowsLayouts(t *testing.T) {
	p := newPlanner(t)
	p.settle()
	p.doubt(1, 4, 200)
	tasks := p.after(time.Minute)
	one := layoutOf(t, 1, nil, 8, 3)
	two := layoutOf(t, 2, one, 8, 2)
	if !p.survey(p.now, newTerritory(viewOf(t, two), 1)) || p.survey(p.now, p.land) {
		t.Error("a change of layouts was not noticed, or one that was none")
	}
	p.finishAll(tasks, same, nil) // one of them with a node that is gone
	p.mark(3, []uint16{1})
	for range 5 {
		tasks = p.after(time.Second)
		if slices.ContainsFunc(tasks, func(t task) bool { return t.peer == 3 }) {
			t.Error("an exchange with a node that owns nothing")
		}
		p.finishAll(tasks, same, nil)
	}
	if p.running != 0 || len(p.settled()) != 1 {
		t.Errorf("%d tasks under way, doubts %v", p.running, p.doubts)
	}
}

func TestSuspectsAreCheckedOnceAMinute(t *testing.T) {
	x := &Exchanger{scrubber: scrubber{wake: make(chan struct{}, 1)}}
	now := time.Unix(1e9, 0)
	checks := 0
	for s := range 5*60 + 1 {
		x.Suspect(1, 2)
		x.Suspect(1, 2)
		list := x.scrubber.takeSuspects(now.Add(time.Duration(s) * time.Second))
		checks += len(list)
	}
	if checks != 6 {
		t.Errorf("%d checks of one leaf in five minutes", checks)
	}
	x.Suspect(1, 2)
	x.Suspect(1, 3)
	if list := x.scrubber.takeSuspects(now.Add(5*time.Minute + time.Second)); len(list) != 1 || list[0].leaf != 3 {
		t.Errorf("another leaf waits, too: %v", list)
	}
	if list := x.scrubber.takeSuspects(now.Add(time.Hour)); len(list) != 1 || list[0].leaf != 2 {
		t.Errorf("a suspicion was dropped: %v", list)
	}
	for i := range maxSuspects + 10 {
		x.Suspect(uint16(i), 2)
	}
	if list := x.scrubber.takeSuspects(now.Add(2 * time.Hour)); len(list) != maxSuspects {
		t.Errorf("%d suspects wait", len(list))
	}
}

func TestWalkMeetsEveryLeafOnceAPeriod(t *testing.T) {
	holdings := []holding{{partition: 3}, {partition: 9}}
	begin := time.Unix(1e9, 0)
	w := walk{began: begin, period: time.Hour}
	met := make(map[leafID]int)
	most := 0
	for s := range 3600 + 1 {
		list := w.due(begin.Add(time.Duration(s)*time.Second), holdings)
		most = max(most, len(list))
		for _, id := range list {
			met[id]++
		}
	}
	if len(met) != 2*merkle.Leaves || most > 1 {
		t.Errorf("%d leaves of %d, up to %d at once", len(met), 2*merkle.Leaves, most)
	}
	for id, n := range met {
		if n != 1 {
			t.Errorf("leaf %v was met %d times", id, n)
		}
	}
	if list := w.due(begin.Add(time.Hour+time.Minute), nil); len(list) > 0 {
		t.Errorf("a node that owns nothing checks %v", list)
	}
}
