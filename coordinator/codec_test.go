package coordinator

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// message is what travels between nodes.
type message interface{ Append(dst []byte) []byte }

// decoders are the decoders of all messages, by name.
var decoders = map[string]func([]byte) (message, error){
	"fetch-request":   func(b []byte) (message, error) { return DecodeFetchRequest(b) },
	"fetch-reply":     func(b []byte) (message, error) { return DecodeFetchReply(b) },
	"store-request":   func(b []byte) (message, error) { return DecodeStoreRequest(b) },
	"value-request":   func(b []byte) (message, error) { return DecodeValueRequest(b) },
	"forward-request": func(b []byte) (message, error) { return DecodeForwardRequest(b) },
	"put-done":        func(b []byte) (message, error) { return DecodePutDone(b) },
}

func dot(actor vclock.Actor, counter uint64) vclock.Dot {
	return vclock.Dot{Actor: actor, Counter: counter}
}

// goldenMessages are messages whose encodings are pinned, by name.
func goldenMessages() map[string]message {
	id := kv.NewWriteID(time.UnixMilli(1_700_000_000_123), func() uint64 { return 0x1234 })
	record := kv.Record{NMax: 3}
	record.Clock = vclock.Clock{dot(3, 300)}
	record.Live = []kv.Version{{Dot: dot(3, 300), Value: kv.Sibling{
		Kind: kv.KindValue, N: 3, Stamp: 0x018bcfe5687b0000, Length: 5, Checksum: kv.Checksum([]byte("hello")), Inline: []byte("hello"),
	}}}
	fence := Fence{Digest: 0x0102030405060708, Full: []byte{}}
	token := vclock.Token{Seen: vclock.Clock{dot(1, 2)}, Floor: vclock.Clock{dot(1, 2), dot(3, 300)}}
	return map[string]message{
		"fetch-request": FetchRequest{Fence: Fence{Digest: 1, Full: []byte("view")}, Key: key, StandIn: true, Reap: 300},
		"fetch-reply":   FetchReply{Record: record, Standing: true, Reap: 9},
		"store-request": StoreRequest{
			Fence: fence, Key: key, Target: 0xfeed, Durability: DurabilityAsync, Reap: 9,
			Record: kv.AppendRecord(nil, record), Blobs: []kv.Blob{{Dot: dot(1, 2), Data: []byte("blob")}},
		},
		"value-request": ValueRequest{Fence: fence, Key: key, StandIn: true, Dot: dot(1, 2), Length: 1 << 20, Checksum: 0xfeed},
		"forward-request": ForwardRequest{
			Fence: fence, StandInFor: 0xfeed, Fresh: true,
			Put: Put{
				Key: key, Value: []byte("hello"), ContentType: "text/plain", Meta: []kv.Meta{{Name: "color", Value: "red"}, {Name: "size"}},
				Options: Options{
					N: 3, R: Exactly(2), W: All, Sloppy: true, Timeout: 2 * time.Second, Durability: DurabilitySync, Hedge: HedgeAll,
				},
				Token: token, WriteID: id, Overwrite: true, TTL: 90 * time.Second,
				Condition: Condition{IfMatch: []uint64{}, IfNoneMatch: []uint64{1, 2}, IfAbsent: true},
			},
		},
		"put-done": PutDone{
			Token: token, Dot: dot(3, 300), ETag: 0xfeed, Siblings: 2, Acked: []string{"n1", "n2"}, Hinted: []string{"n4 for n3"}, WriteID: id,
		},
	}
}

// TestGolden pins the bytes of version 1, which travel between nodes of
// different builds. If it fails, the format has changed: that takes a new
// version byte, and nodes that still speak the old one while a cluster is
// upgraded.
func TestGolden(t *testing.T) {
	for name, m := range goldenMessages() {
		file := filepath.Join("testdata", name+".v1.hex")
		if *update {
			if err := os.WriteFile(file, []byte(hex.EncodeToString(m.Append(nil))+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Append(nil); !bytes.Equal(got, want) {
			t.Errorf("%s encodes to\n%x\nwant\n%x", name, got, want)
		}
		if got, err := decoders[name](want); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s decodes to\n%+v, %v\nwant\n%+v", name, got, err, m)
		}
	}
}

// The generators make messages in the form in which they are decoded.

func anyFence(t *rapid.T) Fence {
	return Fence{Digest: rapid.Uint64().Draw(t, "digest"), Full: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "full")}
}

func anyKey(t *rapid.T) kv.Key {
	return kv.Key{
		Bucket: rapid.StringMatching(`[A-Za-z0-9_-]{1,9}`).Draw(t, "bucket"),
		Name:   string(rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "name")),
	}
}

