package membership

import (
	"cmp"
	"slices"
	"time"
)

// The waits between two contacts with one address, of which jitter takes off up
// to a half. A node that was cut off is tried for ever, and met again within
// five seconds of the healing of the cut: lastWait, and connectTimeout for an
// attempt that began just before.
const (
	firstWait = 2 * time.Second
	lastWait  = 3500 * time.Millisecond
	// A start, and a view that has changed, are urgent. The wait spreads the
	// contacts of many nodes: it grows with their number.
	urgentWait = 200 * time.Millisecond
)

// maxContacts bounds the contacts under way at one time.
const maxContacts = 8

// want says why an address should be contacted.
type want struct {
	address string
	urgent  bool
	// cause tells one reason from another: a new reason is not made to wait for
	// the failures of the one before.
	cause uint64
}

// agenda says which address to contact when. It is a value of one goroutine:
// it starts nothing and reads no clock.
type agenda struct {
	entries map[string]*entry
	jitter  func() uint64
}

type entry struct {
	next  time.Time
	wait  time.Duration // the last one, before jitter
	cause uint64
	busy  bool
}

func newAgenda(jitter func() uint64) *agenda {
	return &agenda{entries: make(map[string]*entry), jitter: jitter}
}

// plan takes over what is wanted now, and returns the addresses whose time has
// come, at most room of them, the longest due first. It counts them as busy
// until finished is called. wake is when to plan again at the latest; zero: not
// before something changes.
func (a *agenda) plan(now time.Time, wanted []want, room int) (due []string, wake time.Time) {
	a.adopt(now, wanted)
	waiting := make([]string, 0, len(a.entries))
	for address, e := range a.entries {
		if !e.busy {
			waiting = append(waiting, address)
		}
	}
	slices.SortFunc(waiting, func(x, y string) int {
		return cmp.Or(a.entries[x].next.Compare(a.entries[y].next), cmp.Compare(x, y))
	})
	for _, address := range waiting {
		e := a.entries[address]
		if e.next.After(now) {
			return due, e.next
		}
		if len(due) == room {
			return due, time.Time{} // until one is finished
		}
		e.busy = true
		due = append(due, address)
	}
	return due, time.Time{}
}

// adopt makes the entries those that are wanted, and those still busy.
func (a *agenda) adopt(now time.Time, wanted []want) {
	still := make(map[string]bool, len(wanted))
	for _, w := range wanted {
		still[w.address] = true
		e := a.entries[w.address]
		if e != nil && e.cause == w.cause {
			continue
		}
		fresh := &entry{cause: w.cause, wait: firstWait, next: now.Add(a.spread(firstWait))}
		if w.urgent {
			spread := urgentWait * time.Duration(1+len(wanted)/16)
			fresh.next = now.Add(time.Duration(a.jitter() % uint64(spread)))
		}
		fresh.busy = e != nil && e.busy
		a.entries[w.address] = fresh
	}
	for address, e := range a.entries {
		if !still[address] && !e.busy {
			delete(a.entries, address)
		}
	}
}

// finished says that a contact has ended. If it is still wanted, the next one
// comes later than the one before did.
func (a *agenda) finished(now time.Time, address string) {
	e := a.entries[address]
	if e == nil {
		return
	}
	e.busy = false
	e.wait = min(2*e.wait, lastWait)
	e.next = now.Add(a.spread(e.wait))
}

// spread returns a time from half of d to d.
func (a *agenda) spread(d time.Duration) time.Duration {
	return d - time.Duration(a.jitter()%uint64(d/2))
}
