package kv

import (
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Limits checked at the door. They are part of the formats: a stored key or
// name over them is refused as damage.
const (
	MaxKeyBytes    = 2 << 10
	MaxBucketBytes = 128
	// MaxN is the largest number of replicas that a request may ask for.
	MaxN = 16
)

// Key names a value: a bucket and, within it, any bytes.
type Key struct {
	Bucket string
	Name   string
}

// String returns bucket/name with the name quoted where it is not printable.
func (k Key) String() string {
	if q := fmt.Sprintf("%q", k.Name); q != `"`+k.Name+`"` {
		return k.Bucket + "/" + q
	}
	return k.Bucket + "/" + k.Name
}

// Hash returns the place of the key in the 64-bit xxhash space. A bucket holds
// no NUL, so that the separator keeps bucket and name apart.
func (k Key) Hash() uint64 {
	var buf [256]byte
	b := append(buf[:0], k.Bucket...)
	b = append(b, 0)
	b = append(b, k.Name...)
	return xxhash.Sum64(b)
}

// Validate reports what is wrong with the key, in words for its author.
func (k Key) Validate() error {
	switch {
	case k.Bucket == "" || len(k.Bucket) > MaxBucketBytes:
		return fmt.Errorf("a bucket has 1 to %d characters, this one has %d", MaxBucketBytes, len(k.Bucket))
	case strings.ContainsFunc(k.Bucket, notBucketRune):
		return fmt.Errorf("bucket %q: use letters, digits, '.', '_' and '-' only", k.Bucket)
	case k.Bucket == "." || k.Bucket == "..":
		return fmt.Errorf("bucket %q: the names '.' and '..' are not allowed", k.Bucket)
	case k.Name == "":
		return fmt.Errorf("the key is empty: a key has 1 to %d bytes", MaxKeyBytes)
	case len(k.Name) > MaxKeyBytes:
		return fmt.Errorf("a key has at most %d bytes, this one has %d: hash or shorten it", MaxKeyBytes, len(k.Name))
	}
	return nil
}

const bucketAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

func notBucketRune(r rune) bool { return !strings.ContainsRune(bucketAlphabet, r) }

// Slot is where a node keeps a record: among the keys that it owns (Target is
// zero), or as a hint that it holds for the owner Target, for which it stands in.
type Slot struct {
	Target    NodeID
	Partition uint16
	Key       Key
}
