package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Every value that the store gives to an engine is sealed in an envelope:
//
//	format u8, kind u8, checksum u64 (xxhash64), payload
//
// The checksum covers the storage key too, so that a value that turns up under
// another key, by a flipped bit in a key or a misdirected read, is refused.
const (
	envelopeFormat = 1
	envelopeBytes  = 10
	mineBytes      = 17 // what [kv.AppendLocal] puts before a record, at most
)

// kind says what a payload is.
type kind byte

const (
	kindWhole kind = 0 // the thing itself
	kindParts kind = 1 // a reference to its parts, see parts.go
)

// newEnvelope returns room for an envelope with a payload of about size bytes,
// to be appended to and then closed with [seal].
func newEnvelope(size int) []byte { return make([]byte, envelopeBytes, envelopeBytes+size) }

// seal closes an envelope from [newEnvelope] that is to be stored under key.
func seal(k kind, key, envelope []byte) []byte {
	envelope[0], envelope[1] = envelopeFormat, byte(k)
	binary.BigEndian.PutUint64(envelope[2:], envelopeSum(key, envelope))
	return envelope
}

// unseal returns the payload of an envelope that was found under key, whose
// storage it shares. Errors are [ErrCorrupt] or [ErrFormat].
func unseal(key, envelope []byte) (kind, []byte, error) {
	if len(envelope) < envelopeBytes {
		return 0, nil, fmt.Errorf("%w: envelope of %d bytes", ErrCorrupt, len(envelope))
	}
	if got, want := envelopeSum(key, envelope), binary.BigEndian.Uint64(envelope[2:]); got != want {
		return 0, nil, fmt.Errorf("%w: checksum %016x where %016x is stored", ErrCorrupt, got, want)
	}
	if envelope[0] != envelopeFormat {
		return 0, nil, fmt.Errorf("%w: envelope format %d", ErrFormat, envelope[0])
	}
	return kind(envelope[1]), envelope[envelopeBytes:], nil
}

// envelopeSum hashes the key first and uses that as the seed, so that no byte
// can move between key, format, kind and payload unnoticed.
func envelopeSum(key, envelope []byte) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(xxhash.Sum64(key))
	_, _ = d.Write(envelope[:2])
	_, _ = d.Write(envelope[envelopeBytes:])
	return d.Sum64()
}
