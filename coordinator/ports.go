package coordinator

import (
	"context"
	"errors"
	"fmt"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// Replicas reaches the nodes of the cluster, this one included. Every context
// carries a deadline. An error for which [NotRun] holds is a promise that the
// node did nothing; after any other the node may have done what was asked.
//
// Fetch and Store do not wait for other nodes, nor for a commit: they call done
// once, before they return or later, on any goroutine, and for other nodes soon
// after ctx has ended at the latest. done must return at once. What req refers
// to must not change any more.
type Replicas interface {
	Fetch(ctx context.Context, to kv.NodeID, req FetchRequest, done func(FetchReply, error))
	Store(ctx context.Context, to kv.NodeID, req StoreRequest, done func(error))
	Value(ctx context.Context, to kv.NodeID, req ValueRequest) ([]byte, error)
	Forward(ctx context.Context, to kv.NodeID, req ForwardRequest) (PutDone, error)
	Reach
}

// Reach tells whether nodes can be reached at all.
type Reach interface {
	// Connected reports whether a connection to the node stands, without waiting.
	Connected(id kv.NodeID) bool
	// Reachable returns nil once a connection to the node stands.
	Reachable(ctx context.Context, to kv.NodeID) error
}

// Local is the one replica that can assign dots: this node's own.
type Local interface {
	// Assign runs decide in one read-modify-write of the slot's record, under
	// the fence. decide must not block; done is called once, when what decide
	// returned is committed as durably as asked, or with the reason that it is
	// not. An error returned by Assign itself means that decide did not run.
	Assign(req AssignRequest) error
	// Read returns what the slot holds, and the reap number of its partition
	// as it was before.
	Read(slot kv.Slot) (kv.Record, uint64, error)
	// Raise makes to the partition's reap number, durably, if it is lower.
	Raise(ctx context.Context, partition uint16, to uint64) error
}

// AssignRequest is what [Local.Assign] is asked.
type AssignRequest struct {
	Slot       kv.Slot
	Fence      uint64 // the digest of the request's view
	Durability Durability
	Size       int // about how many bytes the update brings along
	Decide     func(old Held) (kv.Record, []kv.Blob, error)
	Done       func(error)
}

// Held is what a slot of this node holds at one moment.
type Held struct {
	Record kv.Record
	Boot   uint64 // under which new actors are minted
	// Reap is the reap number of the partition at that moment: what was read
	// under a lower one must not be merged into the record, and the record must
	// not be sent under another.
	Reap uint64
	// Standing says that the node is in good standing: what Record lacks, the
	// node never had.
	Standing bool
}

// Repairs hears of replicas that lack what they should hold. Its methods are
// called by many goroutines and return at once, whatever becomes of the hint:
// no request fails or waits because of them.
type Repairs interface {
	// Missed says that the owner target has not confirmed a write of the key,
	// which this node has committed before, if it could.
	Missed(target kv.NodeID, partition uint16, key kv.Key)
	// Behind says that a read of n owners was given answers that differ.
	Behind(key kv.Key, n int)
}

// noRepairs is where nothing is repaired.
type noRepairs struct{}

func (noRepairs) Missed(kv.NodeID, uint16, kv.Key) {}
func (noRepairs) Behind(kv.Key, int)               {}

// Cluster tells the coordinator who owns what and who seems alive.
type Cluster interface {
	// View returns the layouts that this node knows.
	View() ring.View
	// Learn merges a view of a peer into this node's, durably, before it returns.
	Learn(v ring.View) error
	// Alive reports what gossip believes; suspicion is no reason not to try.
	Alive(id kv.NodeID) bool
}

// notRun marks errors after which the asked node has certainly done nothing.
type notRunError struct{ error }

func (e notRunError) Unwrap() error { return e.error }

// MarkNotRun wraps err so that [NotRun] holds for it.
func MarkNotRun(err error) error { return notRunError{err} }

// NotRun reports whether err promises that the asked node did nothing.
func NotRun(err error) bool {
	_, ok := errors.AsType[notRunError](err)
	return ok
}

// StaleViewError is the refusal of a replica whose view differs from the request's:
// nothing was done. View is the replica's.
type StaleViewError struct{ View ring.View }

// Error says that the views differ.
func (e *StaleViewError) Error() string { return "the replica knows another set of layouts" }

// ErrNotOwner is the refusal of a node that was sent a record it does not own.
var ErrNotOwner = errors.New("the node does not own the key")

// MissingBlobsError is the refusal of a replica, or of the local record, to hold a
// sibling whose external value it was not given: nothing was done.
type MissingBlobsError struct{ Dots []vclock.Dot }

// Error says how many values are missing.
func (e *MissingBlobsError) Error() string {
	return fmt.Sprintf("%d values were not sent along", len(e.Dots))
}

// StaleReapError is the refusal of a replica that knows a higher reap number of
// the key's partition than the one under which the record was read: nothing was
// done. The record may hold what was reaped since; it must be read again, by
// somebody who has learnt Number before.
type StaleReapError struct{ Number uint64 }

// Error names the number that the replica knows.
func (e *StaleReapError) Error() string {
	return fmt.Sprintf("the record was read before reap round %d", e.Number)
}

// Fence carries the sender's view: its digest always, and all of it when the
// receiver showed that it lacks some.
type Fence struct {
	Digest uint64
	Full   []byte // ring's encoding of the view; nil where the digest is enough
}

// FetchRequest asks a replica for the record of a key.
type FetchRequest struct {
	Fence Fence
	Key   kv.Key
	// StandIn asks also for what the node holds as hints for other owners.
	StandIn bool
	// Reap is a reap number of the key's partition that the replica must learn
	// before it reads the record; zero where the asker needs none.
	Reap uint64
}

// FetchReply is what a replica holds of a key, without external values.
type FetchReply struct {
	Record kv.Record
	// Standing says that the replica is in good standing: its answer counts.
	Standing bool
	// Reap is the reap number under which the record was read.
	Reap uint64
}

// StoreRequest hands a whole record to a replica, which merges it.
type StoreRequest struct {
	Fence      Fence
	Key        kv.Key
	Target     kv.NodeID // the owner that the receiver stands in for; zero: itself
	Durability Durability
	Reap       uint64
	Record     []byte // canonical encoding
	Blobs      []kv.Blob
}

// ValueRequest asks for one external value.
type ValueRequest struct {
	Fence    Fence
	Key      kv.Key
	StandIn  bool
	Dot      vclock.Dot
	Length   uint64
	Checksum uint64
}

// ForwardRequest asks a replica to coordinate a write.
type ForwardRequest struct {
	Fence Fence
	Put   Put
	// StandInFor is the owner whose place the receiver takes; zero: it owns.
	StandInFor kv.NodeID
	// Fresh says that the write id was made for this attempt, before which no
	// other can have run.
	Fresh bool
}
