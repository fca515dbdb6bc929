package coordinator

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// messageVersion is the first byte of every request between nodes; the
// handshake agrees on what versions a connection carries, so that another one
// here is damage.
const messageVersion = 1

// Bounds of decoded messages; transport bounds the whole.
const (
	maxFenceBytes = 16 << 20
	maxBlobs      = 1 << 10
	maxValueBytes = 1 << 28
	maxTextBytes  = 64 << 10
	maxListItems  = 1 << 10
	maxSiblings   = 1 << 16
)

// Append appends the encoding of r.
func (r FetchRequest) Append(dst []byte) []byte {
	return binary.AppendUvarint(wire.AppendBool(appendHead(dst, r.Fence, r.Key), r.StandIn), r.Reap)
}

// DecodeFetchRequest reads what [FetchRequest.Append] writes.
func DecodeFetchRequest(b []byte) (FetchRequest, error) {
	rd := wire.NewReader(b)
	var r FetchRequest
	r.Fence, r.Key = readHead(rd)
	r.StandIn, r.Reap = rd.Bool(), rd.Uvarint()
	return r, closeMessage(rd, "fetch request")
}

// Append appends the encoding of r.
func (r FetchReply) Append(dst []byte) []byte {
	dst = wire.AppendBool(dst, r.Standing)
	dst = binary.AppendUvarint(dst, r.Reap)
	return kv.AppendRecord(dst, r.Record)
}

// DecodeFetchReply reads what [FetchReply.Append] writes. The record shares
// b's storage.
func DecodeFetchReply(b []byte) (FetchReply, error) {
	rd := wire.NewReader(b)
	r := FetchReply{Standing: rd.Bool(), Reap: rd.Uvarint()}
	if rd.Err() != nil {
		return FetchReply{}, closeMessage(rd, "fetch reply")
	}
	var err error
	r.Record, err = kv.DecodeRecord(rd.Rest())
	return r, err
}

// Append appends the encoding of r.
func (r StoreRequest) Append(dst []byte) []byte {
	dst = appendHead(dst, r.Fence, r.Key)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Target))
	dst = append(dst, byte(r.Durability))
	dst = binary.AppendUvarint(dst, r.Reap)
	dst = wire.AppendBytes(dst, r.Record)
	dst = binary.AppendUvarint(dst, uint64(len(r.Blobs)))
	for _, b := range r.Blobs {
		dst = wire.AppendBytes(vclock.AppendDot(dst, b.Dot), b.Data)
	}
	return dst
}

// DecodeStoreRequest reads what [StoreRequest.Append] writes. Record and blobs
// share b's storage.
func DecodeStoreRequest(b []byte) (StoreRequest, error) {
	rd := wire.NewReader(b)
	var r StoreRequest
	r.Fence, r.Key = readHead(rd)
	r.Target = kv.NodeID(rd.Uint64())
	r.Durability = readDurability(rd)
	r.Reap = rd.Uvarint()
	r.Record = rd.Bytes(maxValueBytes)
	for range rd.Count(10, maxBlobs) {
		r.Blobs = append(r.Blobs, kv.Blob{Dot: vclock.ReadDot(rd), Data: rd.Bytes(maxValueBytes)})
	}
	return r, closeMessage(rd, "store request")
}

// Append appends the encoding of r.
func (r ValueRequest) Append(dst []byte) []byte {
	dst = appendHead(dst, r.Fence, r.Key)
	dst = wire.AppendBool(dst, r.StandIn)
	dst = vclock.AppendDot(dst, r.Dot)
	dst = binary.AppendUvarint(dst, r.Length)
	return binary.BigEndian.AppendUint64(dst, r.Checksum)
}

// DecodeValueRequest reads what [ValueRequest.Append] writes.
func DecodeValueRequest(b []byte) (ValueRequest, error) {
	rd := wire.NewReader(b)
	var r ValueRequest
	r.Fence, r.Key = readHead(rd)
	r.StandIn = rd.Bool()
	r.Dot = vclock.ReadDot(rd)
	r.Length, r.Checksum = rd.Uvarint(), rd.Uint64()
	return r, closeMessage(rd, "value request")
}

