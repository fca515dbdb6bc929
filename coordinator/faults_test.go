package coordinator

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
)

// One owner that says nothing delays nobody: a write is acknowledged by the
// others, a read asks another, and a node that is no owner hands the write to
// another under the same write id.
func TestSilentOwner(t *testing.T) {
	for _, silent := range []int{0, 1, 2} {
		lives(t, 5, func(w *world) {
			owners := w.owners(key)
			owners[silent].set(trouble{silent: true})
			for _, via := range owners {
				if via == owners[silent] {
					continue
				}
				begun := time.Now()
				via.put(Put{Key: key, Value: []byte(via.name()), Overwrite: true})
				if took := time.Since(begun); took > lateAfter {
					t.Errorf("a write took %v", took)
				}
				begun = time.Now()
				got := via.read(Get{})
				w.same("values", texts(got), values(via.name()))
				if took := time.Since(begun); took > hedgeCap {
					t.Errorf("a read took %v", took)
				}
			}
			w.sleep(3 * time.Second)
		})
	}
}

// A write that was handed to an owner whose answer got lost is handed to the
// next, and stays one value.
func TestForwardLost(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{loseReply: true})
		done := owners[4].put(text("v"))
		for _, o := range owners {
			o.set(trouble{})
		}
		got := w.nodes[0].reads("v")
		if dots := got.Values[0].Value.WriteID; dots != done.WriteID || done.WriteID.IsZero() {
			t.Errorf("stored under id %v, answered %v", dots, done.WriteID)
		}
		if n := w.messages("forward"); n < 2 {
			w.t.Fatalf("%d forwards: nothing was lost", n)
		}
	})
}

// A write at an owner that waits long for the others is not given to a second
// coordinator under another name: it would become two values.
func TestSlowWriteStaysOneValue(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[2].set(trouble{slow: 2 * lateAfter})
		owners[0].put(text("v").with(Options{W: All}))
		w.sleep(10 * time.Second)
		owners[0].reads("v")

		owners[0].set(trouble{queue: lateAfter - time.Millisecond, disk: time.Second})
		owners[0].put(Put{Key: key, Value: []byte("w"), Overwrite: true})
		w.sleep(10 * time.Second)
		owners[0].reads("w")
	})
}

// With an id of the client's a second coordinator may be asked.
func TestSlowWriteWithIDIsHandedOn(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{queue: time.Minute})
		p := text("v")
		p.WriteID = w.writeID()
		begun := time.Now()
		done := owners[0].put(p)
		if took := time.Since(begun); took > 2*lateAfter {
			t.Errorf("took %v", took)
		}
		w.same("acked", done.Acked, names3(owners[1:]...))
		w.sleep(2 * time.Minute)
		if owners[0].holds(key).Mine != (kv.Mine{}) {
			t.Error("the withdrawn update was made after all")
		}
		owners[0].set(trouble{})
		owners[1].reads("v")
	})
}

// A write that cannot reach its count sends nothing.
func TestRefusedOwners(t *testing.T) {
	for refused := range 4 {
		for count := 1; count <= 3; count++ {
			lives(t, 5, func(w *world) {
				owners := w.owners(key)
				for _, o := range owners[3-refused : 3] {
					o.set(trouble{refused: true})
				}
				for _, via := range []*node{owners[0], owners[4]} {
					if via.faults().refused || count <= 3-refused {
						continue
					}
					e := via.refuse(text("v").with(Options{W: Exactly(count)}))
					w.told(e, kv.CodeQuorumUnreached, kv.NotApplied, "connection refused", owners[2].name())
					if e.RetryAfter == 0 || e.N != 3 || e.W != count {
						t.Errorf("%+v", e)
					}
				}
				if n := w.messages("store"); n > 0 {
					t.Errorf("refused=%d w=%d: %d records were sent", refused, count, n)
				}
				for _, o := range owners {
					if !o.holds(key).Absent() {
						t.Errorf("refused=%d w=%d: %s holds a write that was not applied", refused, count, o.name())
					}
				}
				if count <= 3-refused {
					done := owners[4].put(text("v").with(Options{W: Exactly(count)}))
					if len(done.Acked) < count {
						t.Errorf("acked %v", done.Acked)
					}
				}
			})
		}
	}
}

