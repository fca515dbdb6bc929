package node

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// Config is what one node is told at its start. Fields without a stated
// default must be set.
type Config struct {
	// Name is the operator's name for the node, unique in its cluster and bound
	// to its data directory: [A-Za-z0-9._-]{1,64}.
	Name string
	// Dir holds the node's data. It is created if it does not exist.
	Dir string

	// Listen serves clients, Admin operators, Peer the other nodes, and Gossip
	// (packets and streams) their membership: an IP address and a port each.
	Listen, Admin, Peer, Gossip string
	// AdvertiseHost is the IP address at which other nodes and clients reach
	// this one. Default: the address of Peer. It must be set if that is
	// unspecified (0.0.0.0).
	AdvertiseHost string
	// Seeds are gossip addresses, host:port, of other nodes.
	Seeds []string
	// Secret is shared by all nodes of the cluster: 32 bytes or more, random.
	Secret []byte

	// RejoinEmpty lets an empty data directory take the place of the member that
	// has Name in the cluster, if that one is not running: see [Node.Rejoin].
	RejoinEmpty bool

	// Zone is what the node shares with others that may fail together. Default:
	// none.
	Zone string
	// Weight is the node's share of the keys relative to others. Default 1.
	Weight uint32

	// Bootstrap makes this node, unless it is part of a cluster, make a new one
	// of Partitions partitions (a power of two, default 1024) once Expect nodes
	// are alive, itself included. Exactly one node of a cluster is given it.
	Bootstrap  bool
	Expect     int
	Partitions int

	// Async acknowledges writes that do not choose once the operating system has
	// them. Default: once they are on disk.
	Async bool
	// Defaults apply to requests that do not choose: n=3, quorums, 5 s.
	Defaults coordinator.Defaults
	// MaxValue bounds one value, in bytes. Default 4 MiB.
	MaxValue int
	// Repairs say when and how much is repaired.
	Repairs RepairOptions
	// RecordCache is the memory for copies of records in use, in bytes, outside
	// the Go heap: 32 MiB or more, or 0 for none.
	RecordCache int
	// MinFree is the free space on the disk of Dir, in bytes, below which writes
	// are refused. Default: what the storage engine needs to go on.
	MinFree uint64
}

// The defaults of a [Config].
const (
	DefaultN          = 3
	DefaultTimeout    = 5 * time.Second
	DefaultPartitions = 1024
	DefaultMaxValue   = 4 << 20
	DefaultPatience   = 10 * time.Second
	// MaxValueLimit bounds MaxValue: a value travels in one frame.
	MaxValueLimit = 16 << 20
)

// withDefaults returns a complete configuration, or says what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	c.Weight = cmp.Or(c.Weight, 1)
	c.Partitions = cmp.Or(c.Partitions, DefaultPartitions)
	c.MaxValue = cmp.Or(c.MaxValue, DefaultMaxValue)
	c.Defaults.N = cmp.Or(c.Defaults.N, DefaultN)
	c.Defaults.Timeout = cmp.Or(c.Defaults.Timeout, DefaultTimeout)
	c.Repairs.Patience = cmp.Or(c.Repairs.Patience, DefaultPatience)
	peer, err := netip.ParseAddrPort(c.Peer)
	switch {
	case c.Name == "":
		return c, errors.New("the node needs a name, the same one at every start")
	case c.Dir == "":
		return c, errors.New("the node needs a data directory")
	case err != nil:
		return c, fmt.Errorf("peer address %q: use an IP address and a port, such as 0.0.0.0:8901", c.Peer)
	case c.AdvertiseHost == "" && peer.Addr().IsUnspecified():
		return c, fmt.Errorf("peer address %q listens everywhere: say under which address others reach it (advertise-host)", c.Peer)
	case c.MaxValue < 1 || c.MaxValue > MaxValueLimit:
		return c, fmt.Errorf("largest value %d: use 1 to %d bytes", c.MaxValue, MaxValueLimit)
	case c.Defaults.N < 1 || c.Defaults.N > kv.MaxN:
		return c, fmt.Errorf("default n=%d: use 1 to %d", c.Defaults.N, kv.MaxN)
	case c.Defaults.Timeout < 0 || c.Defaults.Timeout > coordinator.MaxTimeout:
		return c, fmt.Errorf("default timeout %v: use at most %v", c.Defaults.Timeout, coordinator.MaxTimeout)
	}
	c.AdvertiseHost = cmp.Or(c.AdvertiseHost, peer.Addr().String())
	return c, nil
}

// advertised is where others reach what listens at addr.
func (c Config) advertised(addr net.Addr) string {
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return net.JoinHostPort(c.AdvertiseHost, port)
}