// Append appends the encoding of r.
func (r ForwardRequest) Append(dst []byte) []byte {
	p := r.Put
	dst = appendHead(dst, r.Fence, p.Key)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.StandInFor))
	dst = wire.AppendBool(dst, r.Fresh)
	dst = appendOptions(dst, p.Options)
	dst = wire.AppendBool(dst, p.Tombstone)
	dst = wire.AppendBool(dst, p.Overwrite)
	dst = append(dst, p.WriteID[:]...)
	dst = appendCondition(dst, p.Condition)
	dst = appendToken(dst, p.Token)
	dst = wire.AppendString(dst, p.ContentType)
	dst = binary.AppendUvarint(dst, uint64(p.TTL))
	dst = binary.AppendUvarint(dst, uint64(len(p.Meta)))
	for _, m := range p.Meta {
		dst = wire.AppendString(wire.AppendString(dst, m.Name), m.Value)
	}
	return wire.AppendBytes(dst, p.Value)
}

// DecodeForwardRequest reads what [ForwardRequest.Append] writes. The value
// shares b's storage.
func DecodeForwardRequest(b []byte) (ForwardRequest, error) {
	rd := wire.NewReader(b)
	var r ForwardRequest
	p := &r.Put
	r.Fence, p.Key = readHead(rd)
	r.StandInFor = kv.NodeID(rd.Uint64())
	r.Fresh = rd.Bool()
	p.Options = readOptions(rd)
	p.Tombstone, p.Overwrite = rd.Bool(), rd.Bool()
	p.WriteID = readWriteID(rd)
	p.Condition = readCondition(rd)
	p.Token = readToken(rd)
	p.ContentType = rd.String(maxTextBytes)
	p.TTL = time.Duration(rd.Uvarint())
	for range rd.Count(2, maxListItems) {
		p.Meta = append(p.Meta, kv.Meta{Name: rd.String(maxTextBytes), Value: rd.String(maxTextBytes)})
	}
	p.Value = rd.Bytes(maxValueBytes)
	if !sorted(p.Meta) || p.Tombstone && (len(p.Value) > 0 || p.TTL != 0) || p.TTL < 0 || p.TTL > MaxTTL {
		rd.Fail(wire.ErrBadValue)
	}
	return r, closeMessage(rd, "forwarded write")
}

// Append appends the encoding of d.
func (d PutDone) Append(dst []byte) []byte {
	dst = appendToken(dst, d.Token)
	dst = vclock.AppendDot(dst, d.Dot)
	dst = binary.BigEndian.AppendUint64(dst, d.ETag)
	dst = binary.AppendUvarint(dst, uint64(d.Siblings))
	dst = append(dst, d.WriteID[:]...)
	return appendStrings(appendStrings(dst, d.Acked), d.Hinted)
}

// DecodePutDone reads what [PutDone.Append] writes.
func DecodePutDone(b []byte) (PutDone, error) {
	rd := wire.NewReader(b)
	d := PutDone{Token: readToken(rd), Dot: vclock.ReadDot(rd), ETag: rd.Uint64(), Siblings: rd.Count(0, maxSiblings)}
	d.WriteID = readWriteID(rd)
	d.Acked, d.Hinted = readStrings(rd), readStrings(rd)
	return d, closeMessage(rd, "answer to a forwarded write")
}

func appendHead(dst []byte, f Fence, key kv.Key) []byte {
	dst = append(dst, messageVersion)
	dst = binary.BigEndian.AppendUint64(dst, f.Digest)
	dst = wire.AppendBytes(dst, f.Full)
	return wire.AppendString(wire.AppendString(dst, key.Bucket), key.Name)
}

func readHead(rd *wire.Reader) (Fence, kv.Key) {
	if v := rd.Byte(); rd.Err() == nil && v != messageVersion {
		rd.Fail(fmt.Errorf("message version %d is not known", v))
	}
	f := Fence{Digest: rd.Uint64(), Full: rd.Bytes(maxFenceBytes)}
	key := kv.Key{Bucket: rd.String(kv.MaxBucketBytes), Name: rd.String(kv.MaxKeyBytes)}
	if rd.Err() == nil {
		if err := key.Validate(); err != nil {
			rd.Fail(err)
		}
	}
	return f, key
}

func appendOptions(dst []byte, o Options) []byte {
	dst = append(dst, byte(o.N), byte(o.R.word), byte(o.R.number), byte(o.W.word), byte(o.W.number))
	dst = wire.AppendBool(dst, o.Sloppy)
	dst = binary.AppendUvarint(dst, uint64(o.Timeout))
	return append(dst, byte(o.Durability), byte(o.Hedge))
}

