package hints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

const (
	pageLen   = 1 << 14 // debts in memory per target
	pageBytes = 4 << 20 // of these
	firstRoom = 64      // keys that a target is asked to take before it has said how many
	mostRoom  = 1 << 10
	nudgeTime = 10 * time.Second
	leastWait = 10 * time.Millisecond // for a target that is busy
	mostWait  = 30 * time.Second
)

// pass is one walk over what a target is owed of one kind. It is used by one
// goroutine at a time. Whoever drops it calls end.
type pass struct {
	*Replayer

	target kv.NodeID
	copies bool // kept for the target; otherwise writes that it missed
	away   bool // the target is not asked: only what it owns no longer moves

	begun   time.Time
	room    int    // keys that the target takes next
	page    []debt // read, and not tried yet
	last    bool   // nothing comes after the page
	stay    Amount // what was tried and stays: the next page begins after so many
	gone    int    // what is no longer owed
	damaged bool   // some could not be read
	standIn bool   // copies may be among what the target is told to fetch
}

// outcome is how a turn ended.
type outcome struct {
	over     bool          // the pass is
	progress bool          // something is no longer owed
	wait     time.Duration // what the target asks for
	err      error
}

func (r *Replayer) newPass(target kv.NodeID, copies, away bool) *pass {
	return &pass{Replayer: r, target: target, copies: copies, away: away, begun: r.cfg.Now(), room: firstRoom}
}

// turn tries as much as the target takes at once.
func (p *pass) turn(ctx context.Context) outcome {
	if len(p.page) == 0 && !p.last {
		if err := p.read(ctx); err != nil {
			return outcome{err: err}
		}
	}
	n := min(p.room, len(p.page))
	batch, before := p.page[:n:n], p.gone
	p.page = p.page[n:]
	wait, err := p.try(ctx, batch)
	if err != nil {
		p.last = false
	}
	over := p.last && len(p.page) == 0
	if over {
		p.publish()
	}
	if over || err != nil {
		p.end()
	}
	return outcome{over: over, progress: p.gone > before, wait: wait, err: err}
}

// end forgets what was read.
func (p *pass) end() {
	p.page = nil
	if !p.copies {
		p.cfg.Hints.rests(p.target)
	}
}

var errFull = errors.New("the page is full")

// read reads the next page. What stays of those before is at the beginning of
// what the scan finds.
func (p *pass) read(ctx context.Context) error {
	if !p.copies {
		p.cfg.Hints.replaying(p.target)
	}
	var bytes int64
	skip := p.stay.Count
	take := func(d debt) error {
		if skip > 0 {
			skip--
			return nil
		}
		if p.away && owns(d, p.cfg.Places.Owners) {
			p.stays(d)
			return ctx.Err()
		}
		if bytes += size(d.Key); len(p.page) == pageLen || bytes > pageBytes && len(p.page) > 0 {
			return errFull
		}
		p.page = append(p.page, d)
		return nil
	}
	err := p.scan(take)
	// Copies that what was read refers to are older than it.
	p.standIn = p.copies || p.hasCopies()
	if errors.Is(err, errFull) {
		return nil
	}
	p.last, p.damaged = true, err != nil
	if err != nil && ctx.Err() == nil {
		p.cfg.Log.Warn("some of what is owed to a node cannot be read", zap.Stringer("node", p.target), zap.Error(err))
	}
	return ctx.Err()
}

func (p *pass) scan(take func(debt) error) error {
	if !p.copies {
		return p.cfg.Store.ScanMissed(p.target, func(m Missed) error { return take(debt{Missed: m, bytes: size(m.Key)}) })
	}
	return p.cfg.Copies.ScanHints(p.target, func(slot kv.Slot, r kv.Record) error { return take(debtOf(slot, r)) })
}

func debtOf(slot kv.Slot, r kv.Record) debt {
	encoded := kv.AppendRecord(nil, r)
	d := debt{
		Missed: Missed{Target: slot.Target, Partition: slot.Partition, Key: slot.Key, Since: r.LatestStamp().Time()},
		copied: true, digest: kv.Digest(slot.Key, encoded), n: int(r.NMax), bytes: size(slot.Key) + int64(len(encoded)),
	}
	for _, v := range r.Live {
		if v.Value.External {
			d.bytes += int64(v.Value.Length)
		}
	}
	return d
}

// stays notes that d was tried, or need not be, and is still owed.
func (p *pass) stays(d debt) { p.stay.add(d.bytes, d.Since) }

