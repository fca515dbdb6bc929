package vclock

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/internal/wire"
)

const day = 24 * time.Hour

// midEpoch lies 15 days into an epoch.
var midEpoch = time.Unix(0, 0).Add(700*tokenEpoch + tokenEpoch/2)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func keyring(t time.Time) *Keyring {
	return NewKeyring([]byte("a secret of the cluster"), []byte("cluster-1"), at(t))
}

func sampleToken() Token {
	return Token{Seen: Clock{{1, 5}, {9, 300}}, Floor: Clock{{1, 6}, {4, 1}, {9, 300}}, Reap: 200}
}

func sameToken(a, b Token) bool {
	return a.Seen.Equal(b.Seen) && a.Floor.Equal(b.Floor) && a.Reap == b.Reap
}

// TestTokenText pins version 1: clients carry such texts across an upgrade. The
// hash of more than 31 bytes takes another path.
func TestTokenText(t *testing.T) {
	for key, want := range map[string]string{
		"k":                     "AQAAArxweJ8TAwAAAAAAAAABBQYAAAAAAAAABAABAAAAAAAAAAmsAqwCyAFFgJ-ov_VK0D6VDmvOO1nl",
		strings.Repeat("k", 32): "AQAAArxbz4NkAwAAAAAAAAABBQYAAAAAAAAABAABAAAAAAAAAAmsAqwCyAF6lkCBdWvlT89eMQCcCq_T",
	} {
		if got := keyring(midEpoch).Seal(sampleToken(), "carts", key); got != want {
			t.Errorf("sealed %s for %s, want %s", got, key, want)
		}
	}
}

func TestTokenRoundTrip(t *testing.T) {
	ring := keyring(midEpoch)
	rapid.Check(t, func(t *rapid.T) {
		token := Token{Seen: clocks().Draw(t, "seen"), Floor: clocks().Draw(t, "floor")}
		bucket, key := rapid.String().Draw(t, "bucket"), rapid.String().Draw(t, "key")
		got, err := ring.Open(ring.Seal(token, bucket, key), bucket, key)
		if err != nil || !sameToken(got, token) {
			t.Errorf("%v came back as %v, %v", token, got, err)
		}
	})
}