func anyDot(t *rapid.T) vclock.Dot {
	return dot(vclock.Actor(rapid.Uint64Min(1).Draw(t, "actor")), rapid.Uint64Min(1).Draw(t, "counter"))
}

func anyClock(t *rapid.T) vclock.Clock {
	var c vclock.Clock
	for range rapid.IntRange(0, 3).Draw(t, "actors") {
		c = c.With(anyDot(t))
	}
	return c
}

func anyText(t *rapid.T) string { return rapid.StringN(0, 9, -1).Draw(t, "text") }

func anyBytes(t *rapid.T) []byte { return rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "bytes") }

func anyWriteID(t *rapid.T) kv.WriteID {
	if rapid.Bool().Draw(t, "no id") {
		return kv.WriteID{}
	}
	issued := time.UnixMilli(rapid.Int64Range(0, 1<<40).Draw(t, "issued"))
	return kv.NewWriteID(issued, func() uint64 { return rapid.Uint64().Draw(t, "random") })
}

func anyRecord(t *rapid.T) kv.Record {
	var r kv.Record
	for range rapid.IntRange(0, 3).Draw(t, "writes") {
		in := intent{Put: Put{Value: anyBytes(t)}, n: 3}
		if rapid.Bool().Draw(t, "tombstone") {
			in.Put = Put{Tombstone: true}
		}
		s := sibling(in, r, time.UnixMilli(1))
		s.Inline = append([]byte{}, s.Inline...)
		r, _ = r.Put(s, nil, 1, func() vclock.Actor { return anyDot(t).Actor }, time.Time{})
	}
	r.Mine = kv.Mine{}
	return r
}

func anyOptions(t *rapid.T) Options {
	count := func(name string) Count {
		return rapid.SampledFrom([]Count{{}, One, Quorum, All, Exactly(2), Exactly(kv.MaxN)}).Draw(t, name)
	}
	return Options{
		N: rapid.IntRange(1, kv.MaxN).Draw(t, "n"), R: count("r"), W: count("w"), Sloppy: rapid.Bool().Draw(t, "sloppy"),
		Timeout:    time.Duration(rapid.Int64Min(0).Draw(t, "timeout")),
		Durability: Durability(rapid.IntRange(0, 2).Draw(t, "durability")), Hedge: Hedge(rapid.IntRange(0, 2).Draw(t, "hedge")),
	}
}

func anyCondition(t *rapid.T) Condition {
	tags := rapid.OneOf(rapid.Just([]uint64(nil)), rapid.SliceOfN(rapid.Uint64(), 0, 3))
	return Condition{
		IfMatch: tags.Draw(t, "if-match"), IfMatchAny: rapid.Bool().Draw(t, "*"),
		IfNoneMatch: tags.Draw(t, "if-none-match"), IfAbsent: rapid.Bool().Draw(t, "absent"),
	}
}

func anyList[T any](t *rapid.T, item func(*rapid.T) T) []T {
	var list []T //nolint:prealloc // nil is the form of none
	for range rapid.IntRange(0, 3).Draw(t, "items") {
		list = append(list, item(t))
	}
	return list
}

func anyMeta(t *rapid.T) []kv.Meta {
	list := anyList(t, func(t *rapid.T) kv.Meta { return kv.Meta{Name: anyText(t), Value: anyText(t)} })
	slices.SortFunc(list, kv.CompareMeta)
	return slices.CompactFunc(list, func(a, b kv.Meta) bool { return a.Name == b.Name })
}

