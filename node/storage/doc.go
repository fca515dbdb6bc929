// Package storage keeps what one node knows on its disk.
//
// A [Store] keeps records, hints, external values and a few named facts. All
// its writes go through one goroutine that joins concurrent updates into few
// transactions and one sync; a read-modify-write of one key is therefore
// atomic without locks. A Store stands on an [Engine], an ordered map of byte
// strings with atomic commits: memory (package memory, whose crashes are
// choosable) or badger (package badgerengine).
//
// A [Dir] is the directory of a node: it says whose it is and what must be in
// it before an engine may open it.
//
// DESIGN.md beside this file says why things are as they are.
package storage
