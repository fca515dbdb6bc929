package kv

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// WriteID names one intended write over all its attempts: a UUID of version 7
// (RFC 9562), whose first 48 bits are the time of issue in Unix milliseconds.
// Its byte order is therefore an order by time. Zero is no id.
type WriteID [16]byte

// ErrWriteID is wrapped by the errors of [ParseWriteID].
var ErrWriteID = errors.New("a write id is a UUID of version 7")

// NewWriteID makes an id issued at now from 74 bits of random.
func NewWriteID(now time.Time, random func() uint64) WriteID {
	var id WriteID
	ms := uint64(max(0, now.UnixMilli()))
	binary.BigEndian.PutUint64(id[:8], ms<<16|0x7000|random()&0x0fff)
	binary.BigEndian.PutUint64(id[8:], 1<<63|random()>>2)
	return id
}

// ParseWriteID reads the usual text form of a UUID.
func ParseWriteID(s string) (WriteID, error) {
	var id WriteID
	digits := strings.ReplaceAll(s, "-", "")
	if len(s) != 36 || len(digits) != 32 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return WriteID{}, fmt.Errorf("%w, not %q", ErrWriteID, s)
	}
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return WriteID{}, fmt.Errorf("%w, not %q", ErrWriteID, s)
	}
	if id[6]>>4 != 7 || id[8]>>6 != 2 {
		return WriteID{}, fmt.Errorf("%w, %q is of another", ErrWriteID, s)
	}
	return id, nil
}

// String returns the usual text form of a UUID.
func (id WriteID) String() string {
	h := hex.EncodeToString(id[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// IsZero reports whether id is no id.
func (id WriteID) IsZero() bool { return id == WriteID{} }

// Issued returns when the id was made, by its maker's clock.
func (id WriteID) Issued() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// Compare orders ids by time of issue, then by their random part.
func (id WriteID) Compare(o WriteID) int { return bytes.Compare(id[:], o[:]) }

// MarshalText writes the usual text form of a UUID.
func (id WriteID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [WriteID.MarshalText] writes.
func (id *WriteID) UnmarshalText(b []byte) error {
	v, err := ParseWriteID(string(b))
	if err != nil {
		return err
	}
	*id = v
	return nil
}
