package antientropy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
)

func TestMissedWritesAreHealed(t *testing.T) {
	lives(t, 1, 3, 16, func(c *cluster) {
		keys := c.load(200, 3)
		time.Sleep(5 * time.Second) // the first exchanges find nothing
		if n := c.count("children"); n > 0 {
			t.Errorf("identical replicas went down their trees %d times", n)
		}
		c.nodes[1].write(keys[7], 3, nil)
		c.nodes[0].write(keys[8], 3, nil)
		c.nodes[2].write(keys[9], 3, nil)
		time.Sleep(40 * time.Second)
		c.mustAgree("after a cycle")
		if moved := c.count("pull"); moved > 12 {
			t.Errorf("%d pulls for three keys", moved)
		}
		if n := c.count("stream"); n > 0 {
			t.Errorf("leaves that are not empty were streamed %d times", n)
		}
	})
}

func TestWritesUnderWayAreLeftAlone(t *testing.T) {
	lives(t, 1, 3, 16, func(c *cluster) {
		keys := c.load(200, 3)
		for range 200 { // each write takes half a second to get to the last owner
			time.Sleep(time.Second)
			k := keys[c.nodes[0].random.IntN(len(keys))]
			owners := c.ownersOf(k, 3)
			r := owners[0].write(k, 3, nil)
			time.Sleep(500 * time.Millisecond)
			owners[1].merge(k, r)
			owners[2].merge(k, r)
		}
		if c.count("keys") == 0 {
			t.Error("no exchange met a write under way: the test shows nothing")
		}
		if n := c.count("pull") + c.count("nudge"); n > 0 {
			t.Errorf("%d times records were moved", n)
		}
	})
}

func TestEmptiedNodeIsStreamed(t *testing.T) {
	lives(t, 1, 3, 64, func(c *cluster) {
		c.load(2000, 3)
		time.Sleep(10 * time.Second)
		keys := c.count("keys")
		c.nodes[0].fall()
		c.nodes[0].setCut(true)
		time.Sleep(time.Second)
		c.nodes[0].setCut(false)
		time.Sleep(10 * time.Second)
		c.mustAgree("ten seconds after it came back")
		if n := c.nodes[0].owing(); n > 0 {
			t.Errorf("%d partitions are not in good standing", n)
		}
		if n := c.count("keys") - keys; n > 0 {
			t.Errorf("%d listings of keys for a node that has none", n)
		}
		s := c.nodes[0].x.Stats()
		if s.CatchUp.Partitions != 64 || s.CatchUp.Done != 64 || s.CatchUp.Records != 2000 || c.nodes[0].streamed != 2000 {
			t.Errorf("streamed %d records, and %+v", c.nodes[0].streamed, s.CatchUp)
		}
	})
}

