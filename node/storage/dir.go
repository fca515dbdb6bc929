package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/starling-kv/starling/kv"
)

const lockName = "LOCK"

// Errors of [OpenDir] and the methods of [Dir]. What is returned names the
// directory and the remedy.
var (
	// ErrInUse: another process has the directory open.
	ErrInUse = errors.New("directory is in use")
	// ErrForeign: the directory belongs to another node or cluster, or to
	// something else altogether.
	ErrForeign = errors.New("directory belongs to another")
	// ErrIncomplete: files that the directory must hold are gone.
	ErrIncomplete = errors.New("directory is incomplete")
)

// Dir is the directory of one node, locked against other processes. Its marker
// says whose it is and whether an engine holds data in it. BindCluster, TakeOver,
// Recorded and EngineOpened, which change the marker, are called by one goroutine at a time;
// the other methods by any.
type Dir struct {
	path string
	lock *os.File

	mu     sync.Mutex // guards marker
	marker marker
}

// Identity is whose a directory is.
type Identity struct {
	Node    kv.NodeID
	Name    string
	Cluster [16]byte // zero until [Dir.BindCluster]
	Emptied bool     // since [Dir.TakeOver], until [Dir.Recorded]
}

// OpenDir opens the directory of the node called name and locks it until Close
// or the end of the process, however that comes. A directory that does not
// exist or is empty becomes this node's, under an id from random, which returns
// 64 random bits. Refused are a directory that another process uses
// ([ErrInUse]), one of another node or with files of something else
// ([ErrForeign]), one of an unknown format ([ErrFormat]), and one whose marker
// cannot be read ([ErrCorrupt]).
func OpenDir(path, name string, random func() uint64) (*Dir, error) {
	d, err := openDir(path, name, random)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return d, nil
}

func openDir(path, name string, random func() uint64) (*Dir, error) {
	if name == "" {
		return nil, errors.New("a node needs a name")
	}
	// Before anything is written there: is it a node's, or going to be?
	if _, err := readMarker(path); errors.Is(err, fs.ErrNotExist) {
		if err := refuseForeign(path); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: lock}
	if err := d.identify(name, random); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

func refuseForeign(path string) error {
	stranger, err := foreign(path)
	if err == nil && stranger != "" {
		err = fmt.Errorf("%w: %s holds %q but no file %s: choose an empty directory, or put the file back if this is a node's",
			ErrForeign, path, stranger, markerName)
	}
	return err
}

// identify reads the marker under the lock, or makes one.
func (d *Dir) identify(name string, random func() uint64) error {
	m, err := readMarker(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d.initialise(name, random)
	}
	if err != nil {
		return err
	}
	if m.Node != name {
		return fmt.Errorf("%w: %s is the directory of node %q, this node is called %q: choose another directory or name",
			ErrForeign, d.path, m.Node, name)
	}
	d.marker = m
	return nil
}

func (d *Dir) initialise(name string, random func() uint64) error {
	if err := refuseForeign(d.path); err != nil {
		return err
	}
	m := marker{Format: markerFormat, Node: name}
	for m.NodeID == 0 {
		m.NodeID = kv.NodeID(random())
	}
	if err := writeMarker(d.path, m); err != nil {
		return err
	}
	d.marker = m
	// The directory itself may be new: its name must survive as well.
	return SyncDir(filepath.Dir(filepath.Clean(d.path)))
}

// lockDir takes the lock of a directory. The kernel holds it for the open file:
// it goes with the process, also by kill -9. The pid in the file is for people.
func lockDir(path string) (*os.File, error) {
	name := filepath.Join(path, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		err = fmt.Errorf("%w: %s is held by process %s: stop it, or choose another directory",
			ErrInUse, path, strings.TrimSpace(string(holder)))
	}
	if err == nil {
		err = writePID(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Identity returns whose the directory is.
func (d *Dir) Identity() Identity {
	m := d.current()
	return Identity{Node: m.NodeID, Name: m.Node, Cluster: m.Cluster, Emptied: m.Emptied}
}

func (d *Dir) current() marker {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.marker
}

// BindCluster records durably that the node belongs to a cluster. It does
// nothing if that is recorded already, and returns [ErrForeign] if another is.
func (d *Dir) BindCluster(id [16]byte) error {
	if id == ([16]byte{}) {
		return errors.New("data directory: a cluster id is not zero")
	}
	return d.update(func(m *marker) error {
		if m.Cluster != (hexID{}) && m.Cluster != id {
			return fmt.Errorf("%w: %s belongs to cluster %x, not %x: choose another directory to join this one",
				ErrForeign, d.path, m.Cluster, id)
		}
		m.Cluster = id
		return nil
	})
}

// TakeOver makes the directory that of the node id, whose own was lost, durably.
// It must hold no record.
func (d *Dir) TakeOver(id kv.NodeID) error {
	return d.update(func(m *marker) error {
		m.NodeID, m.Emptied = id, true
		return nil
	})
}

// Recorded says that the loss of the node's disk is durably known elsewhere.
func (d *Dir) Recorded() error {
	return d.update(func(m *marker) error {
		m.Emptied = false
		return nil
	})
}

// EnginePath returns the folder for an engine of the given kind. sentinel is
// the file, beneath the folder, without which the engine would start empty: if
// the marker says that the engine holds data and the sentinel is gone, the
// error is [ErrIncomplete], and the engine must not be opened.
func (d *Dir) EnginePath(kind, sentinel string) (string, error) {
	engine := d.current().Engine
	path := filepath.Join(d.path, "engine")
	if !engine.Initialised {
		return path, nil
	}
	if engine.Kind != kind {
		return "", fmt.Errorf("data directory: %w: %s holds an engine of kind %q, not %q", ErrForeign, d.path, engine.Kind, kind)
	}
	if _, err := os.Stat(filepath.Join(path, sentinel)); err != nil {
		return "", fmt.Errorf("data directory: %w: %s held data, but %s cannot be read (%w): restore the directory from a backup, "+
			"or empty it to rejoin as a new node; the other replicas hold the data", ErrIncomplete, d.path, sentinel, err)
	}
	return path, nil
}

// EngineOpened records durably that an engine of the given kind is there: from
// then on its files must be.
func (d *Dir) EngineOpened(kind string) error {
	return d.update(func(m *marker) error {
		m.Engine = engineState{Kind: kind, Initialised: true}
		return nil
	})
}

// update changes the marker durably, if change changes it.
func (d *Dir) update(change func(*marker) error) error {
	old := d.current()
	m := old
	if err := change(&m); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if m == old {
		return nil
	}
	if err := writeMarker(d.path, m); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marker = m
	return nil
}

// Space returns the free and the total bytes of the file system, as the process
// may use them.
func (d *Dir) Space() (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", d.path, err)
	}
	size := uint64(st.Bsize)
	return st.Bavail * size, st.Blocks * size, nil
}

// Free returns the free bytes of the file system.
func (d *Dir) Free() (uint64, error) {
	free, _, err := d.Space()
	return free, err
}

// Close releases the directory. It may be called more than once.
func (d *Dir) Close() error {
	if err := d.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}
