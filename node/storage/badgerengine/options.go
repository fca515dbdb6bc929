package badgerengine

import (
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"go.uber.org/zap"
)

// Options size an engine. The zero Options are the defaults.
type Options struct {
	// MemTableSize is the size in bytes of the table in memory that is filled
	// before it goes to disk as one file, 32 MiB by default and at least 4 MiB.
	// A transaction takes 15% of it. A larger one means fewer, larger flushes
	// and more memory: about 1.3 times this for each of up to four tables.
	MemTableSize int64
	// Logger takes what badger has to say; nil: nobody.
	Logger *zap.Logger
}

const (
	defaultMemTable = 32 << 20
	minMemTable     = 4 << 20

	// memTables is how many full tables may wait for the disk beside the one
	// that is written to.
	memTables = 3
	// levelZero is how many flushed tables start a compaction; a read looks
	// into each of them. At stallZero flushing waits for compaction.
	levelZero = 2
	stallZero = 8
	// tableSize is the least size of a table that a compaction writes. One that
	// meets many tables is split, and its parts work side by side: with badger's
	// 2 MiB five parts take all processors from requests.
	tableSize   = 8 << 20
	compactors  = 2
	valueLog    = 1 << 20
	maxValue    = 1 << 20
	txnFraction = 15 // per cent of a memtable, badger's own
)

// Reserve returns how many bytes of disk the engine may need beyond what it
// holds, all at once: the logs of the memtables, which are allocated page by
// page as they fill, the tables that these are flushed to, and the output of
// compactions before their input is deleted. A low watermark under it lets the
// disk run full, which kills the process.
func (o Options) Reserve() uint64 {
	table := uint64(o.memTable()) * (100 + txnFraction) / 100
	logs := (memTables + 1) * table
	flushes := memTables * table
	compactions := compactors * stallZero * table
	return logs + flushes + compactions + 4*valueLog
}

func (o Options) memTable() int64 {
	if o.MemTableSize == 0 {
		return defaultMemTable
	}
	return max(o.MemTableSize, minMemTable)
}

// maxTxn is what badger allows a transaction, in bytes.
func (o Options) maxTxn() int64 { return txnFraction * o.memTable() / 100 }

// badger returns badger's options for a database in path that raises a if its
// disk fails. DESIGN.md says why each is as it is.
func (o Options) badger(path string, a *alarm) badger.Options {
	return badger.DefaultOptions(path).
		WithLogger(newLogger(o.Logger, a)).
		WithMetricsEnabled(false).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithValueThreshold(min(maxValue, o.maxTxn())).
		WithValueLogFileSize(valueLog).
		WithChecksumVerificationMode(options.NoVerification).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithMemTableSize(o.memTable()).
		WithNumMemtables(memTables).
		WithNumLevelZeroTables(levelZero).
		WithNumLevelZeroTablesStall(stallZero).
		WithBaseTableSize(tableSize).
		WithNumCompactors(compactors)
}
