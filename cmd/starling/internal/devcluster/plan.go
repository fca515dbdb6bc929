package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// MaxNodes is the most nodes of a plan, so that ports of one kind never meet
// those of the next, which begin 100 higher.
const MaxNodes = 99

// DefaultPortBase gives node 1 the ports 8701, 8801, 8901 and 9001.
const DefaultPortBase = 8700

// Plan is the shape of a cluster. Node i listens for clients on PortBase+i, for
// operators on PortBase+100+i, for its peers on PortBase+200+i and for gossip
// on PortBase+300+i, all on 127.0.0.1.
type Plan struct {
	Nodes    int `json:"nodes"`
	Zones    int `json:"zones"` // over which the nodes are dealt in turn; 0: none
	PortBase int `json:"port_base"`
}

// Node is one node of a plan.
type Node struct {
	Name   string
	Zone   string
	Listen string // host:port, as those below
	Admin  string
	Peer   string
	Gossip string
}

// Validate reports what is wrong with p, in words for who typed it.
func (p Plan) Validate() error {
	switch {
	case p.Nodes < 1 || p.Nodes > MaxNodes:
		return fmt.Errorf("--nodes %d: use 1 to %d", p.Nodes, MaxNodes)
	case p.Zones < 0 || p.Zones > p.Nodes:
		return fmt.Errorf("--zones %d: use at most one for each of the %d nodes", p.Zones, p.Nodes)
	case p.PortBase < 1 || p.PortBase+300+p.Nodes > 65535:
		return fmt.Errorf("--port-base %d: use 1 to %d, since %d nodes take ports up to 300 above", p.PortBase, 65535-300-p.Nodes, p.Nodes)
	}
	return nil
}

// String returns the flags that ask for p.
func (p Plan) String() string {
	s := fmt.Sprintf("--nodes %d --port-base %d", p.Nodes, p.PortBase)
	if p.Zones > 0 {
		s += fmt.Sprintf(" --zones %d", p.Zones)
	}
	return s
}

// Layout returns the nodes of p, n1 first.
func (p Plan) Layout() []Node {
	nodes := make([]Node, p.Nodes)
	for i := range nodes {
		at := func(offset int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.PortBase+offset+i+1)) }
		nodes[i] = Node{Name: fmt.Sprintf("n%d", i+1), Listen: at(0), Admin: at(100), Peer: at(200), Gossip: at(300)}
		if p.Zones > 0 {
			nodes[i].Zone = fmt.Sprintf("z%d", i%p.Zones+1)
		}
	}
	return nodes
}

// CheckPorts reports the first port of nodes that is taken. What it finds free
// may be taken a moment later; then the node that wanted it says so.
func CheckPorts(ctx context.Context, nodes []Node) error {
	for _, n := range nodes {
		for _, use := range []struct{ what, address string }{
			{"its clients", n.Listen}, {"operators", n.Admin}, {"its peers", n.Peer}, {"gossip", n.Gossip},
		} {
			if err := checkPort(ctx, use.address); err != nil {
				return fmt.Errorf("node %s cannot listen for %s on %s: %w: stop what listens there, or choose another --port-base",
					n.Name, use.what, use.address, err)
			}
		}
	}
	return nil
}

func checkPort(ctx context.Context, address string) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return reason(err)
	}
	p, err := config.ListenPacket(ctx, "udp", address)
	if err != nil {
		return errors.Join(reason(err), l.Close())
	}
	return errors.Join(p.Close(), l.Close())
}

// reason takes from a network error what repeats the address.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
