// Package layers holds no code, only a test: the rules of the house that a
// compiler does not enforce. Which folder may import which, what a pure package
// must not do, and how tests, names and files are kept. The rules are tables in
// rules_test.go; a new folder gets its place there.
package layers
