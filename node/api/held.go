package api

import (
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// heldJSON is a record as it is, for people and for checkers outside. Words of
// 64 bits are text, because JSON's numbers end at 53; counters stay numbers.
type heldJSON struct {
	Bucket    string `json:"bucket"`
	Key       string `json:"key"` // percent-encoded, as in the path of a request
	Partition int    `json:"partition"`
	Target    string `json:"target,omitempty"`
	// Hash is the xxhash64 of the canonical encoding of what replicas share:
	// equal on two nodes if and only if they hold the same.
	Hash     string         `json:"hash"`
	Clock    []dotJSON      `json:"clock"`
	Siblings []siblingJSON  `json:"siblings"`
	NMax     uint8          `json:"n_max"`
	IDs      []issuedIDJSON `json:"ids,omitempty"`
	IDFloor  string         `json:"id_floor,omitempty"`
	Mine     *mineJSON      `json:"mine,omitempty"` // not shared
}

type dotJSON struct {
	Actor   string `json:"actor"`
	Counter uint64 `json:"counter"`
}

type issuedIDJSON struct {
	ID   string    `json:"id"`
	Dots []dotJSON `json:"dots"`
}

type mineJSON struct {
	Actor string `json:"actor"`
	Boot  string `json:"boot"`
}

type siblingJSON struct {
	Dot         dotJSON           `json:"dot"`
	Kind        string            `json:"kind"`
	N           uint8             `json:"n"`
	Stamp       string            `json:"stamp"`
	Modified    time.Time         `json:"modified"`
	Expires     *time.Time        `json:"expires,omitempty"`
	WriteID     string            `json:"write_id,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`
	Length      uint64            `json:"length"`
	Checksum    string            `json:"checksum"`
	External    bool              `json:"external,omitempty"`
	Value       *[]byte           `json:"value,omitempty"` // base64; absent if not read
}

// briefJSON is what it takes to compare a record with another node's.
type briefJSON struct {
	Bucket    string `json:"bucket"`
	Key       string `json:"key"`
	Partition int    `json:"partition"`
	Target    string `json:"target,omitempty"`
	Hash      string `json:"hash"`
	NMax      uint8  `json:"n_max"`
}

func newBriefJSON(h Held) briefJSON {
	return briefJSON{
		Bucket: h.Key.Bucket, Key: escape(h.Key.Name), Partition: h.Partition, Target: h.Target,
		Hash: RecordHash(h.Record), NMax: h.Record.NMax,
	}
}

func newHeldJSON(h Held) heldJSON {
	r := h.Record
	out := heldJSON{
		Bucket: h.Key.Bucket, Key: escape(h.Key.Name), Partition: h.Partition, Target: h.Target,
		Hash: RecordHash(r), Clock: newDotsJSON(r.Clock), Siblings: make([]siblingJSON, len(r.Live)),
		NMax: r.NMax, IDFloor: optional(r.IDFloor),
	}
	for i, v := range r.Live {
		out.Siblings[i] = newSiblingJSON(v)
		if v.Value.External && i < len(h.Values) && h.Values[i] != nil {
			out.Siblings[i].Value = &h.Values[i]
		}
	}
	for _, id := range r.IDs {
		out.IDs = append(out.IDs, issuedIDJSON{ID: id.ID.String(), Dots: newDotsJSON(id.Dots)})
	}
	if r.Mine.Actor != 0 {
		out.Mine = &mineJSON{Actor: r.Mine.Actor.String(), Boot: hexWord(r.Mine.Boot)}
	}
	return out
}

func newSiblingJSON(v kv.Version) siblingJSON {
	s := v.Value
	out := siblingJSON{
		Dot: newDotJSON(v.Dot), Kind: kindName(s.Kind), N: s.N, Stamp: hexWord(uint64(s.Stamp)), Modified: s.Stamp.Time().UTC(),
		WriteID: optional(s.WriteID), ContentType: s.ContentType, Meta: metaMap(s.Meta),
		Length: s.Length, Checksum: string(appendChecksum(nil, s.Checksum)), External: s.External,
	}
	if s.Expires != 0 {
		at := time.UnixMilli(s.Expires).UTC()
		out.Expires = &at
	}
	if s.Kind == kv.KindValue && !s.External {
		value := append([]byte{}, s.Inline...)
		out.Value = &value
	}
	return out
}

func kindName(k kv.Kind) string {
	switch k {
	case kv.KindValue:
		return "value"
	case kv.KindTombstone:
		return "tombstone"
	}
	return fmt.Sprintf("kind %d", k)
}

func newDotJSON(d vclock.Dot) dotJSON { return dotJSON{Actor: d.Actor.String(), Counter: d.Counter} }

func newDotsJSON(dots []vclock.Dot) []dotJSON {
	out := make([]dotJSON, len(dots))
	for i, d := range dots {
		out[i] = newDotJSON(d)
	}
	return out
}

// RecordHash is how a record is named where records are shown: the xxhash64 of
// its canonical encoding, in hexadecimal digits.
func RecordHash(r kv.Record) string { return hexWord(xxhash.Sum64(kv.AppendRecord(nil, r))) }

func hexWord(v uint64) string { return string(appendHex(nil, v)) }
