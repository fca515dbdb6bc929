package storage

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func sealed(key, payload string) []byte {
	return seal(kindWhole, []byte(key), append(newEnvelope(len(payload)), payload...))
}

func TestEnvelopeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, payload := rapid.String().Draw(t, "key"), rapid.String().Draw(t, "payload")
		k, got, err := unseal([]byte(key), sealed(key, payload))
		if err != nil || k != kindWhole || string(got) != payload {
			t.Fatalf("unsealed %d %q, %v, want %q", k, got, err, payload)
		}
	})
}

func TestEnvelopeNoticesEveryFlippedBit(t *testing.T) {
	envelope := sealed("key", "a payload of some length")
	for bit := range len(envelope) * 8 {
		damaged := bytes.Clone(envelope)
		damaged[bit/8] ^= 1 << (bit % 8)
		if _, _, err := unseal([]byte("key"), damaged); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d: %v, want ErrCorrupt", bit, err)
		}
	}
}

// A byte must not be able to move between the key and the payload.
func TestEnvelopeIsBoundToItsKey(t *testing.T) {
	if _, _, err := unseal([]byte("another"), sealed("key", "payload")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("under another key: %v, want ErrCorrupt", err)
	}
	if bytes.Equal(sealed("ab", "c")[2:envelopeBytes], sealed("a", "bc")[2:envelopeBytes]) {
		t.Error("ab + c and a + bc have one checksum")
	}
}

func TestEnvelopeOfAnotherFormat(t *testing.T) {
	envelope := sealed("key", "payload")
	envelope[0] = envelopeFormat + 1
	sum := envelopeSum([]byte("key"), envelope)
	for i := range 8 {
		envelope[2+i] = byte(sum >> (56 - 8*i))
	}
	if _, _, err := unseal([]byte("key"), envelope); !errors.Is(err, ErrFormat) {
		t.Errorf("format %d: %v, want ErrFormat", envelope[0], err)
	}
}

// mapEngine is the least that reading needs.
type mapEngine map[string][]byte

func (m mapEngine) Get(key []byte) ([]byte, error) {
	if v, ok := m[string(key)]; ok {
		return bytes.Clone(v), nil
	}
	return nil, ErrNotFound
}

func (m mapEngine) apply(ops ...Op) {
	for _, op := range ops {
		if op.Delete {
			delete(m, string(op.Key))
		} else {
			m[string(op.Key)] = op.Value
		}
	}
}

func (mapEngine) Scan([]byte, []byte, func(_, _ []byte) error) error { return ErrClosed }
func (mapEngine) Commit(*Batch, bool) error                          { return ErrClosed }
func (mapEngine) MaxBatch() int                                      { return MinMaxBatch }
func (mapEngine) Close() error                                       { return nil }

func randomBytes(seed uint64, n int) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func TestPiecesOfAllLengths(t *testing.T) {
	for _, n := range []int{0, 1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 3 * chunkBytes, 3*chunkBytes + 5} {
		e, data := mapEngine{}, randomBytes(1, n)
		e.apply(setPieces(partAddress(1), data)...)
		if got, err := readPieces(e, partAddress(1), uint64(n)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: read %d, %v", n, len(got), err)
		}
		if n > 0 {
			if _, err := readPieces(e, partAddress(1), uint64(n)+1); err == nil {
				t.Errorf("%d bytes: one more was read", n)
			}
			if _, err := readPieces(e, partAddress(2), uint64(n)); !errors.Is(err, ErrNotFound) {
				t.Errorf("%d bytes under another id: %v, want ErrNotFound", n, err)
			}
		}
		if e.apply(deletePieces(partAddress(1), uint64(n))...); len(e) != 0 {
			t.Errorf("%d bytes: %d pieces are left after the deletion", n, len(e))
		}
	}
}

func TestEntriesOfAllLengths(t *testing.T) {
	at := metaAddress("fact")
	for _, n := range []int{0, 1, chunkBytes, chunkBytes + 1, 3*chunkBytes + 5} {
		e, data := mapEngine{}, randomBytes(2, n)
		parts, entry, ref := sealEntry(at.bytes(), append(newEnvelope(n), data...), func() uint64 { return 7 })
		e.apply(parts...)
		e.apply(entry)
		if ref.isZero() != (n <= chunkBytes) {
			t.Errorf("%d bytes: reference %+v", n, ref)
		}
		got, gotRef, err := unsealEntry(e, at.bytes(), e[string(at.bytes())])
		if err != nil || !bytes.Equal(got, data) || gotRef != ref {
			t.Errorf("%d bytes: read %d at %+v, %v", n, len(got), gotRef, err)
		}
	}
}

// A part of another write of the same length must not pass for this one's.
func TestPartsMustMakeTheWhole(t *testing.T) {
	at, e := metaAddress("fact"), mapEngine{}
	for seed := range uint64(2) {
		parts, entry, _ := sealEntry(at.bytes(), append(newEnvelope(0), randomBytes(seed, 2*chunkBytes)...), func() uint64 { return 7 })
		e.apply(parts[seed])
		e.apply(entry)
	}
	if _, _, err := unsealEntry(e, at.bytes(), e[string(at.bytes())]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("parts of two writes: %v, want ErrCorrupt", err)
	}
}

func FuzzUnsealEntry(f *testing.F) {
	key := metaAddress("fact").bytes()
	_, whole, _ := sealEntry(metaAddress("fact").bytes(), append(newEnvelope(0), "payload"...), nil)
	_, parts, _ := sealEntry(metaAddress("fact").bytes(), append(newEnvelope(0), make([]byte, chunkBytes+1)...), func() uint64 { return 7 })
	f.Add(whole.Value[envelopeBytes:], byte(kindWhole))
	f.Add(parts.Value[envelopeBytes:], byte(kindParts))
	f.Fuzz(func(t *testing.T, payload []byte, k byte) {
		// Sealed again, so that what lies behind the checksum is reached.
		envelope := seal(kind(k), key, append(newEnvelope(len(payload)), payload...))
		got, ref, err := unsealEntry(mapEngine{}, key, envelope)
		if err == nil && ref.isZero() && !bytes.Equal(got, payload) {
			t.Errorf("%q unsealed as %q", payload, got)
		}
		if ref, err := parseReference(payload); err == nil && !bytes.Equal(ref.append(nil), payload) {
			t.Errorf("reference %q parsed as %+v", payload, ref)
		}
	})
}
