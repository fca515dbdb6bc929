package standing

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// TestAnnouncedIsRemembered: what a member has answered survives its restart.
func TestAnnouncedIsRemembered(t *testing.T) {
	d, v := newDisk(), viewOf(t, upTo(2))
	l := open(t, d, 1, v, 11, "")
	told := func(h History, want Known) {
		t.Helper()
		want.By = l.Life()
		if got, err := l.Announced(Announcement{From: 2, History: h}); err != nil || got != want {
			t.Errorf("answered %+v, %v; want %+v", got, err, want)
		}
	}
	told(History{Since: []Position{at(1, 21, 0)}}, Known{Stored: true})
	told(History{Sure: at(1, 21, 3)}, Known{Stored: true, Remembered: at(1, 21, 0)})
	l = open(t, d, 1, v, 12, "")
	told(History{Sure: at(1, 21, 3)}, Known{Stored: true, Remembered: at(1, 21, 3)})
	told(History{Since: []Position{at(1, 22, 0)}}, Known{Remembered: at(1, 21, 3)})
	told(History{Since: []Position{at(1, 21, 3), at(2, 22, 0)}}, Known{Stored: true, Remembered: at(1, 21, 3)})
}

// TestLives: nodes agree on the lives of all once each has heard of the others, and
// not while one has not.
func TestLives(t *testing.T) {
	v, ids := viewOf(t, upTo(2)), []kv.NodeID{1, 2}
	one, two := open(t, newDisk(), 1, v, 11, ""), open(t, newDisk(), 2, v, 21, "")
	tell := func(from kv.NodeID, l, to *Ledger) {
		t.Helper()
		if _, err := to.Announced(Announcement{From: from, History: l.past()}); err != nil {
			t.Error(err)
		}
	}
	tell(1, one, two)
	if one.Lives(ids) == two.Lives(ids) {
		t.Error("one has not heard of two, and both know the same")
	}
	tell(2, two, one)
	if one.Lives(ids) != two.Lives(ids) {
		t.Error("both have heard of both, and know other lives")
	}
}

func TestAnnouncedNeedsTheDisk(t *testing.T) {
	d := newDisk()
	l := open(t, d, 1, viewOf(t, upTo(2)), 11, "")
	a := Announcement{From: 2, History: History{Since: []Position{at(1, 21, 0)}}}
	d.breakDown("lives/")
	if _, err := l.Announced(a); !errors.Is(err, errDisk) {
		t.Errorf("answered without having stored it: %v", err)
	}
	if l.heardOf(2) != 0 {
		t.Error("takes for known what is not stored")
	}
	a.From = 1
	if _, err := l.Announced(a); err == nil {
		t.Error("another process with the node's own id was answered")
	}
}

// TestFallAndCatchUp: a fallen node counts for n again once it has merged from
// the first n owners, also after a restart.
func TestFallAndCatchUp(t *testing.T) {
	d, v := newDisk(), viewOf(t, upTo(3))
	l := open(t, d, 1, v, 11, "")
	owners := v.Active()[0].Owners(5)
	others := slices.DeleteFunc(slices.Clone(owners), func(id kv.NodeID) bool { return id == 1 })
	counts := func(want bool) {
		t.Helper()
		if got := l.Standing(5, owners); got != want {
			t.Errorf("counts: %v", got)
		}
		if missing, _ := l.Sources(5, owners); (len(missing) == 0) != want {
			t.Errorf("still to be merged: %v", missing)
		}
	}
	counts(true)
	if err := l.Merged(5, 2, 1, 0); err != nil {
		t.Errorf("a merge without a fall: %v", err)
	}

	before := time.Now().Add(-time.Millisecond)
	noError(t, l.Fall(CauseUnsynced))
	counts(false)
	missing, epoch := l.Sources(5, owners)
	if !slices.Equal(missing, others) || epoch != 1 {
		t.Errorf("to be merged: %v for fall %d, want %v for 1", missing, epoch, others)
	}
	for i, id := range others {
		counts(false)
		noError(t, l.Merged(5, id, 1, epoch))
		if i == 0 {
			l = open(t, d, 1, v, 12, "") // remembers the fall and the first source
		}
	}
	counts(true)
	l = open(t, d, 1, v, 13, "")
	counts(true)
	if l.Standing(4, v.Active()[0].Owners(4)) {
		t.Error("another partition counts too")
	}
	s := l.Stats()
	if s.Fallen != partitions-1 || s.Falls != 1 || s.Cause != CauseUnsynced || s.Since.Before(before) || s.Pending || s.Registered {
		t.Errorf("%+v", s)
	}

	noError(t, l.Fall(CauseSetBack))
	counts(false)
	if s := l.Stats(); s.Fallen != partitions || s.Falls != 2 || s.Cause != CauseSetBack {
		t.Errorf("%+v", s)
	}
}

