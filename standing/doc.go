// Package standing knows which lives a node has had, and whether what its disk
// holds may be counted by readers.
//
// A node that starts tells the others its [History]. Those remember how far
// they have heard of it; one that remembers more than the node itself shows
// that the node's disk was emptied or set back, see [Remember]. Until enough
// others have stored the history, see [Registered], the node takes part in
// nothing. A node whose disk forgot something has fallen: it does not count in
// a partition until it has merged the partition from the other owners.
//
// The rules are pure values; [Ledger] keeps them durable, [Keeper] tells the
// others, and [Setback] puts away what a disk holds that was set back.
// DESIGN.md says why it is done so, what it costs, and what it cannot see.
package standing
