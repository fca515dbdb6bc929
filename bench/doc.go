// Package bench puts a cluster under load and tells what it did: how many
// requests a second, how long they took, and what processor time the servers
// spent on them.
//
// [Run] is one measurement. In a closed loop each connection sends its next
// request when the last one is answered, which finds the most that a cluster
// can do. In an open loop requests are due at a fixed rate, whatever became of
// the earlier ones, and a latency counts from when a request was due: a stall
// is charged to every request that it held up, not to the one that met it
// (coordinated omission).
//
// [Compare] measures several systems side by side: each is started, measured
// and stopped in turn, round after round, so that a drift of the machine meets
// all of them.
package bench