// TestMergesFromBeforeAFallDoNotCount: what they brought was put away.
func TestMergesFromBeforeAFallDoNotCount(t *testing.T) {
	d, v := newDisk(), viewOf(t, upTo(2))
	l := open(t, d, 1, v, 11, "")
	noError(t, l.Fall(CauseUnsynced))
	_, epoch := l.Sources(0, upTo(2))
	noError(t, l.setBack())
	if err := l.Merged(0, 2, 1, epoch); !errors.Is(err, ErrFallen) {
		t.Errorf("merged for an earlier fall: %v", err)
	}
	if l.Standing(0, upTo(2)) {
		t.Error("counts")
	}
}

// TestFallIsSeenAtOnce: if it cannot be stored, the node does not count all the
// same.
func TestFallIsSeenAtOnce(t *testing.T) {
	d := newDisk()
	l := open(t, d, 1, viewOf(t, upTo(2)), 11, "")
	d.breakDown("fall")
	if err := l.Fall(CauseUnsynced); !errors.Is(err, errDisk) {
		t.Errorf("fell: %v", err)
	}
	if l.Standing(0, upTo(2)) {
		t.Error("counts")
	}
}

// TestSourcesThatStartAgain: a source is merged again if it started again before
// the partition counted, and not if it did so later.
func TestSourcesThatStartAgain(t *testing.T) {
	d, v := newDisk(), viewOf(t, upTo(3))
	l := open(t, d, 1, v, 11, "")
	var p uint16 // a partition in which 2 is of no use without 3
	for slices.Index(v.Active()[0].Owners(ring.Partition(p)), 2) < slices.Index(v.Active()[0].Owners(ring.Partition(p)), 3) {
		p++
	}
	owners := v.Active()[0].Owners(ring.Partition(p))
	noError(t, l.Fall(CauseUnsynced))
	start := func(id kv.NodeID, starts uint64) {
		t.Helper()
		if _, err := l.Announced(Announcement{From: id, History: History{Sure: at(starts, 7, 0)}}); err != nil {
			t.Fatal(err)
		}
	}
	merge := func(id kv.NodeID, starts uint64, want ...kv.NodeID) {
		t.Helper()
		noError(t, l.Merged(p, id, starts, 1))
		got, _ := l.Sources(p, owners)
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("still to be merged: %v, want %v", got, want)
		}
	}
	start(2, 4)
	merge(2, 4, 3)
	start(2, 5)
	merge(3, 1, 2)
	merge(2, 5)
	start(2, 6)
	start(3, 6)
	if !l.Standing(p, owners) {
		t.Error("counts no longer, because its sources started again")
	}
}

