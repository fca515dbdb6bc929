package kv

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestKeyValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		key  Key
		want string // part of the error, "" for none
	}{
		{"plain", Key{"carts", "user-1"}, ""},
		{"every kind of bucket character", Key{"Az09._-", "k"}, ""},
		{"bucket at the limit", Key{strings.Repeat("b", MaxBucketBytes), "k"}, ""},
		{"name at the limit", Key{"b", strings.Repeat("k", MaxKeyBytes)}, ""},
		{"name of any bytes", Key{"b", "\x00\xff/../%2e"}, ""},
		{"three dots", Key{"...", "k"}, ""},
		{"no bucket", Key{"", "k"}, "1 to 128 characters"},
		{"bucket over the limit", Key{strings.Repeat("b", MaxBucketBytes+1), "k"}, "this one has 129"},
		{"slash in bucket", Key{"a/b", "k"}, "use letters"},
		{"space in bucket", Key{"a b", "k"}, "use letters"},
		{"NUL in bucket", Key{"a\x00b", "k"}, "use letters"},
		{"letter beyond ASCII in bucket", Key{"körbe", "k"}, "use letters"},
		{"bucket that is not UTF-8", Key{"\xff", "k"}, "use letters"},
		{"bucket .", Key{".", "k"}, "not allowed"},
		{"bucket ..", Key{"..", "k"}, "not allowed"},
		{"no name", Key{"b", ""}, "the key is empty"},
		{"name over the limit", Key{"b", strings.Repeat("k", MaxKeyBytes+1)}, "hash or shorten it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.key.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestKeyString(t *testing.T) {
	for want, key := range map[string]Key{
		`carts/user-1`:       {"carts", "user-1"},
		`carts/grüße/a b`:    {"carts", "grüße/a b"},
		`carts/"a\nb"`:       {"carts", "a\nb"},
		`carts/"\xff\x00"`:   {"carts", "\xff\x00"},
		`carts/"say \"hi\""`: {"carts", `say "hi"`},
		`carts/"C:\\x"`:      {"carts", `C:\x`},
	} {
		if got := key.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestKeyHash(t *testing.T) {
	// Where keys lie on every disk: the hash may never change.
	if got, want := (Key{"carts", "user-1"}).Hash(), uint64(0xcac422a33e1c3f1a); got != want {
		t.Errorf("hash %#x, want %#x", got, want)
	}
	if (Key{"ab", "c"}).Hash() == (Key{"a", "bc"}).Hash() {
		t.Error("bucket and name run into each other")
	}
	long := Key{"b", strings.Repeat("k", MaxKeyBytes)}
	if long.Hash() == (Key{"b", long.Name[1:]}).Hash() {
		t.Error("names beyond the buffer are cut")
	}
	short := Key{"carts", "user-1"}
	if n := testing.AllocsPerRun(100, func() { short.Hash() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNodeID(t *testing.T) {
	id := NodeID(0xabc)
	if got := id.String(); got != "0000000000000abc" {
		t.Error(got)
	}
	b, err := json.Marshal(id)
	if err != nil || string(b) != `"0000000000000abc"` {
		t.Errorf("%s, %v", b, err)
	}
	var back NodeID
	if err := json.Unmarshal(b, &back); err != nil || back != id {
		t.Errorf("%v, %v", back, err)
	}
	for _, bad := range []string{
		"", "abc", "0000000000000abcd", "000000000000xabc", "+000000000000abc", "0x00000000000abc", "0_00000000000abc",
	} {
		if got, err := ParseNodeID(bad); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
	if err := json.Unmarshal([]byte(`"abc"`), &back); err == nil || back != id {
		t.Errorf("a bad text gave %v, %v", back, err)
	}
}
