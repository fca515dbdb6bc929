// Package antientropy is the repair that needs no read: replicas of a partition
// compare their hash trees and move the records in which they differ, until
// they are identical. See DESIGN.md.
//
// The [Exchanger] of a node asks; the [Responder] of the other answers and
// changes nothing. Records move by being pulled: a node merges what it lacks
// from its peer, and nudges the peer to pull in turn.
//
// The package reads the trees and records of its node, and reaches others, by
// the interfaces that it declares; package node supplies them and runs the
// Exchanger.
package antientropy