var anyMessage = map[string]func(*rapid.T) message{
	"fetch-request": func(t *rapid.T) message {
		return FetchRequest{
			Fence: anyFence(t), Key: anyKey(t), StandIn: rapid.Bool().Draw(t, "stand-in"),
			Reap: rapid.Uint64().Draw(t, "reap"),
		}
	},
	"fetch-reply": func(t *rapid.T) message {
		return FetchReply{Record: anyRecord(t), Standing: rapid.Bool().Draw(t, "standing"), Reap: rapid.Uint64().Draw(t, "reap")}
	},
	"store-request": func(t *rapid.T) message {
		return StoreRequest{
			Fence: anyFence(t), Key: anyKey(t), Target: kv.NodeID(rapid.Uint64().Draw(t, "target")), Reap: rapid.Uint64().Draw(t, "reap"),
			Record: anyBytes(t), Blobs: anyList(t, func(t *rapid.T) kv.Blob { return kv.Blob{Dot: anyDot(t), Data: anyBytes(t)} }),
		}
	},
	"value-request": func(t *rapid.T) message {
		return ValueRequest{
			Fence: anyFence(t), Key: anyKey(t), StandIn: rapid.Bool().Draw(t, "stand-in"), Dot: anyDot(t),
			Length: rapid.Uint64().Draw(t, "length"), Checksum: rapid.Uint64().Draw(t, "checksum"),
		}
	},
	"forward-request": func(t *rapid.T) message {
		tombstone, value := rapid.Bool().Draw(t, "tombstone"), anyBytes(t)
		ttl := time.Duration(rapid.Int64Range(0, int64(MaxTTL)).Draw(t, "ttl"))
		if tombstone {
			value, ttl = []byte{}, 0
		}
		return ForwardRequest{
			Fence: anyFence(t), StandInFor: kv.NodeID(rapid.Uint64().Draw(t, "for")), Fresh: rapid.Bool().Draw(t, "fresh"),
			Put: Put{
				Key: anyKey(t), Options: anyOptions(t), Tombstone: tombstone, Value: value, TTL: ttl,
				ContentType: anyText(t), Meta: anyMeta(t), Token: vclock.Token{Seen: anyClock(t), Floor: anyClock(t)},
				Overwrite: rapid.Bool().Draw(t, "overwrite"), WriteID: anyWriteID(t), Condition: anyCondition(t),
			},
		}
	},
	"put-done": func(t *rapid.T) message {
		return PutDone{
			Token: vclock.Token{Seen: anyClock(t), Floor: anyClock(t)}, Dot: anyDot(t), ETag: rapid.Uint64().Draw(t, "etag"),
			Siblings: rapid.IntRange(0, 100).Draw(t, "siblings"), WriteID: anyWriteID(t),
			Acked: anyList(t, anyText), Hinted: anyList(t, anyText),
		}
	},
}

func TestMessagesRoundTrip(t *testing.T) {
	for name, draw := range anyMessage {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := draw(t)
				b := m.Append([]byte("before"))
				got, err := decoders[name](bytes.TrimPrefix(b, []byte("before")))
				if err != nil || !reflect.DeepEqual(got, m) {
					t.Fatalf("%+v, %v\nwant\n%+v", got, err, m)
				}
				cut := rapid.IntRange(6, len(b)-1).Draw(t, "cut")
				if got, err := decoders[name](b[6:cut]); err == nil {
					t.Fatalf("%d of %d bytes decode to %+v", cut-6, len(b)-6, got)
				}
				if got, err := decoders[name](append(b[6:], 0)); err == nil {
					t.Fatalf("one byte more decodes to %+v", got)
				}
			})
		})
	}
}

// What a peer sends that makes no sense is refused.
func TestMessagesRefused(t *testing.T) {
	good, ok := goldenMessages()["forward-request"].(ForwardRequest)
	if !ok {
		t.Fatal("no golden forward")
	}
	bad := func(change func(*ForwardRequest)) []byte {
		r := good
		change(&r)
		return r.Append(nil)
	}
	unsorted := []kv.Meta{{Name: "b"}, {Name: "a"}}
	for name, b := range map[string][]byte{
		"another version": append([]byte{2}, good.Append(nil)[1:]...),
		"no key":          bad(func(r *ForwardRequest) { r.Put.Key.Name = "" }),
		"bad bucket":      bad(func(r *ForwardRequest) { r.Put.Key.Bucket = "a/b" }),
		"n=0":             bad(func(r *ForwardRequest) { r.Put.N = 0 }),
		"n=17":            bad(func(r *ForwardRequest) { r.Put.N = 17 }),
		"w=17":            bad(func(r *ForwardRequest) { r.Put.W = Exactly(17) }),
		"w=0":             bad(func(r *ForwardRequest) { r.Put.W = Exactly(0) }),
		"time":            bad(func(r *ForwardRequest) { r.Put.Timeout = -1 }),
		"durability":      bad(func(r *ForwardRequest) { r.Put.Durability = 3 }),
		"hedge":           bad(func(r *ForwardRequest) { r.Put.Hedge = 3 }),
		"tombstone":       bad(func(r *ForwardRequest) { r.Put.Tombstone = true }),
		"meta":            bad(func(r *ForwardRequest) { r.Put.Meta = unsorted }),
		"seen":            bad(func(r *ForwardRequest) { r.Put.Token.Seen = vclock.Clock{dot(2, 1), dot(1, 1)} }),
	} {
		if got, err := DecodeForwardRequest(b); err == nil {
			t.Errorf("%s: decodes to %+v", name, got)
		}
	}
}

