package main

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// Edits that do not apply any more are noticed by the tests, not by whoever
// next asks for the table.
func TestEveryEditApplies(t *testing.T) {
	for _, b := range bugs() {
		if _, err := b.apply(filepath.Join("..", "..")); err != nil {
			t.Errorf("%s: %v", b.name, err)
		}
	}
}

func TestMutate(t *testing.T) {
	const source = "package p\n\nfunc f(a int) int {\n\tif a < 1 {\n\t\ta++\n\t}\n\tswitch a {\n\tcase 0:\n\t\ta = 9\n\t}\n\treturn a + 2\n}\n"
	want := []string{
		"statement dropped", "< becomes <=", "< becomes >=", "1 becomes 2", "statement dropped",
		"statement dropped", "0 becomes 1", "9 becomes 10", "+ becomes -", "2 becomes 3",
	}
	for i := range len(want) + 1 {
		tree, err := parser.ParseFile(token.NewFileSet(), "p.go", source, 0)
		if err != nil {
			t.Fatal(err)
		}
		what, _ := mutate(tree, i)
		if i < len(want) && what != want[i] || i == len(want) && what != "" {
			t.Errorf("change %d: %q", i, what)
		}
	}
}
