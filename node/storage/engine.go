package storage

// Engine is an ordered map of byte strings on a disk. Keys are ordered
// bytewise. All methods but Commit may be called by many goroutines at once,
// also during a Commit; after Close they return [ErrClosed].
//
// What an engine promises about crashes:
//
//   - a batch is there wholly or not at all;
//   - once a Commit with sync returned nil, its batch and every batch committed
//     before it survive anything that the disk survives;
//   - of the later batches any part may be lost, not only the last ones;
//   - what Open finds on the disk counts as synced.
//
// Package enginetest holds the tests that every engine passes.
type Engine interface {
	// Get returns the value of key, which the caller owns, or [ErrNotFound].
	Get(key []byte) ([]byte, error)

	// Scan calls fn for each key from <= key < to in ascending order, as they
	// were at one moment between the call and the first fn; a nil to is the end
	// of all keys. Key and value are fn's to keep. An error of fn ends the scan
	// and is returned as it is.
	Scan(from, to []byte, fn func(key, value []byte) error) error

	// Commit applies b at once and, if sync, makes it and all earlier batches
	// durable; an empty b with sync makes the earlier ones durable. It keeps
	// the slices of b's operations, not b itself. It is called by one goroutine
	// at a time. After an error that wraps [ErrDiskFull] or [ErrTooLarge]
	// nothing of b was applied; after any other error nobody knows, and reads
	// may see b or not.
	Commit(b *Batch, sync bool) error

	// MaxBatch returns the largest [Batch.Size] that Commit takes, at least
	// [MinMaxBatch].
	MaxBatch() int

	// Close makes all batches durable and releases the engine, after the reads
	// under way. It is called once no Commit is under way.
	Close() error
}

// MinMaxBatch is the least that an engine's MaxBatch may return, in bytes: one
// chunk of a value and the small operations that go with it.
const MinMaxBatch = 2 * chunkBytes

// opOverhead is what an operation counts towards [Batch.Size] besides its key
// and value. It is generous: an engine must be able to turn its limits on both
// the bytes and the number of operations into a limit on the size.
const opOverhead = 128

// Op sets the value of a key or, if Delete is set, removes the key.
type Op struct {
	Key, Value []byte
	Delete     bool
}

// size is what the operation counts towards [Batch.Size].
func (o Op) size() int { return len(o.Key) + len(o.Value) + opOverhead }

// Batch is a list of operations to be applied in their order and at once. The
// zero Batch is empty. It is not safe for concurrent use.
type Batch struct {
	ops  []Op
	size int
}

// Set adds setting key to value. The batch keeps both slices.
func (b *Batch) Set(key, value []byte) { b.add(Op{Key: key, Value: value}) }

// Delete adds removing key, which need not exist. The batch keeps the slice.
func (b *Batch) Delete(key []byte) { b.add(Op{Key: key, Delete: true}) }

func (b *Batch) add(ops ...Op) {
	for _, op := range ops {
		b.size += op.size()
	}
	b.ops = append(b.ops, ops...)
}

// Ops returns the operations, oldest first; they stay the batch's.
func (b *Batch) Ops() []Op { return b.ops }

// Len returns the number of operations.
func (b *Batch) Len() int { return len(b.ops) }

// Size returns the bytes of all keys and values, plus a fixed overhead for
// each operation.
func (b *Batch) Size() int { return b.size }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops, b.size = b.ops[:0], 0
}