func TestTokenOfAnother(t *testing.T) {
	text := keyring(midEpoch).Seal(sampleToken(), "carts", "k")
	secret, cluster := []byte("a secret of the cluster"), []byte("cluster-1")
	for _, tt := range []struct {
		name        string
		ring        *Keyring
		bucket, key string
		want        error
	}{
		{"itself", NewKeyring(secret, cluster, at(midEpoch)), "carts", "k", nil},
		{"key", NewKeyring(secret, cluster, at(midEpoch)), "carts", "k2", ErrTokenForeign},
		{"bucket", NewKeyring(secret, cluster, at(midEpoch)), "cart", "k", ErrTokenForeign},
		{"split of bucket and key", NewKeyring(secret, cluster, at(midEpoch)), "cart", "sk", ErrTokenForeign},
		{"cluster", NewKeyring(secret, []byte("cluster-2"), at(midEpoch)), "carts", "k", ErrTokenForeign},
		{"secret", NewKeyring([]byte("another secret"), cluster, at(midEpoch)), "carts", "k", ErrTokenForged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := tt.ring.Open(text, tt.bucket, tt.key); !errors.Is(err, tt.want) {
				t.Errorf("opened as %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// TestTokenBindingIsNotTheSeal: the short hash of bucket and key is there for
// the message alone. Another key whose hash collides must still be refused.
func TestTokenBindingIsNotTheSeal(t *testing.T) {
	ring := keyring(midEpoch)
	b := unseal(t, ring.Seal(sampleToken(), "carts", "k"))
	other := unseal(t, ring.Seal(sampleToken(), "carts", "k2"))
	copy(b[5:9], other[5:9])
	if got, err := ring.Open(base64.RawURLEncoding.EncodeToString(b), "carts", "k2"); !errors.Is(err, ErrTokenForged) {
		t.Errorf("opened as %v, %v, want %v", got, err, ErrTokenForged)
	}
}

func TestTokenExpires(t *testing.T) {
	start := midEpoch.Add(-tokenEpoch / 2)
	for _, tt := range []struct {
		name           string
		sealed, opened time.Time
		want           error
	}{
		{"at once", midEpoch, midEpoch, nil},
		{"after 30 days", midEpoch, midEpoch.Add(30 * day), nil},
		{"after 61 days", midEpoch, midEpoch.Add(61 * day), ErrTokenExpired},
		{"first second of an epoch, after 60 days less a second", start, start.Add(60*day - time.Second), nil},
		{"first second of an epoch, after 60 days", start, start.Add(60 * day), ErrTokenExpired},
		{"last second of an epoch, after 30 days", start.Add(30*day - time.Second), start.Add(60*day - time.Second), nil},
		{"by a node a year ahead", midEpoch.Add(365 * day), midEpoch, nil},
		{"before 1970", time.Unix(-1, 0), time.Unix(1, 0), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := keyring(tt.sealed).Seal(sampleToken(), "carts", "k")
			if got, err := keyring(tt.opened).Open(text, "carts", "k"); !errors.Is(err, tt.want) {
				t.Errorf("opened as %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// TestKeyringTurnsWithTheEpoch: one keyring lives through the change of keys.
func TestKeyringTurnsWithTheEpoch(t *testing.T) {
	now := midEpoch
	ring := NewKeyring([]byte("secret"), []byte("cluster"), func() time.Time { return now })
	old := ring.Seal(sampleToken(), "b", "k")
	now = now.Add(30 * day)
	fresh := ring.Seal(sampleToken(), "b", "k")
	for _, text := range []string{old, fresh, old, fresh} {
		if _, err := ring.Open(text, "b", "k"); err != nil {
			t.Error(err)
		}
	}
	now = now.Add(30 * day)
	if _, err := ring.Open(old, "b", "k"); !errors.Is(err, ErrTokenExpired) {
		t.Errorf("old: %v, want %v", err, ErrTokenExpired)
	}
	if _, err := ring.Open(fresh, "b", "k"); err != nil {
		t.Errorf("fresh: %v", err)
	}
	// The keys that it keeps at hand are not taken for those of later epochs.
	startedNow := NewKeyring([]byte("secret"), []byte("cluster"), at(now))
	if _, err := startedNow.Open(ring.Seal(sampleToken(), "b", "k"), "b", "k"); err != nil {
		t.Errorf("another node refuses what is sealed in the third epoch: %v", err)
	}
}

func TestTokenChanged(t *testing.T) {
	ring := keyring(midEpoch)
	text := ring.Seal(sampleToken(), "carts", "k")
	sealed := unseal(t, text)
	refuse := func(what string, i int, changed string) {
		t.Helper()
		got, err := ring.Open(changed, "carts", "k")
		if !errors.Is(err, ErrTokenForged) && !errors.Is(err, ErrTokenMalformed) && !errors.Is(err, ErrTokenForeign) {
			t.Errorf("%s %d: opened as %v, %v", what, i, got, err)
		}
	}
	for i := range 8 * len(sealed) {
		b := bytes.Clone(sealed)
		b[i/8] ^= 1 << (i % 8)
		refuse("flipped bit", i, base64.RawURLEncoding.EncodeToString(b))
	}
	for i := range 1 + 4 + 4 + macSize {
		if got, err := ring.Open(base64.RawURLEncoding.EncodeToString(sealed[:i]), "carts", "k"); !errors.Is(err, ErrTokenMalformed) {
			t.Errorf("cut to %d bytes, too few for any token: opened as %v, %v", i, got, err)
		}
	}
	for i := range sealed {
		refuse("bytes cut to", i, base64.RawURLEncoding.EncodeToString(sealed[:i]))
	}
	for i := range text {
		refuse("text cut to", i, text[:i])
		refuse("newline at", i, text[:i]+"\n"+text[i:])
		refuse("character doubled at", i, text[:i+1]+text[i:])
	}
	refuse("padded", 0, text+"=")
	refuse("longer by", 1, base64.RawURLEncoding.EncodeToString(append(bytes.Clone(sealed), 0)))
	refuse("too long", 0, strings.Repeat("A", tokenLimit+1))
}

// TestTokenRefusesNoncanonical seals bodies that no node would write: a token
// of a node that is broken, not forged.
func TestTokenRefusesNoncanonical(t *testing.T) {
	ring := keyring(midEpoch)
	entry := func(actor, seen, floor byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, actor, seen, floor} }
	for name, body := range map[string][]byte{
		"nothing":            {},
		"actor zero":         append([]byte{1}, append(entry(0, 1, 1), 0)...),
		"neither counter":    append([]byte{1}, append(entry(1, 0, 0), 0)...),
		"repeated actor":     append(append([]byte{2}, entry(1, 1, 1)...), append(entry(1, 1, 1), 0)...),
		"descending actors":  append(append([]byte{2}, entry(2, 1, 1)...), append(entry(1, 1, 1), 0)...),
		"fewer than said":    append([]byte{2}, entry(1, 1, 1)...),
		"more than said":     append(append([]byte{1}, entry(1, 1, 1)...), 0, 0),
		"no reap number":     append([]byte{1}, entry(1, 1, 1)...),
		"count not minimal":  append(append([]byte{0x81, 0}, entry(1, 1, 1)...), 0),
		"count out of bound": {0xff, 0xff, 0xff, 0xff, 0x0f},
	} {
		sealed := unseal(t, ring.Seal(Token{}, "b", "k"))
		b := append(bytes.Clone(sealed[:9]), body...)
		mac := ring.signingKey(ring.epoch()).mac(b, "b", "k")
		b = append(b, mac[:]...)
		if got, err := ring.Open(base64.RawURLEncoding.EncodeToString(b), "b", "k"); !errors.Is(err, ErrTokenMalformed) {
			t.Errorf("%s: opened as %v, %v", name, got, err)
		}
	}
}

// TestTokenOfManyActors: the clock of a key that outlived a thousand boots
// still fits a header.
func TestTokenOfManyActors(t *testing.T) {
	c := make(Clock, 1000)
	for i := range c {
		c[i] = Dot{Actor(i+1) << 40, 1000}
	}
	ring := keyring(midEpoch)
	text := ring.Seal(Token{Seen: c, Floor: c}, "b", "k")
	if got, err := ring.Open(text, "b", "k"); err != nil || !got.Seen.Equal(c) || !got.Floor.Equal(c) {
		t.Errorf("%d characters: %v", len(text), err)
	}
}

// TestTokenLimit seals 4,912 entries of ten bytes, some of which take a byte more.
// With four of these the text has 65,536 characters, which is the limit.
func TestTokenLimit(t *testing.T) {
	ring := keyring(midEpoch)
	seal := func(longer int) string {
		seen := make(Clock, 4912)
		for i := range seen {
			seen[i] = Dot{Actor(i + 1), 1}
			if i < longer {
				seen[i].Counter = 1 << 7
			}
		}
		return ring.Seal(Token{Seen: seen}, "b", "k")
	}
	if text := seal(4); len(text) != 64<<10 {
		t.Fatalf("%d characters", len(text))
	} else if _, err := ring.Open(text, "b", "k"); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := ring.Open(seal(5), "b", "k"); !errors.Is(err, ErrTokenMalformed) {
		t.Errorf("over the limit: %v, want %v", err, ErrTokenMalformed)
	}
}

// FuzzOpen: whatever opens is what Seal writes for what it opened to.
func FuzzOpen(f *testing.F) {
	ring := keyring(midEpoch)
	for _, token := range []Token{{}, sampleToken(), {Floor: Clock{{1, 1}}}} {
		text := ring.Seal(token, "b", "k")
		f.Add(text)
		f.Add(text[:len(text)-1])
		f.Add(text[:5] + "\r\n" + text[5:])
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ring.Open(text, "b", "k")
		if err != nil {
			return
		}
		if sealed := ring.Seal(token, "b", "k"); sealed != text {
			t.Fatalf("%q opened to %v, which is sealed as %q", text, token, sealed)
		}
	})
}

// FuzzReadToken goes past the MAC: what is accepted is the one encoding.
func FuzzReadToken(f *testing.F) {
	for _, token := range []Token{{}, sampleToken(), {Seen: Clock{{1, 1}}}} {
		f.Add(appendToken(nil, token))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.NewReader(b)
		token := readToken(r)
		if r.Close() != nil {
			return
		}
		if again := appendToken(nil, token); !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %v, which is %x", b, token, again)
		}
	})
}

func unseal(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
