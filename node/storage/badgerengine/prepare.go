package badgerengine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
	"golang.org/x/sys/unix"

	"github.com/starling-kv/starling/node/storage"
)

const (
	tableSuffix    = ".sst"
	valueLogSuffix = ".vlog"
	// closedName is the file that says how the manifest was when the engine was
	// closed in good order. It is gone while an engine is open.
	closedName = "CLOSED"

	remedy = "restore the directory from a backup, or empty it to rejoin as a new node; the other replicas hold the data"
)

// prepare judges and tidies what is in dir before badger sees it, which would
// delete the tables that the manifest does not name, start empty without a
// manifest, and die of some damaged files instead of refusing them. Everything
// in dir is durable afterwards.
func prepare(dir string, o Options) error {
	if err := enoughSpace(dir, o); err != nil {
		return err
	}
	if err := removeEmptyLogs(dir); err != nil {
		return err
	}
	if err := checkManifest(dir, o); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, closedName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncLogs(dir)
}

// glob returns the paths of the files in dir whose names end in suffix.
func glob(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, err
}

// enoughSpace refuses to open on a disk so full that opening would end in the
// signal that a memory-mapped file raises when it cannot grow: the logs found
// are flushed to tables, and a new log and value log are made.
func enoughSpace(dir string, o Options) error {
	need := uint64(o.maxTxn() + 4*valueLog)
	logs, err := glob(dir, logSuffix)
	if err != nil {
		return err
	}
	for _, path := range logs {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		need += uint64(st.Blocks) * 512
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if free := st.Bavail * uint64(st.Bsize); free < need {
		return fmt.Errorf("%w: %d bytes are free and opening needs %d: free some space", storage.ErrDiskFull, free, need)
	}
	return nil
}

// removeEmptyLogs removes the files of no length that a killed process leaves
// between creating and sizing them, or between emptying and removing them, and
// that badger refuses to open (badger#2207). No value is ever in a value log.
func removeEmptyLogs(dir string) error {
	for _, suffix := range []string{logSuffix, valueLogSuffix} {
		paths, err := glob(dir, suffix)
		if err != nil {
			return err
		}
		for _, path := range paths {
			st, err := os.Stat(path)
			if err == nil && st.Size() == 0 {
				err = os.Remove(path)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// syncLogs makes durable what an earlier process wrote and did not sync.
func syncLogs(dir string) error {
	paths, err := glob(dir, logSuffix)
	if err != nil {
		return err
	}
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return storage.SyncDir(dir)
}

// checkManifest refuses a manifest that is gone, that was cut or changed since
// the engine was closed, that names tables which are not there or cannot be
// opened, or that names none although there are some.
func checkManifest(dir string, o Options) error {
	tables, err := glob(dir, tableSuffix)
	if err != nil {
		return err
	}
	logs, err := glob(dir, logSuffix)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) && len(tables)+len(logs) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w: %s", storage.ErrIncomplete, err, remedy)
	}
	manifest, _, err := badger.ReplayManifestFile(f, 0, o.badger(dir, newAlarm()))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%w: %s: %w: %s", storage.ErrCorrupt, badger.ManifestFilename, err, remedy)
	}
	if err := checkClosed(dir); err != nil {
		return err
	}
	// A crash can leave the one table of a flush that was not recorded yet. The
	// tables of a compaction come only after some are recorded.
	if len(manifest.Tables) == 0 && len(tables) > 1 {
		return fmt.Errorf("%w: %s names none of %d tables: %s", storage.ErrIncomplete, badger.ManifestFilename, len(tables), remedy)
	}
	return checkTables(dir, manifest)
}

func checkTables(dir string, manifest badger.Manifest) error {
	ids := make([]uint64, 0, len(manifest.Tables))
	for id := range manifest.Tables {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if err := checkTable(table.NewFilename(id, dir)); err != nil {
			return fmt.Errorf("table %d: %w: %s", id, err, remedy)
		}
	}
	return nil
}

// checkTable opens a table as badger does, which checks its index. Badger opens
// tables in goroutines of its own, where a panic ends the process.
func checkTable(path string) (err error) {
	file, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", storage.ErrIncomplete, err)
	case errors.Is(err, unix.EINVAL): // nothing to map
		return fmt.Errorf("%w: the file is empty", storage.ErrCorrupt)
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, file.Close(-1)) }()
	if err := openTable(file); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	return nil
}

func openTable(file *z.MmapFile) (err error) {
	defer guard(&err)()
	_, err = table.OpenTable(file, table.Options{
		ReadOnly:    true,
		ChkMode:     options.NoVerification,
		Compression: options.None,
	})
	return err
}

// writeClosed records how the manifest is after a close in good order.
func writeClosed(dir string) error {
	text, err := describeManifest(dir)
	if err != nil {
		return err
	}
	return storage.ReplaceFile(filepath.Join(dir, closedName), []byte(text))
}

// checkClosed compares the manifest with the record of the last close. There is
// none if the engine was not closed in good order.
func checkClosed(dir string) error {
	want, err := os.ReadFile(filepath.Join(dir, closedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	got, err := describeManifest(dir)
	if err == nil && got != string(want) {
		err = fmt.Errorf("%w: %s was changed since the engine was closed: it is now %q and was %q: %s",
			storage.ErrIncomplete, badger.ManifestFilename, got, want, remedy)
	}
	return err
}

func describeManifest(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d bytes, xxhash64 %016x", len(text), xxhash.Sum64(text)), nil
}
