package api

import (
	"context"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// Inspector shows what this node is, knows and holds, for people and checkers.
// It coordinates and repairs nothing. Its methods may be called concurrently.
type Inspector interface {
	// Cluster returns what this node knows of its cluster.
	Cluster() Cluster
	// Checks returns what must hold before this node should be sent requests.
	Checks() []Check
	// Replica returns all records that this node holds of a key: as an owner, as
	// a leftover, as hints, in quarantine. With values, external values are read
	// too.
	Replica(ctx context.Context, key kv.Key, values bool) ([]Held, error)
	// Partitions calls fn with every record that this node holds of the
	// partitions from first to last, in the order of their numbers, or with every
	// hint for them, until fn fails; that error is returned. What fn is given is
	// valid until it returns.
	Partitions(ctx context.Context, first, last int, hints bool, fn func(Held) error) error
	// Explain asks every node of a key's preference list what it holds; n is the
	// number of owners asked about, 0 for the default.
	Explain(ctx context.Context, key kv.Key, n int) (coordinator.Explanation, error)
}

// Cluster is what a node knows of its cluster.
type Cluster struct {
	Node  string `json:"node"`       // the name of the node that answers
	ID    string `json:"cluster_id"` // empty before the node joined
	View  string `json:"view"`       // the digest of the layouts known
	Nodes []Node `json:"nodes"`
	// Layout is the newest active layout; nil before one is known.
	Layout *Layout `json:"layout"`
}

// Node is a member of the cluster, or a node seen that is none.
type Node struct {
	Name        string    `json:"name"`
	ID          kv.NodeID `json:"id"`
	Zone        string    `json:"zone,omitempty"`
	ClientAddr  string    `json:"client_addr,omitempty"`
	AdminAddr   string    `json:"admin_addr,omitempty"`
	PeerAddr    string    `json:"peer_addr,omitempty"`
	Alive       bool      `json:"alive"` // as gossip believes
	Member      bool      `json:"member"`
	Incarnation uint64    `json:"incarnation"`
	// Partitions is how many partitions of the layout list the node as an owner
	// among the first owners of the default n.
	Partitions int `json:"partitions"`
}

// Layout says who owns what.
type Layout struct {
	Version uint64 `json:"version"`
	Hash    string `json:"hash"`
	// Partitions are the names of each partition's owners, in order.
	Partitions [][]string `json:"partitions"`
}

// Check is one thing that must hold for a node to be ready.
type Check struct {
	Name   string
	OK     bool
	Detail string
}

// Held is a record that a node holds.
type Held struct {
	Key       kv.Key
	Partition int
	// Target is the node for which the record is kept as a hint; empty for a
	// record of this node's own.
	Target string
	// Quarantined says that the record is in quarantine. It has no target then.
	Quarantined bool
	Record      kv.Record
	// Values are the bytes of the external siblings among Record.Live, at their
	// places; nil, or nil in places, where they were not read.
	Values [][]byte
}
