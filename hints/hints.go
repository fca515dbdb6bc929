// Package hints is hinted handoff: what a node knows that others have missed,
// and how they get it.
//
// An owner of a key that did not confirm a write is noted by the coordinator,
// which owns the record anyway: the hint is the key, not the record, and hints
// of one key are one hint. A [Log] keeps them under limits. Where a write was
// sloppy, the stand-in of an owner keeps the whole record for it, under no limit:
// that is data, one of the w copies. It is written by node/replica.
//
// A [Replayer] hands over both. It moves no records: it nudges a target, which
// then fetches the keys by itself and so takes what it has room for, as it is
// then. A hint goes once its target has confirmed that it holds the record,
// durably; a copy, if it has not changed since. Both follow their keys to the
// present owners.
package hints

import (
	"slices"

	"github.com/starling-kv/starling/kv"
)

// StandIns returns the nodes that may take the place of an owner out of reach,
// the first choice first: those of the preference list that neither count as
// owners of the request nor were taken down. All nodes walk the list in the
// same order (DeCandia and others, "Dynamo", 2007, section 4.6), so that a
// sloppy read asks the nodes that a sloppy write has chosen.
func StandIns(preference []kv.NodeID, excluded func(kv.NodeID) bool) []kv.NodeID {
	return slices.DeleteFunc(slices.Clone(preference), excluded)
}
