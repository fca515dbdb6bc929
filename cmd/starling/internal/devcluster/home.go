package devcluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Home is where a cluster keeps its files:
//
//	cluster.json   its plan
//	secret         what its nodes know one another by, readable by the owner only
//	n1/data        what node n1 stores
//	n1/log         what node n1 said, over all its starts
type Home struct {
	Path      string
	temporary bool
}

// OpenHome returns the home at path, which is made if nothing is there, or a
// temporary one if path is empty. It refuses one that was made for another plan.
func OpenHome(path string, p Plan) (Home, error) {
	h := Home{Path: path, temporary: path == ""}
	if h.temporary {
		made, err := os.MkdirTemp("", "starling-dev-")
		if err != nil {
			return Home{}, err
		}
		h.Path = made
	}
	absolute, err := filepath.Abs(h.Path)
	if err != nil {
		return Home{}, err
	}
	h.Path = absolute
	if err := h.settle(p); err != nil {
		return Home{}, errors.Join(err, h.Close())
	}
	return h, nil
}

// Close removes a temporary home.
func (h Home) Close() error {
	if !h.temporary {
		return nil
	}
	return os.RemoveAll(h.Path)
}

// Secret is the path of the secret.
func (h Home) Secret() string { return filepath.Join(h.Path, "secret") }

// Data is the path of the directory for the node's data, which is the node's to
// make.
func (h Home) Data(node string) string { return filepath.Join(h.Path, node, "data") }

// Log is the path of the node's log.
func (h Home) Log(node string) string { return filepath.Join(h.Path, node, "log") }

func (h Home) planFile() string { return filepath.Join(h.Path, "cluster.json") }

// settle makes what is missing, the plan first: it marks the directory as ours.
func (h Home) settle(p Plan) error {
	old, err := h.plan()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = h.claim(p)
	case err == nil && old != p:
		err = fmt.Errorf("%s holds a cluster that was started with %s: start it with the same, or choose another --dir", h.Path, old)
	}
	if err != nil {
		return err
	}
	for _, n := range p.Layout() {
		if err := os.MkdirAll(filepath.Dir(h.Log(n.Name)), 0o750); err != nil {
			return err
		}
	}
	return h.ensureSecret()
}

func (h Home) plan() (Plan, error) {
	b, err := os.ReadFile(h.planFile())
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return Plan{}, fmt.Errorf("%s: %w: choose another --dir", h.planFile(), err)
	}
	return p, nil
}

func (h Home) claim(p Plan) error {
	entries, err := os.ReadDir(h.Path)
	switch {
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%s holds something else than a cluster of this command: choose another --dir", h.Path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(h.Path, 0o750); err != nil {
		return err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(h.planFile(), append(b, '\n'), 0o600)
}

func (h Home) ensureSecret() error {
	f, err := os.OpenFile(h.Secret(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	_, err = fmt.Fprintln(f, hex.EncodeToString(secret))
	return errors.Join(err, f.Close())
}
