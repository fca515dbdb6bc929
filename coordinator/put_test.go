package coordinator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/kv"
)

var key = kv.Key{Bucket: "b", Name: "k"}

// put writes at n, fails the test if that fails, and lets what is on its way to
// healthy nodes arrive.
func (n *node) put(p Put) PutDone {
	n.world.t.Helper()
	done, err := n.Put(n.world.t.Context(), p)
	if err != nil {
		n.world.t.Fatalf("put at %s: %v", n.name(), err)
	}
	synctest.Wait()
	return done
}

// refuse writes at n and returns the error of the failure, which must come.
func (n *node) refuse(p Put) *kv.Error {
	n.world.t.Helper()
	done, err := n.Put(n.world.t.Context(), p)
	var e *kv.Error
	if !errors.As(err, &e) {
		n.world.t.Fatalf("put at %s: %+v, %v; want a kv.Error", n.name(), done, err)
	}
	synctest.Wait()
	return e
}

func (n *node) read(g Get) Got {
	n.world.t.Helper()
	g.Key = cmp.Or(g.Key, key)
	got, err := n.Get(n.world.t.Context(), g)
	if err != nil {
		n.world.t.Fatalf("get at %s: %v", n.name(), err)
	}
	return got
}

// reads checks what a read of all owners at n returns.
func (n *node) reads(want ...string) Got {
	n.world.t.Helper()
	got := n.read(Get{Options: Options{R: All}})
	n.world.same("values", texts(got), want)
	return got
}

func texts(got Got) []string {
	list := make([]string, 0, len(got.Values))
	for _, v := range got.Values {
		list = append(list, string(v.Data))
	}
	slices.Sort(list)
	return list
}

func (w *world) same(what string, got, want []string) {
	w.t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// told checks an error by code, outcome and what its message names.
func (w *world) told(e *kv.Error, code kv.Code, outcome kv.Outcome, words ...string) {
	w.t.Helper()
	if e.Code != code || e.Outcome != outcome {
		w.t.Errorf("code %q, outcome %q, want %q, %q (%v)", e.Code, e.Outcome, code, outcome, e)
	}
	for _, word := range words {
		if !strings.Contains(e.Message, word) {
			w.t.Errorf("the message does not name %q: %s", word, e.Message)
		}
	}
}

func names3(nodes ...*node) []string {
	list := make([]string, 0, len(nodes))
	for _, n := range nodes {
		list = append(list, n.name())
	}
	return list
}

func (w *world) writeID() kv.WriteID { return kv.NewWriteID(w.now(), w.draw) }

func values(s ...string) []string { return s }

func text(s string) Put { return Put{Key: key, Value: []byte(s)} }

func (p Put) with(o Options) Put {
	p.Options = o
	return p
}

func TestPutThenGet(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		for i, via := range owners {
			done := via.put(Put{
				Key: key, Value: []byte(via.name()), ContentType: "text/plain", Meta: []kv.Meta{{Name: "a", Value: "1"}},
				Options: Options{W: All}, Overwrite: true,
			})
			w.same("acked", done.Acked, names3(owners[:3]...))
			got := owners[4-i].read(Get{Options: Options{R: All}})
			w.same("values", texts(got), values(via.name()))
			v := got.Values[0].Value
			if v.ContentType != "text/plain" || !slices.Equal(v.Meta, []kv.Meta{{Name: "a", Value: "1"}}) || v.N != 3 {
				t.Errorf("kept %+v", v)
			}
			if done.ETag == 0 || got.ETag != done.ETag || len(got.Behind) > 0 || !slices.Equal(got.Token.Seen, done.Token.Seen) {
				t.Errorf("wrote %+v, read %+v", done, got)
			}
		}
	})
}

// A key is on exactly its first n owners, w of which are waited for.
func TestPutOnN(t *testing.T) {
	lives(t, 5, func(w *world) {
		for n := 1; n <= 5; n++ {
			for count := 1; count <= n; count++ {
				k := kv.Key{Bucket: "b", Name: string(rune('0'+n)) + "/" + string(rune('0'+count))}
				owners := w.owners(k)
				via := owners[(n+count)%5]
				done := via.put(Put{Key: k, Value: []byte("v"), Options: Options{N: n, W: Exactly(count)}})
				w.sleep(time.Millisecond)
				for i, o := range owners {
					if held := !o.holds(k).Absent(); held != (i < n) {
						t.Errorf("n=%d w=%d: owner %d holds it: %v", n, count, i, held)
					}
				}
				if len(done.Acked) < count {
					t.Errorf("n=%d w=%d: acked by %v", n, count, done.Acked)
				}
				got := via.read(Get{Key: k, Options: Options{N: n, R: Exactly(n + 1 - count)}})
				w.same("values", texts(got), values("v"))
			}
		}
	})
}

