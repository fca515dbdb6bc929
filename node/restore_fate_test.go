package node

import (
	"testing"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
	"github.com/starling-kv/starling/vclock"
)

// TestFate: what a restore makes of a value follows from what lives, from what
// has been seen, and from the clock.
func TestFate(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	first, second, other := vclock.Dot{Actor: 1, Counter: 1}, vclock.Dot{Actor: 2, Counter: 1}, vclock.Dot{Actor: 3, Counter: 1}
	id := kv.NewWriteID(now, func() uint64 { return 7 })
	value := kv.Sibling{Kind: kv.KindValue, WriteID: id}
	expires := func(in time.Duration) kv.Sibling {
		return kv.Sibling{Kind: kv.KindValue, Expires: now.Add(in).UnixMilli()}
	}
	both := kv.Record{IDs: []kv.IssuedID{{ID: id, Dots: []vclock.Dot{first, second}}}}
	seen := func(dots ...vclock.Dot) coordinator.Got {
		var got coordinator.Got
		for _, d := range dots {
			got.Token.Seen = got.Token.Seen.With(d)
		}
		return got
	}
	living := func(d vclock.Dot, s kv.Sibling) coordinator.Got {
		got := seen(d)
		got.Values = []coordinator.Value{{Version: kv.Version{Dot: d, Value: s}}}
		return got
	}
	for name, c := range map[string]struct {
		quarantined kv.Record
		sibling     kv.Sibling
		got         coordinator.Got
		want        string
	}{
		"nobody has seen it":         {sibling: value, got: seen(other), want: api.BecameRestored},
		"it lives":                   {sibling: value, got: living(first, value), want: api.BecameThere},
		"another attempt lives":      {sibling: value, got: living(second, value), want: api.BecameThere},
		"it was replaced":            {sibling: value, got: seen(first), want: api.BecameReplaced},
		"another attempt was":        {quarantined: both, sibling: value, got: seen(second), want: api.BecameReplaced},
		"another attempt is unknown": {quarantined: both, sibling: value, got: seen(other), want: api.BecameRestored},
		"a tombstone":                {sibling: kv.Sibling{Kind: kv.KindTombstone}, got: seen(other), want: api.BecameDelete},
		"expired":                    {sibling: expires(-time.Second), want: api.BecameExpired},
		"about to expire":            {sibling: expires(coordinator.MinTTL - 1), want: api.BecameExpired},
		"expires later":              {sibling: expires(coordinator.MinTTL), want: api.BecameRestored},
	} {
		if got := fate(c.quarantined, kv.Version{Dot: first, Value: c.sibling}, c.got, now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestStands: only what a reader cannot tell from a value, and is shown for as
// long, stands for it.
func TestStands(t *testing.T) {
	value := func(change func(*coordinator.Value)) coordinator.Value {
		v := coordinator.Value{Data: []byte("milk")}
		v.Value = kv.Sibling{ContentType: "text/plain", Meta: []kv.Meta{{Name: "a", Value: "b"}}, Expires: 100_000}
		change(&v)
		return v
	}
	same := value(func(*coordinator.Value) {})
	for name, c := range map[string]struct {
		change func(*coordinator.Value)
		want   bool
	}{
		"the same":              {func(*coordinator.Value) {}, true},
		"for ever":              {func(v *coordinator.Value) { v.Value.Expires = 0 }, true},
		"later":                 {func(v *coordinator.Value) { v.Value.Expires = 200_000 }, true},
		"by another clock":      {func(v *coordinator.Value) { v.Value.Expires = 99_000 }, true},
		"sooner":                {func(v *coordinator.Value) { v.Value.Expires = 98_999 }, false},
		"other bytes":           {func(v *coordinator.Value) { v.Data = []byte("eggs") }, false},
		"another type":          {func(v *coordinator.Value) { v.Value.ContentType = "" }, false},
		"other metadata":        {func(v *coordinator.Value) { v.Value.Meta = nil }, false},
		"another write, though": {func(v *coordinator.Value) { v.Dot.Actor = 9 }, true},
	} {
		if got := stands(value(c.change), same); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	forever := value(func(v *coordinator.Value) { v.Value.Expires = 0 })
	if stands(same, forever) {
		t.Error("what expires stands for what does not")
	}
}

func TestWriteIDsOfARestore(t *testing.T) {
	restore := kv.NewWriteID(time.UnixMilli(7), func() uint64 { return 1 })
	ids := make(map[kv.WriteID]bool)
	for actor := range vclock.Actor(100) {
		id := writeIDOf(restore, vclock.Dot{Actor: actor, Counter: 1})
		if _, err := kv.ParseWriteID(id.String()); err != nil || id.Issued() != restore.Issued() || ids[id] {
			t.Fatalf("%v of %v: %v", id, restore, err)
		}
		ids[id] = true
		if id != writeIDOf(restore, vclock.Dot{Actor: actor, Counter: 1}) {
			t.Fatal("the same value has another id")
		}
	}
}
