package merkle

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/starling-kv/starling/internal/wire"
)

// ErrVersion says that the tree or the deltas were made with another [HashVersion]. They
// are to be made anew from the records.
var ErrVersion = errors.New("hash tree of another version")

// MaxDeltaBytes and MaxDeltasHeader bound [AppendDeltas]: n deltas take at most
// MaxDeltasHeader + n*MaxDeltaBytes bytes.
const (
	MaxDeltaBytes   = 2 + 1 + 1 + 8 + binary.MaxVarintLen32
	MaxDeltasHeader = 1 + binary.MaxVarintLen32
)

const (
	minDeltaBytes = 2 + 1 + 1 + 8 + 1
	maxDeltas     = 1 << 24 // far above what is ever written at once
	bitmapBytes   = Leaves / 8
)

// AppendDeltas appends the encoding of deltas: [HashVersion] u8, their number,
// then of each partition u16, n u8, leaf u8, sum u64 and count (zigzag varint).
func AppendDeltas(dst []byte, deltas []Delta) []byte {
	dst = append(dst, HashVersion)
	dst = binary.AppendUvarint(dst, uint64(len(deltas)))
	for _, d := range deltas {
		dst = binary.BigEndian.AppendUint16(dst, d.Tree.Partition)
		dst = append(dst, d.Tree.NMax, d.Leaf)
		dst = binary.BigEndian.AppendUint64(dst, d.Sum)
		dst = binary.AppendUvarint(dst, uint64(uint32(d.Count<<1)^uint32(d.Count>>31)))
	}
	return dst
}

// DecodeDeltas reads what [AppendDeltas] writes and refuses anything else.
func DecodeDeltas(b []byte) ([]Delta, error) {
	r := wire.NewReader(b)
	readVersion(r)
	n := r.Count(minDeltaBytes, maxDeltas)
	deltas := make([]Delta, 0, n)
	for i := 0; i < n && r.Err() == nil; i++ {
		deltas = append(deltas, Delta{
			Tree: ID{Partition: r.Uint16(), NMax: r.Byte()},
			Leaf: r.Byte(), Sum: r.Uint64(), Count: readZigzag(r),
		})
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("decode deltas: %w", err)
	}
	return deltas, nil
}

func readVersion(r *wire.Reader) {
	if v := r.Byte(); r.Err() == nil && v != HashVersion {
		r.Fail(fmt.Errorf("%w: %d, this one is %d", ErrVersion, v, HashVersion))
	}
}

func readZigzag(r *wire.Reader) int32 {
	v := readUint32(r)
	return int32(v>>1) ^ -int32(v&1)
}

func readUint32(r *wire.Reader) uint32 {
	v := r.Uvarint()
	if v > 1<<32-1 {
		r.Fail(wire.ErrBadValue)
		return 0
	}
	return uint32(v)
}

// AppendTree appends the encoding of a tree: [HashVersion] u8, a bitmap of the
// leaves that are not empty, the first leaf in the lowest bit of the first
// byte, then of each of these sum u64 and count (varint).
func AppendTree(dst []byte, t *Tree) []byte {
	dst = append(dst, HashVersion)
	bitmap := len(dst)
	dst = append(dst, make([]byte, bitmapBytes)...)
	for i, l := range t {
		if l == (Leaf{}) {
			continue
		}
		dst[bitmap+i/8] |= 1 << (i % 8)
		dst = binary.BigEndian.AppendUint64(dst, l.Sum)
		dst = binary.AppendUvarint(dst, uint64(l.Count))
	}
	return dst
}

// DecodeTree reads what [AppendTree] writes and refuses anything else.
func DecodeTree(b []byte) (Tree, error) {
	var t Tree
	r := wire.NewReader(b)
	readVersion(r)
	var bitmap [bitmapBytes]byte
	for i := range bitmap {
		bitmap[i] = r.Byte()
	}
	for i := range t {
		if bitmap[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		t[i] = Leaf{Sum: r.Uint64(), Count: readUint32(r)}
		if t[i] == (Leaf{}) {
			r.Fail(wire.ErrBadValue)
		}
	}
	if err := r.Close(); err != nil {
		return Tree{}, fmt.Errorf("decode tree: %w", err)
	}
	return t, nil
}