// Of owners that neither accept nor refuse a connection nothing is known until
// the time is over; nothing is sent until then either.
func TestOwnersOutOfTouch(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{unknown: true})
		owners[2].set(trouble{unknown: true})
		e := owners[0].refuse(text("v"))
		w.told(e, kv.CodeTimeout, kv.NotApplied, owners[1].name(), owners[2].name())
		if !owners[0].holds(key).Absent() || w.messages("store") > 0 {
			t.Error("something was stored")
		}
	})
}

// The answer to a write that ran out of time says who has it, whether this node
// or another coordinates it.
func TestTimeoutNamesWhoAcked(t *testing.T) {
	for _, via := range []int{0, 4} {
		lives(t, 5, func(w *world) {
			owners := w.owners(key)
			owners[2].set(trouble{silent: true})
			begun := time.Now()
			e := owners[via].refuse(text("v").with(Options{W: All, Timeout: time.Second}))
			w.told(e, kv.CodeTimeout, kv.Unknown, "2 of 3", owners[2].name())
			w.same("acked", e.Acked, names3(owners[0], owners[1]))
			if len(e.Failed) != 1 || e.Failed[0].Node != owners[2].name() || e.WriteID == "" && via == 4 {
				t.Errorf("%+v", e)
			}
			if took := time.Since(begun); took > time.Second {
				t.Errorf("took %v", took)
			}
			owners[2].set(trouble{})
			owners[0].reads("v")
		})
	}
}

func TestReadTimeout(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("v").with(Options{W: All}))
		owners[1].set(trouble{silent: true})
		owners[2].set(trouble{refused: true})
		_, err := owners[0].Get(w.t.Context(), Get{Key: key, Options: Options{R: All}})
		var e *kv.Error
		if !errors.As(err, &e) {
			w.t.Fatal(err)
		}
		w.told(e, kv.CodeQuorumUnreached, "", owners[2].name())
		owners[2].set(trouble{})
		begun := time.Now()
		_, err = owners[0].Get(w.t.Context(), Get{Key: key, Options: Options{R: All}})
		if !errors.As(err, &e) {
			w.t.Fatal(err)
		}
		w.told(e, kv.CodeTimeout, "", owners[1].name())
		w.same("acked", e.Acked, names3(owners[0], owners[2]))
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// What is not in good standing is merged in and never counted.
func TestRecoveringOwner(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("v").with(Options{W: All}))
		owners[0].set(trouble{recovering: true})
		owners[0].read(Get{Options: Options{R: Exactly(2)}})
		if n := owners[1].received("fetch") + owners[2].received("fetch"); n != 2 {
			t.Errorf("%d of the two others were asked", n)
		}
		_, err := owners[0].Get(w.t.Context(), Get{Key: key, Options: Options{R: All}})
		var e *kv.Error
		if !errors.As(err, &e) {
			w.t.Fatal(err)
		}
		w.told(e, kv.CodeQuorumUnreached, "", "good standing", owners[0].name())
	})
}

// An owner that fails fast is not thereby a fast owner.
func TestFailuresAreNotFast(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("v").with(Options{W: All}))
		for _, o := range owners[:3] {
			o.set(trouble{slow: 5 * time.Millisecond})
		}
		owners[1].set(trouble{refused: true})
		reader := owners[4]
		for range 200 {
			reader.read(Get{Options: Options{R: One}})
		}
		order := []kv.NodeID{owners[0].id, owners[1].id, owners[2].id}
		reader.latencies.order(order, 1, reader.class)
		if order[2] != owners[1].id {
			t.Errorf("the order of the next read is %v, the refusing node is %v", order, owners[1].id)
		}
	})
}

// The disks of all owners stall at one moment: a write has the time to try again,
// and one without time says what holds it up.
func TestAllOwnersBusy(t *testing.T) {
	busy := trouble{door: &kv.Error{Code: kv.CodeOverloaded, Outcome: kv.NotApplied, Message: "too many updates are waiting"}}
	for _, tt := range []struct {
		name    string
		trouble trouble
		timeout time.Duration
		heals   bool
	}{
		{"full queues", busy, 5 * time.Second, true},
		{"slow disks", trouble{queue: time.Minute}, 5 * time.Second, true},
		{"no time", busy, 300 * time.Millisecond, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lives(t, 3, func(w *world) {
				owners := w.owners(key)
				for _, o := range owners {
					o.set(tt.trouble)
				}
				var healed sync.WaitGroup
				healed.Go(func() {
					w.sleep(700 * time.Millisecond)
					for _, o := range owners {
						o.set(trouble{})
					}
				})
				_, err := owners[0].Put(w.t.Context(), text("v").with(Options{Timeout: tt.timeout}))
				healed.Wait()
				e, _ := errors.AsType[*kv.Error](err)
				switch {
				case tt.heals && err != nil:
					t.Errorf("%v", err)
				case !tt.heals && (e == nil || e.Code != kv.CodeOverloaded || e.Outcome != kv.NotApplied):
					t.Errorf("%v, want a refusal as busy", err)
				}
			})
		})
	}
}

