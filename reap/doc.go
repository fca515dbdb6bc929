// Package reap removes deletes, expired values and dead entries of clocks once
// every member of the cluster has confirmed that nothing can bring them back.
//
// A tombstone must outlive every copy of what it deleted. Age says nothing about
// that: a disk may be restored, a message delayed, a hint held for a node that
// was away. So each partition has a reap number on every member, and every
// message that carries records carries the number under which they were read; a
// receiver with a higher one refuses it. In a round the [Reaper] of a partition
// asks every [Member] to confirm that it holds exactly the given record of a
// key, or nothing, and to raise its number, in one step. Once all have, each
// copy of the key that is left anywhere is that record, or has come from it, and
// everything older is refused: the record may go.
//
// What decides is pure and stands apart from the loop that asks: [Rules] judge a
// record, a round judges the answers.
package reap
