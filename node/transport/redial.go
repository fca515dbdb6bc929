package transport

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	// refusalMemory is how long Reachable trusts a refused connection.
	refusalMemory = 100 * time.Millisecond
	// answeredMax bounds the time between attempts while the other side answers
	// them: they cost next to nothing, and the node is about to come back.
	answeredMax = 500 * time.Millisecond
)

// redial decides when a node may be dialled again. It is a value; the zero
// redial has nothing against an attempt.
type redial struct {
	failures int // in a row
	err      error
	addr     string // where the last attempt failed
	failed   time.Time
	wait     time.Duration // from failed on
}

// after returns the state after an attempt on addr that failed. The wait
// doubles from least to most; jitter in [0, 1) spreads it over its upper half,
// so that nodes do not redial in step.
func (r redial) after(now time.Time, addr string, err error, jitter float64, least, most time.Duration) redial {
	if answered(err) {
		most = min(most, answeredMax)
	}
	wait := least
	for i := 0; i < r.failures && wait < most; i++ {
		wait *= 2
	}
	wait = min(wait, most)
	wait = wait/2 + time.Duration(jitter*float64(wait/2))
	return redial{failures: r.failures + 1, err: err, addr: addr, failed: now, wait: wait}
}

// veto returns the last error while it stands in for another attempt on addr,
// nil if one may be made.
func (r redial) veto(now time.Time, addr string) error {
	if r.err == nil || r.addr != addr || now.Sub(r.failed) >= r.wait {
		return nil
	}
	return r.err
}

// fresh is veto for whoever asks whether the node is there at this moment: only
// a refused connection, and that briefly, needs no second look.
func (r redial) fresh(now time.Time, addr string) error {
	if !errors.Is(r.err, ErrRefused) || r.addr != addr || now.Sub(r.failed) >= refusalMemory {
		return nil
	}
	return r.err
}

// silent returns the last error if nobody answered at addr: the next attempt takes
// long to tell.
func (r redial) silent(addr string) error {
	if r.err == nil || r.addr != addr || answered(r.err) {
		return nil
	}
	return r.err
}

// fellSilent is the state after a link to addr has ended because nothing was heard
// any more. The next attempt may be made at once.
func fellSilent(now time.Time, addr string, cause error) redial {
	return redial{err: fmt.Errorf("%w: %w", ErrUnreachable, cause), addr: addr, failed: now}
}

// answered reports whether an attempt failed because somebody said so, not
// because nobody answered.
func answered(err error) bool {
	if refused, ok := errors.AsType[*HandshakeError](err); ok {
		return refused.Reason != ReasonTimeout
	}
	return errors.Is(err, ErrRefused) || errors.Is(err, syscall.ECONNRESET)
}