func TestErrorsTravel(t *testing.T) {
	view := viewOf(t, layoutOf(t, 1, nil, member(0)))
	told := &kv.Error{
		Code: kv.CodeTimeout, Message: "m", Outcome: kv.Unknown, N: 3, W: 2, Acked: []string{"n1"}, Hinted: []string{"n4 for n2"},
		Failed: []kv.Failure{{Node: "n3", Reason: "r"}}, WriteID: "id", RetryAfter: 1500 * time.Millisecond,
	}
	for _, tt := range []struct {
		name   string
		err    error
		notRun bool
		same   func(error) bool
	}{
		{"stale", fmt.Errorf("wrapped: %w", &StaleViewError{View: view}), true, func(err error) bool {
			var stale *StaleViewError
			return errors.As(err, &stale) && stale.View.Digest() == view.Digest()
		}},
		{"not owner", ErrNotOwner, true, func(err error) bool { return errors.Is(err, ErrNotOwner) }},
		{"blobs", &MissingBlobsError{Dots: []vclock.Dot{dot(1, 2), dot(3, 4)}}, true, func(err error) bool {
			var missing *MissingBlobsError
			return errors.As(err, &missing) && slices.Equal(missing.Dots, []vclock.Dot{dot(1, 2), dot(3, 4)})
		}},
		{"reap", fmt.Errorf("wrapped: %w", &StaleReapError{Number: 300}), true, func(err error) bool {
			var stale *StaleReapError
			return errors.As(err, &stale) && stale.Number == 300
		}},
		{"client", fmt.Errorf("wrapped: %w", told), false, func(err error) bool {
			var e *kv.Error
			return errors.As(err, &e) && reflect.DeepEqual(e, told)
		}},
		{"other", errors.New("input/output error"), false, func(err error) bool { return err.Error() == "input/output error" }},
	} {
		got := DecodeError(AppendError(nil, tt.err))
		if !tt.same(got) || NotRun(got) != tt.notRun {
			t.Errorf("%s: %v (not run: %v)", tt.name, got, NotRun(got))
		}
		if text := got.Error(); text == "" {
			t.Errorf("%s: no text", tt.name)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": {}, "view": {errorStale, 9}, "dots": {errorBlobs, 1, 2}, "number": {errorReap, 1, 2},
		"no pause": {errorClient}, "json": {errorClient, 0, '{'},
	} {
		if err := DecodeError(b); err == nil || NotRun(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fuzz checks that a decoder survives anything, and that what it takes has one
// encoding.
func fuzz(f *testing.F, name string) {
	f.Helper()
	f.Add(goldenMessages()[name].Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decoders[name](b)
		if err != nil {
			return
		}
		if again := m.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%+v decodes from\n%x and encodes to\n%x", m, b, again)
		}
	})
}

func FuzzFetchRequest(f *testing.F)   { fuzz(f, "fetch-request") }
func FuzzFetchReply(f *testing.F)     { fuzz(f, "fetch-reply") }
func FuzzStoreRequest(f *testing.F)   { fuzz(f, "store-request") }
func FuzzValueRequest(f *testing.F)   { fuzz(f, "value-request") }
func FuzzForwardRequest(f *testing.F) { fuzz(f, "forward-request") }
func FuzzPutDone(f *testing.F)        { fuzz(f, "put-done") }

func FuzzError(f *testing.F) {
	f.Add(AppendError(nil, &StaleViewError{View: viewOf(f, layoutOf(f, 1, nil, member(0)))}))
	f.Add(AppendError(nil, &MissingBlobsError{Dots: []vclock.Dot{dot(1, 2)}}))
	f.Add(AppendError(nil, &StaleReapError{Number: 300}))
	f.Add(AppendError(nil, &kv.Error{Code: kv.CodeTimeout, RetryAfter: time.Second}))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := DecodeError(b)
		if err == nil {
			t.Fatal("no error")
		}
		again := DecodeError(AppendError(nil, err))
		if NotRun(err) && !NotRun(again) {
			t.Errorf("%v is not run, and passed on as %v", err, again)
		}
	})
}
