// Package coordinator carries one request over the n replicas of a key.
//
// What decides is pure and stands apart from what waits: a [Tally] says when
// enough replicas have answered and when they no longer can, assign says what
// a write does to a record, a plan says who is asked in which order. The drivers
// around them send, wait and give up: get.go, collect.go and value.go for reads;
// for writes put.go, which finds a coordinator, coordinate.go, which gives the
// dot, and replicate.go, which carries the record to the others.
//
// The package knows replicas only by the interfaces of ports.go, so that the
// same code runs over sockets and in a simulation.
package coordinator
