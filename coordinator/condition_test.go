package coordinator

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
)

func (p Put) under(c Condition) Put {
	p.Condition = c
	return p
}

func (p Put) as(id kv.WriteID) Put {
	p.WriteID = id
	return p
}

var absent = Condition{IfAbsent: true}

func TestIfAbsent(t *testing.T) {
	lives(t, 5, func(w *world) {
		id := w.writeID()
		w.nodes[0].put(text("a").under(absent).as(id))
		w.told(w.nodes[1].refuse(text("b").under(absent)), kv.CodePrecondition, kv.NotApplied, "If-None-Match")
		// The same attempt again is no second write, and succeeds.
		again := w.nodes[2].put(text("a").under(absent).as(id))
		if again.WriteID != id {
			t.Errorf("answered id %v", again.WriteID)
		}
		got := w.nodes[3].reads("a")
		w.nodes[4].put(Put{Key: key, Tombstone: true, Token: got.Token})
		w.nodes[0].put(text("c").under(absent))
		if got := w.nodes[1].reads("c"); got.Deleted {
			t.Error("the tombstone stayed")
		}
	})
}

func TestIfMatch(t *testing.T) {
	lives(t, 5, func(w *world) {
		w.told(w.nodes[0].refuse(text("a").under(Condition{IfMatchAny: true})), kv.CodePrecondition, kv.NotApplied)
		w.told(w.nodes[0].refuse(text("a").under(Condition{IfMatch: []uint64{1}})), kv.CodePrecondition, kv.NotApplied)
		w.nodes[0].put(text("a"))
		w.nodes[0].put(text("b"))
		both := w.nodes[1].reads("a", "b")
		w.nodes[2].put(text("c").under(Condition{IfMatch: []uint64{7, both.ETag}}))
		got := w.nodes[3].reads("c")
		w.told(w.nodes[4].refuse(text("d").under(Condition{IfMatch: []uint64{both.ETag}})), kv.CodePrecondition, kv.NotApplied)
		w.told(w.nodes[4].refuse(text("d").under(Condition{IfNoneMatch: []uint64{got.ETag}})), kv.CodePrecondition, kv.NotApplied)
		w.nodes[4].put(Put{Key: key, Value: []byte("d"), Token: got.Token}.under(Condition{IfNoneMatch: []uint64{both.ETag}}))
		w.nodes[0].reads("d")
	})
}

// A condition that names no value proves that the writer saw none.
func TestIfMatchAnyReplacesOnlyWhatWasSeen(t *testing.T) {
	lives(t, 5, func(w *world) {
		w.nodes[0].put(text("a"))
		w.nodes[1].put(text("b").under(Condition{IfMatchAny: true}))
		got := w.nodes[2].reads("a", "b")
		w.nodes[3].put(Put{Key: key, Value: []byte("c"), Token: got.Token}.under(Condition{IfMatchAny: true}))
		w.nodes[2].reads("c")
	})
}

// A delete on such a condition would leave the value where it is.
func TestDeleteIfMatchAny(t *testing.T) {
	lives(t, 5, func(w *world) {
		done := w.nodes[0].put(text("a"))
		p := Put{Key: key, Tombstone: true}.under(Condition{IfMatchAny: true})
		w.told(w.nodes[1].refuse(p), kv.CodeContextRequired, kv.NotApplied, "context", "tag")
		p.Token = done.Token
		w.nodes[2].put(p)
		w.nodes[3].reads()
		w.told(w.nodes[4].refuse(p), kv.CodePrecondition, kv.NotApplied)
	})
}

// A condition that no value can meet is still one after it was handed on.
func TestConditionWithoutTags(t *testing.T) {
	lives(t, 5, func(w *world) {
		w.nodes[0].put(text("a"))
		for _, n := range w.nodes {
			w.told(n.refuse(text("b").under(Condition{IfMatch: []uint64{}})), kv.CodePrecondition, kv.NotApplied)
		}
		w.nodes[0].reads("a")
	})
}

