package coordinator

import (
	"bytes"
	"testing"

	"github.com/starling-kv/starling/kv"
)

func sloppy(s string, w Count) Put { return text(s).with(Options{W: w, Sloppy: true}) }

// A stand-in keeps the record under the owner whose place it takes, and a sloppy
// read asks it.
func TestStandIn(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{refused: true})
		done := owners[0].put(sloppy("v", All))
		w.same("acked", done.Acked, names3(owners[0], owners[2]))
		w.same("hinted", done.Hinted, values(owners[3].name()+" for "+owners[1].name()))
		if len(owners[3].hint(key, owners[1].id).Live) != 1 || !owners[3].holds(key).Absent() {
			t.Error("the hint is not where it belongs")
		}
		for _, o := range owners[:3] {
			o.set(trouble{refused: true})
		}
		got := owners[4].read(Get{Options: Options{R: One, Sloppy: true}})
		w.same("values", texts(got), values("v"))
		w.told(owners[4].refuse(text("w")), kv.CodeQuorumUnreached, kv.NotApplied, "sloppy=true")
	})
}

// That stand-ins hold nothing does not prove that there is nothing.
func TestStandInsKnowNothing(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{refused: true})
		owners[2].set(trouble{refused: true})
		two := Options{R: Exactly(2), Sloppy: true}
		e := owners[0].getError(Get{Options: two})
		w.told(e, kv.CodeQuorumUnreached, "", "1 of 2")
		owners[0].put(text("v").with(Options{W: One}))
		w.same("values", texts(owners[4].read(Get{Options: two})), values("v"))
	})
}

// Where no owner can be reached, a stand-in gives the write its dot.
func TestStandInAssigns(t *testing.T) {
	for _, via := range []int{3, 4} {
		lives(t, 5, func(w *world) {
			owners := w.owners(key)
			for _, o := range owners[:3] {
				o.set(trouble{refused: true})
			}
			big := string(bytes.Repeat([]byte("big"), kv.InlineLimit))
			first := owners[via].put(sloppy(big, Exactly(2)))
			if len(first.Acked) > 0 || len(first.Hinted) != 2 {
				t.Errorf("acked %v, hinted %v", first.Acked, first.Hinted)
			}
			got := owners[via].read(Get{Options: Options{R: One, Sloppy: true}})
			w.same("values", texts(got), values(big))
			p := sloppy("next", Exactly(2))
			p.Token = got.Token
			owners[via].put(p)
			got = owners[7-via].read(Get{Options: Options{R: Exactly(2), Sloppy: true}})
			w.same("values", texts(got), values("next"))
			e := owners[via].refuse(sloppy("w", All))
			w.told(e, kv.CodeQuorumUnreached, kv.Unknown, "2 of 3")
			if len(e.Acked) > 0 || len(e.Hinted) != 2 {
				t.Errorf("acked %v, hinted %v", e.Acked, e.Hinted)
			}
		})
	}
}

// Owners that say nothing are replaced, and so are stand-ins that say nothing.
func TestStandInForSilence(t *testing.T) {
	lives(t, 6, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{silent: true})
		owners[3].set(trouble{silent: true})
		done := owners[0].put(sloppy("v", All))
		w.same("hinted", done.Hinted, values(owners[4].name()+" for "+owners[1].name()))
		owners[2].set(trouble{silent: true})
		got := owners[0].read(Get{Options: Options{R: All, Sloppy: true}})
		w.same("values", texts(got), values("v"))
	})
}

// A stand-in that cannot store is replaced by the next.
func TestStandInFails(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[1].set(trouble{refused: true})
		owners[3].set(trouble{commit: errConnLost})
		done := owners[0].put(sloppy("v", All))
		w.same("hinted", done.Hinted, values(owners[4].name()+" for "+owners[1].name()))
		owners[4].set(trouble{refused: true})
		e := owners[0].refuse(sloppy("w", All))
		w.told(e, kv.CodeQuorumUnreached, kv.Unknown, "2 of 3", owners[1].name())
	})
}

// Stand-ins replace owners that count. One that was once an owner of the key
// and has its own copy is no stand-in that a wider owner needs.
func TestStandInsAreForOwnersThatCount(t *testing.T) {
	lives(t, 5, func(w *world) {
		owners := w.owners(key)
		owners[0].put(text("wide").with(Options{N: 4, W: All}))
		owners[3].set(trouble{refused: true})
		owners[1].set(trouble{refused: true})
		done := owners[0].put(sloppy("v", All))
		w.same("hinted", done.Hinted, values(owners[4].name()+" for "+owners[1].name()))
	})
}
