package peer

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

var update = flag.Bool("update", false, "write the golden files of this version")

// decoders are the decoders of all messages of this package, by name.
var decoders = map[string]func([]byte) (message, error){
	"pull-keys":   func(b []byte) (message, error) { return DecodePullRequest(b) },
	"pull-leaves": func(b []byte) (message, error) { return DecodePullRequest(b) },
	"pull-reply":  func(b []byte) (message, error) { return DecodePullReply(b) },
	"nudge":       func(b []byte) (message, error) { return DecodeNudgeRequest(b) },
	"nudge-reply": func(b []byte) (message, error) { return DecodeNudgeReply(b) },
}

// samples are messages whose encodings are pinned, by name.
var samples = map[string]message{
	"pull-keys": PullRequest{
		Fence: coordinator.Fence{Digest: 0x0102030405060708, Full: []byte("view")}, StandIn: true,
		Reap: []ReapNumber{{Partition: 1, Number: 300}, {Partition: 1023, Number: 1}},
		Keys: []kv.Key{key, {Bucket: "b", Name: "a\x00key"}},
	},
	"pull-leaves": PullRequest{
		Fence: coordinator.Fence{Digest: 1, Full: []byte{}}, Keys: []kv.Key{}, Partition: 0x0102, Leaves: []byte{0, 7, 255}, After: key,
	},
	"pull-reply": PullReply{
		Parcels: []kv.Parcel{{Key: key, Reap: 300, Record: []byte("record")}, {Key: key, Record: []byte{}}},
		Taken:   2, More: true, Damaged: true,
	},
	"nudge":       NudgeRequest{Fence: coordinator.Fence{Digest: 1, Full: []byte{}}, From: 0xfeed, Keys: []kv.Key{key}, StandIn: true},
	"nudge-reply": NudgeReply{Held: []bool{true, false}, Room: 300, Pause: 100 * time.Millisecond},
}

// TestGolden pins the bytes of version 1, which travel between nodes of
// different builds.
func TestGolden(t *testing.T) {
	for name, m := range samples {
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

func anyFence(t *rapid.T) coordinator.Fence {
	return coordinator.Fence{Digest: rapid.Uint64().Draw(t, "digest"), Full: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "full")}
}

func anyKeys(t *rapid.T, least int) []kv.Key {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) kv.Key {
		return kv.Key{
			Bucket: rapid.StringMatching(`[A-Za-z0-9_-]{1,9}`).Draw(t, "bucket"),
			Name:   string(rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "name")),
		}
	}), least, 4).Draw(t, "keys")
}

func anyNumbers(t *rapid.T) []ReapNumber {
	var list []ReapNumber //nolint:prealloc // nil is the form of none
	for _, p := range rapid.SliceOfNDistinct(rapid.Uint16(), 0, 4, rapid.ID[uint16]).Draw(t, "partitions") {
		list = append(list, ReapNumber{Partition: p, Number: rapid.Uint64().Draw(t, "number")})
	}
	slices.SortFunc(list, func(a, b ReapNumber) int { return int(a.Partition) - int(b.Partition) })
	return list
}

var anyMessage = map[string]func(*rapid.T) message{
	"pull-keys": func(t *rapid.T) message {
		return PullRequest{Fence: anyFence(t), Reap: anyNumbers(t), Keys: anyKeys(t, 1), StandIn: rapid.Bool().Draw(t, "stand-in")}
	},
	"pull-leaves": func(t *rapid.T) message {
		leaves := rapid.SliceOfNDistinct(rapid.Byte(), 1, 9, rapid.ID[byte]).Draw(t, "leaves")
		slices.Sort(leaves)
		r := PullRequest{
			Fence: anyFence(t), Reap: anyNumbers(t), Keys: []kv.Key{}, Partition: rapid.Uint16().Draw(t, "partition"), Leaves: leaves,
		}
		if rapid.Bool().Draw(t, "after") {
			r.After = anyKeys(t, 1)[0]
		}
		return r
	},
	"pull-reply": func(t *rapid.T) message {
		r := PullReply{
			Parcels: []kv.Parcel{}, Taken: rapid.IntRange(0, maxKeys).Draw(t, "taken"),
			More: rapid.Bool().Draw(t, "more"), Damaged: rapid.Bool().Draw(t, "damaged"),
		}
		for _, k := range anyKeys(t, 0) {
			record := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "record")
			r.Parcels = append(r.Parcels, kv.Parcel{Key: k, Reap: rapid.Uint64().Draw(t, "reap"), Record: record})
		}
		return r
	},
	"nudge": func(t *rapid.T) message {
		return NudgeRequest{
			Fence: anyFence(t), From: kv.NodeID(rapid.Uint64().Draw(t, "from")), Keys: anyKeys(t, 1), StandIn: rapid.Bool().Draw(t, "stand-in"),
		}
	},
	"nudge-reply": func(t *rapid.T) message {
		return NudgeReply{
			Held: rapid.SliceOfN(rapid.Bool(), 0, 9).Draw(t, "held"), Room: rapid.IntRange(0, maxKeys).Draw(t, "room"),
			Pause: time.Duration(rapid.IntRange(0, 10_000).Draw(t, "pause")) * time.Millisecond,
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
	for name, m := range map[string]message{
		"nothing asked for":   PullRequest{},
		"numbers out of turn": PullRequest{Keys: []kv.Key{key}, Reap: []ReapNumber{{Partition: 2}, {Partition: 1}}},
		"leaves out of turn":  PullRequest{Leaves: []byte{2, 1}},
		"a leaf twice":        PullRequest{Leaves: []byte{2, 2}},
		"too many keys":       PullRequest{Keys: slices.Repeat([]kv.Key{key}, maxKeys+1)},
		"a bad key":           PullRequest{Keys: []kv.Key{{Bucket: "a/b", Name: "k"}}},
		"a bad place":         PullRequest{Leaves: []byte{1}, After: kv.Key{Bucket: "b"}},
	} {
		if got, err := DecodePullRequest(m.Append(nil)); err == nil {
			t.Errorf("%s: decodes to %+v", name, got)
		}
	}
	if got, err := DecodeNudgeRequest(NudgeRequest{}.Append(nil)); err == nil {
		t.Errorf("a nudge for nothing: %+v", got)
	}
	whole := samples["pull-keys"].Append(nil)
	if got, err := DecodePullRequest(append([]byte{messageVersion + 1}, whole[1:]...)); err == nil {
		t.Errorf("another version: %+v", got)
	}
}

// fuzz checks that a decoder survives anything, and that what it takes has one
// encoding.
func fuzz(f *testing.F, name string) {
	f.Helper()
	f.Add(samples[name].Append(nil))
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

func FuzzPullKeys(f *testing.F)   { fuzz(f, "pull-keys") }
func FuzzPullLeaves(f *testing.F) { fuzz(f, "pull-leaves") }
func FuzzPullReply(f *testing.F)  { fuzz(f, "pull-reply") }
func FuzzNudge(f *testing.F)      { fuzz(f, "nudge") }
func FuzzNudgeReply(f *testing.F) { fuzz(f, "nudge-reply") }
