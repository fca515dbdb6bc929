package reap

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// noon is the time at which records are judged here.
var noon = time.UnixMilli(1 << 40)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// draft is a sibling to be written.
type draft struct {
	deletes bool
	written time.Time
	expires time.Time
	id      kv.WriteID
	beside  bool // replaces nothing
}

func idAt(t time.Time) kv.WriteID { return kv.NewWriteID(t, func() uint64 { return 0 }) }

// recordOf writes the drafts one after the other, each under an actor of its
// own: 1, 2 and so on.
func recordOf(drafts ...draft) kv.Record {
	var r kv.Record
	for i, d := range drafts {
		s := kv.Sibling{Kind: kv.KindValue, N: 3, Stamp: kv.HLC(0).Next(d.written), WriteID: d.id}
		if d.deletes {
			s.Kind = kv.KindTombstone
		}
		if !d.expires.IsZero() {
			s.Expires = d.expires.UnixMilli()
		}
		seen := r.Clock
		if d.beside {
			seen = nil
		}
		r, _ = r.Put(s, seen, uint64(i), func() vclock.Actor { return vclock.Actor(i + 1) }, time.Time{})
	}
	return r
}

func rewritten(n int, last draft) kv.Record {
	return recordOf(append(slices.Repeat([]draft{{written: ago(time.Hour)}}, n), last)...)
}

func dots(actors ...vclock.Actor) []vclock.Dot {
	list := make([]vclock.Dot, len(actors))
	for i, a := range actors {
		list[i] = vclock.Dot{Actor: a, Counter: 1}
	}
	return list
}

func TestJudge(t *testing.T) {
	const day = 24 * time.Hour
	ms := time.Millisecond
	id := idAt(ago(5 * time.Minute))
	young := idAt(ago(3 * time.Minute))
	for _, tt := range []struct {
		name   string
		record kv.Record
		want   kv.Reaping
		due    time.Time
	}{
		{"nothing", kv.Record{}, kv.Reaping{}, time.Time{}},
		{"a value", recordOf(draft{written: ago(10 * day)}), kv.Reaping{}, time.Time{}},
		{"an old tombstone", recordOf(draft{deletes: true, written: ago(day)}), kv.Reaping{Drop: dots(1)}, time.Time{}},
		{"a young tombstone", recordOf(draft{deletes: true, written: ago(day - ms)}), kv.Reaping{}, time.Time{}},
		{
			"an old tombstone beside a value",
			recordOf(draft{written: ago(2 * day)}, draft{deletes: true, written: ago(2 * day), beside: true}),
			kv.Reaping{},
			time.Time{},
		},
		{
			"two tombstones, one young",
			recordOf(draft{deletes: true, written: ago(2 * day)}, draft{deletes: true, written: ago(time.Hour), beside: true}),
			kv.Reaping{},
			time.Time{},
		},
		{
			"an expired value", recordOf(draft{written: ago(time.Hour), expires: ago(time.Minute)}),
			kv.Reaping{Drop: dots(1)},
			noon,
		},
		{
			"one that a slow clock may show yet", recordOf(draft{written: ago(time.Hour), expires: ago(time.Minute - ms)}),
			kv.Reaping{},
			time.Time{},
		},
		{
			"one of two", recordOf(draft{written: ago(time.Hour), expires: ago(2 * time.Minute)}, draft{written: ago(time.Hour), beside: true}),
			kv.Reaping{Drop: dots(1)},
			ago(time.Minute),
		},
		{
			"and an old tombstone",
			recordOf(draft{written: ago(2 * day), expires: ago(day)}, draft{deletes: true, written: ago(2 * day), beside: true}),
			kv.Reaping{Drop: dots(1, 2)},
			ago(day - time.Minute),
		},
		{
			"and a young tombstone",
			recordOf(draft{written: ago(2 * day), expires: ago(day)}, draft{deletes: true, written: ago(time.Hour), beside: true}),
			kv.Reaping{Drop: dots(1)},
			ago(day - time.Minute),
		},
		{
			"two attempts, one of which lives on",
			recordOf(draft{written: ago(time.Hour), expires: ago(2 * time.Minute), id: id},
				draft{written: ago(time.Hour), expires: ago(0), id: id, beside: true}, draft{written: ago(time.Hour), beside: true}),
			kv.Reaping{},
			time.Time{},
		},
		{
			"a tombstone with an id that is refused", recordOf(draft{deletes: true, written: ago(day), id: id}),
			kv.Reaping{Drop: dots(1), Forget: id.Issued().Add(ms)},
			ago(time.Minute),
		},
		{"with one that is not", recordOf(draft{deletes: true, written: ago(day), id: young}), kv.Reaping{}, time.Time{}},
		{
			"what the tombstone replaced has one that is not",
			recordOf(draft{written: ago(day), id: young}, draft{deletes: true, written: ago(day)}),
			kv.Reaping{},
			time.Time{},
		},
		{
			"one that is not was forgotten",
			recordOf(draft{written: ago(day), id: young}, draft{deletes: true, written: ago(day)}).Reaped(kv.Reaping{Forget: noon}),
			kv.Reaping{},
			time.Time{},
		},
		{"sixteen dead entries", rewritten(16, draft{written: ago(10 * time.Second)}), kv.Reaping{Fold: true}, time.Time{}},
		{"fifteen", rewritten(15, draft{written: ago(time.Hour)}), kv.Reaping{}, time.Time{}},
		{"while it is written", rewritten(16, draft{written: ago(9 * time.Second)}), kv.Reaping{}, time.Time{}},
		{
			"under an id that is refused", rewritten(16, draft{written: ago(time.Hour), id: id}),
			kv.Reaping{Fold: true, Forget: id.Issued().Add(ms)},
			ago(time.Minute),
		},
		{"under one that is not", rewritten(16, draft{written: ago(time.Hour), id: young}), kv.Reaping{Fold: true}, time.Time{}},
		{
			"one of two has expired", rewritten(16, draft{written: ago(time.Hour), expires: ago(time.Hour), beside: true}),
			kv.Reaping{Drop: dots(17), Fold: true},
			ago(time.Hour - time.Minute),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, due, ok := Rules{}.withDefaults().judge(tt.record, noon)
			if want := len(tt.want.Drop) > 0 || tt.want.Fold; ok != want {
				t.Fatalf("worth a round: %v", ok)
			}
			if ok && (!reflect.DeepEqual(got, tt.want) || !due.Equal(tt.due)) {
				t.Errorf("%+v, due %v; want %+v, due %v", got, due, tt.want, tt.due)
			}
		})
	}
}

