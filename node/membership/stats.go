package membership

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Stats counts what gossip has done since its start.
type Stats struct {
	Refused        map[Reason]uint64 // announcements and states of other nodes that were refused
	Contacts       uint64            // exchanges of states that this node began, beside memberlist's own
	ContactsFailed uint64            // those that did not come about
	StreamsRefused uint64            // streams of others over the bound
}

type counters struct {
	refused                  [reasons]atomic.Uint64
	contacts, contactsFailed atomic.Uint64
}

// Stats returns the counts.
func (g *Gossip) Stats() Stats {
	s := Stats{
		Refused:        make(map[Reason]uint64, reasons),
		Contacts:       g.stats.contacts.Load(),
		ContactsFailed: g.stats.contactsFailed.Load(),
		StreamsRefused: g.guard.refused.Load(),
	}
	for r := range reasons {
		s.Refused[r] = g.stats.refused[r].Load()
	}
	return s
}

// Refusals of one node for one reason are logged once a minute: gossip brings
// them several times a second.
const (
	refusalInterval = time.Minute
	maxRefusals     = 256 // kept to tell which have been logged
)

// ledger knows which refusals have been logged of late.
type ledger struct {
	mu     sync.Mutex
	logged map[refusalKey]time.Time
}

type refusalKey struct {
	name   string
	reason Reason
}

// note reports whether the refusal should be logged now.
func (l *ledger) note(now time.Time, r *refusal) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := refusalKey{r.name, r.reason}
	if last, ok := l.logged[key]; ok && now.Sub(last) < refusalInterval {
		return false
	}
	if l.logged == nil || len(l.logged) >= maxRefusals {
		l.logged = make(map[refusalKey]time.Time)
	}
	l.logged[key] = now
	return true
}

// refused counts a refusal, and logs it unless it was of late.
func (g *Gossip) refused(r *refusal) {
	g.stats.refused[r.reason].Add(1)
	if g.refusals.note(time.Now(), r) {
		g.log.Warn("another node is refused", zap.Stringer("reason", r.reason), zap.String("node", r.name), zap.String("why", r.text))
	}
}
