package layers

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A complaint says where a file breaks a rule, and how.
type complaint struct {
	rule  rule
	where string // file:line
	what  string
}

func (c complaint) String() string {
	return fmt.Sprintf("%s: %s: %s (%s)", c.where, c.rule.name, c.what, c.rule.why)
}

// source is one parsed file and the complaints about it.
type source struct {
	name       string // slash path below the module root
	text       []byte
	files      *token.FileSet
	tree       *ast.File
	complaints []complaint
}

// check judges one file by all rules. Name is its slash path below the module
// root; the file itself is not read.
func check(name string, text []byte) ([]complaint, error) {
	s := &source{name: name, text: text, files: token.NewFileSet()}
	tree, err := parser.ParseFile(s.files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	s.tree = tree
	s.checkName()
	s.checkMarkers()
	s.checkLength()
	s.checkSleep()
	in, ok := roomOf(path.Dir(name))
	if !ok {
		s.complain(unranked, tree.Package, path.Dir(name))
		return s.complaints, nil
	}
	s.checkImports(in)
	if in.pure && !s.isTest() {
		s.checkPure()
	}
	return s.complaints, nil
}

func (s *source) complain(r rule, at token.Pos, what string) {
	where := fmt.Sprintf("%s:%d", s.name, s.files.Position(at).Line)
	s.complaints = append(s.complaints, complaint{rule: r, where: where, what: what})
}

// isTest reports whether only tests use the file: it is one, or its package is
// a helper of tests, such as node/storage/storagetest.
func (s *source) isTest() bool {
	return strings.HasSuffix(s.name, "_test.go") || strings.HasSuffix(path.Dir(s.name), "test")
}

func (s *source) checkName() {
	names := []string{path.Base(path.Dir(s.name)), strings.TrimSuffix(s.tree.Name.Name, "_test")}
	for _, name := range slices.Compact(names) {
		if slices.Contains(vagueNames, name) {
			s.complain(vagueName, s.tree.Package, name)
		}
	}
}

var marker = regexp.MustCompile(`\b(TODO|FIXME)\b`)

func (s *source) checkMarkers() {
	for _, group := range s.tree.Comments {
		for _, c := range group.List {
			if found := marker.FindString(c.Text); found != "" {
				s.complain(unfinished, c.Pos(), found)
			}
		}
	}
}

func (s *source) checkLength() {
	lines := bytes.Count(s.text, []byte("\n"))
	what := fmt.Sprintf("%d lines", lines)
	switch {
	case s.isTest() || lines <= goal:
	case lines <= longest:
		s.complain(lengthy, s.tree.Package, what)
	default:
		s.complain(tooLong, s.tree.Package, what)
	}
}

func (s *source) checkSleep() {
	if !s.isTest() || s.imports("testing/synctest") {
		return
	}
	s.eachUse("time", func(at token.Pos, name string) {
		if name == "Sleep" {
			s.complain(sleep, at, "time.Sleep")
		}
	})
}

func (s *source) checkImports(in room) {
	for _, spec := range s.tree.Imports {
		target := importPath(spec)
		folder, ours := strings.CutPrefix(target, module+"/")
		if !ours {
			if in.only != nil && thirdParty(target) && !s.isTest() {
				s.complain(standalone, spec.Pos(), target)
			}
			continue
		}
		to, ok := roomOf(folder)
		if !ok {
			s.complain(unranked, spec.Pos(), folder)
			continue
		}
		if broken, ok := judge(in, to); ok {
			s.complain(broken, spec.Pos(), fmt.Sprintf("%s (rank %d) imports %s (rank %d)", in.path, in.rank, to.path, to.rank))
		}
	}
}

// judge returns the rule that an import of to by from breaks, if any.
func judge(from, to room) (rule, bool) {
	switch {
	case from.path == to.path:
		return rule{}, false
	case from.rank < to.rank:
		return upward, true
	case from.only != nil && !slices.Contains(from.only, to.path):
		return standalone, true
	case from.rank > to.rank:
		return rule{}, false
	}
	for _, n := range neighbours {
		if n.from == from.path && n.to == to.path {
			return rule{}, false
		}
	}
	return sideways, true
}

// roomOf returns the nearest room at or above the folder.
func roomOf(folder string) (room, bool) {
	for at := folder; at != "."; at = path.Dir(at) {
		i := slices.IndexFunc(rooms, func(r room) bool { return r.path == at })
		if i >= 0 {
			return rooms[i], at == folder || !divided(rooms[i])
		}
	}
	return room{}, false
}

// divided reports whether there are rooms beneath r.
func divided(r room) bool {
	return slices.ContainsFunc(rooms, func(x room) bool { return strings.HasPrefix(x.path, r.path+"/") })
}

func (s *source) checkPure() {
	for _, spec := range s.tree.Imports {
		if target := importPath(spec); slices.Contains(outside, target) {
			s.complain(impureImport, spec.Pos(), target)
		}
	}
	ast.Inspect(s.tree, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			s.complain(goroutine, g.Pos(), "go statement")
		}
		return true
	})
	for _, target := range []string{"math/rand", "math/rand/v2"} {
		s.eachUse(target, func(at token.Pos, name string) {
			if !slices.Contains(seeded, name) {
				s.complain(globalRandom, at, "rand."+name)
			}
		})
	}
}

// eachUse calls f for every name that the file takes from the package target.
func (s *source) eachUse(target string, f func(at token.Pos, name string)) {
	for _, spec := range s.tree.Imports {
		if importPath(spec) != target {
			continue
		}
		local := path.Base(strings.TrimSuffix(target, "/v2"))
		if spec.Name != nil {
			local = spec.Name.Name
		}
		ast.Inspect(s.tree, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
					f(sel.Pos(), sel.Sel.Name)
				}
			}
			return true
		})
	}
}

func (s *source) imports(target string) bool {
	return slices.ContainsFunc(s.tree.Imports, func(spec *ast.ImportSpec) bool { return importPath(spec) == target })
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value
	}
	return p
}

// thirdParty reports whether an import path begins with a host name, as none
// of the standard library does.
func thirdParty(target string) bool {
	host, _, _ := strings.Cut(target, "/")
	return strings.Contains(host, ".")
}
