package main

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// targets are the files whose every comparison, off-by-one and dropped statement
// must be noticed: the merge, the quorum, the token and the record codec.
func targets() []string {
	return []string{
		"kv/record.go", "vclock/set.go", "vclock/clock.go", "vclock/token.go", "coordinator/tally.go", "kv/codec.go",
	}
}

// mutant is one file with one small change.
type mutant struct {
	file, where, what string
	source            []byte
}

// runMechanical judges each mutant by the unit tests of its own package, which
// is quick, and those that live by the simulation.
func runMechanical(s settings, out io.Writer) error {
	var total, units, sims, live int
	for _, file := range targets() {
		if !strings.Contains(file, s.only) {
			continue
		}
		list, err := mutantsOf(file)
		if err != nil {
			return err
		}
		for _, m := range list {
			v, err := judge(s, m)
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", m.where, err)
			case v.checkers == notGo:
				_, _ = fmt.Fprintf(out, "%s: %s: does not compile\n", m.where, m.what)
				continue
			case v.checkers == "unit tests":
				units++
			case v.checkers != "":
				sims++
				_, _ = fmt.Fprintf(out, "%s: %s: caught by %s after %s seeds\n", m.where, m.what, v.checkers, v.seeds)
			default:
				live++
				_, _ = fmt.Fprintf(out, "LIVES %s: %s (%s seeds)\n", m.where, m.what, v.seeds)
			}
			total++
		}
	}
	_, _ = fmt.Fprintf(out, "%d mutants: %d caught by unit tests, %d by the simulation, %d live\n", total, units, sims, live)
	return nil
}

// notGo is the verdict on a change that does not compile, and so is no mutant.
const notGo = "compiler"

func judge(s settings, m mutant) (verdict, error) {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return verdict{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := writeOverlay(dir, map[string][]byte{m.file: m.source})
	if err != nil {
		return verdict{}, err
	}
	// One seed, so that the same tests judge all and again; what fails need not be
	// shrunk; and what does not end has been noticed.
	out, err := exec.CommandContext(context.Background(), "go", "test", "-overlay", overlay, "-vet=off", "-timeout=20s", "-failfast",
		"./"+filepath.Dir(m.file), "-rapid.seed=1", "-rapid.nofailfile", "-rapid.shrinktime=1ns").CombinedOutput()
	switch {
	case err == nil:
		return simulate(s, dir, overlay)
	case bytes.Contains(out, []byte("[build failed]")):
		return verdict{checkers: notGo}, nil
	}
	return verdict{checkers: "unit tests"}, nil
}

// mutantsOf makes all mutants of a file.
func mutantsOf(file string) ([]mutant, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []mutant
	for i := 0; ; i++ {
		// Parsed anew each time: a mutant is made by changing the tree.
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, file, source, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		what, at := mutate(tree, i)
		if what == "" {
			return out, nil
		}
		var b bytes.Buffer
		if err := format.Node(&b, set, tree); err != nil {
			return nil, err
		}
		out = append(out, mutant{file: file, where: set.Position(at).String(), what: what, source: b.Bytes()})
	}
}

// mutate makes the i-th change to the tree and says what it was, or returns ""
// if there are fewer.
func mutate(tree *ast.File, i int) (what string, at token.Pos) {
	next := func() bool { i--; return i == -1 }
	drop := func(list *[]ast.Stmt) {
		for k, s := range *list {
			if droppable(s) && next() {
				what, at = "statement dropped", s.Pos()
				*list = slices.Concat((*list)[:k], (*list)[k+1:])
				return
			}
		}
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		if what != "" {
			return false
		}
		switch n := n.(type) {
		case *ast.BinaryExpr:
			for _, op := range replacements(n.Op) {
				if next() {
					what, at = fmt.Sprintf("%v becomes %v", n.Op, op), n.OpPos
					n.Op = op
				}
			}
		case *ast.BasicLit:
			if v, err := strconv.Atoi(n.Value); n.Kind == token.INT && err == nil && next() {
				what, at = fmt.Sprintf("%d becomes %d", v, v+1), n.Pos()
				n.Value = strconv.Itoa(v + 1)
			}
		case *ast.BlockStmt:
			drop(&n.List)
		case *ast.CaseClause:
			drop(&n.Body)
		}
		return what == ""
	})
	return what, at
}

// replacements are what a comparison, a sum or a connective becomes.
func replacements(op token.Token) []token.Token {
	switch op {
	case token.LSS:
		return []token.Token{token.LEQ, token.GEQ}
	case token.LEQ:
		return []token.Token{token.LSS, token.GTR}
	case token.GTR:
		return []token.Token{token.GEQ, token.LEQ}
	case token.GEQ:
		return []token.Token{token.GTR, token.LSS}
	case token.EQL:
		return []token.Token{token.NEQ}
	case token.NEQ:
		return []token.Token{token.EQL}
	case token.LAND:
		return []token.Token{token.LOR}
	case token.LOR:
		return []token.Token{token.LAND}
	case token.ADD:
		return []token.Token{token.SUB}
	case token.SUB:
		return []token.Token{token.ADD}
	default:
		return nil
	}
}

// droppable reports whether a block may compile without the statement.
func droppable(s ast.Stmt) bool {
	switch s := s.(type) {
	case *ast.ExprStmt, *ast.IfStmt, *ast.IncDecStmt:
		return true
	case *ast.AssignStmt:
		return s.Tok != token.DEFINE
	default:
		return false
	}
}
