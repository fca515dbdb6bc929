package reap

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// MaxItems is the largest number of keys in one round.
const MaxItems = 256

const (
	messageVersion = 2
	maxDrop        = 1 << 16 // dots of one item, far above what is written
	leastItem      = 15      // bytes of the smallest item
)

// Item is one record that a round would reap.
type Item struct {
	kv.Reaping

	Key    kv.Key
	Digest uint64 // of the record, by [kv.Digest]
	// Due is the time, in whole milliseconds, that every member's own clock must
	// have reached: by then all that is dropped has expired, and every write id
	// that is forgotten is refused. Zero: any time will do.
	Due time.Time
}

// Request is what a reaper asks of a member of partition: first, to confirm
// every item that the member holds in exactly this form, or not at all, and to
// raise its reap number to Number; then, to reap the items that all confirmed.
type Request struct {
	View      uint64 // the digest of the reaper's view
	Lives     uint64 // of the members, as the reaper knew them when the round began: see [Node]
	Partition uint16
	Number    uint64 // of the round
	Items     []Item // 1 to [MaxItems]
}

// Refusal says why a member takes no part in a round. It has then done nothing.
type Refusal uint8

// The refusals. Zero is none.
const (
	// RefusedView: the member knows another set of layouts.
	RefusedView Refusal = 1 + iota
	// RefusedStanding: the member is not registered, or has not caught up since
	// its disk was lost or set back. What it held may be back.
	RefusedStanding
	// RefusedNumber: to confirm, the member's number would have to be lower; to
	// reap, the member would have to have confirmed.
	RefusedNumber
	// RefusedLives: to confirm, the member would have to know of the same lives of
	// all members. It may have raised its number all the same.
	RefusedLives
)

// String says why, for logs.
func (f Refusal) String() string {
	switch f {
	case 0:
		return "none"
	case RefusedView:
		return "it knows other layouts"
	case RefusedStanding:
		return "it has not caught up"
	case RefusedNumber:
		return "its reap number does not fit"
	case RefusedLives:
		return "it knows of other starts of members"
	}
	return fmt.Sprintf("refusal %d", uint8(f))
}

// Reply is a member's answer to a [Request].
type Reply struct {
	Refusal Refusal
	// Number is the member's reap number of the partition, after the request.
	Number uint64
	// Done has a bit for each item of the request, in order: it was confirmed, or
	// it was there and has been reaped. It is empty with a refusal.
	Done []bool
}

// Append appends the encoding of r.
func (r Request) Append(dst []byte) []byte {
	dst = append(dst, messageVersion)
	dst = binary.BigEndian.AppendUint64(dst, r.View)
	dst = binary.BigEndian.AppendUint64(dst, r.Lives)
	dst = binary.BigEndian.AppendUint16(dst, r.Partition)
	dst = binary.AppendUvarint(dst, r.Number)
	dst = binary.AppendUvarint(dst, uint64(len(r.Items)))
	for _, it := range r.Items {
		dst = it.append(dst)
	}
	return dst
}

// DecodeRequest reads what [Request.Append] writes and refuses anything else.
func DecodeRequest(b []byte) (Request, error) {
	rd := wire.NewReader(b)
	readVersion(rd)
	r := Request{View: rd.Uint64(), Lives: rd.Uint64(), Partition: rd.Uint16(), Number: rd.Uvarint()}
	n := rd.Count(leastItem, MaxItems)
	r.Items = make([]Item, 0, n)
	for i := 0; i < n && rd.Err() == nil; i++ {
		r.Items = append(r.Items, readItem(rd))
	}
	if n == 0 || r.Number == 0 {
		rd.Fail(wire.ErrBadValue)
	}
	return r, closeMessage(rd, "reap request")
}

// Append appends the encoding of r.
func (r Reply) Append(dst []byte) []byte {
	dst = append(dst, messageVersion, byte(r.Refusal))
	dst = binary.AppendUvarint(dst, r.Number)
	dst = binary.AppendUvarint(dst, uint64(len(r.Done)))
	for _, done := range r.Done {
		dst = wire.AppendBool(dst, done)
	}
	return dst
}

// DecodeReply reads what [Reply.Append] writes and refuses anything else.
func DecodeReply(b []byte) (Reply, error) {
	rd := wire.NewReader(b)
	readVersion(rd)
	r := Reply{Refusal: Refusal(rd.Byte()), Number: rd.Uvarint()}
	n := rd.Count(1, MaxItems)
	if r.Refusal > RefusedLives || (r.Refusal == 0) != (n > 0) {
		rd.Fail(wire.ErrBadValue)
	}
	for range n {
		r.Done = append(r.Done, rd.Bool())
	}
	return r, closeMessage(rd, "reap reply")
}

func (it Item) append(dst []byte) []byte {
	dst = wire.AppendString(wire.AppendString(dst, it.Key.Bucket), it.Key.Name)
	dst = binary.BigEndian.AppendUint64(dst, it.Digest)
	dst = appendTime(appendTime(dst, it.Due), it.Forget)
	dst = wire.AppendBool(dst, it.Fold)
	dst = binary.AppendUvarint(dst, uint64(len(it.Drop)))
	for _, d := range it.Drop {
		dst = vclock.AppendDot(dst, d)
	}
	return dst
}

func readItem(rd *wire.Reader) Item {
	it := Item{Key: kv.Key{Bucket: rd.String(kv.MaxBucketBytes), Name: rd.String(kv.MaxKeyBytes)}, Digest: rd.Uint64()}
	it.Due, it.Forget, it.Fold = readTime(rd), readTime(rd), rd.Bool()
	for range rd.Count(9, maxDrop) {
		it.Drop = append(it.Drop, vclock.ReadDot(rd))
	}
	if rd.Err() == nil {
		if err := it.Key.Validate(); err != nil {
			rd.Fail(err)
		}
	}
	return it
}

// appendTime appends Unix milliseconds; 0 stands for the zero time.
func appendTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(dst, 0)
	}
	return binary.AppendUvarint(dst, uint64(max(1, t.UnixMilli())))
}

func readTime(rd *wire.Reader) time.Time {
	ms := rd.Uvarint()
	switch {
	case ms == 0:
		return time.Time{}
	case ms > maxMillis:
		rd.Fail(wire.ErrBadValue)
	}
	return time.UnixMilli(int64(ms))
}

// maxMillis is beyond the year 10000, so that sums of times cannot overflow.
const maxMillis = 1 << 48

func readVersion(rd *wire.Reader) {
	if v := rd.Byte(); rd.Err() == nil && v != messageVersion {
		rd.Fail(fmt.Errorf("message version %d is not known", v))
	}
}

func closeMessage(rd *wire.Reader, what string) error {
	if err := rd.Close(); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}
