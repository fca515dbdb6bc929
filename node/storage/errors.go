package storage

import "errors"

// Errors that callers match with [errors.Is]. What is returned wraps them with
// the particulars.
var (
	// ErrNotFound: an engine holds no value under the key, or a chunk of an
	// external value is missing: it was replaced meanwhile, so read the record
	// again.
	ErrNotFound = errors.New("not found")

	// ErrCorrupt: what the disk returned is not what was written there. It says
	// nothing about what the key holds; only other replicas know.
	ErrCorrupt = errors.New("stored data are damaged")

	// ErrFormat: the data were written by a version of the program that this
	// one does not know.
	ErrFormat = errors.New("stored data are of an unknown format")

	// ErrBusy: the queue of updates is full. Nothing was applied; try again
	// later.
	ErrBusy = errors.New("too many updates are waiting for the disk")

	// ErrDiskFull: there is too little free space to write. Reads go on, and
	// writes are taken again once space is freed.
	ErrDiskFull = errors.New("the disk is full")

	// ErrFailed: a commit or a sync failed before, so that nobody knows what the
	// disk holds of it. Reads go on; writes need a restart of the process, which
	// reads the disk anew.
	ErrFailed = errors.New("writes ended after a disk error: check the disk, then restart the node")

	// ErrClosed: the store or engine was closed.
	ErrClosed = errors.New("storage is closed")

	// ErrMissingBlob: a record refers to an external value that was neither
	// supplied nor kept. It is wrapped by a [MissingBlobError].
	ErrMissingBlob = errors.New("external values are missing")

	// ErrBadBlob: a supplied external value has not the length or checksum that
	// its record states.
	ErrBadBlob = errors.New("external value does not match its record")

	// ErrBadKey: a key that cannot be stored: an empty or overlong bucket or
	// name.
	ErrBadKey = errors.New("key cannot be stored")

	// ErrLeaf: a leaf of the hash trees and the records beneath it differ, or a
	// record is damaged. Only other replicas know what is missing here.
	ErrLeaf = errors.New("records and hash tree differ")

	// ErrTooLarge: more bytes than one transaction of the engine takes.
	ErrTooLarge = errors.New("too large for one transaction")
)