// Without all owners nobody can say whether an earlier attempt under the same
// id was applied.
func TestConditionOfARepeatedAttempt(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("a").with(Options{W: All}))
		id := w.writeID()
		e := owners[1].refuse(text("b").under(absent).as(id))
		w.told(e, kv.CodePrecondition, kv.NotApplied)
		if e.WriteID != id.String() {
			t.Errorf("the answer names id %q", e.WriteID)
		}
		for _, f := range []trouble{{refused: true}, {silent: true}, {recovering: true}} {
			owners[2].set(f)
			begun := time.Now()
			w.told(owners[1].refuse(text("b").under(absent).as(id)), kv.CodePrecondition, kv.Unknown)
			w.told(owners[4].refuse(text("b").under(absent).as(id)), kv.CodePrecondition, kv.Unknown)
			// One whose id was made here for this very attempt had no other before.
			w.told(owners[4].refuse(text("b").under(absent)), kv.CodePrecondition, kv.NotApplied)
			if took := time.Since(begun); took > 3*lateAfter {
				t.Errorf("%+v: took %v", f, took)
			}
		}
	})
}

func TestConditionNeedsAQuorum(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{refused: true})
		owners[2].set(trouble{refused: true})
		e := owners[0].refuse(text("a").under(absent).with(Options{W: One}))
		w.told(e, kv.CodeQuorumUnreached, kv.NotApplied, "2")
		if !owners[0].holds(key).Absent() {
			t.Error("the write was applied")
		}
	})
}

// What the quorum holds and the coordinating replica does not comes into its
// record with the write, external values included.
func TestConditionBringsValuesAlong(t *testing.T) {
	for _, f := range []trouble{{}, {badValue: true}, {noValue: true}} {
		lives(t, 3, func(w *world) {
			owners := w.owners(key)
			big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
			owners[0].set(trouble{refused: true})
			owners[1].put(text(big).with(Options{W: Exactly(2)}))
			owners[0].set(trouble{disk: time.Millisecond})
			owners[1].set(f)
			p := text("small").under(Condition{IfNoneMatch: []uint64{7}}).with(Options{W: All})
			done := owners[0].put(p)
			if done.Siblings != 2 || done.ETag != 0 {
				t.Errorf("%+v", done)
			}
			owners[1].set(trouble{refused: true})
			owners[2].set(trouble{refused: true})
			got := owners[0].read(Get{Options: Options{R: One}})
			w.same("values", texts(got), values(big, "small"))
		})
	}
}

// No write is applied whose siblings nobody can deliver.
func TestConditionWithoutValues(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{refused: true})
		owners[1].put(text(string(bytes.Repeat([]byte("big"), kv.InlineLimit))))
		owners[0].set(trouble{})
		owners[1].set(trouble{noValue: true, door: &kv.Error{Code: kv.CodeDiskFull, Outcome: kv.NotApplied}})
		owners[2].set(trouble{noValue: true, door: &kv.Error{Code: kv.CodeDiskFull, Outcome: kv.NotApplied}})
		e := owners[0].refuse(text("small").under(Condition{IfNoneMatch: []uint64{7}}))
		w.told(e, kv.CodeQuorumUnreached, kv.NotApplied)
		if !owners[0].holds(key).Absent() {
			t.Error("the write was applied")
		}
	})
}

// A repeated attempt answers with what the first was given, and its context
// covers no value but its own.
func TestRepeatedAttempt(t *testing.T) {
	lives(t, 5, func(w *world) {
		id := w.writeID()
		first := w.nodes[0].put(text("a").as(id))
		got := w.nodes[1].reads("a")
		w.nodes[2].put(Put{Key: key, Value: []byte("b"), Token: got.Token})
		again := w.nodes[3].put(text("a").as(id))
		w.nodes[4].reads("b")
		if again.Dot != first.Dot {
			t.Errorf("dot %v, then %v", first.Dot, again.Dot)
		}
		w.nodes[4].put(Put{Key: key, Value: []byte("c"), Token: again.Token})
		w.nodes[0].reads("b", "c")
		next := text("next").as(w.writeID())
		w.nodes[0].put(next)
		next.Value = []byte("other")
		w.told(w.nodes[0].refuse(next), kv.CodeWriteIDReused, kv.NotApplied)
	})
}

func TestRepeatedAttemptWithAnExternalValue(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
		id := w.writeID()
		owners[1].set(trouble{refused: true})
		owners[2].set(trouble{refused: true})
		owners[0].put(text(big).as(id).with(Options{W: One}))
		owners[1].set(trouble{})
		owners[2].set(trouble{})
		owners[0].put(text(big).as(id).with(Options{W: All}))
		for _, o := range owners[:2] {
			o.set(trouble{refused: true})
		}
		w.same("values", texts(owners[2].read(Get{Options: Options{R: One}})), values(big))
	})
}

