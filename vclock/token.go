package vclock

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/internal/wire"
)

// Token is the causal context that a client carries from one request on a key
// to the next.
//
// Seen is what the client's next write may replace; Floor is what its next
// reads must reflect. They are two things: the answer to a write tells the
// client that its own write happened (Floor), but not what values other
// writers have left beside it (Seen), and a client that replaced what it was
// never shown would destroy acknowledged writes.
//
// Reap is the reap number of the key's partition when the token was issued. If
// it has risen since, entries of Floor may be gone with what was reaped.
type Token struct {
	Seen, Floor Clock
	Reap        uint64
}

// Errors of [Keyring.Open]. All of them ask for the same remedy: read the key
// again and use the context of that answer.
var (
	ErrTokenMalformed = errors.New("context token is malformed")
	ErrTokenForged    = errors.New("context token was not issued by this cluster")
	ErrTokenForeign   = errors.New("context token belongs to another key")
	ErrTokenExpired   = errors.New("context token has expired")
)

const (
	tokenVersion = 1
	macSize      = 16
	// tokenEpoch is how long one signing key is in use. A token verifies under
	// the key of its epoch and during the one after, so for 30 to 60 days.
	tokenEpoch = 30 * 24 * time.Hour
	// tokenLimit bounds the text that is decoded at all: the limit of a header.
	tokenLimit = 64 << 10
)

// Keyring seals and opens tokens for one cluster. The signing key of each
// epoch derives from the cluster's secret, so that keys rotate on every node
// at the same time without being sent anywhere. It is safe for concurrent use.
type Keyring struct {
	secret  []byte
	cluster []byte
	now     func() time.Time
	// recent holds the last key of even and of odd epochs, so that both epochs in
	// use have their place: deriving costs more than signing.
	recent [2]atomic.Pointer[signingKey]
}

type signingKey struct {
	epoch   uint32
	signers sync.Pool // of *signer
}

// signer computes MACs under one key, one at a time. To make one costs as much
// as several MACs.
type signer struct {
	hash      hash.Hash
	name, sum []byte
}

func newSigningKey(epoch uint32, key []byte) *signingKey {
	k := &signingKey{epoch: epoch}
	k.signers.New = func() any { return &signer{hash: hmac.New(sha256.New, key)} }
	return k
}

// mac signs body as the token of a key in a bucket.
func (k *signingKey) mac(body []byte, bucket, key string) (mac [macSize]byte) {
	s, _ := k.signers.Get().(*signer) // the pool makes nothing else
	defer k.signers.Put(s)
	s.name = wire.AppendString(wire.AppendString(s.name[:0], bucket), key)
	s.hash.Reset()
	s.hash.Write(s.name)
	s.hash.Write(body)
	s.sum = s.hash.Sum(s.sum[:0])
	copy(mac[:], s.sum)
	return mac
}

// NewKeyring returns the keyring of the cluster with that id and secret. now
// gives the wall clock that decides which epoch it is.
func NewKeyring(secret, cluster []byte, now func() time.Time) *Keyring {
	return &Keyring{secret: slices.Clone(secret), cluster: slices.Clone(cluster), now: now}
}

// Seal returns the text of t, valid for the given bucket and key alone.
func (k *Keyring) Seal(t Token, bucket, key string) string {
	epoch := k.epoch()
	b := append(make([]byte, 0, 128), tokenVersion)
	b = binary.BigEndian.AppendUint32(b, epoch)
	b = binary.BigEndian.AppendUint32(b, k.binding(bucket, key))
	b = appendToken(b, t)
	mac := k.signingKey(epoch).mac(b, bucket, key)
	b = append(b, mac[:]...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Open verifies and decodes a token given for bucket and key. The error is one
// of ErrTokenMalformed, ErrTokenForged, ErrTokenForeign and ErrTokenExpired.
func (k *Keyring) Open(text, bucket, key string) (Token, error) {
	if len(text) > tokenLimit {
		return Token{}, fmt.Errorf("%w: longer than %d bytes", ErrTokenMalformed, tokenLimit)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	// Even the strict decoder skips line breaks, which would give one token
	// many texts.
	if err != nil || len(b) < 1+4+4+macSize || strings.ContainsAny(text, "\r\n") {
		return Token{}, ErrTokenMalformed
	}
	body, mac := b[:len(b)-macSize], b[len(b)-macSize:]
	r := wire.NewReader(body)
	if v := r.Byte(); v != tokenVersion {
		return Token{}, fmt.Errorf("%w: version %d is not known here", ErrTokenMalformed, v)
	}
	epoch := r.Uint32()
	if r.Uint32() != k.binding(bucket, key) {
		return Token{}, ErrTokenForeign
	}
	if want := k.signingKey(epoch).mac(body, bucket, key); !hmac.Equal(mac, want[:]) {
		return Token{}, ErrTokenForged
	}
	// Only a token of the past expires: one from a node whose clock is ahead is
	// authentic and names real events.
	if now := k.epoch(); epoch < now && now-epoch > 1 {
		return Token{}, ErrTokenExpired
	}
	t := readToken(r)
	if err := r.Close(); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrTokenMalformed, err)
	}
	return t, nil
}

func (k *Keyring) epoch() uint32 {
	return uint32(max(0, k.now().Unix()) / int64(tokenEpoch/time.Second))
}

// binding tells a token of another key apart from a forged one, for the sake
// of the message; the MAC is what binds.
func (k *Keyring) binding(bucket, key string) uint32 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(k.cluster)
	_, _ = d.WriteString(bucket)
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(key)
	return uint32(d.Sum64())
}

func (k *Keyring) signingKey(epoch uint32) *signingKey {
	recent := &k.recent[epoch%2]
	if last := recent.Load(); last != nil && last.epoch == epoch {
		return last
	}
	info := binary.BigEndian.AppendUint32([]byte("starling context token "), epoch)
	key, err := hkdf.Key(sha256.New, k.secret, k.cluster, string(info), sha256.Size)
	if err != nil {
		panic(err) // only for a length that SHA-256 cannot give
	}
	made := newSigningKey(epoch, key)
	recent.Store(made)
	return made
}

// appendToken writes the actors of both clocks once, then the two counters of
// each, zero where a clock has not seen the actor, and last the reap number.
func appendToken(dst []byte, t Token) []byte {
	all := t.Seen.Merge(t.Floor)
	dst = binary.AppendUvarint(dst, uint64(len(all)))
	for _, d := range all {
		dst = binary.BigEndian.AppendUint64(dst, uint64(d.Actor))
		dst = binary.AppendUvarint(dst, t.Seen.Counter(d.Actor))
		dst = binary.AppendUvarint(dst, t.Floor.Counter(d.Actor))
	}
	return binary.AppendUvarint(dst, t.Reap)
}

func readToken(r *wire.Reader) Token {
	n := r.Count(10, MaxActors)
	t := Token{Seen: make(Clock, 0, n), Floor: make(Clock, 0, n)}
	last := Actor(0)
	for range n {
		a := Actor(r.Uint64())
		seen, floor := r.Uvarint(), r.Uvarint()
		if a <= last || seen|floor == 0 {
			r.Fail(wire.ErrBadValue)
			return Token{}
		}
		last = a
		if seen > 0 {
			t.Seen = append(t.Seen, Dot{a, seen})
		}
		if floor > 0 {
			t.Floor = append(t.Floor, Dot{a, floor})
		}
	}
	t.Reap = r.Uvarint()
	return t
}