func readOptions(rd *wire.Reader) Options {
	o := Options{N: readN(rd), R: readCount(rd), W: readCount(rd), Sloppy: rd.Bool(), Timeout: time.Duration(rd.Uvarint())}
	o.Durability = readDurability(rd)
	o.Hedge = Hedge(rd.Byte())
	if o.Hedge > HedgeAll || o.Timeout < 0 {
		rd.Fail(wire.ErrBadValue)
	}
	return o
}

func readN(rd *wire.Reader) int {
	n := int(rd.Byte())
	if n < 1 || n > kv.MaxN {
		rd.Fail(wire.ErrBadValue)
	}
	return n
}

func readCount(rd *wire.Reader) Count {
	c := Count{word: countWord(rd.Byte()), number: int(rd.Byte())}
	if c.word > countNumber || (c.word == countNumber) != (c.number != 0) || c.number > kv.MaxN {
		rd.Fail(wire.ErrBadValue)
	}
	return c
}

func readDurability(rd *wire.Reader) Durability {
	d := Durability(rd.Byte())
	if d > DurabilityAsync {
		rd.Fail(wire.ErrBadValue)
	}
	return d
}

// The flags of a condition. A list of tags may be there and empty: no value
// can meet it.
const (
	conditionIfMatch = 1 << iota
	conditionIfMatchAny
	conditionIfNoneMatch
	conditionIfAbsent
	conditionFlags = 1<<iota - 1
)

func (c Condition) flags() byte {
	var f byte
	set := func(bit byte, on bool) {
		if on {
			f |= bit
		}
	}
	set(conditionIfMatch, c.IfMatch != nil)
	set(conditionIfMatchAny, c.IfMatchAny)
	set(conditionIfNoneMatch, c.IfNoneMatch != nil)
	set(conditionIfAbsent, c.IfAbsent)
	return f
}

func appendCondition(dst []byte, c Condition) []byte {
	dst = append(dst, c.flags())
	if c.IfMatch != nil {
		dst = appendTags(dst, c.IfMatch)
	}
	if c.IfNoneMatch != nil {
		dst = appendTags(dst, c.IfNoneMatch)
	}
	return dst
}

func readCondition(rd *wire.Reader) Condition {
	f := rd.Byte()
	if f > conditionFlags {
		rd.Fail(wire.ErrBadValue)
	}
	c := Condition{IfMatchAny: f&conditionIfMatchAny != 0, IfAbsent: f&conditionIfAbsent != 0}
	if f&conditionIfMatch != 0 {
		c.IfMatch = readTags(rd)
	}
	if f&conditionIfNoneMatch != 0 {
		c.IfNoneMatch = readTags(rd)
	}
	return c
}

func appendTags(dst []byte, tags []uint64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(tags)))
	for _, t := range tags {
		dst = binary.BigEndian.AppendUint64(dst, t)
	}
	return dst
}

func readTags(rd *wire.Reader) []uint64 {
	n := rd.Count(8, maxListItems)
	tags := make([]uint64, 0, n)
	for range n {
		tags = append(tags, rd.Uint64())
	}
	return tags
}

func appendToken(dst []byte, t vclock.Token) []byte {
	return binary.AppendUvarint(vclock.AppendClock(vclock.AppendClock(dst, t.Seen), t.Floor), t.Reap)
}

func readToken(rd *wire.Reader) vclock.Token {
	return vclock.Token{Seen: vclock.ReadClock(rd), Floor: vclock.ReadClock(rd), Reap: rd.Uvarint()}
}

func readWriteID(rd *wire.Reader) kv.WriteID {
	var id kv.WriteID
	binary.BigEndian.PutUint64(id[:8], rd.Uint64())
	binary.BigEndian.PutUint64(id[8:], rd.Uint64())
	return id
}

func appendStrings(dst []byte, list []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, s := range list {
		dst = wire.AppendString(dst, s)
	}
	return dst
}

func readStrings(rd *wire.Reader) []string {
	var list []string //nolint:prealloc // nil is the form of none
	for range rd.Count(1, maxListItems) {
		list = append(list, rd.String(maxTextBytes))
	}
	return list
}

func closeMessage(rd *wire.Reader, what string) error {
	if err := rd.Close(); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}
