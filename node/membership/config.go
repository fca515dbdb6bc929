package membership

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// MinSecret is the least length of a cluster secret, in bytes: whoever records
// gossip can try secrets at leisure.
const MinSecret = 32

// Config says who a node is and how it gossips. Fields without a stated
// default must be set.
type Config struct {
	Name        string    // the operator's name for the node: [A-Za-z0-9._-]{1,64}
	ID          kv.NodeID // of the data directory
	Incarnation uint64    // the start of the process, counted durably

	// Bind is where gossip listens, for packets and streams: an IP address and a
	// port, 0 for any. It is not used if Transport is set.
	Bind string
	// Advertise is where other nodes reach Bind. Default: Bind itself, or a
	// private address of this host if Bind is unspecified; port 0 is Bind's.
	Advertise string
	// PeerAddress is where other nodes reach this one's peer transport, and
	// ClientURL where clients do; ClientURL may be empty.
	PeerAddress, ClientURL string
	// Zone and Weight go into the first layout, if this node is part of it. A
	// node of weight 0 owns nothing.
	Zone   string
	Weight uint32

	// Seeds are addresses, host:port, at which members may be found at first. A
	// node that knows none waits to be found.
	Seeds []string
	// Secret is shared by all nodes of the cluster: [MinSecret] bytes or more,
	// random.
	Secret []byte
	// Random returns uniform numbers. It must be safe for concurrent use.
	Random func() uint64
	// Peers keeps the addresses of all nodes ever seen over restarts.
	Peers PeerStore

	// Bootstrap makes this node, unless it has a layout, make the cluster and its
	// first layout of the given number of partitions, once Expect nodes are
	// alive, itself included. Exactly one node of a cluster is ever given it.
	Bootstrap  bool
	Expect     int
	Partitions int

	// Transport carries the gossip. Default: sockets at Bind. Start takes it
	// over, also if it fails.
	Transport memberlist.NodeAwareTransport
	// Log default: none.
	Log *zap.Logger
}

// PeerStore keeps one small blob. What it loses costs time, not safety: the
// node finds the others by its seeds again.
type PeerStore interface {
	LoadPeers() ([]byte, error) // nil if there is none
	SavePeers(b []byte) error
}

// validate completes the configuration or says what is wrong with it.
func (c *Config) validate() error {
	if c.Random == nil || c.Peers == nil {
		return errors.New("gossip configuration: Random and Peers must be set")
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if len(c.Secret) < MinSecret {
		return fmt.Errorf("the cluster secret has %d bytes, it needs %d or more: make one with `openssl rand -hex 32` "+
			"and give it to all nodes", len(c.Secret), MinSecret)
	}
	if c.Bootstrap && c.Expect < 1 {
		return fmt.Errorf("bootstrap expects %d nodes: say how many nodes the cluster starts with, this one included", c.Expect)
	}
	if err := c.validateAddresses(); err != nil {
		return err
	}
	return c.validateSelf()
}

func (c *Config) validateAddresses() error {
	if c.Transport == nil {
		if _, err := netip.ParseAddrPort(c.Bind); err != nil {
			return fmt.Errorf("gossip address %q: use an IP address and a port, such as 0.0.0.0:7946", c.Bind)
		}
	}
	if c.Advertise != "" {
		if at, err := netip.ParseAddrPort(c.Advertise); err != nil || at.Addr().IsUnspecified() {
			return fmt.Errorf("advertised gossip address %q: use the IP address and port at which the other nodes reach this one", c.Advertise)
		}
	}
	for _, seed := range c.Seeds {
		if !isHostPort(seed) {
			return fmt.Errorf("seed %q: use host:port, the gossip address of another node", seed)
		}
	}
	return nil
}

// validateSelf checks what others will be told, by the rules of the layout that
// it may become part of.
func (c *Config) validateSelf() error {
	probe := ring.ClusterID{1}
	partitions := 1
	if c.Bootstrap {
		partitions = c.Partitions
	}
	own := []ring.Member{{ID: c.ID, Name: c.Name, Address: c.PeerAddress, Zone: c.Zone, Weight: 1}}
	if _, err := ring.Compute(probe, 1, own, partitions, nil); err != nil {
		return fmt.Errorf("gossip configuration: %w", err)
	}
	if err := c.metadata().check(); err != nil {
		return fmt.Errorf("gossip configuration: %w", err)
	}
	if n := len(c.metadata().encode()); n > memberlist.MetaMaxSize {
		return fmt.Errorf("peer address, client URL and zone are %d bytes too long together: shorten them", n-memberlist.MetaMaxSize)
	}
	return nil
}

// metadata returns what the node says of itself before it knows anything.
func (c *Config) metadata() metadata {
	return metadata{
		id:          c.ID,
		incarnation: c.Incarnation,
		weight:      c.Weight,
		peerAddress: c.PeerAddress,
		clientURL:   c.ClientURL,
		zone:        c.Zone,
	}
}

// protocolLabel stands before every packet and stream, so that the gossip of
// other programs, and of an incompatible Starling, is told apart.
const protocolLabel = "starling/1"

// gossipKey derives the key of gossip from the cluster secret (HKDF, RFC 5869),
// which serves other purposes under other labels.
func gossipKey(secret []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, "starling gossip v1", 32)
}

