package node

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/storage"
)

// ErrHolderAlive says that the node whose name and id this one would take over
// still seems to be running: it may have been stopped a moment ago.
var ErrHolderAlive = errors.New("the node that has the name still seems to be alive: its place is taken once it is down")

// Rejoin goes on after a node with an empty data directory ended because its
// name belongs to a member of the cluster, which failed says: its disk was lost.
// If cfg allows it, the directory becomes that member's, and the node can be
// started again; as what its disk held is known to be gone, it is not counted
// by readers until it has everything from the other owners. While another node
// counts that member as alive, the error matches [ErrHolderAlive]: this node
// itself never sees who goes by its own name. Any other error is returned as it
// is. n must have been closed.
func (n *Node) Rejoin(failed error) error {
	taken, ok := errors.AsType[*membership.IdentityError](failed)
	switch {
	case !n.cfg.RejoinEmpty || !ok || taken.ID == taken.HeldBy:
		return failed
	case !n.wasEmpty:
		return fmt.Errorf("%w: %s is not empty, and only an empty directory can take the place of another", failed, n.cfg.Dir)
	case taken.Alive:
		return fmt.Errorf("%w: %w", ErrHolderAlive, failed)
	}
	dir, err := storage.OpenDir(n.cfg.Dir, n.cfg.Name, random)
	if err != nil {
		return err
	}
	n.log.Warn("the data directory was empty: this node takes the place of the member of its name, and fetches what it lost",
		zap.Stringer("id", taken.HeldBy))
	return errors.Join(dir.TakeOver(taken.HeldBy), dir.Close())
}