// A key that was once on more owners is sent to all of them, but only the
// first n that were asked for count.
func TestPutSendsWiderThanItCounts(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("wide").with(Options{N: 5, W: All}))
		owners[1].set(trouble{refused: true})
		owners[2].set(trouble{refused: true})
		sent := w.messages("store")
		e := owners[0].refuse(text("narrow").with(Options{N: 3, W: Exactly(2)}))
		w.told(e, kv.CodeQuorumUnreached, kv.NotApplied, owners[1].name(), owners[2].name(), "sloppy=true")
		if now := w.messages("store"); now != sent {
			t.Errorf("%d records were sent", now-sent)
		}
		done := owners[0].put(text("narrow").with(Options{N: 3, W: One}))
		w.same("acked", done.Acked, names3(owners[0]))
		w.sleep(time.Second)
		if n := len(owners[4].holds(key).Live); n != 2 {
			t.Errorf("the fifth owner holds %d values, want both", n)
		}
	})
}

func TestPutRefusedBeforeAnythingIsSent(t *testing.T) {
	lives(t, 3, func(w *world) {
		for _, tt := range []struct {
			o     Options
			words []string
		}{
			{Options{N: 17}, []string{"n=17", "1 to 16"}},
			{Options{N: -1}, []string{"n=-1"}},
			{Options{N: 2, W: Exactly(3)}, []string{"w=3", "n=2"}},
			{Options{N: 5, W: Exactly(4)}, []string{"w=4", "3 owners", "3 members", "at most 3"}},
			{Options{W: Exactly(0)}, []string{"w=0"}},
			{Options{Timeout: -1}, []string{"timeout"}},
			{Options{Timeout: time.Hour}, []string{"timeout"}},
		} {
			w.told(w.nodes[0].refuse(text("v").with(tt.o)), kv.CodeBadRequest, kv.NotApplied, tt.words...)
		}
		for _, tt := range []struct {
			o     Options
			words []string
		}{
			{Options{N: 2, R: Exactly(3)}, []string{"r=3", "n=2"}},
			{Options{R: Exactly(0)}, []string{"r=0"}},
			{Options{N: 17}, []string{"n=17"}},
		} {
			_, err := w.nodes[0].Get(w.t.Context(), Get{Key: key, Options: tt.o})
			var e *kv.Error
			if !errors.As(err, &e) {
				w.t.Fatalf("get: %v", err)
			}
			w.told(e, kv.CodeBadRequest, "", tt.words...)
		}
		if n := w.messages("store") + w.messages("forward") + w.messages("fetch"); n > 0 {
			t.Errorf("%d messages were sent", n)
		}
	})
}

// A malformed record would be stored and never read again.
func TestPutRefusesWhatNobodyCouldDecode(t *testing.T) {
	lives(t, 1, func(w *world) {
		for _, p := range []Put{
			{Key: kv.Key{Bucket: "b"}, Value: []byte("v")},
			{Key: kv.Key{Bucket: "a/b", Name: "k"}, Value: []byte("v")},
			{Key: key, Meta: []kv.Meta{{Name: "b"}, {Name: "a"}}},
			{Key: key, Meta: []kv.Meta{{Name: "a"}, {Name: "a"}}},
			{Key: key, Meta: slices.Repeat([]kv.Meta{{}}, 1<<11)},
			{Key: key, Meta: []kv.Meta{{Name: "a", Value: strings.Repeat("x", 1<<17)}}},
			{Key: key, ContentType: strings.Repeat("x", 1<<17)},
			{Key: key, Tombstone: true, Value: []byte("v")},
			{Key: key, Tombstone: true, TTL: time.Minute},
			{Key: key, TTL: MinTTL - 1},
			{Key: key, TTL: MaxTTL + 1},
		} {
			p.N = 1
			w.told(w.nodes[0].refuse(p), kv.CodeBadRequest, kv.NotApplied)
		}
	})
}

