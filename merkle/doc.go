// Package merkle holds hash trees over the records of a partition and tells
// where two of them differ.
//
// A tree has [Leaves] leaves beneath [Fanout] inner nodes beneath the root. A
// leaf is the XOR of the digests of its records and their number, so that one
// changed record is one small change of one leaf, whatever the leaf holds, and
// changes commute. Everything above the leaves is computed when it is asked
// for, which takes about a microsecond for a whole tree.
//
// The idea of comparing replicas top-down by hash trees is Merkle's (1987), its
// use in stores of this kind Dynamo's (DeCandia and others, 2007, section 4.7);
// sets hashed by XOR are Bellare and Micciancio's (1997), whose warning that a
// chosen member can be made to cancel others holds here too: digests must be of
// what clients cannot choose.
package merkle