// TestUnsyncedWrites starts a node after lives that acknowledged unsynced
// writes, or did not, and ended in one way or another.
func TestUnsyncedWrites(t *testing.T) {
	for _, c := range []struct {
		name        string
		unsynced    bool
		clean       bool
		first, then string // boots of the operating system
		falls       bool
	}{
		{"kill, same boot", true, false, "a", "a", false},
		{"power cut", true, false, "a", "b", true},
		{"power cut, all was synced", false, false, "a", "b", false},
		{"clean close before a new boot", true, true, "a", "b", false},
		{"boot unknown", true, false, "", "", true},
		{"boot unknown, clean close", true, true, "", "", false},
		{"boot unknown by now", true, false, "a", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, v := newDisk(), viewOf(t, upTo(2))
			l := open(t, d, 1, v, 11, c.first)
			if c.unsynced {
				noError(t, l.BeforeUnsynced())
			}
			if c.clean {
				noError(t, l.CleanClose())
			}
			for range 2 { // the second time nothing new happened
				l = open(t, d, 1, v, 12, c.then)
			}
			if got := l.Stats(); (got.Falls == 1) != c.falls || c.falls && (got.Cause != CauseUnsynced || got.Pending) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestUnsyncedIsNotedOnce: each life that acknowledges unsynced writes pays for
// one update, and a kill leaves the note for the next life.
func TestUnsyncedIsNotedOnce(t *testing.T) {
	d, v := newDisk(), viewOf(t, upTo(2))
	l := open(t, d, 1, v, 11, "a")
	writes := d.writes
	for range 5 {
		noError(t, l.BeforeUnsynced())
	}
	if d.writes != writes+1 {
		t.Errorf("%d updates", d.writes-writes)
	}
	open(t, d, 1, v, 12, "a")
	if l = open(t, d, 1, v, 13, "b"); l.Stats().Falls != 1 {
		t.Error("two kills later the power cut went unnoticed")
	}
	d.breakDown("unsynced")
	if err := l.BeforeUnsynced(); !errors.Is(err, errDisk) {
		t.Errorf("noted: %v", err)
	}
}

func TestDoubts(t *testing.T) {
	l := open(t, newDisk(), 1, viewOf(t, upTo(2)), 11, "")
	l.Doubt(3, 200)
	l.Doubt(3, 200)
	l.Doubt(3, 201)
	if !l.Doubted(3, 200) || !l.Doubted(3, 201) || l.Doubted(4, 200) || l.Stats().Doubted != 2 {
		t.Errorf("%+v", l.doubts)
	}
	l.Trust(3, 200)
	if l.Doubted(3, 200) || !l.Doubted(3, 201) {
		t.Errorf("%+v", l.doubts)
	}
	l.Trust(3, 201)
	if l.Doubted(3, 201) || l.doubted.Load() != 0 {
		t.Errorf("%+v", l.doubts)
	}
}

// TestOpenRefuses damaged facts, naming them, and starts that do not fit.
func TestOpenRefuses(t *testing.T) {
	d, v := newDisk(), viewOf(t, upTo(2))
	l := open(t, d, 1, v, 11, "")
	noError(t, l.Fall(CauseUnsynced))
	noError(t, l.Merged(0, 2, 1, 1))
	noError(t, l.BeforeUnsynced())
	if _, err := l.Announced(Announcement{From: 2, History: History{Sure: at(1, 7, 0)}}); err != nil {
		t.Fatal(err)
	}
	config := LedgerConfig{Self: 1, Life: Life{Starts: 9, Nonce: 12}, View: func() ring.View { return v }, Now: time.Now}
	for _, name := range slices.Sorted(maps.Keys(d.facts)) {
		if name == "starts" {
			continue
		}
		config.Facts = d.clone()
		noError(t, config.Facts.Update(name, func(b []byte) ([]byte, error) { return append([]byte{99}, b[1:]...), nil }))
		if _, err := Open(config); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("opened with another version of %s: %v", name, err)
		}
	}
	config.Facts, config.Life.Starts = d, 1
	if _, err := Open(config); err == nil {
		t.Error("opened with a count of starts that is not of this disk")
	}
	config.Life.Starts = 2
	d.breakDown("history")
	if _, err := Open(config); !errors.Is(err, errDisk) {
		t.Errorf("opened without having stored the life: %v", err)
	}
}

func noError(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
