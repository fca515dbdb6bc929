package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/starling-kv/starling/node/api"
)

// operator is where a member takes operators.
type operator struct {
	name string
	url  string // http://host:port
	err  error  // why it is not known
}

// asksAtOnce is how many nodes are asked at the same time.
const asksAtOnce = 8

// operators asks all members for which want holds where they take operators:
// each tells only of itself. They are ordered by name.
func operators(ctx context.Context, c api.Cluster, want func(api.Node) bool) []operator {
	members := slices.DeleteFunc(slices.Clone(c.Nodes), func(n api.Node) bool { return !n.Member || !want(n) })
	slices.SortFunc(members, func(a, b api.Node) int { return compareNames(a.Name, b.Name) })
	out := make([]operator, len(members))
	var group errgroup.Group
	group.SetLimit(asksAtOnce)
	for i, n := range members {
		group.Go(func() error {
			url, err := operatorURL(ctx, n)
			out[i] = operator{n.Name, url, err}
			return nil
		})
	}
	_ = group.Wait() // each has an error of its own
	return out
}

func everyMember(api.Node) bool { return true }

// operatorURL asks a node where it takes operators, and makes sure that it is
// this node which answers there: that is a loopback address by default, and on
// another machine that of another node.
func operatorURL(ctx context.Context, n api.Node) (string, error) {
	if n.ClientAddr == "" {
		return "", &exitError{exitNoAnswer, fmt.Errorf("%s has not been seen since the node that was asked started: start it", n.Name)}
	}
	var own, there api.Cluster
	if err := look(ctx, "http://"+n.ClientAddr+"/cluster", &own); err != nil {
		return "", err
	}
	self, _ := named(own.Nodes, n.Name)
	if self.AdminAddr == "" {
		return "", fmt.Errorf("%s does not tell its address for operators", n.Name)
	}
	url := "http://" + reachable(self.AdminAddr, n.ClientAddr)
	err := look(ctx, url+"/cluster", &there)
	if err == nil && there.Node == n.Name && there.ID == own.ID {
		return url, nil
	}
	if err == nil {
		err = fmt.Errorf("there answers %s", there.Node)
	}
	return "", fmt.Errorf("%s takes operators at %s, which is not reached from here: "+
		"run this on its machine, or have it serve with --admin on an address of your network: %w", n.Name, self.AdminAddr, err)
}

// reachable returns an address on which a node listens as others write it: one
// that listens on all addresses is reached where its clients reach it.
func reachable(listen, client string) string {
	at, err := netip.ParseAddrPort(listen)
	host, _, bad := net.SplitHostPort(client)
	if err != nil || bad != nil || !at.Addr().IsUnspecified() {
		return listen
	}
	return net.JoinHostPort(host, strconv.Itoa(int(at.Port())))
}
