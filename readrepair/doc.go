// Package readrepair is the room for repair on read: a read that met replicas
// behind others answers first, and then sends them the merged record.
//
// Nothing of it is built yet: it comes with read repair. Until then a read
// answers with the merge and leaves the replicas as they are.
//
// It may import ring, kv and what lies below them, and none of the other
// repairs. It will declare the interface by which it sends a record to a
// replica; package node will supply it, and hand it what the coordinator saw.
package readrepair
