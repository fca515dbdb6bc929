package reap

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

func anyTime(t *rapid.T, label string) time.Time {
	if ms := rapid.Int64Range(0, maxMillis).Draw(t, label); ms > 0 {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}

func anyItem() *rapid.Generator[Item] {
	dots := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) vclock.Dot {
		return vclock.Dot{
			Actor:   vclock.Actor(rapid.Uint64Min(1).Draw(t, "actor")),
			Counter: rapid.Uint64Min(1).Draw(t, "counter"),
		}
	}), 0, 4)
	return rapid.Custom(func(t *rapid.T) Item {
		it := Item{
			Key:    kv.Key{Bucket: "b", Name: rapid.StringN(1, 20, 100).Draw(t, "name")},
			Digest: rapid.Uint64().Draw(t, "digest"), Due: anyTime(t, "due"),
		}
		it.Forget, it.Fold = anyTime(t, "forget"), rapid.Bool().Draw(t, "fold")
		if drop := dots.Draw(t, "drop"); len(drop) > 0 {
			it.Drop = drop
		}
		return it
	})
}

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Request{
			View: rapid.Uint64().Draw(t, "view"), Lives: rapid.Uint64().Draw(t, "lives"), Partition: rapid.Uint16().Draw(t, "partition"),
			Number: rapid.Uint64Min(1).Draw(t, "number"), Items: rapid.SliceOfN(anyItem(), 1, 5).Draw(t, "items"),
		}
		got, err := DecodeRequest(r.Append(nil))
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%+v came back as %+v, %v", r, got, err)
		}
	})
}

func TestReplyRoundTrip(t *testing.T) {
	for _, r := range []Reply{
		{Number: 7, Done: []bool{true, false, true}},
		{Refusal: RefusedNumber, Number: 1 << 60},
		{Refusal: RefusedView},
		{Refusal: RefusedStanding},
		{Refusal: RefusedLives, Number: 7},
	} {
		got, err := DecodeReply(r.Append(nil))
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	item := Item{Key: kv.Key{Bucket: "b", Name: "k"}}
	items := func(n int) []Item {
		all := make([]Item, n)
		for i := range all {
			all[i] = item
		}
		return all
	}
	whole := Request{Number: 1, Items: items(1)}.Append(nil)
	for name, b := range map[string][]byte{
		"nothing":         {},
		"another version": append([]byte{messageVersion + 1}, whole[1:]...),
		"cut":             whole[:len(whole)-1],
		"trailing":        append(bytes.Clone(whole), 0),
		"no items":        Request{Number: 1}.Append(nil),
		"too many items":  Request{Number: 1, Items: items(MaxItems + 1)}.Append(nil),
		"number zero":     Request{Items: items(1)}.Append(nil),
		"bad key":         Request{Number: 1, Items: []Item{{Key: kv.Key{Bucket: "/", Name: "k"}}}}.Append(nil),
	} {
		if r, err := DecodeRequest(b); err == nil {
			t.Errorf("%s: decoded as %+v", name, r)
		}
	}
	for name, r := range map[string]Reply{
		"neither":          {},
		"both":             {Refusal: RefusedView, Done: []bool{true}},
		"unknown refusal":  {Refusal: RefusedLives + 1},
		"too many answers": {Done: make([]bool, MaxItems+1)},
	} {
		if got, err := DecodeReply(r.Append(nil)); err == nil {
			t.Errorf("%s: decoded as %+v", name, got)
		}
	}
	late := Request{Number: 1, Items: []Item{{Key: item.Key, Due: time.UnixMilli(maxMillis + 1)}}}
	if _, err := DecodeRequest(late.Append(nil)); !errors.Is(err, wire.ErrBadValue) {
		t.Errorf("a time beyond all times: %v", err)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add(Request{Number: 1, Items: []Item{{Key: kv.Key{Bucket: "b", Name: "k"}, Due: time.UnixMilli(5)}}}.Append(nil))
	f.Add(Request{View: 3, Partition: 9, Number: 300, Items: []Item{{
		Key: kv.Key{Bucket: "b", Name: "k\x00"}, Digest: 12,
		Reaping: kv.Reaping{Drop: []vclock.Dot{{Actor: 1, Counter: 2}}, Forget: time.UnixMilli(8), Fold: true},
	}}}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRequest(b)
		if err != nil {
			return
		}
		if again := r.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %+v, which is %x", b, r, again)
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	f.Add(Reply{Number: 7, Done: []bool{true, false}}.Append(nil))
	f.Add(Reply{Refusal: RefusedStanding}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeReply(b)
		if err != nil {
			return
		}
		if again := r.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %+v, which is %x", b, r, again)
		}
	})
}