func TestWriteIDOutsideTheWindow(t *testing.T) {
	lives(t, 5, func(w *world) {
		id := w.writeID()
		w.sleep(WriteIDWindow + time.Second)
		for _, n := range w.nodes {
			w.told(n.refuse(text("a").as(id)), kv.CodeWriteIDExpired, kv.Unknown, "2m0s")
		}
		early := kv.NewWriteID(time.Now().Add(WriteIDWindow+time.Second), w.draw)
		w.told(w.nodes[0].refuse(text("a").as(early)), kv.CodeWriteIDExpired, kv.Unknown, "clock")
		w.nodes[0].reads()
	})
}

// An id that the record no longer remembers, for more came after it, cannot be
// told from a new one either, and what it wrote must not come back.
func TestWriteIDForgotten(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		id := w.writeID()
		token := owners[0].put(text("first").as(id)).Token
		for i := range kv.MaxIDs + 1 {
			w.sleep(time.Millisecond)
			token = owners[i%3].put(Put{Key: key, Value: []byte{byte(i)}, Token: token, WriteID: w.writeID(), Options: Options{W: All}}).Token
		}
		for _, n := range []*node{owners[0], owners[4]} {
			w.told(n.refuse(text("first").as(id)), kv.CodeWriteIDExpired, kv.Unknown, "read the key")
		}
		if got := owners[1].read(Get{}); len(got.Values) != 1 || slices.Contains(texts(got), "first") {
			t.Errorf("values %q", texts(got))
		}
		// A node whose clock is behind makes ids that the record has passed. They
		// are new, so the write is taken.
		w.skew = -time.Minute
		owners[4].put(Put{Key: key, Value: []byte("late clock"), Token: token})
		owners[1].reads("late clock")
	})
}

// A client that reads its write after all, and repeats it with the context of
// that read, has seen its own first attempt: the second must not replace it.
func TestRepeatedAttemptThatHasSeenTheFirst(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		lives(t, 3, func(w *world) {
			owners := w.owners(key)
			id := w.writeID()
			owners[1].set(trouble{refused: true})
			owners[2].set(trouble{refused: true})
			owners[0].put(text("v").as(id).with(Options{W: One}))
			got := owners[0].read(Get{Options: Options{R: One}})
			owners[1].set(trouble{})
			owners[2].set(trouble{})
			owners[0].set(trouble{refused: hidden})
			p := text("v").as(id).with(Options{W: Exactly(2)})
			p.Token = got.Token
			begun := time.Now()
			owners[1].put(p)
			if took := time.Since(begun); took > lateAfter {
				t.Errorf("took %v", took)
			}
			if hidden {
				return // nobody can know of the first, and the write goes on
			}
			w.nodes[0].reads("v")
			w.nodes[1].reads("v")
		})
	}
}

// An attempt that arrives when all is over must not overwrite what has replaced
// the write since.
func TestLateAttemptToOverwrite(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[1].put(text("before").with(Options{W: All}))
		late := ForwardRequest{
			Fence: Fence{Digest: owners[0].View().Digest()},
			Put: Put{
				Key: key, Value: []byte("over"), Overwrite: true, WriteID: w.writeID(),
				Options: Options{N: 3, R: One, W: Exactly(2), Timeout: time.Second},
			},
		}
		owners[0].set(trouble{refused: true})
		done := owners[1].put(late.Put)
		owners[0].set(trouble{})
		owners[0].put(Put{Key: key, Value: []byte("after"), Token: done.Token, Options: Options{W: All}})

		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		again, err := owners[0].Forwarded(ctx, late)
		if err != nil || again.Dot != done.Dot {
			t.Errorf("dot %v, %v; want %v", again.Dot, err, done.Dot)
		}
		w.nodes[1].reads("after")

		// One whose sender has given up is not begun.
		cancel()
		late.Put.WriteID = w.writeID()
		_, err = owners[0].Forwarded(ctx, late)
		var e *kv.Error
		if !errors.As(err, &e) || e.Outcome != kv.NotApplied {
			t.Errorf("cancelled: %v", err)
		}
		w.nodes[1].reads("after")
	})
}
