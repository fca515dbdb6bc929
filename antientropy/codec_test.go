package antientropy

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/vclock"
)

var update = flag.Bool("update", false, "write the golden files of this version")

type message interface{ Append(dst []byte) []byte }

// decoders are the messages by name, with a decoder that hides the type.
var decoders = map[string]func([]byte) (message, error){
	"compare-request":  func(b []byte) (message, error) { return asMessage(DecodeCompareRequest(b)) },
	"compare-reply":    func(b []byte) (message, error) { return asMessage(DecodeCompareReply(b)) },
	"children-request": func(b []byte) (message, error) { return asMessage(DecodeChildrenRequest(b)) },
	"children-reply":   func(b []byte) (message, error) { return asMessage(DecodeChildrenReply(b)) },
	"keys-request":     func(b []byte) (message, error) { return asMessage(DecodeKeysRequest(b)) },
	"keys-reply":       func(b []byte) (message, error) { return asMessage(DecodeKeysReply(b)) },
}

func asMessage[M message](m M, err error) (message, error) { return m, err }

// samples are one typical message of each kind. Their encodings are golden:
// nodes of two versions talk to each other.
var samples = map[string]message{
	"compare-request": CompareRequest{
		Fence:  Fence{View: 0xfedcba9876543210, HashVersion: 1},
		Window: 2,
		Roots:  []Root{{1, 0x1122334455667788}, {2, 0}, {1023, 7}},
	},
	"compare-reply": CompareReply{
		Starts: 300,
		Behind: []uint16{7, 1023},
		Differ: []Difference{
			{Partition: 0, Count: 1000, Inner: merkle.Summary{0: 1, 15: 0x99}},
			{Partition: 2},
		},
	},
	"children-request": ChildrenRequest{
		Fence: Fence{View: 1, HashVersion: 1},
		Trees: []InnerNodes{
			{Partition: 1, Inner: []uint8{0, 15}},
			{Partition: 2, Inner: []uint8{8}},
		},
	},
	"children-reply": ChildrenReply{Starts: 1, Window: 3, Children: []merkle.Summary{{3: 4 << 32}, {}}},
	"keys-request": KeysRequest{
		Fence: Fence{View: 1, HashVersion: 1},
		Parts: []Listing{
			{Part: Part{Partition: 1, Leaf: 200}, Digests: []uint64{5, 1 << 63}},
			{Part: Part{Partition: 1, Leaf: 201, Bits: 10, Index: 1000}, Digests: []uint64{}},
		},
	},
	"keys-reply": KeysReply{
		Refusal: RefusedView,
		Starts:  2,
		Parts: []Contrast{
			{Unknown: []uint32{0, 500}, Extra: []Entry{
				{Key: kv.Key{Bucket: "b", Name: "a\x00key"}, Digest: 9, Clock: vclock.Clock{{Actor: 7, Counter: 300}}},
			}},
			{Unknown: []uint32{}, Extra: []Entry{}, Cut: true},
		},
	},
}

