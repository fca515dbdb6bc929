package badgerengine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/starling-kv/starling/node/storage"
)

const logSuffix = ".mem"

// logs makes badger's write-ahead logs durable.
//
// Each memtable has a log of its own, %05d.mem, written through a memory map.
// Badger starts a new memtable, and so a new log, at the beginning of a
// transaction when the old one is full (db.go, ensureRoomForWrite), and leaves
// the old log as it is until the memtable has become a synced table file that
// the manifest names (handleMemTableFlush); then the log is deleted. What badger
// syncs on request (db.go, Sync) is the newest log only. A transaction committed
// before the change of logs would stay unsynced after a sync that came later,
// and a power cut could take it and leave what was built upon it.
//
// So logs follows each change, and syncs all that are not known to be durable,
// oldest first. fdatasync writes pages that were changed through a memory map
// too; msync with MS_SYNC is the same call within Linux (mm/msync.c). It is done
// on files of our own, so that no lock of badger's, which readers need, is held
// meanwhile. Logs are used by one goroutine at a time.
type logs struct {
	dir     string
	number  int // of the newest log
	newest  *os.File
	older   []*os.File // not known to be durable, oldest first
	created bool       // the directory does not yet name newest durably
}

// openLogs finds the newest log of a database that was just opened. All others
// were synced before that, by prepare.
func openLogs(dir string) (*logs, error) {
	numbers, err := logNumbers(dir)
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		return nil, errors.New("badger made no write-ahead log")
	}
	l := &logs{dir: dir, number: numbers[len(numbers)-1], created: true}
	l.newest, err = os.OpenFile(l.name(l.number), os.O_RDWR, 0)
	return l, err
}

// logNumbers returns the numbers of the logs in dir, ascending.
func logNumbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), logSuffix)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("%s is no write-ahead log: move it elsewhere", e.Name())
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (l *logs) name(number int) string {
	return filepath.Join(l.dir, fmt.Sprintf("%05d%s", number, logSuffix))
}

// follow takes up the new log after a transaction that filled a memtable, which
// can make one at most.
func (l *logs) follow() error {
	f, err := os.OpenFile(l.name(l.number+1), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("new write-ahead log: %w", err)
	}
	l.older = append(l.older, l.newest)
	l.number, l.newest, l.created = l.number+1, f, true
	return l.forget()
}

// forget closes the older logs that badger has deleted, whose content is
// durable elsewhere.
func (l *logs) forget() error {
	var errs []error
	l.older = slices.DeleteFunc(l.older, func(f *os.File) bool {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink > 0 {
			return false
		}
		errs = append(errs, f.Close())
		return true
	})
	return errors.Join(errs...)
}

// sync makes all transactions so far durable.
func (l *logs) sync() error {
	if l.created {
		if err := storage.SyncDir(l.dir); err != nil {
			return err
		}
		l.created = false
	}
	for len(l.older) > 0 {
		if err := errors.Join(datasync(l.older[0]), l.older[0].Close()); err != nil {
			return err
		}
		l.older = l.older[1:]
	}
	return datasync(l.newest)
}

func (l *logs) close() error {
	err := l.newest.Close()
	for _, f := range l.older {
		err = errors.Join(err, f.Close())
	}
	return err
}

func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