func TestPeerThatCatchesUpIsLeftAlone(t *testing.T) {
	lives(t, 1, 2, 4, func(c *cluster) {
		c.load(100, 2)
		time.Sleep(5 * time.Second)
		c.nodes[0].fall() // and will notice in a moment
		e := &exchange{Exchanger: c.nodes[1].x, peer: 1}
		e.land = e.surveyor.territory(c.nodes[1].View())
		e.shares = e.land.shares(1)
		if err := c.nodes[1].x.converse(c.t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if n := c.count("children") + c.count("keys") + c.count("nudge"); n > 0 || slices.Max(e.verdicts) != left {
			t.Errorf("%d messages to a node that is about to pull all, verdicts %v", n, e.verdicts)
		}
	})
}

func TestStandingIsNotReachedWithoutAllSources(t *testing.T) {
	lives(t, 1, 3, 16, func(c *cluster) {
		c.load(200, 3)
		c.nodes[2].setCut(true)
		c.nodes[0].fall()
		time.Sleep(time.Minute)
		if n := c.nodes[0].owing(); n != 16 {
			t.Errorf("%d of 16 partitions are known not to be merged from a dead owner", n)
		}
		if s := c.nodes[0].x.Stats().CatchUp; s.Done != 0 || s.Records != 200 {
			t.Errorf("%+v with one source of two", s)
		}
		c.nodes[2].setCut(false)
		time.Sleep(5 * time.Second)
		if n := c.nodes[0].owing(); n != 0 {
			t.Errorf("%d partitions are not merged though all owners are there", n)
		}
	})
}

func TestAllNodesFallen(t *testing.T) {
	lives(t, 1, 3, 16, func(c *cluster) {
		keys := c.load(200, 3)
		for _, n := range c.nodes { // each keeps what it has, as after a power cut
			records := n.snapshot()
			n.fall()
			for i, k := range keys {
				if i%3 != int(n.id-1) {
					n.merge(k, records[k])
				}
			}
		}
		for _, n := range c.nodes {
			n.promise()
		}
		time.Sleep(10 * time.Second)
		c.mustAgree("ten seconds later")
		for _, n := range c.nodes {
			if n.owing() > 0 {
				t.Errorf("node %v is not in good standing", n.id)
			}
		}
	})
}

func TestMarksAreServedAtOnce(t *testing.T) {
	lives(t, 1, 3, 16, func(c *cluster) {
		keys := c.load(50, 3)
		time.Sleep(10 * time.Second)
		k := keys[0]
		c.nodes[0].write(k, 3, nil)
		c.nodes[1].setCut(true)
		c.nodes[0].x.Mark(2, c.nodes[0].partition(k))
		time.Sleep(2 * time.Second)
		if !c.nodes[1].get(k).Covers(c.nodes[0].get(k)) {
			c.nodes[1].setCut(false)
		} else {
			t.Fatal("a node that nobody reaches was healed")
		}
		time.Sleep(3 * time.Second)
		if !c.nodes[1].get(k).Covers(c.nodes[0].get(k)) {
			t.Error("a marked partition was not healed when its target came back")
		}
		c.nodes[0].write(k, 3, nil)
		c.nodes[0].x.Mark(3, c.nodes[0].partition(k))
		c.nodes[0].x.Mark(99, 0)  // nobody
		c.nodes[0].x.Mark(3, 999) // nowhere
		time.Sleep(1100 * time.Millisecond)
		if !c.nodes[2].get(k).Covers(c.nodes[0].get(k)) {
			t.Error("a marked partition was not healed at once")
		}
	})
}

func TestPeersThatKnowOtherLayoutsArePutOff(t *testing.T) {
	lives(t, 1, 3, 16, func(c *cluster) {
		keys := c.load(50, 3)
		before := c.nodes[0].View()
		after := viewOf(t, before.Active()[0], layoutOf(t, 2, before.Active()[0], 16, 3))
		c.nodes[1].setView(after)
		c.nodes[1].write(keys[3], 3, nil)
		time.Sleep(time.Minute)
		if n := c.count("pull"); n > 0 {
			t.Errorf("%d pulls between nodes that do not agree on who owns what", n)
		}
		if s := c.nodes[1].x.Stats(); s.PutOff == 0 || s.Clean > 0 {
			t.Errorf("no exchange was put off: %+v", s)
		}
		c.nodes[0].setView(after)
		c.nodes[2].setView(after)
		time.Sleep(40 * time.Second)
		c.mustAgree("a cycle after they agreed")
	})
}

func TestUnregisteredNodesTakeNoPart(t *testing.T) {
	lives(t, 1, 2, 4, func(c *cluster) {
		n := c.nodes[0]
		n.mu.Lock()
		n.absent = true
		n.mu.Unlock()
		k := keyAt(1)
		c.nodes[1].write(k, 2, nil)
		time.Sleep(time.Minute)
		if n.holds() > 0 {
			t.Error("a node that does not know whether its disk is its own took records")
		}
		if err := n.x.Repair(c.t.Context(), Selection{}, func(Progress) {}); !errors.Is(err, ErrUnregistered) {
			t.Errorf("repair: %v", err)
		}
		n.mu.Lock()
		n.absent = false
		n.mu.Unlock()
		time.Sleep(40 * time.Second)
		c.mustAgree("a cycle after it was registered")
	})
}

func TestBusyPeersAreGivenTime(t *testing.T) {
	lives(t, 1, 2, 16, func(c *cluster) {
		c.nodes[1].setCut(true)
		for i := range 500 {
			c.nodes[0].write(keyAt(i), 2, nil)
			if i%2 == 0 {
				c.nodes[0].write(keyAt(i), 2, nil)
			}
		}
		for i := range 500 { // no leaf is empty on either side
			c.nodes[1].write(keyAt(i), 2, nil)
		}
		refusals := 0
		c.nodes[1].setRoom(func() (int, time.Duration) {
			if refusals++; refusals%4 != 0 {
				return 0, 100 * time.Millisecond
			}
			return 20, 0
		})
		c.nodes[1].setCut(false)
		time.Sleep(time.Minute)
		c.mustAgree("a minute later")
		if refusals < 8 {
			t.Errorf("%d nudges only", refusals)
		}
	})
}

func TestPeerThatStaysBusyIsPutOff(t *testing.T) {
	lives(t, 1, 2, 4, func(c *cluster) {
		for _, n := range c.nodes {
			n.setRoom(func() (int, time.Duration) { return 0, time.Second })
		}
		c.load(40, 2)
		k := keyAt(1)
		c.nodes[0].write(k, 2, nil)
		c.nodes[1].write(k, 2, nil)
		time.Sleep(2 * time.Minute)
		c.mustAgree("by pulls alone")
		nudges := c.count("nudge")
		if nudges == 0 || nudges > 100 {
			t.Errorf("%d nudges to a node that has no room", nudges)
		}
	})
}

func TestRepairsGiveWayToClients(t *testing.T) {
	lives(t, 1, 2, 4, func(c *cluster) {
		pressed := 0
		c.nodes[0].x.Pressure = func() bool { pressed++; return true }
		c.nodes[1].setCut(true) // its own exchanges would heal it
		c.load(10, 2)
		c.nodes[1].write(keyAt(1), 2, nil)
		e := &exchange{Exchanger: c.nodes[0].x}
		began := time.Now()
		if err := e.giveWay(c.t.Context()); err != nil || time.Since(began) != time.Second {
			t.Errorf("gave way for %v, %v", time.Since(began), err)
		}
	})
}

func TestSourceThatRestartsIsNotMerged(t *testing.T) {
	lives(t, 1, 2, 4, func(c *cluster) {
		c.load(100, 2)
		time.Sleep(10 * time.Second)
		n, source := c.nodes[0], c.nodes[1]
		n.fall()
		land := n.x.surveyor.territory(n.View())
		e := &exchange{Exchanger: n.x, peer: 2, land: land, shares: land.shares(2), eager: true}
		e.meetsAfter(source)
		if err := n.x.converse(c.t.Context(), e); !errors.Is(err, errRestarted) {
			t.Errorf("an exchange with a source that fell meanwhile: %v", err)
		}
	})
}

func TestSourceThatRestartsAmidAStreamIsNotMerged(t *testing.T) {
	lives(t, 1, 2, 4, func(c *cluster) {
		c.load(100, 2)
		time.Sleep(10 * time.Second)
		n, source := c.nodes[0], c.nodes[1]
		n.fall()
		c.hook("stream", source.fall)
		land := n.x.surveyor.territory(n.View())
		e := &exchange{Exchanger: n.x, peer: 2, land: land, shares: land.shares(2), eager: true}
		if err := n.x.converse(c.t.Context(), e); !errors.Is(err, errRestarted) {
			t.Errorf("a stream from a source that was emptied meanwhile: %v", err)
		}
	})
}

func TestEmptyLeavesAreStreamed(t *testing.T) {
	lives(t, 1, 2, 1, func(c *cluster) {
		c.load(20, 2)
		time.Sleep(5 * time.Second)
		for i := range 60 {
			c.nodes[1].write(keyAt(100+i), 2, nil)
		}
		e := &exchange{Exchanger: c.nodes[0].x, peer: 2}
		e.land = e.surveyor.territory(c.nodes[0].View())
		e.shares = e.land.shares(2)
		began := time.Now()
		if err := c.nodes[0].x.converse(c.t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if n := c.nodes[0].streamed; n < 40 || n > 60 {
			t.Errorf("%d of 60 records were streamed, of which a few are in leaves that are not empty", n)
		}
		if wait := time.Since(began); wait < time.Second {
			t.Errorf("keys of the other leaves were moved after %v", wait)
		}
		c.mustAgree("then")
	})
}

// TestMergeIsNotCutShort has a source tell more keys than a message holds.
func TestMergeIsNotCutShort(t *testing.T) {
	lives(t, 1, 2, 1, func(c *cluster) {
		c.load(1500, 2)
		kept := c.nodes[0].snapshot()
		long := strings.Repeat("x", 2000)
		for i := range 2500 {
			c.nodes[1].write(kv.Key{Bucket: "b", Name: fmt.Sprint(i, long)}, 2, nil)
		}
		c.nodes[0].fall() // which has most of it on its disk still
		for i := range 1500 {
			c.nodes[0].merge(keyAt(i), kept[keyAt(i)])
		}
		time.Sleep(20 * time.Second) // a merge that is claimed is checked
		if c.nodes[0].owing() > 0 {
			t.Error("the merge did not come to an end")
		}
		c.mustAgree("then")
	})
}

func TestNudgesEndInTime(t *testing.T) {
	lives(t, 1, 2, 1, func(c *cluster) {
		c.load(300, 2)
		time.Sleep(5 * time.Second)
		c.nodes[1].setRoom(func() (int, time.Duration) { return 0, time.Second })
		c.nodes[0].write(keyAt(1), 2, nil)
		e := &exchange{Exchanger: c.nodes[0].x, peer: 2}
		e.land = e.surveyor.territory(c.nodes[0].View())
		e.shares = e.land.shares(2)
		began := time.Now()
		if err := c.nodes[0].x.converse(c.t.Context(), e); !errors.Is(err, errBusy) || time.Since(began) > 20*time.Second {
			t.Errorf("a peer that never has room: %v after %v", err, time.Since(began))
		}
	})
}

// meetsAfter has the exchange believe that it began in an earlier life of the peer.
func (e *exchange) meetsAfter(peer *node) { e.starts, e.met = peer.Starts()-1, true }

func TestDamageIsHealedAndTrusted(t *testing.T) {
	for name, lost := range map[string]bool{"a record cannot be read": false, "a record is gone": true} {
		t.Run(name, func(t *testing.T) {
			lives(t, 1, 3, 4, func(c *cluster) {
				keys := c.load(100, 3)
				time.Sleep(5 * time.Second)
				n := c.nodes[0]
				n.rot(keys[5], lost)
				n.rot(keys[6], lost)
				n.x.Suspect(n.partition(keys[5]), keys[5].Leaf())
				time.Sleep(time.Second)
				if n.get(keys[5]).Absent() {
					t.Error("what a read found to be rotten was not healed at once")
				}
				time.Sleep(2 * time.Hour) // two walks
				c.mustAgree("after the scrub")
				s := n.x.Stats().Scrub
				if n.doubts() > 0 || n.rebuilt < 2 || s.Damaged < 2 || s.Leaves < 2*4*256 {
					t.Errorf("%d leaves are doubted, %d were rebuilt, %+v", n.doubts(), n.rebuilt, s)
				}
			})
		})
	}
}

// What is lost of values is fetched from whoever has it, at once where a read
// noticed; what nobody can give now is tried again.
func TestLostValuesAreFetched(t *testing.T) {
	lives(t, 1, 3, 4, func(c *cluster) {
		keys := c.load(100, 3)
		n := c.nodes[0]
		for _, other := range c.nodes[1:] { // of the last one nobody has the value
			other.setLost(keys[7], true)
		}
		c.nodes[1].setLost(keys[5], true)
		for _, k := range keys[5:8] {
			n.setLost(k, true)
		}
		n.x.Suspect(n.partition(keys[5]), keys[5].Leaf())
		time.Sleep(time.Second)
		if n.lacksValue(keys[5]) {
			t.Error("what a read found to be lost was not fetched at once")
		}
		time.Sleep(time.Hour + time.Minute) // a walk
		s := n.x.Stats().Scrub
		if n.lacksValue(keys[6]) || !n.lacksValue(keys[7]) || s.Values < 100 || s.ValuesHealed != 2 || s.ValuesLost < 3 || s.Damaged > 0 {
			t.Errorf("%+v", s)
		}
		if most := uint64(3 + 62); s.ValuesLost > most {
			t.Errorf("what nobody can give was looked for %d times", s.ValuesLost)
		}
		c.nodes[2].setLost(keys[7], false)
		time.Sleep(2 * time.Minute)
		if n.lacksValue(keys[7]) || n.doubts() > 0 {
			t.Error("what somebody can give now was not fetched")
		}
	})
}

func TestDoubtLastsWhileAnOwnerIsAway(t *testing.T) {
	lives(t, 1, 3, 4, func(c *cluster) {
		keys := c.load(100, 3)
		n := c.nodes[0]
		c.nodes[2].setCut(true)
		n.rot(keys[5], true)
		n.x.Suspect(n.partition(keys[5]), keys[5].Leaf())
		time.Sleep(time.Minute)
		if n.get(keys[5]).Absent() || n.doubts() != 1 {
			t.Errorf("%d leaves are doubted with one owner away", n.doubts())
		}
		c.nodes[2].setCut(false)
		time.Sleep(10 * time.Second)
		if n.doubts() != 0 {
			t.Error("the leaf was merged from all owners and is doubted still")
		}
	})
}

func TestDamageThatNobodyCanHealDoesNotSpin(t *testing.T) {
	lives(t, 1, 2, 4, func(c *cluster) {
		c.load(20, 2)
		k := keyAt(100)
		c.nodes[0].write(k, 2, nil)
		c.nodes[0].rot(k, false)
		time.Sleep(10 * time.Minute)
		if n := c.nodes[0].rebuilt; n > 10 {
			t.Errorf("a leaf was rebuilt %d times in ten minutes", n)
		}
	})
}

func TestOldestClean(t *testing.T) {
	lives(t, 1, 3, 8, func(c *cluster) {
		began := time.Now()
		c.load(50, 3)
		time.Sleep(5 * time.Minute)
		n := c.nodes[0]
		if age := time.Since(n.x.Stats().OldestClean); age > time.Minute {
			t.Errorf("the oldest clean exchange was %v ago", age)
		}
		cutAt := time.Now()
		c.nodes[1].setCut(true)
		time.Sleep(10 * time.Minute)
		if at := n.x.Stats().OldestClean; at.Before(began) || at.After(cutAt) {
			t.Errorf("with a peer away since %v the oldest clean exchange was at %v", cutAt, at)
		}
	})
}

func TestCleanIsWhatWasFoundTheSame(t *testing.T) {
	var c counts
	began := time.Unix(1e9, 0)
	land := &territory{peers: []neighbor{{id: 2, shares: []share{{partition: 0}, {partition: 1}, {partition: 2}, {partition: 3}}}}}
	c.survey(began, land)
	later := began.Add(time.Minute)
	e := &exchange{peer: 2, shares: land.peers[0].shares, verdicts: []verdict{same, healed, left, unfinished}}
	c.add(e, later)
	e.eager = true
	c.add(e, later.Add(time.Minute))
	for p, want := range []time.Time{later, began, began, began} {
		if got := c.clean[pair{2, uint16(p)}]; !got.Equal(want) {
			t.Errorf("after %v: clean at %v, not at %v", e.verdicts[p], got, want)
		}
	}
	land.peers[0].shares = land.peers[0].shares[:1]
	if c.survey(later, land); len(c.clean) != 1 || !c.clean[pair{2, 0}].Equal(later) {
		t.Errorf("after a change of layouts: %v", c.clean)
	}
	if s := c.stats; s.Exchanges != 6 || s.Clean != 1 || s.PutOff != 2 {
		t.Errorf("%+v", s)
	}
}

func TestRunEndsWhatItBegan(t *testing.T) {
	lives(t, 1, 3, 16, func(c *cluster) {
		c.load(300, 3)
		c.nodes[0].fall()
		time.Sleep(1003 * time.Millisecond) // amid everything
		ended := make(chan struct{})
		go func() {
			c.stop()
			c.ended.Wait()
			close(ended)
		}()
		synctest.Wait()
		select {
		case <-ended:
		case <-time.After(time.Second):
			t.Error("Run goes on after its context ended")
		}
	})
}

func TestRepairNow(t *testing.T) {
	lives(t, 1, 3, 16, func(c *cluster) {
		keys := c.load(100, 3)
		time.Sleep(5 * time.Second)
		for i, n := range c.nodes {
			n.write(keys[i], 3, nil)
		}
		var last Progress
		if err := c.nodes[0].x.Repair(c.t.Context(), Selection{}, func(p Progress) { last = p }); err != nil {
			t.Fatal(err)
		}
		c.mustAgree("after a repair")
		if last.Done != last.Total || last.Total < 32 || last.Differ < 3 || last.Healed != last.Differ {
			t.Errorf("%+v", last)
		}
	})
}

func TestRepairOfASelection(t *testing.T) {
	lives(t, 1, 3, 16, func(c *cluster) {
		c.load(100, 3)
		time.Sleep(5 * time.Second)
		n := c.nodes[0]
		in := func(bucket string, i int) kv.Key { return kv.Key{Bucket: bucket, Name: keyAt(i).Name} }
		for i := range 50 { // some replace a record, some fall into leaves that are empty elsewhere
			n.write(in("b", i), 3, nil)
			n.write(in("other", i), 3, nil)
			c.nodes[1].write(in("other", 100+i), 3, nil)
			c.nodes[1].write(in("third", i), 3, nil)
		}
		repair := func(sel Selection) error { return n.x.Repair(c.t.Context(), sel, func(Progress) {}) }
		p := n.partition(in("other", 0))
		if err := repair(Selection{Bucket: "other", Partition: &p, Node: 2}); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			for _, k := range []kv.Key{in("b", i), in("other", i), in("other", 100+i), in("third", i)} {
				same := digestOf(k, n.get(k)) == digestOf(k, c.nodes[1].get(k))
				if want := k.Bucket == "other" && n.partition(k) == p; same != want {
					t.Errorf("%v in partition %d was repaired: %v", k, n.partition(k), same)
				}
				if k.Bucket != "b" && !c.nodes[2].get(k).Absent() {
					t.Errorf("%v was repaired with another node", k)
				}
			}
		}
		none := uint16(999)
		if err := repair(Selection{Partition: &none}); !errors.Is(err, ErrNothingSelected) {
			t.Errorf("repair of a partition that is not there: %v", err)
		}
		c.nodes[1].setCut(true)
		err := repair(Selection{Node: 2})
		failed, _ := errors.AsType[*RepairError](err)
		if !errors.Is(err, errRefused) || failed == nil || len(failed.Peers) != 1 || failed.Peers[0].Peer != 2 || failed.Peers[0].Partitions < 1 {
			t.Errorf("repair with a node out of reach: %v", err)
		}
		ctx, cancel := context.WithCancel(c.t.Context())
		cancel()
		if err := n.x.Repair(ctx, Selection{}, func(Progress) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("repair that was called off: %v", err)
		}
	})
}
