// Package readrepair repairs what reads find to differ.
//
// A read answers first, and then says that the answers of its owners differed. A
// moment later, when writes that were under way have arrived, a [Repairer] asks
// all owners of the key what they hold. Whoever still lacks something is nudged to
// fetch it from those that have it; no record goes through this node.
//
// It never fails or slows a read: what is too much is dropped, and left to the
// next read or to anti-entropy.
package readrepair
