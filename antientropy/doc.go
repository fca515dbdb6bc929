// Package antientropy is the room for the repair that needs no read: replicas
// of a partition compare their hash trees and exchange the records in which
// they differ, until they are identical.
//
// Nothing of it is built yet: it comes with anti-entropy, and package merkle
// with it.
//
// It may import ring, kv, merkle and what lies below them, and none of the
// other repairs. It will declare the interfaces by which it reads the trees and
// records of this node and of a peer; package node will supply them and own the
// goroutine that runs it.
package antientropy
