package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/starling-kv/starling/client"
	"github.com/starling-kv/starling/cmd/starling/internal/devcluster"
	"github.com/starling-kv/starling/node/api"
)

// reach is how a command finds the cluster.
type reach struct {
	Endpoint []string `env:"STARLING_ENDPOINT" placeholder:"URL" help:"A node, as http://host:port, or several. Default: those here."`
	Attempts int      `placeholder:"COUNT" help:"Attempts of one request, over all nodes; 8 by default, for import 12."`
}

const localNodes = 9

// seeds are where to ask for the cluster.
func (r reach) seeds() []string {
	if len(r.Endpoint) > 0 {
		return r.Endpoint
	}
	local := make([]string, localNodes)
	for i, n := range (devcluster.Plan{Nodes: localNodes, PortBase: devcluster.DefaultPortBase}).Layout() {
		local[i] = "http://" + n.Listen
	}
	return local
}

// cluster returns what the first seed that answers knows of the cluster.
func (r reach) cluster(ctx context.Context) (api.Cluster, error) {
	var failed error
	for _, seed := range r.seeds() {
		var c api.Cluster
		err := look(ctx, seed+"/cluster", &c)
		if err == nil {
			return c, nil
		}
		if failed == nil {
			failed = err
		}
	}
	return api.Cluster{}, &exitError{exitNoAnswer, fmt.Errorf("%w: start a cluster with starling dev, or name a node with --endpoint", failed)}
}

// endpoints are the nodes that take requests: those that were named, or those
// that the cluster on this machine consists of.
func (r reach) endpoints(ctx context.Context) ([]string, error) {
	if len(r.Endpoint) > 0 {
		return r.Endpoint, nil
	}
	c, err := r.cluster(ctx)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, n := range c.Nodes {
		if n.Alive && n.ClientAddr != "" {
			all = append(all, "http://"+n.ClientAddr)
		}
	}
	if len(all) == 0 {
		return nil, &exitError{exitNoAnswer, errors.New("the cluster has no live node yet: wait, or see starling status")}
	}
	return all, nil
}

// client returns a client of the cluster, which tells retried of attempts that
// others follow.
func (r reach) client(ctx context.Context, retried func(error)) (*client.Client, error) {
	endpoints, err := r.endpoints(ctx)
	if err != nil {
		return nil, err
	}
	cl, err := client.New(endpoints, client.Config{Attempts: r.Attempts, OnRetry: retried})
	if err != nil {
		return nil, usage("%w", err)
	}
	return cl, nil
}

// primaries counts the partitions that list each node first.
func primaries(l *api.Layout) map[string]int {
	n := map[string]int{}
	if l != nil {
		for _, owners := range l.Partitions {
			if len(owners) > 0 {
				n[owners[0]]++
			}
		}
	}
	return n
}

// named returns the node of that name.
func named(nodes []api.Node, name string) (api.Node, bool) {
	i := slices.IndexFunc(nodes, func(n api.Node) bool { return n.Name == name })
	if i < 0 {
		return api.Node{}, false
	}
	return nodes[i], true
}
