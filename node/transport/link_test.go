package transport

import (
	"errors"
	"testing"
)

// ticks runs a lane's ticks; before each, step does what the connection did.
func ticks(l *lane, n, limit int, step func(tick int)) (ended int, err error) {
	for i := range n {
		step(i)
		if err := l.tick(limit); err != nil {
			return i, err
		}
	}
	return n, nil
}

func TestTickEndsASilentLane(t *testing.T) {
	l := &lane{out: newOutbox(1 << 20)}
	ended, err := ticks(l, 100, 5, func(i int) {
		if i < 10 {
			l.heard.Store(true)
		}
	})
	if !errors.Is(err, errSilent) || ended != 15 {
		t.Errorf("ended at tick %d: %v", ended, err)
	}
}

func TestTickEndsAStalledLane(t *testing.T) {
	l := &lane{out: newOutbox(1 << 20)}
	ended, err := ticks(l, 100, 5, func(i int) {
		l.heard.Store(true)
		if i < 21 { // writes begin and end; the last one stays under way
			l.out.account(0)
		}
	})
	if !errors.Is(err, errStalled) || ended != 26 {
		t.Errorf("ended at tick %d: %v", ended, err)
	}
}

// A ping is due where nothing else was said, and only one at a time.
func TestTickPingsAnIdleLane(t *testing.T) {
	l := &lane{out: newOutbox(1 << 20)}
	queued := func() int { return l.out.held / frameExtra }
	_, err := ticks(l, 10, 100, func(int) {})
	if err != nil || queued() != 1 {
		t.Errorf("%d pings queued, error %v", queued(), err)
	}
	l.out.account(0)
	l.out.account(frameExtra) // the ping went
	if _, err := ticks(l, 1, 100, func(int) {}); err != nil || queued() != 0 {
		t.Errorf("%d pings queued right after a write, error %v", queued(), err)
	}
	if _, err := ticks(l, 1, 100, func(int) {}); err != nil || queued() != 1 {
		t.Errorf("%d pings queued a tick later, error %v", queued(), err)
	}
}
