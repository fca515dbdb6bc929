package standing

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

const (
	// announceTimeout bounds one announcement, the sync of its receiver included.
	announceTimeout = 2 * time.Second
	// maxAnnouncing bounds the announcements under way.
	maxAnnouncing = 16
	// retryFirst and retryMost bound the pause after an attempt that failed. It
	// doubles each time, less up to a half by chance.
	retryFirst, retryMost = 50 * time.Millisecond, 2 * time.Second
	// reviewEvery is how soon a change of the layouts is noticed.
	reviewEvery = 250 * time.Millisecond
)

// KeeperConfig is what a [Keeper] is made of. All of it is required.
type KeeperConfig struct {
	Ledger *Ledger
	// Announce tells a member and returns its answer. It is called by several
	// goroutines at once, never twice at once for one member, and returns soon
	// after its context ends.
	Announce func(ctx context.Context, to kv.NodeID, a Announcement) (Known, error)
	// OnSetBack is called when the disk turns out to have been set back, while
	// the node is not registered. It moves all that the disk holds into
	// quarantine, see [Setback], raises the count of starts durably beyond
	// beyond, and returns it. If it fails, or the node ends meanwhile, it is
	// called again, after a restart too.
	OnSetBack func(ctx context.Context, beyond uint64) (starts uint64, err error)
	// Chapter is how often at most a new chapter begins. A disk that is set back
	// by less than about that may go unnoticed, and by more if of the chapters
	// that it lost only members heard that are away when it comes back: a
	// chapter counts as begun when it is on this disk, and is told to each member
	// as soon as that can be reached. Acknowledged counts what the node has
	// acknowledged: no chapter begins while it stays the same.
	Chapter      time.Duration
	Acknowledged func() uint64
	// Patience is how long a node that has started waits for enough members to
	// be sure that its disk was not set back, see [Registered], before [Most] of
	// them suffice. Zero: for ever.
	Patience time.Duration
	// Random returns 64 random bits. It is called once, by NewKeeper.
	Random func() uint64
	Log    *zap.Logger
}

// Keeper sees to it that the members of the cluster know how far this node has
// come, and with it that the node is registered. One goroutine runs it.
type Keeper struct {
	KeeperConfig

	salt    uint64
	digest  uint64 // of the view that the members are of
	ids     []kv.NodeID
	members map[kv.NodeID]*member // by those ids
	busy    int
	answers chan answer // has room for all that are under way
	calls   sync.WaitGroup

	lost     Position // the furthest that the disk is known to have lost
	setbacks int      // attempts at putting the disk's records away that failed
	retry    time.Time

	began        time.Time // when the life did, as far as others can tell
	turned       time.Time // when the chapter began
	acknowledged uint64    // then
	failing      bool      // the ledger cannot be written
}

// member is what the keeper knows of another node.
type member struct {
	stored Position // what it said it stored
	by     Life     // in which of its lives
	// remembers says that it knew of a position that is surely past, or was lost.
	// Who did not has never heard of this node, or its own disk was emptied since.
	remembers bool
	calling   bool
	failures  int // in a row
	next      time.Time
}

type answer struct {
	from  kv.NodeID
	told  History
	known Known
	err   error
}

// NewKeeper returns a keeper that does nothing before Run.
func NewKeeper(c KeeperConfig) *Keeper {
	return &Keeper{KeeperConfig: c, salt: c.Random(), members: make(map[kv.NodeID]*member), answers: make(chan answer, maxAnnouncing)}
}

// Run keeps the node registered until ctx ends and everything that it began has
// ended.
//
// Each turn looks at all there is to do. What it does is a function of that, not
// of what woke it up: of two events at the same moment either may be the first.
func (k *Keeper) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer k.calls.Wait()
	defer cancel()
	k.began, k.turned, k.acknowledged = time.Now(), time.Now(), k.Acknowledged()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		if k.whole(ctx, now) {
			k.review(now)
			k.announce(ctx, now)
		}
		timer.Reset(k.wake(now).Sub(now))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-k.Ledger.heard:
		case a := <-k.answers:
			k.take(a)
		}
	}
}

// whole reports whether the disk is one to go on with: if it was set back, once
// what it held is in quarantine.
func (k *Keeper) whole(ctx context.Context, now time.Time) bool {
	if !k.Ledger.pending() {
		return true
	}
	if now.Before(k.retry) {
		return false
	}
	err := k.atone(ctx)
	if err != nil {
		k.Log.Error("what the disk held when it was set back could not be put into quarantine, the node stays out until it can",
			zap.Error(err))
		k.retry = time.Now().Add(k.pause(0, k.setbacks))
		k.setbacks++
		return false
	}
	k.setbacks, k.lost, k.began = 0, Position{}, now
	return true
}

func (k *Keeper) atone(ctx context.Context) error {
	starts, err := k.OnSetBack(ctx, max(k.lost.Starts, k.Ledger.Life().Starts))
	if err != nil {
		return err
	}
	return k.Ledger.resume(k.lost, starts)
}

