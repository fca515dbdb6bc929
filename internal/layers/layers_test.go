package layers

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// TestTree judges every Go file of the module, whatever its build constraints.
func TestTree(t *testing.T) {
	for _, folder := range folders(t) {
		for _, file := range goFiles(t, folder) {
			report(t, file)
		}
	}
}

func report(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name, err := filepath.Rel(root, file)
	if err != nil {
		t.Fatal(err)
	}
	complaints, err := check(filepath.ToSlash(name), text)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for _, c := range complaints {
		if c.rule.advice {
			t.Log(c)
		} else {
			t.Error(c)
		}
	}
}

// folders lists the folders of the module's packages. With -e, a package that
// does not build is listed too: its layers can be judged all the same.
func folders(t *testing.T) []string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-e", "-f", "{{.Dir}}", "./...")
	list.Dir = root
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var dirs []string
	base, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.Lines(string(out)) {
		rel, err := filepath.Rel(base, strings.TrimSpace(dir))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, filepath.Join(root, rel))
	}
	return dirs
}

func goFiles(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCheck(t *testing.T) {
	const here = module + "/"
	tests := []struct {
		name string
		file string
		text string
		want []rule
	}{
		{"downward", "node/api/a.go", `import _ "` + here + `coordinator"`, nil},
		{"downward past a rank", "cmd/starling/main.go", `import _ "` + here + `vclock"`, nil},
		{"within a room", "node/storage/badger/a.go", `import _ "` + here + `node/storage"`, nil},
		{"upward", "ring/a.go", `import _ "` + here + `coordinator"`, []rule{upward}},
		{"upward to the node above", "node/api/a.go", `import _ "` + here + `node"`, []rule{upward}},
		{"upward from a test", "hints/a_test.go", `import _ "` + here + `node/storage"`, []rule{upward}},
		{"upward from a subfolder", "kv/kvtest/a.go", `import _ "` + here + `ring"`, []rule{upward}},
		{"upward under another name", "vclock/a.go", `import k "` + here + `kv"; var _ k.NodeID`, []rule{upward}},
		{"sideways between repairs", "hints/a.go", `import _ "` + here + `readrepair"`, []rule{sideways}},
		{"sideways below the node", "node/api/a.go", `import _ "` + here + `node/storage"`, []rule{sideways}},
		{"sideways to a subfolder", "node/api/a.go", `import _ "` + here + `node/storage/badger"`, []rule{sideways}},
		{"allowed neighbour", "node/replica/a.go", `import _ "` + here + `node/storage"`, nil},
		{"allowed one way only", "node/storage/a.go", `import _ "` + here + `node/replica"`, []rule{sideways}},

		{"client of the nouns", "client/a.go", `import _ "` + here + `kv"`, nil},
		{"client of the server", "client/a.go", `import _ "` + here + `ring"`, []rule{standalone}},
		{"client of a third party", "client/a.go", `import _ "github.com/x/y"`, []rule{standalone}},
		{"client test of a third party", "client/a_test.go", `import _ "pgregory.net/rapid"`, nil},
		{"server of the client", "node/a.go", `import _ "` + here + `client"`, []rule{sideways}},

		{"unranked folder", "gossip/a.go", ``, []rule{unranked}},
		{"unranked root", "main.go", ``, []rule{unranked}},
		{"unranked folder beneath node", "node/queue/a.go", ``, []rule{unranked}},
		{"import of an unranked folder", "node/a.go", `import _ "` + here + `gossip"`, []rule{unranked}},

		{"pure room with files", "ring/a.go", `import _ "os"`, []rule{impureImport}},
		{"pure room with network", "vclock/a.go", `import _ "net/http"`, []rule{impureImport}},
		{"pure room with addresses", "ring/a.go", `import _ "net/netip"`, nil},
		{"pure room's test with files", "ring/a_test.go", `import _ "os"`, nil},
		{"pure room with a goroutine", "kv/a.go", `func f() { go f() }`, []rule{goroutine}},
		{"driver with a goroutine", "coordinator/a.go", `func f() { go f() }`, nil},
		{"pure room with the global source", "ring/a.go", `import "math/rand/v2"; var _ = rand.Uint64()`, []rule{globalRandom}},
		{"pure room with the old global source", "ring/a.go", `import r "math/rand"; var f = r.Intn`, []rule{globalRandom}},
		{"pure room with its own source", "ring/a.go", `import "math/rand/v2"; var _ = rand.New(rand.NewPCG(1, 2))`, nil},

		{"sleeping test", "node/a_test.go", `import "time"; func f() { time.Sleep(1) }`, []rule{sleep}},
		{"sleeping test helper", "node/storage/storagetest/a.go", `import "time"; func f() { time.Sleep(1) }`, []rule{sleep}},
		{"sleeping under another name", "node/a_test.go", `import t "time"; func f() { t.Sleep(1) }`, []rule{sleep}},
		{"sleeping in a bubble", "node/a_test.go", `import ("testing/synctest"; "time"); func f() { time.Sleep(1); synctest.Wait() }`, nil},
		{"sleeping driver", "node/a.go", `import "time"; func f() { time.Sleep(1) }`, nil},

		{"vague folder", "node/api/util/a.go", ``, []rule{vagueName}},
		{"marker", "node/a.go", "// TODO: more", []rule{unfinished}},
		{"marker within a comment", "node/a.go", "/* a\nFIXME */", []rule{unfinished}},
		{"name that looks like a marker", "node/a.go", `import "context"; var _ = context.TODO()`, nil},

		{"length within the goal", "node/a.go", strings.Repeat("\n", goal-1), nil},
		{"length beyond the goal", "node/a.go", strings.Repeat("\n", goal), []rule{lengthy}},
		{"length beyond the limit", "node/a.go", strings.Repeat("\n", longest), []rule{tooLong}},
		{"length of a test", "node/a_test.go", strings.Repeat("\n", longest), nil},

		{"several at once", "kv/a.go", `import ("os"; "` + here + `node"); func f() { go f() }`, []rule{upward, impureImport, goroutine}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			complaints, err := check(tt.file, []byte("package p\n"+tt.text))
			if err != nil {
				t.Fatal(err)
			}
			var got []rule
			for _, c := range complaints {
				got = append(got, c.rule)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("complaints %v, want rules %v", complaints, tt.want)
			}
		})
	}
}

func TestCheckPackageClause(t *testing.T) {
	complaints, err := check("node/api/a_test.go", []byte("package common_test\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(complaints) != 1 || complaints[0].rule != vagueName {
		t.Errorf("complaints %v, want one of %q", complaints, vagueName.name)
	}
}

// A complaint must let its reader act without opening this package.
func TestComplaintNamesPlaceRuleAndReason(t *testing.T) {
	complaints, err := check("ring/a.go", []byte("package ring\n\nimport _ \""+module+"/coordinator\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "ring/a.go:3: upward import: ring (rank 3) imports coordinator (rank 5) (imports run downward only: " +
		"declare the small interface that you need, and let node join the two)"
	if len(complaints) != 1 || complaints[0].String() != want {
		t.Errorf("got  %v\nwant [%s]", complaints, want)
	}
}

func TestRoomsAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rooms {
		if seen[r.path] {
			t.Errorf("room %s is listed twice", r.path)
		}
		seen[r.path] = true
	}
	for _, n := range neighbours {
		if !seen[n.from] || !seen[n.to] || n.why == "" {
			t.Errorf("neighbours %s and %s: want two rooms and a reason", n.from, n.to)
		}
	}
}
