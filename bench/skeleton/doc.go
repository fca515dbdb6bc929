// Package skeleton is the yardstick of the benchmark: what remains of a
// leaderless store when everything is left out that makes it right. A node of
// it takes HTTP requests, sends frames to the two other nodes, runs each write
// through an engine that reads the key and writes it, in one committing
// goroutine that gathers many into one transaction, and counts to w=2 or r=2.
//
// It has no versions: the last write to arrive wins, on each replica by itself.
// It has no repair, no hints, no membership, no limits, no deadlines and no
// second try: a node that loses a connection ends. So its figures are a bound
// on what this shape of cluster can do on a machine, and not those of a store
// that anybody should use.
//
// Its frames are not those of package transport, whose calls each wait in a
// goroutine of their own: here an answer is counted where it arrives, which is
// cheaper.
package skeleton
