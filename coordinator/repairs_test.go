package coordinator

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
)

// missedBy is how a coordinator tells that owners lack a write of key.
func (w *world) missedBy(owners ...*node) []string {
	list := make([]string, 0, len(owners))
	for _, o := range owners {
		list = append(list, fmt.Sprintf("%s missed %v of %d", o.name(), key, o.slot(key, 0).Partition))
	}
	slices.Sort(list)
	return list
}

// Of every owner that did not confirm a write, the coordinator tells once, when
// it is over, and of no other.
func TestMissed(t *testing.T) {
	for name, wrong := range map[string]trouble{
		"refused":      {refused: true},
		"silent":       {silent: true},
		"reply lost":   {loseReply: true},
		"disk refuses": {door: &kv.Error{Code: kv.CodeDiskFull, Outcome: kv.NotApplied}},
		"slow":         {slow: time.Second},
		"well":         {},
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, 5, func(w *world) {
				owners := w.owners(key)
				owners[2].set(wrong)
				for _, sloppy := range []bool{false, true} {
					owners[0].put(text("v").with(Options{Sloppy: sloppy}))
					w.sleep(3 * time.Second)
					var want []*node
					if wrong != (trouble{}) && wrong.slow == 0 {
						want = owners[2:3]
					}
					w.same("told", owners[0].heard(), w.missedBy(want...))
				}
			})
		})
	}
}

// A write that fails tells of those that it did not reach, too; one that was
// never begun does not.
func TestMissedByFailures(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{loseReply: true})
		owners[2].set(trouble{silent: true})
		w.told(owners[0].refuse(text("v")), kv.CodeTimeout, kv.Unknown)
		synctest.Wait()
		w.same("told", owners[0].heard(), w.missedBy(owners[1:3]...))
		owners[1].set(trouble{refused: true})
		owners[2].set(trouble{refused: true})
		w.told(owners[0].refuse(text("v")), kv.CodeQuorumUnreached, kv.NotApplied)
		synctest.Wait()
		w.same("told", owners[0].heard(), nil)
	})
}

// An owner that the operator took down is not tried, and owed the write.
func TestMissedWhileDown(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		w.takeDown(owners[2])
		owners[0].put(text("v"))
		synctest.Wait()
		w.same("told", owners[0].heard(), w.missedBy(owners[2]))
	})
}

// Who is told of a missed write asks this node for it: it is told once the write
// is there.
func TestMissedAfterTheCommit(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{disk: 100 * time.Millisecond})
		owners[2].set(trouble{refused: true})
		owners[0].put(text("v").with(Options{W: One}))
		w.sleep(99 * time.Millisecond)
		w.same("told before", owners[0].heard(), nil)
		w.sleep(2 * time.Millisecond)
		w.same("told after", owners[0].heard(), w.missedBy(owners[2]))
		synctest.Wait()
	})
}

// A copy in the place of an owner is the stand-in's to hand over.
func TestMissedByStandInCoordinator(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		for _, o := range owners[:3] {
			o.set(trouble{refused: true})
		}
		owners[3].put(sloppy("v", One))
		w.sleep(3 * time.Second)
		w.same("told", owners[3].heard(), w.missedBy(owners[1:3]...))
	})
}

// A read whose answers differ says so, after its own answer.
func TestBehind(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].read(Get{})
		owners[1].set(trouble{refused: true})
		owners[0].put(text("v"))
		owners[1].set(trouble{})
		synctest.Wait()
		owners[0].heard()
		owners[0].read(Get{Options: Options{R: All}})
		w.same("told", owners[0].heard(), values("b/k differs of 3"))
		owners[0].put(text("w").with(Options{W: All}))
		owners[0].read(Get{Options: Options{R: All}})
		w.same("told", owners[0].heard(), nil)
	})
}

// raise makes the node know of so many rounds of reaping of the key's partition.
func (n *node) raise(to uint64) {
	if err := n.Raise(n.world.t.Context(), n.slot(key, 0).Partition, to); err != nil {
		n.world.t.Fatal(err)
	}
}

func (n *node) number() uint64 {
	_, number, _ := n.Read(n.slot(key, 0))
	return number
}

