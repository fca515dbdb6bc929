// Package client speaks to a Starling cluster over HTTP.
//
// Any node takes any request, so that a [Client] is given several endpoints and
// moves to the next when one fails. What is repeated is safe to repeat: every
// write carries a write id, under which the cluster knows a second attempt from
// a second write.
//
// Values are never overwritten unseen. A read returns a context, which says what
// its reader has seen, and a write replaces exactly what its context says;
// values whose writers had not seen one another stay side by side as siblings.
// [Client.Put] and [Client.Delete] read the context themselves unless they are
// given one. [Client.Update] is a whole read, modify, write.
//
// An error is an [*Error]. It wraps a [*kv.Error] when a node answered, says how
// often the request was tried, and for a write whether it may have happened.
package client
