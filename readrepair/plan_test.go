package readrepair

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// wrote is a record that has seen the writes of some actors, none of which had
// seen another.
func wrote(actors ...vclock.Actor) (r kv.Record) {
	for _, a := range actors {
		var one kv.Record
		one, _ = one.Put(kv.Sibling{Kind: kv.KindValue, N: 3}, nil, 1, func() vclock.Actor { return a }, time.Time{})
		r = r.Merge(one)
	}
	return r
}

func reply(from kv.NodeID, reap uint64, actors ...vclock.Actor) Reply {
	return Reply{From: from, Record: wrote(actors...), Standing: true, Reap: reap}
}

func fallen(r Reply) Reply {
	r.Standing = false
	return r
}

func TestPlan(t *testing.T) {
	wide := reply(1, 0, 1)
	wide.Record.NMax = 5
	from := func(behind kv.NodeID, sources ...kv.NodeID) Repair { return Repair{Behind: behind, Sources: sources} }
	for name, c := range map[string]struct {
		replies []Reply
		want    []Repair
	}{
		"nobody":               {nil, nil},
		"one alone":            {[]Reply{reply(1, 0, 1)}, nil},
		"all alike":            {[]Reply{reply(1, 0, 1), reply(2, 0, 1), reply(3, 0, 1)}, nil},
		"nothing anywhere":     {[]Reply{reply(1, 0), reply(2, 0)}, nil},
		"one lacks all":        {[]Reply{reply(1, 0, 1), reply(2, 0), reply(3, 0, 1)}, []Repair{from(2, 1)}},
		"two lack, one has":    {[]Reply{reply(1, 0), reply(2, 0, 1), reply(3, 0)}, []Repair{from(1, 2), from(3, 2)}},
		"sources take turns":   {[]Reply{reply(1, 0, 1), reply(2, 0), reply(3, 0, 1), reply(4, 0)}, []Repair{from(2, 1), from(4, 3)}},
		"one has it all":       {[]Reply{reply(1, 0, 1), reply(2, 0, 1, 2, 3), reply(3, 0, 3)}, []Repair{from(1, 2), from(3, 2)}},
		"each has a part":      {[]Reply{reply(1, 0, 1), reply(2, 0, 2), reply(3, 0, 3)}, []Repair{from(1, 2, 3), from(2, 1, 3), from(3, 1, 2)}},
		"a part is in another": {[]Reply{reply(1, 0, 1), reply(2, 0, 2, 3), reply(3, 0, 3)}, []Repair{from(1, 2), from(2, 1), from(3, 1, 2)}},
		"a larger n":           {[]Reply{wide, reply(2, 0, 1)}, []Repair{from(2, 1)}},
		"rounds of reaping":    {[]Reply{reply(1, 7), reply(2, 6, 1)}, []Repair{from(1, 2)}},
		"a disk set back":      {[]Reply{reply(1, 7), fallen(reply(2, 6, 1)), reply(3, 7, 2)}, []Repair{from(1, 3)}},
		"catching up":          {[]Reply{reply(1, 7), fallen(reply(2, 7, 1))}, []Repair{from(1, 2)}},
		"all catching up":      {[]Reply{fallen(reply(1, 7)), fallen(reply(2, 6, 1))}, []Repair{from(1, 2)}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := plan(c.replies); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Who does as planned, in any order, ends up with all of it; and nobody fetches
// without need, or from itself.
func TestPlanIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 6).Draw(t, "owners")
		replies := make([]Reply, 0, n)
		var merged kv.Record
		for i := range n {
			actors := rapid.SliceOfNDistinct(rapid.IntRange(1, 6), 0, 4, rapid.ID[int]).Draw(t, "writes")
			r := Reply{From: kv.NodeID(i + 1), Standing: true}
			for _, a := range actors {
				r.Record = r.Record.Merge(wrote(vclock.Actor(a)))
			}
			replies = append(replies, r)
			merged = merged.Merge(r.Record)
		}
		repairs := plan(replies)
		held := func(id kv.NodeID) *kv.Record {
			return &replies[slices.IndexFunc(replies, func(r Reply) bool { return r.From == id })].Record
		}
		before := slices.Clone(replies)
		for _, p := range rapid.Permutation(repairs).Draw(t, "order") {
			record := held(p.Behind)
			for _, from := range p.Sources {
				i := slices.IndexFunc(before, func(r Reply) bool { return r.From == from })
				if from == p.Behind || record.Covers(before[i].Record) {
					t.Errorf("%v fetches from %v without need", p.Behind, from)
				}
				*record = record.Merge(before[i].Record)
			}
		}
		for _, r := range replies {
			if !r.Record.Covers(merged) {
				t.Errorf("%v is still behind after %v", r.From, repairs)
			}
		}
	})
}
