package peer

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
)

// messageVersion is the first byte of the requests of this package; the
// handshake agrees on what versions a connection carries, so that another one
// here is damage.
const messageVersion = 1

// Bounds of decoded messages; transport bounds the whole.
const (
	maxFenceBytes = 16 << 20
	maxKeys       = 4 << 10 // in one request
	maxLeaves     = 256     // of a partition, each once
	maxParcels    = 1 << 20
	leastKey      = 4 // bytes of the smallest key
	leastNumber   = 3 // bytes of the smallest reap number
	leastParcel   = 6 // bytes of the smallest parcel
	maxPause      = 10 * time.Minute
	maxRecord     = 1 << 28
)

// PullRequest asks a node for whole records: those of keys, or all of some leaves
// of a partition that the asking node owns.
type PullRequest struct {
	Fence coordinator.Fence
	// Reap are numbers that the source must know before it reads, by rising
	// partition: under lower ones the records would be refused.
	Reap []ReapNumber

	Keys    []kv.Key // at most 4096
	StandIn bool     // with what the source keeps for other owners

	// Without keys:
	Partition uint16
	Leaves    []uint8 // rising, at least one
	After     kv.Key  // of the first leaf, that a page ended with; zero: from its beginning
}

// ReapNumber is the reap number of a partition.
type ReapNumber struct {
	Partition uint16
	Number    uint64
}

// PullReply is a page of about 1 MiB of what was asked for.
type PullReply struct {
	Parcels []kv.Parcel
	// Taken is how many of the keys the source got to. Those of them without a
	// parcel it cannot read.
	Taken int
	// More says that there is more of the leaves, behind the last parcel.
	More bool
	// Damaged says that there are records in the leaves that the source cannot
	// read.
	Damaged bool
}

// Append appends the encoding of r.
func (r PullRequest) Append(dst []byte) []byte {
	dst = appendFence(dst, r.Fence)
	dst = numbers(r.Reap).Append(dst)
	dst = appendKeys(dst, r.Keys)
	if len(r.Keys) > 0 {
		return wire.AppendBool(dst, r.StandIn)
	}
	dst = binary.BigEndian.AppendUint16(dst, r.Partition)
	dst = wire.AppendBytes(dst, r.Leaves)
	dst = wire.AppendBool(dst, r.After != kv.Key{})
	if r.After != (kv.Key{}) {
		dst = appendKey(dst, r.After)
	}
	return dst
}

// DecodePullRequest reads what [PullRequest.Append] writes and refuses anything
// else.
func DecodePullRequest(b []byte) (PullRequest, error) {
	rd := wire.NewReader(b)
	r := PullRequest{Fence: readFence(rd)}
	r.Reap = readNumbers(rd, maxKeys)
	if r.Keys = readKeys(rd); len(r.Keys) > 0 {
		r.StandIn = rd.Bool()
		return r, closeMessage(rd, "pull request")
	}
	r.Partition = rd.Uint16()
	r.Leaves = rd.Bytes(maxLeaves)
	for i := range r.Leaves {
		if i > 0 && r.Leaves[i] <= r.Leaves[i-1] {
			rd.Fail(wire.ErrBadValue)
		}
	}
	if len(r.Leaves) == 0 {
		rd.Fail(wire.ErrBadValue)
	}
	if rd.Bool() {
		r.After = readKey(rd)
	}
	return r, closeMessage(rd, "pull request")
}

// numbers are reap numbers by rising partition.
type numbers []ReapNumber

// Append appends the encoding of n.
func (n numbers) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(n)))
	for _, at := range n {
		dst = binary.AppendUvarint(binary.BigEndian.AppendUint16(dst, at.Partition), at.Number)
	}
	return dst
}

func readNumbers(rd *wire.Reader, most int) numbers {
	count := rd.Count(leastNumber, most)
	if count == 0 {
		return nil
	}
	list := make(numbers, 0, count)
	for range count {
		n := ReapNumber{Partition: rd.Uint16(), Number: rd.Uvarint()}
		if last := len(list) - 1; last >= 0 && n.Partition <= list[last].Partition {
			rd.Fail(wire.ErrBadValue)
		}
		list = append(list, n)
	}
	return list
}

// maxPartitions is how many partitions there can be.
const maxPartitions = 1 << 16

func decodeNumbers(b []byte) ([]ReapNumber, error) {
	rd := wire.NewReader(b)
	n := readNumbers(rd, maxPartitions)
	return n, closeMessage(rd, "reap numbers")
}

// nothing is the request of those who ask for all.
type nothing struct{}

// Append appends the encoding, which is empty.
func (nothing) Append(dst []byte) []byte { return dst }

func decodeNothing(b []byte) (nothing, error) {
	rd := wire.NewReader(b)
	return nothing{}, closeMessage(rd, "request without a body")
}

