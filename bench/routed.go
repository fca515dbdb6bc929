package bench

import (
	"context"
	"errors"
)

// Routed is how connections speak as [HTTP] does, each to all nodes, and send a
// request to the node that its key chooses.
type Routed struct {
	HTTP

	// Node returns the place among the endpoints of the node for a key.
	Node func(key []byte) int
}

// Dial is a [Dial]: it opens one connection to every node.
func (r *Routed) Dial(ctx context.Context, _ int) (Conn, error) {
	c := &routedConn{node: r.Node}
	for i := range r.Endpoints {
		conn, err := r.HTTP.Dial(ctx, i)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

type routedConn struct {
	node  func(key []byte) int
	conns []Conn
}

func (c *routedConn) Get(key []byte) (Answer, error) { return c.conns[c.node(key)].Get(key) }

func (c *routedConn) Put(key, value, token []byte) (Answer, error) {
	return c.conns[c.node(key)].Put(key, value, token)
}

func (c *routedConn) Close() error {
	errs := make([]error, len(c.conns))
	for i, conn := range c.conns {
		errs[i] = conn.Close()
	}
	return errors.Join(errs...)
}
