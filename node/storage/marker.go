package storage

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/starling-kv/starling/kv"
)

const (
	markerName   = "STARLING"
	markerFormat = 1
)

// marker is the content of the file that makes a directory a node's. It says
// whose the directory is and what must be in it.
type marker struct {
	Format  int         `json:"format"`
	NodeID  kv.NodeID   `json:"node_id"`
	Node    string      `json:"node"`
	Cluster hexID       `json:"cluster,omitzero"`
	Engine  engineState `json:"engine,omitzero"`
	// Emptied says that the node's disk was lost, and that nothing else records
	// that yet.
	Emptied bool `json:"emptied,omitzero"`
}

// engineState says that an engine was opened in the directory, after which it
// may hold acknowledged writes.
type engineState struct {
	Kind        string `json:"kind"`
	Initialised bool   `json:"initialised"`
}

// hexID is sixteen bytes, in JSON thirty-two hexadecimal digits.
type hexID [16]byte

func (h hexID) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

func (h *hexID) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(h) {
		return fmt.Errorf("want %d hexadecimal digits, not %q", hex.EncodedLen(len(h)), b)
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// readMarker returns the marker in dir; an error that is [fs.ErrNotExist] says
// that there is none.
func readMarker(dir string) (marker, error) {
	path := filepath.Join(dir, markerName)
	text, err := os.ReadFile(path)
	if err != nil {
		return marker{}, err
	}
	m, err := parseMarker(text)
	switch {
	case errors.Is(err, ErrFormat):
		return marker{}, fmt.Errorf("%s: %w: start the version that wrote it", path, err)
	case err != nil:
		return marker{}, fmt.Errorf("%s: %w: restore the file from a backup, or empty the directory to rejoin as a new node", path, err)
	}
	return m, nil
}

func parseMarker(text []byte) (marker, error) {
	var m marker
	if err := json.Unmarshal(text, &m); err != nil {
		return marker{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	switch {
	case m.Format != markerFormat:
		return marker{}, fmt.Errorf("%w: format %d, this version knows %d", ErrFormat, m.Format, markerFormat)
	case m.NodeID == 0 || m.Node == "":
		return marker{}, fmt.Errorf("%w: it names no node", ErrCorrupt)
	}
	return m, nil
}

// writeMarker replaces the marker in dir durably, or leaves the old one.
func writeMarker(dir string, m marker) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return ReplaceFile(filepath.Join(dir, markerName), append(text, '\n'))
}

// foreign returns a name in dir that a node did not put there, if there is one.
// The top of a file system may hold lost+found.
func foreign(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	for _, e := range entries {
		switch e.Name() {
		case markerName, markerName + ".tmp", lockName, "lost+found":
		default:
			return e.Name(), err
		}
	}
	return "", err
}