// Append appends the encoding of r.
func (r PullReply) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.Taken))
	dst = wire.AppendBool(wire.AppendBool(dst, r.More), r.Damaged)
	dst = binary.AppendUvarint(dst, uint64(len(r.Parcels)))
	for _, p := range r.Parcels {
		dst = binary.AppendUvarint(appendKey(dst, p.Key), p.Reap)
		dst = wire.AppendBytes(dst, p.Record)
	}
	return dst
}

// DecodePullReply reads what [PullReply.Append] writes and refuses anything else.
// The records share b's storage.
func DecodePullReply(b []byte) (PullReply, error) {
	rd := wire.NewReader(b)
	r := PullReply{Taken: rd.Count(0, maxKeys), More: rd.Bool(), Damaged: rd.Bool()}
	n := rd.Count(leastParcel, maxParcels)
	r.Parcels = make([]kv.Parcel, 0, n)
	for i := 0; i < n && rd.Err() == nil; i++ {
		r.Parcels = append(r.Parcels, kv.Parcel{Key: readKey(rd), Reap: rd.Uvarint(), Record: rd.Bytes(maxRecord)})
	}
	return r, closeMessage(rd, "pull reply")
}

// NudgeRequest asks a node to pull keys.
type NudgeRequest struct {
	Fence   coordinator.Fence
	From    kv.NodeID // to pull from; zero: from the node that asks
	Keys    []kv.Key  // 1 to 4096
	StandIn bool
}

// NudgeReply says what a node made of a nudge.
type NudgeReply struct {
	Held  []bool        // by key: the node holds it now, durably
	Room  int           // how many keys it would take next
	Pause time.Duration // and when, in whole milliseconds, if that is none
}

// Append appends the encoding of r.
func (r NudgeRequest) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(appendFence(dst, r.Fence), uint64(r.From))
	return wire.AppendBool(appendKeys(dst, r.Keys), r.StandIn)
}

// DecodeNudgeRequest reads what [NudgeRequest.Append] writes and refuses anything
// else.
func DecodeNudgeRequest(b []byte) (NudgeRequest, error) {
	rd := wire.NewReader(b)
	r := NudgeRequest{Fence: readFence(rd), From: kv.NodeID(rd.Uint64()), Keys: readKeys(rd), StandIn: rd.Bool()}
	if len(r.Keys) == 0 {
		rd.Fail(wire.ErrBadValue)
	}
	return r, closeMessage(rd, "nudge")
}

// Append appends the encoding of r.
func (r NudgeReply) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(r.Held)))
	for _, held := range r.Held {
		dst = wire.AppendBool(dst, held)
	}
	dst = binary.AppendUvarint(dst, uint64(r.Room))
	return binary.AppendUvarint(dst, uint64(r.Pause.Milliseconds()))
}

// DecodeNudgeReply reads what [NudgeReply.Append] writes and refuses anything
// else.
func DecodeNudgeReply(b []byte) (NudgeReply, error) {
	rd := wire.NewReader(b)
	var r NudgeReply
	n := rd.Count(1, maxKeys)
	r.Held = make([]bool, 0, n)
	for range n {
		r.Held = append(r.Held, rd.Bool())
	}
	r.Room = rd.Count(0, maxKeys)
	r.Pause = time.Duration(rd.Count(0, int(maxPause.Milliseconds()))) * time.Millisecond
	return r, closeMessage(rd, "answer to a nudge")
}

func appendFence(dst []byte, f coordinator.Fence) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, messageVersion), f.Digest)
	return wire.AppendBytes(dst, f.Full)
}

func readFence(rd *wire.Reader) coordinator.Fence {
	if v := rd.Byte(); rd.Err() == nil && v != messageVersion {
		rd.Fail(fmt.Errorf("message version %d is not known", v))
	}
	return coordinator.Fence{Digest: rd.Uint64(), Full: rd.Bytes(maxFenceBytes)}
}

func appendKeys(dst []byte, keys []kv.Key) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(keys)))
	for _, k := range keys {
		dst = appendKey(dst, k)
	}
	return dst
}

func readKeys(rd *wire.Reader) []kv.Key {
	n := rd.Count(leastKey, maxKeys)
	keys := make([]kv.Key, 0, n)
	for i := 0; i < n && rd.Err() == nil; i++ {
		keys = append(keys, readKey(rd))
	}
	return keys
}

func appendKey(dst []byte, k kv.Key) []byte {
	return wire.AppendString(wire.AppendString(dst, k.Bucket), k.Name)
}

func readKey(rd *wire.Reader) kv.Key {
	k := kv.Key{Bucket: rd.String(kv.MaxBucketBytes), Name: rd.String(kv.MaxKeyBytes)}
	if rd.Err() == nil {
		if err := k.Validate(); err != nil {
			rd.Fail(err)
		}
	}
	return k
}

func closeMessage(rd *wire.Reader, what string) error {
	if err := rd.Close(); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}
