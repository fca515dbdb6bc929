// Package devcluster runs a cluster of child processes on this machine, for
// development: it lays out their ports, keeps their files, starts and watches
// them, and takes orders over a Unix socket.
//
// One goroutine, in [Run], owns all state of the children. What happens to it
// arrives over channels: an exit, a node that became ready, an order.
package devcluster
