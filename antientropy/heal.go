package antientropy

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Pacing. Who is asked too much says so; who asks waits, longer each time, and
// in the end puts the exchange off.
const (
	firstPause     = 50 * time.Millisecond
	longestPause   = 2 * time.Second
	patience       = 8  // refusals in a row
	moveTimeouts   = 6  // of [Config.Timeout] has a call that moves records
	pressurePauses = 20 // of firstPause, before one call is made in spite of pressure
	firstNudge     = 64 // keys, before the peer said how many it would take
)

// errBusy ends an exchange with a peer that takes nothing for a long time.
var errBusy = errors.New("the peer is busy")

// heal makes both nodes hold what either has of the keys.
func (e *exchange) heal(ctx context.Context, list []discord) error {
	e.tally.differ += uint64(len(list))
	if err := e.pull(ctx, list, func(d discord) bool { return d.there != 0 && !d.behind() }); err != nil {
		return err
	}
	if err := e.refresh(list); err != nil {
		return err
	}
	if err := e.push(ctx, list); err != nil {
		return err
	}
	e.conclude(list)
	return nil
}

// take makes this node hold what the peer has of the keys.
func (e *exchange) take(ctx context.Context, list []discord) error {
	list = slices.DeleteFunc(list, func(d discord) bool { return d.there == 0 })
	e.tally.differ += uint64(len(list))
	if err := e.pull(ctx, list, func(discord) bool { return true }); err != nil {
		return err
	}
	for i := range list {
		list[i].given = true // not asked for
	}
	e.conclude(list)
	return nil
}

// conclude counts the keys that are the same on both sides now.
func (e *exchange) conclude(list []discord) {
	for _, d := range list {
		if d.taken && d.given {
			e.tally.healed++
			e.note(d.at.part.Partition, healed)
		} else {
			e.note(d.at.part.Partition, unfinished)
		}
	}
}

// pull takes what the peer has of the keys of which want holds.
func (e *exchange) pull(ctx context.Context, list []discord, want func(discord) bool) error {
	for i := range list {
		list[i].taken = !want(list[i])
	}
	wanted := refer(list, want)
	for group := range slices.Chunk(wanted, pullKeys) {
		keys := keysOf(group)
		err := e.patiently(ctx, moveTimeouts*e.Timeout, func(ctx context.Context) error {
			held, err := e.Mover.Pull(ctx, e.peer, keys, false)
			for i, ok := range held[:min(len(held), len(group))] {
				group[i].taken = ok
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// refresh looks up what this node holds by now. If it is what the peer said
// that it holds, the peer lacks nothing.
func (e *exchange) refresh(list []discord) error {
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].at == list[0].at {
			n++
		}
		own, err := e.entries(list[0].at)
		if err != nil {
			return err
		}
		now := make(map[kv.Key]Entry, len(own))
		for _, entry := range own {
			now[entry.Key] = entry
		}
		for i := range list[:n] {
			d := &list[i]
			d.here, d.mine = now[d.key].Digest, now[d.key].Clock
			d.given = d.here == d.there
		}
		list = list[n:]
	}
	return nil
}

// push has the peer pull what it lacks, as fast as it says that it can.
func (e *exchange) push(ctx context.Context, list []discord) error {
	wanted := refer(list, func(d discord) bool { return !d.given && d.here != 0 })
	size, refusals := firstNudge, 0
	for len(wanted) > 0 {
		group := wanted[:min(size, len(wanted))]
		var held []bool
		var room int
		var pause time.Duration
		err := e.patiently(ctx, moveTimeouts*e.Timeout, func(ctx context.Context) (err error) {
			held, room, pause, err = e.Mover.Nudge(ctx, e.peer, e.Self, keysOf(group), false)
			return err
		})
		if err != nil {
			return err
		}
		for i, ok := range held[:min(len(held), len(group))] {
			group[i].given = ok
		}
		if room > 0 {
			size, refusals, wanted = min(room, pullKeys), 0, wanted[len(group):]
			continue
		}
		before := len(wanted)
		wanted = slices.DeleteFunc(wanted, func(d *discord) bool { return d.given })
		if len(wanted) < before {
			refusals = 0
		}
		if refusals++; refusals == patience {
			return errBusy
		}
		if err := sleep(ctx, pauseAfter(refusals, pause)); err != nil {
			return err
		}
	}
	return nil
}

// refer returns pointers to the discords of which want holds.
func refer(list []discord, want func(discord) bool) []*discord {
	var out []*discord
	for i := range list {
		if want(list[i]) {
			out = append(out, &list[i])
		}
	}
	return out
}

func keysOf(list []*discord) []kv.Key {
	keys := make([]kv.Key, len(list))
	for i, d := range list {
		keys[i] = d.key
	}
	return keys
}

// patiently makes a call, again and again while the other side is busy.
func (e *exchange) patiently(ctx context.Context, timeout time.Duration, do func(context.Context) error) error {
	for refusals := 1; ; refusals++ {
		if err := e.giveWay(ctx); err != nil {
			return err
		}
		err := within(ctx, timeout, do)
		wait, busy := busyFor(err)
		if !busy || refusals == patience {
			return err
		}
		if err := sleep(ctx, pauseAfter(refusals, wait)); err != nil {
			return err
		}
	}
}

// giveWay waits, for a second at most, while clients keep this node's store busy.
// An eager exchange does not: then it is its own streams that do, and what paces
// them is the room that the store has.
func (e *exchange) giveWay(ctx context.Context) error {
	for i := 0; i < pressurePauses && !e.eager && e.Pressure(); i++ {
		if err := sleep(ctx, firstPause); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func within(ctx context.Context, timeout time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return do(ctx)
}

// busyFor reports whether an error says that a node is busy, and for how long.
func busyFor(err error) (time.Duration, bool) {
	told, ok := errors.AsType[*kv.Error](err)
	if !ok || told.Code != kv.CodeOverloaded {
		return 0, false
	}
	return told.RetryAfter, true
}

// pauseAfter returns how long to wait after so many refusals in a row, the last
// of which asked for a pause.
func pauseAfter(refusals int, asked time.Duration) time.Duration {
	return min(max(asked, firstPause<<(refusals-1)), longestPause)
}

// sleep waits for d, or until the context ends, and returns its error then.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// ask makes one call that compares, and counts its bytes.
func ask[Q, A interface{ Append(dst []byte) []byte }](
	ctx context.Context, e *exchange, call func(context.Context, kv.NodeID, Q) (A, error), req Q,
) (A, error) {
	var reply A
	err := e.patiently(ctx, e.Timeout, func(ctx context.Context) (err error) {
		reply, err = call(ctx, e.peer, req)
		return err
	})
	e.scratch = req.Append(e.scratch[:0])
	if err == nil {
		e.scratch = reply.Append(e.scratch)
	}
	e.tally.compared += uint64(len(e.scratch))
	return reply, err
}