// A value with a time to live is shown until then, whichever replica gave its
// dot; nothing is written when it expires, and what it replaced stays replaced.
func TestTimeToLive(t *testing.T) {
	lives(t, 5, func(w *world) {
		for _, via := range w.nodes {
			via.put(Put{Key: key, Value: []byte("for ever"), Overwrite: true})
			via.put(Put{Key: key, Value: []byte("for now"), TTL: time.Minute, Overwrite: true})
			time.Sleep(time.Minute - time.Millisecond)
			got := via.read(Get{Options: Options{R: All}})
			w.same("before", texts(got), values("for now"))
			time.Sleep(time.Millisecond)
			got = via.read(Get{Options: Options{R: All}})
			if len(got.Values) > 0 || got.Deleted || len(got.Token.Seen) == 0 {
				t.Errorf("after: %+v", got)
			}
			via.put(Put{Key: key, Value: []byte("new"), Condition: Condition{IfAbsent: true}})
			w.same("again", texts(via.read(Get{})), values("new"))
		}
	})
}

func TestDeleteThenWrite(t *testing.T) {
	lives(t, 5, func(w *world) {
		n := w.nodes[3]
		done := n.put(text("old"))
		gone := n.put(Put{Key: key, Tombstone: true, Token: done.Token})
		if gone.Siblings != 0 || gone.ETag != 0 {
			t.Errorf("a delete left %+v", gone)
		}
		got := n.reads()
		if !got.Deleted || len(got.Token.Seen) == 0 {
			t.Errorf("a deleted key reads as %+v", got)
		}
		n.put(Put{Key: key, Value: []byte("new"), Token: got.Token})
		if got := n.reads("new"); got.Deleted {
			t.Error("the tombstone stayed beside a value that had seen it")
		}
		// A delete that has not seen a value does not remove it.
		n.put(Put{Key: key, Tombstone: true, Token: done.Token})
		if got := n.reads("new"); !got.Deleted {
			t.Error("the tombstone does not show")
		}
	})
}

func TestPutWithoutContextStaysBeside(t *testing.T) {
	lives(t, 5, func(w *world) {
		a := w.nodes[0].put(text("a"))
		b := w.nodes[1].put(text("b"))
		if a.Siblings != 1 || b.Siblings != 2 {
			t.Errorf("siblings %d, then %d", a.Siblings, b.Siblings)
		}
		w.nodes[2].reads("a", "b")
		w.nodes[3].put(Put{Key: key, Value: []byte("c"), Token: a.Token})
		got := w.nodes[4].reads("b", "c")
		w.nodes[0].put(Put{Key: key, Value: []byte("all"), Token: got.Token})
		w.nodes[1].reads("all")
		w.nodes[2].put(text("d"))
		w.nodes[2].put(Put{Key: key, Value: []byte("last"), Overwrite: true})
		w.nodes[3].reads("last")
	})
}

// A chain of writes by one client never makes it a sibling of itself, unless
// others wrote between.
func TestTokensChain(t *testing.T) {
	lives(t, 5, func(w *world) {
		var p Put
		for i := range 5 {
			p = Put{Key: key, Value: []byte{byte('0' + i)}, Token: w.nodes[i].put(p.or("first")).Token}
		}
		w.nodes[0].put(p)
		w.nodes[0].reads("4")
		// Beside a delete that it never saw, too: a tombstone holds nothing to lose.
		other := kv.Key{Bucket: "b", Name: "other"}
		w.nodes[0].put(Put{Key: other, Tombstone: true})
		one := w.nodes[1].put(Put{Key: other, Value: []byte("1")})
		w.nodes[2].put(Put{Key: other, Value: []byte("2"), Token: one.Token})
		w.same("values", texts(w.nodes[3].read(Get{Key: other})), values("2"))
	})
}

func (p Put) or(s string) Put {
	if p.Key == (kv.Key{}) {
		return text(s)
	}
	return p
}

