package standing

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// model is one node whose disk may be set back, to and fro, among others whose
// disks are well. It does, one step after the other, what the keepers do with
// the real ledgers; when each step comes, and what is lost on the way, is chance.
type model struct {
	*rapid.T

	view   ring.View
	clock  int
	nonces uint64

	ledger *Ledger
	disk   *disk
	lost   bool                   // the disk lacks what enough members had stored, and the node has not fallen for it
	stored map[kv.NodeID]Position // that the others said, in this life

	others    map[kv.NodeID]*Ledger
	disks     map[kv.NodeID]*disk
	sent      []Announcement
	snapshots []snapshot

	enough   Position // the last that enough of the others have stored
	enoughAt int      // and when
}

type snapshot struct {
	disk *disk
	at   int
	lost bool
}

// TestNoSetBackGoesUnnoticed: a disk that is set back to before enough members
// had stored a position does not register before the node has fallen for it, and
// a node does not fall for where its disk has been.
func TestNoSetBackGoesUnnoticed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{
			T: t, disk: newDisk(), stored: make(map[kv.NodeID]Position), snapshots: []snapshot{{disk: newDisk()}},
			disks: make(map[kv.NodeID]*disk), others: make(map[kv.NodeID]*Ledger),
		}
		members := upTo(rapid.IntRange(1, 6).Draw(t, "members"))
		m.view = viewOf(m, members)
		for _, id := range members[1:] {
			m.disks[id] = newDisk()
			m.startOther(id)
		}
		m.start()
		step := func(do func()) func(*rapid.T) {
			return func(*rapid.T) {
				m.clock++
				do()
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"start":          step(m.start),
			"announce":       step(m.announce),
			"announce again": step(m.announce), // twice as often
			"repeat":         step(m.repeat),
			"other starts":   step(func() { m.startOther(m.anyone()) }),
			"turn":           step(m.turn),
			"snapshot":       step(m.snapshot),
			"set back":       step(m.setBack),
		})
	})
}

func (m *model) check(err error) {
	if err != nil {
		m.Fatal(err)
	}
}

func (m *model) nonce() uint64 {
	m.nonces++
	return m.nonces
}

func (m *model) start() {
	m.ledger = open(m, m.disk, 1, m.view, m.nonce(), "")
	clear(m.stored)
	m.been()
	if m.ledger.pending() {
		m.resume(Position{})
	}
	m.register()
}

// been keeps on the disk that it came to the tip of its history.
func (m *model) been() {
	m.check(m.disk.Update("been", func(old []byte) ([]byte, error) { return appendPosition(old, m.ledger.past().Tip()), nil }))
}

// noted returns where the disk has been. That is more than a history keeps.
func (m *model) noted() (all []Position) {
	b, err := m.disk.Get("been")
	m.check(err)
	for r := wire.NewReader(b); r.Len() > 0; {
		all = append(all, readPosition(r))
	}
	return all
}

// anyone draws one of the others.
func (m *model) anyone() kv.NodeID {
	if len(m.others) == 0 {
		m.Skip("alone")
	}
	return kv.NodeID(rapid.IntRange(2, len(m.others)+1).Draw(m.T, "whom"))
}

func (m *model) startOther(id kv.NodeID) {
	m.others[id] = open(m, m.disks[id], id, m.view, m.nonce(), "")
}

func (m *model) announce() {
	to := m.anyone()
	a := Announcement{From: 1, History: m.ledger.past()}
	m.sent = append(m.sent, a)
	known, err := m.others[to].Announced(a)
	m.check(err)
	m.noteEnough()
	switch {
	case rapid.IntRange(0, 3).Draw(m.T, "answer lost if 0") == 0:
	case known.Stored:
		m.stored[to] = a.History.Tip()
		m.register()
	default:
		m.fall(known.Remembered)
	}
}

// noteEnough looks whether enough of the others have stored where the node is,
// whether or not it has heard of it.
func (m *model) noteEnough() {
	tip := m.ledger.past().Tip()
	if tip != m.enough && Registered(m.view, 1, func(id kv.NodeID) bool { return m.others[id].lives[1] == tip }) {
		m.enough, m.enoughAt = tip, m.clock
	}
}

// repeat delivers a late copy of an announcement, whose answer nobody awaits.
func (m *model) repeat() {
	to := m.anyone()
	if len(m.sent) > 0 {
		_, err := m.others[to].Announced(rapid.SampledFrom(m.sent).Draw(m.T, "copy"))
		m.check(err)
	}
}

func (m *model) register() {
	life := m.ledger.Life()
	enough := Registered(m.view, 1, func(id kv.NodeID) bool { return m.stored[id].Life == life })
	m.check(m.ledger.register(enough))
	if enough && m.lost {
		m.Fatalf("registered at %v, but the disk was set back and the node did not fall", m.ledger.past().Tip())
	}
}

// fall is what the keeper does about an answer. The node may crash before it
// has answered for all.
func (m *model) fall(lost Position) {
	if m.ledger.past().Contains(lost) {
		return
	}
	if slices.Contains(m.noted(), lost) {
		m.Fatalf("the node fell for %v, where its disk has been; its history is %v", lost, m.ledger.past())
	}
	m.check(m.ledger.setBack())
	clear(m.stored)
	m.lost = false
	if rapid.IntRange(0, 3).Draw(m.T, "crash if 0") == 0 {
		m.start()
		return
	}
	m.resume(lost)
}

func (m *model) resume(lost Position) {
	m.disk.raiseStarts(max(lost.Starts, m.disk.starts()) + 1)
	m.check(m.ledger.resume(lost, m.disk.starts()))
	m.been()
}

func (m *model) turn() {
	if m.ledger.Registered() {
		m.check(m.ledger.turn())
		m.been()
	}
}

func (m *model) snapshot() {
	m.snapshots = append(m.snapshots, snapshot{disk: m.disk.clone(), at: m.clock, lost: m.lost})
}

func (m *model) setBack() {
	s := rapid.SampledFrom(m.snapshots).Draw(m.T, "snapshot")
	m.disk = s.disk.clone()
	m.lost = s.lost || m.enoughAt > s.at && !slices.Contains(m.noted(), m.enough)
	m.start()
}
