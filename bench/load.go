package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Config is a load. All fields without a stated default must be set.
type Config struct {
	Workload    Workload
	Keys        int64 // that the store holds
	Set         byte  // of the keys' names: DefaultSet
	KeySize     int   // bytes
	ValueSize   int   // bytes
	Connections int
	// Rate makes the loop open: requests per second over all connections. 0: a
	// closed loop.
	Rate float64
	// Patience, if set, makes clients of an open loop give a request up that is
	// not sent so long after it was due, because its connection is busy: more is
	// due than can ever be sent. It is counted and costs next to nothing. 0: all
	// are sent, however late.
	Patience time.Duration
	// WarmUp goes before Duration and does not count.
	WarmUp, Duration time.Duration
	// Seed chooses keys and operations, which are the same in every run of it.
	Seed uint64
	// Tokens, if set, makes every write carry the token of its key's last answer;
	// without, writes carry none.
	Tokens *Tokens
	Dial   Dial
	// PIDs are the servers' processes, whose processor time is measured.
	PIDs []int
	// Slice is the length of a part of the timeline. Default 1 s.
	Slice time.Duration
	// Report, if set, is told of every part of the timeline.
	Report func(Second)
}

const (
	// drain is how long requests of an open loop are waited for after the end.
	drain = 5 * time.Second
	// redialPause goes before a connection is tried again.
	redialPause = 20 * time.Millisecond
	valuePool   = 1 << 20 // random bytes, from which values are cut
)

// Validate reports what is wrong with a load, but for what it is put on.
func (c *Config) Validate() error {
	switch {
	case c.Keys < 1:
		return errors.New("the load needs one key or more")
	case c.Connections < 1:
		return errors.New("the load needs one connection or more")
	case c.ValueSize < 0 || c.ValueSize > valuePool/2:
		return fmt.Errorf("a value of %d bytes: use 0 to %d", c.ValueSize, valuePool/2)
	case c.Rate < 0:
		return fmt.Errorf("a rate of %g requests a second: use 0 for a closed loop, or more", c.Rate)
	case c.Duration <= 0:
		return errors.New("the load needs a duration")
	case c.Slice < 0 || c.Patience < 0:
		return errors.New("the load's slice and patience cannot be negative")
	}
	return checkKeySize(c.Keys, c.KeySize)
}

// Run puts a system under load and returns what it did. When ctx ends early,
// it returns its error.
func Run(ctx context.Context, c Config) (Result, error) {
	if err := c.Validate(); err != nil {
		return Result{}, err
	}
	l := newLoad(c)
	conns, err := l.dial(ctx)
	if err != nil {
		return Result{}, err
	}
	l.begin(time.Now())
	deadline, cancel := context.WithDeadline(ctx, l.end.Add(drain))
	defer cancel()
	var workers, watch sync.WaitGroup
	for i, conn := range conns {
		workers.Go(func() { l.worker(i, conn).run(deadline) })
	}
	watching, stop := context.WithCancel(ctx)
	watch.Go(func() { l.observe(watching) })
	workers.Wait()
	stop()
	watch.Wait()
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	return l.result(), nil
}

// load is a run under way.
type load struct {
	Config

	chooser   *chooser
	size      atomic.Int64 // keys, those included that are being inserted
	values    []byte
	recorders []*recorder

	start, from, end time.Time // the first request, the first that counts, and none later
	timeline         []Second
	cpu              cpuMeter
}

func newLoad(c Config) *load {
	l := &load{Config: c, chooser: newChooser(c.Workload.Keys, c.Keys), values: randomBytes(c.Seed)}
	l.size.Store(c.Keys)
	return l
}

// randomBytes do not compress.
func randomBytes(seed uint64) []byte {
	var key [32]byte
	key[0] = byte(seed)
	b := make([]byte, valuePool)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

func (l *load) dial(ctx context.Context) ([]Conn, error) {
	conns := make([]Conn, l.Connections)
	for i := range conns {
		var err error
		if conns[i], err = l.Dial(ctx, i); err != nil {
			for _, c := range conns[:i] {
				_ = c.Close()
			}
			return nil, err
		}
	}
	return conns, nil
}

func (l *load) begin(now time.Time) {
	l.start, l.from = now, now.Add(l.WarmUp)
	l.end = l.from.Add(l.Duration)
	for range l.Connections {
		l.recorders = append(l.recorders, newRecorder(l.from))
	}
}

// observe keeps the timeline and looks at the servers' clocks when the part
// that counts begins and ends.
func (l *load) observe(ctx context.Context) {
	if !sleepUntil(ctx, l.from) {
		return
	}
	l.cpu.begin(l.PIDs)
	last := l.from
	slice := cmp.Or(l.Slice, time.Second)
	for next := l.from.Add(slice); ; next = next.Add(slice) {
		if next.After(l.end) {
			next = l.end
		}
		ended := !sleepUntil(ctx, next)
		now := time.Now()
		if length := now.Sub(last); length > 0 {
			l.note(takeSecond(l.recorders, now.Sub(l.from), length))
		}
		last = now
		if ended || !now.Before(l.end) {
			l.cpu.finish()
			return
		}
	}
}

func (l *load) note(s Second) {
	l.timeline = append(l.timeline, s)
	if l.Report != nil {
		l.Report(s)
	}
}

// sleepUntil returns false if ctx ended before.
func sleepUntil(ctx context.Context, t time.Time) bool {
	wait := time.Until(t)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