func TestCloseEndsRequests(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		for _, o := range owners[1:3] {
			o.set(trouble{silent: true})
		}
		results := make(chan error, 4)
		put := func(at *node, p Put) { _, err := at.Put(w.t.Context(), p); results <- err }
		conditional := text("v")
		conditional.Condition.IfAbsent = true
		go put(owners[0], text("v").with(Options{Timeout: time.Minute}))
		go put(owners[0], conditional.with(Options{Timeout: time.Minute}))
		go put(owners[4], conditional.with(Options{Timeout: time.Minute}))
		go func() {
			_, err := owners[0].Get(w.t.Context(), Get{Key: key, Options: Options{R: All, Timeout: time.Minute}})
			results <- err
		}()
		w.sleep(100 * time.Millisecond)
		begun := time.Now()
		owners[0].Close()
		owners[4].Close()
		for range 4 {
			err := <-results
			if _, ok := errors.AsType[*kv.Error](err); !ok {
				t.Errorf("a request at a closing node ended with %v", err)
			}
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("took %v", took)
		}
		owners[0].Close()
		w.told(owners[0].refuse(text("v")), kv.CodeNotReady, kv.NotApplied, "shutting down")
		_, err := owners[0].Get(w.t.Context(), Get{Key: key})
		var e *kv.Error
		if !errors.As(err, &e) || e.Code != kv.CodeNotReady {
			t.Errorf("get at a closed node: %v", err)
		}
		synctest.Wait()
	})
}

// The time that a request has left is told by the clock that ends it, not by
// the wall clock that stamps values.
func TestClocksThatDiffer(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		lives(t, 5, func(w *world) {
			w.skew = skew
			owners := w.owners(key)
			owners[0].set(trouble{queue: 10 * time.Millisecond})
			owners[0].put(text("v"))
			if n := w.messages("forward"); n > 0 {
				t.Errorf("%v: %d writes were handed on", skew, n)
			}
		})
	}
}

// Once an attempt may have been applied, no refusal of a later one makes the
// write not applied.
func TestDoubtStays(t *testing.T) {
	full := trouble{door: &kv.Error{Code: kv.CodeDiskFull, Outcome: kv.NotApplied, Message: "the disk is full"}}
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{loseReply: true})
		owners[1].set(full)
		owners[2].set(full)
		p := text("v").with(Options{W: One})
		e := owners[4].refuse(p)
		w.told(e, kv.CodeQuorumUnreached, kv.Unknown, "connection lost", "the disk is full", "same write id")
		owners[0].set(trouble{})
		w.same("values", texts(owners[0].read(Get{Options: Options{R: All}})), values("v"))
	})
	// One that began under an older view, and is not heard of again.
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{slow: time.Second})
		for _, o := range owners[1:3] {
			o.set(full)
			o.learns(w.grown(5))
		}
		p := text("v").with(Options{W: One})
		time.AfterFunc(lateAfter+time.Millisecond, func() { owners[0].set(full) })
		e := owners[4].refuse(p)
		w.told(e, kv.CodeDiskFull, kv.Unknown, "same write id")
		w.sleep(2 * time.Second)
		if e.Outcome == kv.NotApplied && !owners[0].holds(key).Absent() {
			t.Error("it was applied")
		}
	})
}

// An owner that is still catching up does not decide by what it lacks: another
// one does.
func TestCatchingUpDecidesNothing(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[1].put(text("old"))
		owners[0].set(trouble{recovering: true})
		for name, p := range map[string]Put{
			"overwrite": {Overwrite: true},
			"condition": {Condition: Condition{IfMatchAny: true}},
		} {
			put := text(name)
			put.Overwrite, put.Condition = p.Overwrite, p.Condition
			if d := owners[0].put(put); d.Acked == nil {
				t.Errorf("%s: nobody acknowledged it", name)
			}
			if n := owners[0].holds(key).Mine; n.Actor != 0 {
				t.Errorf("%s: the node that is catching up gave the dot", name)
			}
		}
	})
}
