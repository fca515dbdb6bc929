package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/starling-kv/starling/node/storage"
)

func fixed(id uint64) func() uint64 { return func() uint64 { return id } }

// mustOpenDir opens a directory of node anna.
func mustOpenDir(t *testing.T, path string, random func() uint64) *storage.Dir {
	t.Helper()
	d, err := storage.OpenDir(path, "anna", random)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func mustClose(t *testing.T, d *storage.Dir) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// wantRefusal checks that an error is of its kind and names what to do.
func wantRefusal(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error %v, want %v", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestDirKeepsItsIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "data")
	draws := []uint64{0, 42}
	d := mustOpenDir(t, path, func() uint64 { x := draws[0]; draws = draws[1:]; return x })
	want := storage.Identity{Node: 42, Name: "anna"}
	if got := d.Identity(); got != want {
		t.Errorf("new directory of %+v, want %+v", got, want)
	}
	want.Cluster = [16]byte{1, 2, 3}
	for range 2 {
		if err := d.BindCluster(want.Cluster); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, d)
	mustClose(t, d)
	d = mustOpenDir(t, path, fixed(7))
	if got := d.Identity(); got != want {
		t.Errorf("opened again it is of %+v, want %+v", got, want)
	}
}

func TestDirRefusesAnotherCluster(t *testing.T) {
	d := mustOpenDir(t, t.TempDir(), fixed(1))
	if err := d.BindCluster([16]byte{1}); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, d.BindCluster([16]byte{2}), storage.ErrForeign, "belongs to cluster 01", "another directory")
	if err := d.BindCluster([16]byte{}); err == nil {
		t.Error("bound to no cluster")
	}
	if got := d.Identity().Cluster; got != [16]byte{1} {
		t.Errorf("cluster %x", got)
	}
}

func TestDirRefusesAnotherName(t *testing.T) {
	path := t.TempDir()
	mustClose(t, mustOpenDir(t, path, fixed(1)))
	_, err := storage.OpenDir(path, "bert", fixed(1))
	wantRefusal(t, err, storage.ErrForeign, `"anna"`, `"bert"`, "another directory or name")
	if _, err := storage.OpenDir(path, "", fixed(1)); err == nil {
		t.Error("opened without a name")
	}
}

func TestDirRefusesForeignFiles(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "photo.jpg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := storage.OpenDir(path, "anna", fixed(1))
	wantRefusal(t, err, storage.ErrForeign, `"photo.jpg"`, "empty directory")
	left, err := os.ReadDir(path)
	if err != nil || len(left) != 1 {
		t.Errorf("%d files in somebody else's directory, %v, want its own only", len(left), err)
	}
}

func TestDirMayBeTheTopOfAFileSystem(t *testing.T) {
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	mustOpenDir(t, path, fixed(1))
}