// Bounds of time that are not memberlist's own.
const (
	// connectTimeout bounds the making of a connection. It is short so that an
	// attempt that began just before a partition healed does not hold up the next.
	connectTimeout = time.Second
	// streamTimeout bounds each direction of an exchange of states.
	streamTimeout = 5 * time.Second
)

// listConfig is memberlist's configuration. What it does not set is memberlist's
// default for a local network: a probe each second, and a node that does not
// answer is declared dead after some 5 to 8 s, faults of the prober considered.
func (c *Config) listConfig() (*memberlist.Config, error) {
	key, err := gossipKey(c.Secret)
	if err != nil {
		return nil, fmt.Errorf("derive the gossip key: %w", err)
	}
	lc := memberlist.DefaultLANConfig()
	lc.Name = c.Name
	lc.SecretKey = key
	lc.Label = protocolLabel
	lc.TCPTimeout = streamTimeout
	// States are sent seldom, and what is never compressed need not expand.
	lc.EnableCompression = false
	// Fewer others to confirm a suspicion than three, as in the smaller part of a
	// cut, then only double the time to a verdict, instead of six times.
	lc.SuspicionMaxTimeoutMult = 2
	// Sent four times, as by default, the news of 4 of 4,000 restarts in a cluster
	// of five missed a node, until the next exchange of states; sent six times,
	// that of none.
	lc.RetransmitMult = 6
	// A node that comes back with another address is let in as soon as the old
	// one is dead; that it is the same node, its id says.
	lc.DeadNodeReclaimTime = time.Millisecond
	return lc, nil
}

// sockets opens the real transport, and completes lc by its address.
func (c *Config) sockets(lc *memberlist.Config) (*memberlist.NetTransport, error) {
	bind := netip.MustParseAddrPort(c.Bind)
	nc := &memberlist.NetTransportConfig{
		BindAddrs: []string{bind.Addr().String()},
		BindPort:  int(bind.Port()),
		Logger:    lc.Logger,
	}
	t, err := memberlist.NewNetTransport(nc)
	// A port that is free for streams may be taken for packets.
	for try := 1; err != nil && bind.Port() == 0 && try < 10; try++ {
		t, err = memberlist.NewNetTransport(nc)
	}
	if err != nil {
		return nil, fmt.Errorf("gossip cannot listen at %s, is another node running there? choose another address: %w", c.Bind, err)
	}
	lc.BindAddr, lc.BindPort = nc.BindAddrs[0], t.GetAutoBindPort()
	lc.AdvertisePort = lc.BindPort
	if c.Advertise != "" {
		at := netip.MustParseAddrPort(c.Advertise)
		lc.AdvertiseAddr = at.Addr().String()
		if at.Port() != 0 {
			lc.AdvertisePort = int(at.Port())
		}
	}
	return t, nil
}
