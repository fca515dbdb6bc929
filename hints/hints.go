// Package hints is the room of hinted handoff: records that a node keeps for an
// owner which could not be reached.
//
// Today it decides who may stand in. The hints themselves are kept by
// node/storage, each under its target, as the full records that they are: a
// stand-in may give dots, and its copy counts towards a sloppy w. They are
// found by sloppy reads. Replaying them to their targets is not built yet; it
// will live here, paced by credits of the receiver.
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