// TestNext: what is not due by next is not, and what it says never to be due
// never is.
func TestNext(t *testing.T) {
	rules := Rules{After: 20 * time.Second, Skew: 5 * time.Second, IDMemory: 10 * time.Second, FoldEntries: 3, FoldQuiet: 4 * time.Second}
	rapid.Check(t, func(t *rapid.T) {
		seconds := func(label string, most int) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Second
		}
		r := recordOf(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) draft {
			d := draft{written: ago(seconds("written", 60)), deletes: rapid.Bool().Draw(t, "deletes"), beside: rapid.Bool().Draw(t, "beside")}
			if !d.deletes && rapid.Bool().Draw(t, "expires") {
				d.expires = d.written.Add(seconds("ttl", 60))
			}
			if rapid.Bool().Draw(t, "id") {
				d.id = kv.NewWriteID(d.written, func() uint64 { return rapid.Uint64().Draw(t, "random") })
			}
			return d
		}), 1, 6).Draw(t, "drafts")...)
		next := rules.next(r)
		for after := range 100 {
			now := noon.Add(time.Duration(after) * time.Second)
			_, due, ok := rules.judge(r, now)
			if ok && (next.IsZero() || now.Before(next)) {
				t.Fatalf("worth a round at %v, said to be at %v", now, next)
			}
			if ok && due.After(now) {
				t.Fatalf("judged at %v, due at %v", now, due)
			}
		}
	})
}

func ExampleRefusal() {
	fmt.Println(&RefusedError{Reason: RefusedStanding, Number: 7})
	// Output: refused under reap number 7: it has not caught up
}
