package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/internal/wire"
)

// What is too large for one entry is stored in pieces of chunkBytes, the last
// one shorter: external values under their dots, and large records and facts
// under an id of their own that the entry refers to. Pieces never change; each
// is written with or before what refers to it and deleted with what refers to
// it no more. A reader that misses a piece has been overtaken by a writer.
const (
	chunkBytes = 256 << 10
	maxPieces  = 1 << 16
)

// pieceCount returns how many pieces hold length bytes.
func pieceCount(length uint64) uint64 { return (length + chunkBytes - 1) / chunkBytes }

// setPieces returns the operations that write data in pieces from first on.
func setPieces(first address, data []byte) []Op {
	ops := make([]Op, 0, pieceCount(uint64(len(data))))
	for i := 0; len(data) > 0; i++ {
		n := min(len(data), chunkBytes)
		key := first.piece(i).bytes()
		ops = append(ops, Op{Key: key, Value: seal(kindWhole, key, append(newEnvelope(n), data[:n]...))})
		data = data[n:]
	}
	return ops
}

// deletePieces returns the operations that delete what setPieces wrote.
func deletePieces(first address, length uint64) []Op {
	ops := make([]Op, 0, pieceCount(length))
	for i := range int(pieceCount(length)) {
		ops = append(ops, Op{Key: first.piece(i).bytes(), Delete: true})
	}
	return ops
}

// readPieces reads length bytes from the pieces from first on. It returns
// [ErrNotFound] if a piece is missing.
func readPieces(e Engine, first address, length uint64) ([]byte, error) {
	count := pieceCount(length)
	if count > maxPieces {
		return nil, fmt.Errorf("%w: a length of %d bytes", ErrCorrupt, length)
	}
	data := make([]byte, 0, min(length, 16<<20))
	for i := range int(count) {
		want := min(length-uint64(len(data)), chunkBytes)
		piece, err := readPiece(e, first.piece(i).bytes())
		if err != nil {
			return nil, fmt.Errorf("piece %d: %w", i, err)
		}
		if uint64(len(piece)) != want {
			return nil, fmt.Errorf("%w: piece %d has %d bytes instead of %d", ErrCorrupt, i, len(piece), want)
		}
		data = append(data, piece...)
	}
	return data, nil
}

func readPiece(e Engine, key []byte) ([]byte, error) {
	envelope, err := e.Get(key)
	if err != nil {
		return nil, err
	}
	_, piece, err := unseal(key, envelope)
	return piece, err
}

// reference is the payload of kind kindParts: where the parts of a large record
// or fact are. The zero reference refers to nothing.
type reference struct {
	id     uint64 // drawn anew for each write, so that parts never change
	length uint64
	sum    uint64 // xxhash64 of the whole
}

func (r reference) isZero() bool { return r == reference{} }

func (r reference) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, r.id)
	dst = binary.AppendUvarint(dst, r.length)
	return binary.BigEndian.AppendUint64(dst, r.sum)
}

func parseReference(b []byte) (reference, error) {
	r := wire.NewReader(b)
	ref := reference{id: r.Uint64(), length: r.Uvarint(), sum: r.Uint64()}
	if err := r.Close(); err != nil {
		return reference{}, fmt.Errorf("%w: reference to parts: %w", ErrCorrupt, err)
	}
	return ref, nil
}

// sealEntry returns the operations that store under key what follows the header
// of envelope: the entry itself, and before it the parts, if it needs any, and
// the reference to them. The id is used only in that case.
func sealEntry(key, envelope []byte, id func() uint64) (parts []Op, entry Op, ref reference) {
	payload := envelope[envelopeBytes:]
	if len(payload) <= chunkBytes {
		return nil, Op{Key: key, Value: seal(kindWhole, key, envelope)}, reference{}
	}
	ref = reference{id: id(), length: uint64(len(payload)), sum: xxhash.Sum64(payload)}
	return setPieces(partAddress(ref.id), payload), Op{Key: key, Value: seal(kindParts, key, ref.append(newEnvelope(32)))}, ref
}

// unsealEntry returns the payload of an entry found under key, reading its
// parts if it has any. It returns [ErrNotFound] if a part is missing.
func unsealEntry(e Engine, key, envelope []byte) ([]byte, reference, error) {
	k, payload, err := unseal(key, envelope)
	switch {
	case err != nil:
		return nil, reference{}, err
	case k == kindWhole:
		return payload, reference{}, nil
	case k != kindParts:
		return nil, reference{}, fmt.Errorf("%w: payload of kind %d", ErrFormat, k)
	}
	ref, err := parseReference(payload)
	if err != nil {
		return nil, reference{}, err
	}
	whole, err := readPieces(e, partAddress(ref.id), ref.length)
	if err != nil {
		return nil, reference{}, err
	}
	if xxhash.Sum64(whole) != ref.sum {
		return nil, reference{}, fmt.Errorf("%w: the parts do not make the whole", ErrCorrupt)
	}
	return whole, ref, nil
}
