// Package standing knows which lives a node has had, and whether what its disk
// holds may be counted by readers.
package standing
