// Package kv holds the nouns of the store: keys, node ids, write ids, siblings,
// the record of a key with its merge and its encoding, what a request may ask
// for, and the errors that a client is told. All of it is pure: no goroutine,
// no clock, no input or output.
package kv
