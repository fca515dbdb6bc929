package membership

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func zero() uint64 { return 0 }

func TestAgenda(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := start.Add
	a := newAgenda(zero) // no jitter: every wait is the longest
	missing := []want{{address: "x"}}

	expect := func(now time.Duration, wanted []want, due []string, wake time.Duration) {
		t.Helper()
		gotDue, gotWake := a.plan(at(now), wanted, 8)
		wantWake := time.Time{}
		if wake != 0 {
			wantWake = at(wake)
		}
		if !slices.Equal(gotDue, due) || !gotWake.Equal(wantWake) {
			t.Fatalf("at %v: due %q, wake %v; want %q, %v", now, gotDue, gotWake, due, wantWake)
		}
	}

	expect(0, missing, nil, 2*time.Second)
	expect(2*time.Second, missing, []string{"x"}, 0)
	expect(2500*time.Millisecond, missing, nil, 0) // busy
	a.finished(at(3*time.Second), "x")
	expect(3*time.Second, missing, nil, 6500*time.Millisecond)
	// Another one is urgent, and does not wait for the first.
	both := []want{{address: "x"}, {address: "y", urgent: true, cause: 7}}
	expect(4*time.Second, both, []string{"y"}, 6500*time.Millisecond)
	a.finished(at(5*time.Second), "y")
	// A new cause does not wait out the failure of the one before.
	both[1].cause = 8
	expect(5*time.Second, both, []string{"y"}, 6500*time.Millisecond)
	// What is wanted no more is forgotten, but not while it is busy.
	expect(6*time.Second, nil, nil, 0)
	if len(a.entries) != 1 || !a.entries["y"].busy {
		t.Errorf("entries %v, want y alone", a.entries)
	}
	a.finished(at(7*time.Second), "y")
	a.finished(at(7*time.Second), "unheard of")
	expect(7*time.Second, nil, nil, 0)
	if len(a.entries) != 0 {
		t.Errorf("entries %v, want none", a.entries)
	}
}

// Whatever happens, an address that is wanted throughout is contacted again at
// most lastWait after the end of the contact before, and no more contacts are
// under way than there is room for.
func TestAgendaKeepsTrying(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		a := newAgenda(rng.Uint64)
		room := rapid.IntRange(1, 4).Draw(t, "room")
		addresses := rapid.IntRange(1, room).Draw(t, "addresses")
		wanted := make([]want, addresses)
		now := time.Unix(0, 0)
		ready := make(map[string]time.Time) // since when it could be contacted
		for i := range wanted {
			wanted[i].address = strconv.Itoa(i)
			ready[wanted[i].address] = now
		}
		var busy []string
		for range 200 {
			due, wake := a.plan(now, wanted, room-len(busy))
			for _, address := range due {
				if slices.Contains(busy, address) {
					t.Fatalf("%s is contacted twice at a time", address)
				}
				if late := now.Sub(ready[address]); late > lastWait {
					t.Fatalf("%s is contacted %v after it could be", address, late)
				}
				busy = append(busy, address)
			}
			if len(busy) > room {
				t.Fatalf("%d contacts under way, room for %d", len(busy), room)
			}
			// Either a contact ends, or time goes on to when the agenda asks to be woken.
			if len(busy) > 0 && (wake.IsZero() || rng.IntN(2) == 0) {
				ready[busy[0]] = now
				a.finished(now, busy[0])
				busy = busy[1:]
			} else if !wake.IsZero() {
				now = wake
			}
		}
	})
}
