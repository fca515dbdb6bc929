package transport

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	least = 50 * time.Millisecond
	most  = 2 * time.Second
)

// now is as good as any.
var now = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func TestRedialDoublesUpToItsBound(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want []int64 // milliseconds, at the largest jitter
	}{
		{"nobody answers", ErrUnreachable, []int64{50, 100, 200, 400, 800, 1600, 2000, 2000}},
		{"refused", ErrRefused, []int64{50, 100, 200, 400, 500, 500}},
		{"reset", fmt.Errorf("%w: %w", ErrUnreachable, syscall.ECONNRESET), []int64{50, 100, 200, 400, 500, 500}},
		{"declined", &HandshakeError{Reason: ReasonCluster}, []int64{50, 100, 200, 400, 500, 500}},
		{"no handshake", &HandshakeError{Reason: ReasonTimeout}, []int64{50, 100, 200, 400, 800}},
	} {
		var r redial
		for i, want := range test.want {
			r = r.after(now, "addr", test.err, 0.999999999, least, most)
			if got := r.wait.Round(time.Millisecond).Milliseconds(); got != want {
				t.Errorf("%s: wait %d is %d ms, want %d", test.name, i, got, want)
			}
		}
	}
}

// Nobody waits for a node that did not answer; an attempt is made all the same.
func TestRedialSilent(t *testing.T) {
	var r redial
	if r.silent("addr") != nil {
		t.Error("nothing has failed yet")
	}
	for err, silent := range map[error]bool{
		ErrUnreachable: true, &HandshakeError{Reason: ReasonTimeout}: true,
		ErrRefused: false, &HandshakeError{Reason: ReasonCluster}: false,
	} {
		r := r.after(now, "addr", err, 0, least, most)
		if got := r.silent("addr"); (got != nil) != silent || r.silent("elsewhere") != nil {
			t.Errorf("%v: %v", err, got)
		}
	}
	r = fellSilent(now, "addr", errSilent)
	if !errors.Is(r.silent("addr"), errSilent) || r.veto(now, "addr") != nil {
		t.Errorf("after a link fell silent: %v, veto %v", r.silent("addr"), r.veto(now, "addr"))
	}
}

func TestRedialVeto(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r redial
		if r.veto(now, "addr") != nil || r.fresh(now, "addr") != nil {
			t.Fatal("nothing has failed yet")
		}
		cause := rapid.SampledFrom([]error{ErrRefused, ErrUnreachable}).Draw(t, "cause")
		for range rapid.IntRange(1, 200).Draw(t, "failures") {
			r = r.after(now, "addr", cause, rapid.Float64Range(0, 0.999).Draw(t, "jitter"), least, most)
		}
		if r.wait < least/2 || r.wait > most {
			t.Fatalf("wait of %v", r.wait)
		}
		later := now.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "later")))
		if vetoed := errors.Is(r.veto(later, "addr"), cause); vetoed != (later.Sub(now) < r.wait) {
			t.Fatalf("after %v of %v: veto %v", later.Sub(now), r.wait, vetoed)
		}
		brief := errors.Is(cause, ErrRefused) && later.Sub(now) < refusalMemory
		if fresh := r.fresh(later, "addr") != nil; fresh != brief {
			t.Fatalf("after %v: fresh %v", later.Sub(now), fresh)
		}
		if r.veto(now, "elsewhere") != nil || r.fresh(now, "elsewhere") != nil {
			t.Fatal("a failure at one address speaks for another")
		}
	})
}
