// Package coordinator carries one request over the n replicas of a key.
//
// What decides is pure and stands apart from what waits: a [Tally] says when
// enough replicas have answered and when they no longer can, assign says what
// a write does to a record, a plan says who is asked in which order. get.go and
// put.go are the drivers around them: they send, wait and give up.
//
// The package knows replicas only by the interfaces of ports.go, so that the
// same code runs over sockets and in a simulation.
package coordinator