func TestMessagesAreEncodedAsBefore(t *testing.T) {
	for _, name := range sortedNames() {
		golden := filepath.Join("testdata", name+".v1.hex")
		encoded := samples[name].Append(nil)
		if *update {
			if err := os.WriteFile(golden, []byte(hex.EncodeToString(encoded)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || !bytes.Equal(encoded, want) {
			t.Errorf("%s is encoded as\n%x, not as\n%x (%v)", name, encoded, want, err)
		}
		back, err := decoders[name](want)
		if err != nil || !reflect.DeepEqual(back, samples[name]) {
			t.Errorf("%s was decoded as\n%+v, not as\n%+v (%v)", name, back, samples[name], err)
		}
	}
}

func TestCutMessagesAreRefused(t *testing.T) {
	for _, name := range sortedNames() {
		encoded := samples[name].Append(nil)
		for i := range encoded {
			if _, err := decoders[name](encoded[:i]); err == nil {
				t.Errorf("%s, cut to %d of %d bytes, was taken", name, i, len(encoded))
			}
		}
		if _, err := decoders[name](append(encoded, 0)); err == nil {
			t.Errorf("%s with a byte after its end was taken", name)
		}
	}
}

func TestSenselessMessagesAreRefused(t *testing.T) {
	for name, m := range map[string]struct {
		kind string
		msg  message
	}{
		"partitions fall":  {"compare-request", CompareRequest{Roots: []Root{{2, 1}, {1, 1}}}},
		"partition twice":  {"compare-request", CompareRequest{Roots: []Root{{2, 1}, {2, 1}}}},
		"unknown window":   {"compare-request", CompareRequest{Window: windows + 1}},
		"a clock too long": {"keys-reply", longClock{}},
		"unknown refusal":  {"compare-reply", CompareReply{Refusal: lastRefusal + 1}},
		"behind twice":     {"compare-reply", CompareReply{Behind: []uint16{4, 4}}},
		"difference twice": {"compare-reply", CompareReply{Differ: []Difference{{Partition: 4}, {Partition: 4}}}},
		"no inner nodes":   {"children-request", ChildrenRequest{Trees: []InnerNodes{{Partition: 1}}}},
		"inner tree twice": {"children-request", ChildrenRequest{Trees: []InnerNodes{{1, []uint8{1}}, {1, []uint8{2}}}}},
		"digests fall":     {"keys-request", KeysRequest{Parts: []Listing{{Digests: []uint64{2, 1}}}}},
		"slice out of range": {"keys-request", KeysRequest{
			Parts: []Listing{{Part: Part{Bits: 1, Index: 2}}},
		}},
		"too many slices": {"keys-request", KeysRequest{Parts: []Listing{{Part: Part{Bits: maxBits + 1}}}}},
		"places fall":     {"keys-reply", KeysReply{Parts: []Contrast{{Unknown: []uint32{2, 1}}}}},
		"a key that is none": {"keys-reply", KeysReply{
			Parts: []Contrast{{Extra: []Entry{{Key: kv.Key{Bucket: "b/c", Name: "k"}}}}},
		}},
	} {
		if got, err := decoders[m.kind](m.msg.Append(nil)); err == nil {
			t.Errorf("%s was taken as %+v", name, got)
		}
	}
}

func TestLargestMessagesPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.Uint8Range(0, maxBits).Draw(t, "bits")
		part := Part{Partition: rapid.Uint16().Draw(t, "partition"), Leaf: rapid.Uint8().Draw(t, "leaf"), Bits: bits}
		part.Index = rapid.Uint32Range(0, 1<<bits-1).Draw(t, "index")
		digests := rapid.SliceOf(rapid.Uint64()).Draw(t, "digests")
		slices.Sort(digests)
		req := KeysRequest{Parts: []Listing{{Part: part, Digests: append([]uint64{}, digests...)}}}
		back, err := DecodeKeysRequest(req.Append(nil))
		if err != nil || !reflect.DeepEqual(back, req) {
			t.Fatalf("%+v came back as %+v: %v", req, back, err)
		}
	})
}

// longClock is a reply with a clock of more actors than may travel.
type longClock struct{}

func (longClock) Append(dst []byte) []byte {
	c := make(vclock.Clock, maxClock+1)
	for i := range c {
		c[i] = vclock.Dot{Actor: vclock.Actor(i + 1), Counter: 1}
	}
	reply := KeysReply{Parts: []Contrast{{Extra: []Entry{{Key: keyAt(1), Clock: c}}}}}.Append(dst)
	return vclock.AppendClock(reply[:len(reply)-1], c) // in place of the clock that Append left out
}

// FuzzDecode holds that whatever is taken has one encoding: the one received.
func FuzzDecode(f *testing.F) {
	for i, name := range sortedNames() {
		f.Add(uint8(i), samples[name].Append(nil))
	}
	names := sortedNames()
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		m, err := decoders[names[int(kind)%len(names)]](b)
		if err != nil {
			return
		}
		if again := m.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x was decoded as %+v, which is encoded as %x", b, m, again)
		}
	})
}

func TestRefusalsAreErrors(t *testing.T) {
	if Refusal(0).Err() != nil {
		t.Error("no refusal is an error")
	}
	for r := RefusedView; r <= lastRefusal; r++ {
		if r.Err() == nil {
			t.Errorf("refusal %d is no error", r)
		}
	}
}

func sortedNames() []string {
	names := make([]string, 0, len(samples))
	for name := range samples {
		names = append(names, name)
	}
	slices.SortFunc(names, cmp.Compare)
	return names
}