// try has a batch fetched by whom it is owed to, and removes what these hold
// then. It returns how long the target asks to be left alone.
func (p *pass) try(ctx context.Context, batch []debt) (wait time.Duration, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	asks, strays := route(batch, p.cfg.Places.Owners)
	lacking := make([]int, len(batch)) // by debt: how many do not hold it yet
	for _, a := range asks {
		for _, i := range a.debts {
			lacking[i]++
		}
	}
	for _, a := range asks {
		held, pause, err := p.nudge(ctx, a, batch)
		if a.to == p.target {
			if err != nil {
				return 0, err
			}
			wait = pause
		}
		for at, i := range a.debts {
			if err == nil && held[at] {
				lacking[i]--
			}
		}
	}
	return wait, p.settle(batch, lacking, strays, wait > 0)
}

// hasCopies reports whether this node may keep copies for anyone.
func (p *pass) hasCopies() bool {
	targets, err := p.cfg.Copies.HintTargets()
	return len(targets) > 0 || err != nil
}

var errOdd = errors.New("the answer to a nudge is not about the keys that were asked")

// nudge asks one node, and heeds for how many keys the target says that it has
// room, or how long it is busy.
func (p *pass) nudge(ctx context.Context, a ask, batch []debt) (held []bool, wait time.Duration, err error) {
	if !p.cfg.Peers.Connected(a.to) {
		return nil, 0, fmt.Errorf("node %v is not connected", a.to)
	}
	keys := make([]kv.Key, len(a.debts))
	for at, i := range a.debts {
		keys[at] = batch[i].Key
	}
	ctx, cancel := context.WithTimeout(ctx, nudgeTime)
	defer cancel()
	held, room, pause, err := p.cfg.Peers.Nudge(ctx, a.to, p.cfg.Self, keys, p.standIn)
	if e, ok := errors.AsType[*kv.Error](err); ok && e.Code == kv.CodeOverloaded {
		held, room, pause, err = make([]bool, len(keys)), 0, e.RetryAfter, nil
	}
	switch {
	case err != nil:
		return nil, 0, err
	case len(held) != len(keys):
		return nil, 0, errOdd
	case room <= 0:
		return held, min(max(pause, leastWait), mostWait), nil
	case a.to == p.target:
		p.room = min(room, mostRoom)
	}
	return held, 0, nil
}

// settle removes what nobody lacks. Of the rest, what a busy target was asked to
// take is tried again in this pass; missed writes that it owns no longer are
// redirected; all else stays.
func (p *pass) settle(batch []debt, lacking, strays []int, busy bool) error {
	var held, astray, again []debt
	for i, d := range batch {
		switch {
		case slices.Contains(strays, i):
			astray = append(astray, d)
		case lacking[i] == 0:
			held = append(held, d)
		case busy:
			again = append(again, d)
		case d.copied:
			p.stays(d)
		default:
			astray = append(astray, d)
		}
	}
	p.page = slices.Concat(again, p.page)
	if p.copies {
		return p.dropCopies(held)
	}
	return p.dropMissed(held, astray)
}

// dropCopies removes the copies that are held elsewhere now, if they are as they
// were.
func (p *pass) dropCopies(held []debt) error {
	done := make(chan error, len(held))
	var errs []error
	sent := 0
	for _, d := range held {
		slot := kv.Slot{Target: d.Target, Partition: d.Partition, Key: d.Key}
		if err := p.cfg.Copies.DropHint(slot, d.digest, func(err error) { done <- err }); err != nil {
			errs = append(errs, err)
			continue
		}
		sent++
	}
	for range sent {
		errs = append(errs, <-done)
	}
	err := errors.Join(errs...)
	if err == nil {
		p.gone += len(held)
		p.replayed.Add(uint64(len(held)))
	}
	return err
}

// dropMissed removes the missed writes that the target holds now, and has the
// others fetched by the present owners, where the target is none of these.
func (p *pass) dropMissed(held, astray []debt) error {
	var add, remove []Missed
	for _, d := range held {
		remove = append(remove, d.Missed)
	}
	for _, d := range astray {
		instead, stays := p.present(d.Missed)
		if stays {
			p.stays(d)
			continue
		}
		add, remove = append(add, instead...), append(remove, d.Missed)
	}
	if len(remove) == 0 {
		return nil
	}
	if err := p.cfg.Hints.settle(add, remove); err != nil {
		return err
	}
	p.gone += len(remove)
	p.replayed.Add(uint64(len(held)))
	p.redirected.Add(uint64(len(remove) - len(held)))
	return nil
}

// present redirects a missed write to the present owners of its key. They are as
// many as the record asks for; without a record nothing is owed.
func (p *pass) present(m Missed) (instead []Missed, stays bool) {
	n := 0
	for _, target := range []kv.NodeID{0, m.Target} {
		r, err := p.cfg.Store.Get(kv.Slot{Target: target, Partition: m.Partition, Key: m.Key})
		if err != nil {
			return nil, true
		}
		n = max(n, int(r.NMax))
	}
	if n == 0 {
		return nil, false
	}
	return redirect(m, p.cfg.Places.Owners(m.Partition, n), p.cfg.Self)
}