// A crash during the first start leaves the lock, and perhaps half a marker
// under its temporary name.
func TestDirOfACrashedFirstStart(t *testing.T) {
	path := t.TempDir()
	for name, text := range map[string]string{"LOCK": "123\n", "STARLING.tmp": `{"for`} {
		if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustOpenDir(t, path, fixed(1))
}

func TestDirWithAMarkerThatCannotBe(t *testing.T) {
	tests := []struct {
		name, from, to string
		kind           error
		words          []string
	}{
		{"cut", "}", "", storage.ErrCorrupt, []string{"backup"}},
		{"no node", `"00000000000000ff"`, `"0000000000000000"`, storage.ErrCorrupt, []string{"it names no node"}},
		{"bad id", `"00000000000000ff"`, `"xy"`, storage.ErrCorrupt, []string{"16 hexadecimal digits"}},
		{"later format", `"format": 1`, `"format": 2`, storage.ErrFormat, []string{"format 2", "start the version that wrote it"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir()
			mustClose(t, mustOpenDir(t, path, fixed(255)))
			file := filepath.Join(path, "STARLING")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			changed := bytes.ReplaceAll(text, []byte(tt.from), []byte(tt.to))
			if bytes.Equal(changed, text) {
				t.Fatalf("marker %s holds no %s", text, tt.from)
			}
			if err := os.WriteFile(file, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = storage.OpenDir(path, "anna", fixed(1))
			wantRefusal(t, err, tt.kind, append(tt.words, file)...)
		})
	}
}

func TestDirInUse(t *testing.T) {
	path := t.TempDir()
	d := mustOpenDir(t, path, fixed(1))
	_, err := storage.OpenDir(path, "anna", fixed(1))
	wantRefusal(t, err, storage.ErrInUse, fmt.Sprint("process ", os.Getpid()))
	mustClose(t, d)
	mustOpenDir(t, path, fixed(1))
}

// The lock goes with its process, also if that had no chance to release it.
func TestDirOfAKilledProcess(t *testing.T) {
	path := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestHoldDir$")
	child.Env = append(os.Environ(), "HOLD_DIR="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_, err = storage.OpenDir(path, "anna", fixed(1))
	wantRefusal(t, err, storage.ErrInUse, "process "+strconv.Itoa(child.Process.Pid))
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	mustOpenDir(t, path, fixed(1))
}

// TestHoldDir is the child of TestDirOfAKilledProcess.
func TestHoldDir(t *testing.T) {
	path := os.Getenv("HOLD_DIR")
	if path == "" {
		t.Skip("run by another test only")
	}
	mustOpenDir(t, path, fixed(1))
	_, _ = os.Stdout.WriteString("held\n")
	select {} // until killed
}

func TestDirKnowsItsEngine(t *testing.T) {
	path := t.TempDir()
	d := mustOpenDir(t, path, fixed(1))
	engine, err := d.EnginePath("badger", "MANIFEST")
	if err != nil {
		t.Fatal(err)
	}
	sentinel := filepath.Join(engine, "MANIFEST")
	if err := errors.Join(os.Mkdir(engine, 0o700), os.WriteFile(sentinel, nil, 0o600), d.EngineOpened("badger")); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	d = mustOpenDir(t, path, fixed(1))
	if _, err := d.EnginePath("badger", "MANIFEST"); err != nil {
		t.Error(err)
	}
	_, err = d.EnginePath("other", "MANIFEST")
	wantRefusal(t, err, storage.ErrForeign, `"badger"`)
	if err := os.Remove(sentinel); err != nil {
		t.Fatal(err)
	}
	_, err = d.EnginePath("badger", "MANIFEST")
	wantRefusal(t, err, storage.ErrIncomplete, "MANIFEST", "backup", "rejoin")
	wantError(t, "its cause", err, fs.ErrNotExist)
}

func TestDirSpace(t *testing.T) {
	d := mustOpenDir(t, t.TempDir(), fixed(1))
	free, total, err := d.Space()
	if err != nil || free == 0 || total < free {
		t.Errorf("%d of %d bytes are free, %v", free, total, err)
	}
	if again, err := d.Free(); err != nil || again == 0 {
		t.Errorf("%d bytes are free, %v", again, err)
	}
}

func TestReplaceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"one", "a longer one", ""} {
		if err := storage.ReplaceFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("file holds %q, %v, want %q", got, err, text)
		}
	}
	if err := storage.ReplaceFile(filepath.Join(path, "no", "folder"), nil); err == nil {
		t.Error("replaced a file in a folder that is not there")
	}
}

func TestDirTakeOver(t *testing.T) {
	path := t.TempDir()
	d, err := storage.OpenDir(path, "n1", func() uint64 { return 7 })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.TakeOver(9), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = storage.OpenDir(path, "n1", func() uint64 { return 7 }); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := d.Identity(); got.Node != 9 || !got.Emptied {
		t.Errorf("identity %+v, want node 9, emptied", got)
	}
	if err := d.Recorded(); err != nil || d.Identity().Emptied {
		t.Errorf("still emptied once recorded (%v)", err)
	}
}
