// Package merkle is the room for hash trees over the records of a partition and
// for finding where two such trees differ.
//
// Nothing of it is built yet: it comes with anti-entropy.
//
// It will be pure: trees, deltas and differences are values. It may import
// internal/wire and nothing else of Starling. The store will keep a tree's
// delta in the commit of the record that caused it; package antientropy will
// compare the trees of two replicas from the root down.
package merkle