// A replica that knows of a later round of reaping is given the record as it is
// after that round.
func TestStoreAfterReap(t *testing.T) {
	big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[2].set(trouble{refused: true})
		owners[0].put(text(big))
		owners[2].set(trouble{})
		owners[1].raise(7)
		owners[2].raise(8)
		done := owners[0].put(text(big + "2").with(Options{W: All}))
		w.same("acked", done.Acked, names3(owners...))
		for _, o := range owners {
			if n := len(o.holds(key).Live); n != 2 {
				t.Errorf("%s holds %d values", o.name(), n)
			}
		}
		if owners[0].number() != 8 {
			t.Errorf("learnt of round %d", owners[0].number())
		}
	})
}

// What is no longer here cannot be sent again.
func TestStoreReapedWrite(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		for _, o := range owners[1:] {
			o.set(trouble{slow: time.Millisecond})
			o.raise(7)
		}
		time.AfterFunc(time.Millisecond/2, func() {
			owners[0].mu.Lock()
			defer owners[0].mu.Unlock()
			clear(owners[0].slots)
		})
		e := owners[0].refuse(text("v"))
		w.told(e, kv.CodeQuorumUnreached, kv.Unknown, "no longer found")
		synctest.Wait()
		w.same("told", owners[0].heard(), w.missedBy(owners[1:]...))
	})
}

// The record must not go out before this node has it: it would be read again
// without the write.
func TestStoreAfterReapWaitsForTheCommit(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{disk: 50 * time.Millisecond})
		owners[1].raise(7)
		owners[2].raise(7)
		begun := time.Now()
		owners[0].put(text("v").with(Options{W: All}))
		if took := time.Since(begun); took != 50*time.Millisecond {
			t.Errorf("took %v", took)
		}
		owners[0].set(trouble{commit: errors.New("disk error")})
		owners[1].raise(8)
		owners[2].raise(8)
		w.told(owners[0].refuse(text("w")), kv.CodeQuorumUnreached, kv.Unknown, "disk error")
	})
}

// What a condition was judged by is merged in only if it was told after the last
// round of reaping; owners that have not heard of it learn of it.
func TestConditionAfterReap(t *testing.T) {
	for _, missing := range []bool{false, true} {
		lives(t, 3, func(w *world) {
			owners := w.owners(key)
			owners[0].set(trouble{refused: true})
			owners[1].put(text("v"))
			synctest.Wait()
			owners[0].set(trouble{})
			owners[0].raise(7)
			if missing { // one that cannot learn of it is not asked
				owners[1].set(trouble{recovering: true})
			}
			p := text("w")
			p.Condition.IfMatchAny = true
			p.Token = owners[2].read(Get{}).Token
			owners[0].put(p)
			w.same("values", texts(owners[0].read(Get{})), values("w"))
			if a, b := owners[1].number(), owners[2].number(); max(a, b) != 7 || missing && a != 0 {
				t.Errorf("recovering %v, they know of %d and %d rounds", missing, a, b)
			}
		})
	}
}

// The same where the client has seen what this node has not.
func TestSearchAfterReap(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{refused: true})
		owners[1].put(text("v"))
		synctest.Wait()
		owners[0].set(trouble{})
		owners[0].raise(7)
		p := text("w")
		p.Token = owners[2].read(Get{}).Token
		owners[0].put(p.with(Options{W: All}))
		for _, o := range owners {
			w.same("values at "+o.name(), texts(o.read(Get{Options: Options{R: One}})), values("w"))
		}
	})
}

// A disk that was set back tells of deletes that all others have forgotten. It
// knows of fewer rounds than they, and is not believed.
func TestReadBesideRestoredDisk(t *testing.T) {
	for _, restored := range []int{0, 1, 2} {
		lives(t, 3, func(w *world) {
			owners := w.owners(key)
			owners[0].put(text("v").with(Options{W: All}))
			for i, o := range owners {
				if i == restored {
					o.set(trouble{recovering: true})
					continue
				}
				o.mu.Lock()
				clear(o.slots)
				o.mu.Unlock()
				o.raise(7)
			}
			for _, via := range owners {
				got := via.read(Get{Options: Options{R: Exactly(2), Hedge: HedgeAll}})
				w.same("values", texts(got), nil)
			}
			// As old as the others, it may be of use.
			owners[restored].raise(7)
			for _, o := range owners {
				if o != owners[restored] {
					o.set(trouble{slow: time.Millisecond})
				}
			}
			got := owners[restored].read(Get{Options: Options{R: Exactly(2), Hedge: HedgeAll}})
			w.same("values", texts(got), values("v"))
		})
	}
}