// The answer to a write shows no values, so its tag must not stand for those
// of others: a condition on it would replace what the client never saw.
func TestPutTagStandsForItsOwnValueAlone(t *testing.T) {
	lives(t, 5, func(w *world) {
		w.nodes[0].put(text("theirs"))
		done := w.nodes[0].put(text("ours"))
		if done.ETag != 0 {
			p := text("next")
			p.Condition.IfMatch = []uint64{done.ETag}
			w.nodes[0].put(p)
		}
		if got := w.nodes[1].read(Get{}); !slices.Contains(texts(got), "theirs") {
			t.Errorf("a write that nobody saw was replaced: left %v", texts(got))
		}
	})
}

func TestPutExternalValue(t *testing.T) {
	lives(t, 5, func(w *world) {
		big, bigger := bytes.Repeat([]byte("big"), kv.InlineLimit), bytes.Repeat([]byte("bigger"), kv.InlineLimit)
		w.nodes[0].put(Put{Key: key, Value: big, Options: Options{W: All}})
		w.nodes[3].put(Put{Key: key, Value: bigger, Options: Options{W: All}})
		got := w.nodes[4].read(Get{Options: Options{R: One}})
		if len(got.Values) != 2 || !slices.ContainsFunc(got.Values, func(v Value) bool { return bytes.Equal(v.Data, big) }) {
			w.t.Fatal("the values are not what was written")
		}
		head := w.nodes[4].read(Get{NoValues: true})
		if len(head.Values) != 2 || head.Values[0].Data != nil || head.ETag != got.ETag {
			t.Errorf("without values: %+v", head)
		}
		if v := w.messages("value"); v != 2 {
			t.Errorf("%d values were fetched", v)
		}
	})
}

// A replica that lacks the values of older siblings is sent them, too.
func TestPutSendsValuesThatAReplicaLacks(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		big := bytes.Repeat([]byte("big"), kv.InlineLimit)
		owners[2].set(trouble{refused: true})
		owners[0].put(Put{Key: key, Value: big, Options: Options{W: Exactly(2)}})
		owners[2].set(trouble{})
		done := owners[0].put(text("small").with(Options{W: All}))
		w.same("acked", done.Acked, names3(owners...))
		owners[0].set(trouble{refused: true})
		owners[1].set(trouble{refused: true})
		got := owners[2].read(Get{Options: Options{R: One}})
		w.same("values", texts(got), values(string(big), "small"))
	})
}

func TestPutAtAnOwnerWithoutRoom(t *testing.T) {
	lives(t, 3, func(w *world) {
		full := &kv.Error{Code: kv.CodeDiskFull, Outcome: kv.NotApplied, Message: "the disk is full", RetryAfter: time.Second}
		owners := w.owners(key)
		owners[0].set(trouble{door: full})
		done := owners[0].put(text("v").with(Options{W: Exactly(2)}))
		w.same("acked", done.Acked, names3(owners[1], owners[2]))
		owners[1].set(trouble{door: full})
		owners[2].set(trouble{door: full})
		e := owners[0].refuse(text("w"))
		w.told(e, kv.CodeDiskFull, kv.NotApplied, "the disk is full")
		if e.RetryAfter != time.Second || e.N != 3 || e.W != 2 {
			t.Errorf("%+v", e)
		}
		w.nodes[1].reads("v")
	})
}

// The commit at the assigning replica may fail when the others have it.
func TestPutSurvivesAFailedCommit(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[0].set(trouble{commit: errors.New("input/output error"), disk: time.Millisecond})
		done := owners[0].put(text("a").with(Options{W: Exactly(2)}))
		w.same("acked", done.Acked, names3(owners[1], owners[2]))
		e := owners[0].refuse(text("b").with(Options{W: All}))
		w.told(e, kv.CodeQuorumUnreached, kv.Unknown, "input/output error")
		w.same("acked", e.Acked, names3(owners[1], owners[2]))
		owners[0].set(trouble{})
		owners[0].put(text("c").with(Options{W: All}))
		owners[1].reads("a", "b", "c")
	})
}

func TestPutCancelled(t *testing.T) {
	lives(t, 3, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{silent: true})
		owners[2].set(trouble{silent: true})
		ctx, cancel := context.WithTimeout(w.t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := owners[0].Put(ctx, text("v"))
		var e *kv.Error
		if !errors.As(err, &e) {
			w.t.Fatal(err)
		}
		w.told(e, kv.CodeTimeout, kv.Unknown, owners[1].name(), owners[2].name())
		w.same("acked", e.Acked, names3(owners[0]))
	})
}