// review brings the members, the chapter and the registration up to date.
func (k *Keeper) review(now time.Time) {
	view := k.Ledger.config.View()
	if view.Digest() != k.digest {
		k.digest = view.Digest()
		k.join(everyone(view, k.Ledger.config.Self))
	}
	life, was := k.Ledger.Life(), k.Ledger.Registered()
	stored := func(id kv.NodeID) bool { return k.members[id].stored.Life == life }
	vouched := func(id kv.NodeID) bool { return stored(id) && k.members[id].remembers }
	is := Registered(view, k.Ledger.config.Self, vouched) || len(view.Active()) > 0 && !slices.ContainsFunc(k.ids, not(stored))
	if !is && k.Patience > 0 && now.Sub(k.began) >= k.Patience && Most(view, k.Ledger.config.Self, stored) {
		is = true
		if !was {
			k.Log.Warn("the node takes part although members are away that would know if its disk had been set back")
		}
	}
	switch {
	case is != was:
		k.report(k.Ledger.register(is))
		k.Log.Info("enough members know of this life of the node, or no longer",
			zap.Bool("registered", k.Ledger.Registered()), zap.Uint64("starts", life.Starts))
	case is && now.Sub(k.turned) >= k.Chapter && k.acknowledged != k.Acknowledged():
		k.turned, k.acknowledged = now, k.Acknowledged()
		k.report(k.Ledger.turn())
	}
}

func not(is func(kv.NodeID) bool) func(kv.NodeID) bool {
	return func(id kv.NodeID) bool { return !is(id) }
}

// join makes ids, in ascending order, the members.
func (k *Keeper) join(ids []kv.NodeID) {
	old := k.members
	k.ids, k.members = ids, make(map[kv.NodeID]*member, len(ids))
	for _, id := range ids {
		if k.members[id] = old[id]; k.members[id] == nil {
			k.members[id] = new(member)
		}
	}
}

// report logs the first of a row of failures. Whatever failed is tried again at
// the next turn.
func (k *Keeper) report(err error) {
	if err != nil && !k.failing {
		k.Log.Error("the node's own history could not be stored; trying again", zap.Error(err))
	}
	k.failing = err != nil
}

// announce tells those members that do not know of the tip of the history.
func (k *Keeper) announce(ctx context.Context, now time.Time) {
	for _, id := range k.ids {
		if m := k.members[id]; k.busy < maxAnnouncing && !m.calling && k.wants(id) && !now.Before(m.next) {
			m.calling = true
			k.busy++
			k.call(ctx, id)
		}
	}
}

// wants reports whether a member is to be told: it has not stored the tip of the
// history, or it has started again since, perhaps with an empty disk.
func (k *Keeper) wants(id kv.NodeID) bool {
	m := k.members[id]
	return m.stored != k.Ledger.past().Tip() || k.Ledger.heardOf(id) > m.by.Starts
}

func (k *Keeper) call(ctx context.Context, id kv.NodeID) {
	told := k.Ledger.past()
	k.calls.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, announceTimeout)
		defer cancel()
		known, err := k.Announce(ctx, id, Announcement{From: k.Ledger.config.Self, History: told})
		k.answers <- answer{from: id, told: told, known: known, err: err}
	})
}

// take draws the consequences of an answer.
func (k *Keeper) take(a answer) {
	k.busy--
	m := k.members[a.from]
	if m == nil {
		return // a member no longer
	}
	m.calling = false
	switch {
	case a.err == nil && a.known.Stored:
		m.failures, m.next = 0, time.Time{}
		m.stored, m.by = a.told.Tip(), a.known.By
		m.remembers = m.remembers || a.told.Settled(a.known.Remembered)
		return
	case a.err == nil && !k.Ledger.past().Contains(a.known.Remembered):
		m.remembers = true
		k.fall(a)
	}
	m.next = time.Now().Add(k.pause(a.from, m.failures))
	m.failures++
}

// fall is called when a member remembers what the disk does not.
func (k *Keeper) fall(a answer) {
	if a.known.Remembered.compare(k.lost) > 0 {
		k.lost = a.known.Remembered
	}
	if k.Ledger.pending() {
		return
	}
	k.Log.Error("the disk of this node was emptied or set back, or another process runs on a copy of it: "+
		"what it holds goes into quarantine, and the node merges everything from the others before it counts again",
		zap.Stringer("member", a.from), zap.Uint64("remembers starts", a.known.Remembered.Starts),
		zap.Uint64("remembers chapter", a.known.Remembered.Chapter), zap.Uint64("starts", a.told.Tip().Starts))
	k.report(k.Ledger.setBack())
}

// wake returns when there is something to do if nothing happens.
func (k *Keeper) wake(now time.Time) time.Time {
	next := now.Add(reviewEvery)
	if k.Ledger.pending() {
		return k.retry
	}
	for _, id := range k.ids {
		if m := k.members[id]; !m.calling && k.busy < maxAnnouncing && k.wants(id) && m.next.Before(next) {
			next = m.next
		}
	}
	return next
}

// pause returns how long to wait after so many failures. It is a function of
// its arguments, so that no order of answers changes it.
func (k *Keeper) pause(id kv.NodeID, failures int) time.Duration {
	most := min(retryFirst<<min(failures, 10), retryMost)
	return most - time.Duration(rand.NewPCG(k.salt^uint64(id), uint64(failures)).Uint64()%uint64(most/2))
}
