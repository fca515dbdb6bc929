package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/client"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
)

type statusCmd struct {
	reach
	printer

	Admin string  `placeholder:"URL" help:"Ask this node, at its address for operators, as http://host:port."`
	Key   *keyArg `xor:"what" placeholder:"BUCKET/KEY" help:"Show which nodes own the key, and what each of them holds."`
	N     int     `placeholder:"N" help:"With --key: so many owners, if the key has no more."`

	Replicas bool `xor:"what" help:"Compare what all members hold of every key, without repairing anything."`
}

// Help is the detail below the flags.
func (*statusCmd) Help() string {
	return `What is shown is what one node sees. PRIMARY counts the partitions that a
node owns first, REPLICA those that it owns after another. HINTS OWED are
writes that others missed; DIVERGED and HEALED count keys since the node's
start; CLEAN SINCE is how long ago all that it shares had last been compared
and found equal. What follows REPLICA is told by each node itself. For what is
in quarantine see starling quarantine.

With --key, the nodes are in the order in which they own the key or stand in
for its owners. With --replicas, all members must be up; it fails if owners
differ.

Examples:
  starling status
  starling status --key carts/ann --n 5
  starling status --replicas -o json`
}

// Run prints the state of the cluster, or of a key.
func (c *statusCmd) Run(ctx context.Context, w *world) error {
	if c.Admin != "" {
		c.Endpoint = []string{c.Admin}
	}
	cluster, err := c.cluster(ctx)
	if err != nil {
		return err
	}
	switch {
	case c.Key != nil:
		return c.explain(ctx, w, cluster)
	case c.Replicas:
		return c.replicas(ctx, w, cluster)
	}
	slices.SortFunc(cluster.Nodes, func(a, b api.Node) int { return compareNames(a.Name, b.Name) })
	state := clusterState{Cluster: cluster, Repairs: repairStates(ctx, cluster)}
	return c.print(w.stdout, state, func(p *page) { tableOfNodes(p, state) })
}

// clusterState is what one node knows of the cluster, and how far each node that
// answers says its replicas are from those of others.
type clusterState struct {
	api.Cluster

	Repairs map[string]api.RepairState `json:"repairs"`
}

// repairStates asks all members that seem alive; those that do not answer are
// left out.
func repairStates(ctx context.Context, c api.Cluster) map[string]api.RepairState {
	states := make(map[string]api.RepairState)
	for _, o := range operators(ctx, c, func(n api.Node) bool { return n.Alive }) {
		var state api.RepairState
		if o.err == nil && look(ctx, o.url+"/repairs", &state) == nil {
			states[o.name] = state
		}
	}
	return states
}

// compareNames orders n2 before n10.
func compareNames(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

func tableOfNodes(p *page, c clusterState) {
	p.linef("%s", clusterLine(c.Cluster))
	p.row("NODE", "STATE", "ZONE", "CLIENTS", "OPERATORS", "PRIMARY", "REPLICA", "STANDING", "HINTS OWED", "DIVERGED", "HEALED", "CLEAN SINCE")
	first := primaries(c.Layout)
	for _, n := range c.Nodes {
		cells := []any{
			n.Name, nodeState(n), cmp.Or(n.Zone, "-"), cmp.Or(n.ClientAddr, "-"), cmp.Or(n.AdminAddr, "-"),
			first[n.Name], max(0, n.Partitions-first[n.Name]),
		}
		if r, ok := c.Repairs[n.Name]; ok {
			cells = append(cells, standingOf(r), hintsOwed(r.Hints), r.Found, r.Healed, cleanSince(r.OldestClean))
		} else {
			cells = append(cells, "?", "?", "?", "?", "?")
		}
		p.row(cells...)
	}
}

// standingOf says whether readers may count the node, and what it keeps back.
func standingOf(r api.RepairState) string {
	s, said := r.Standing, "good"
	switch {
	case !s.Registered:
		said = "starting"
	case s.Fallen > 0:
		said = fmt.Sprintf("catching up, %d of %d", s.Partitions-s.Fallen, s.Partitions)
	case s.Doubted > 0:
		said = fmt.Sprintf("good, %d ranges damaged", s.Doubted)
	}
	if r.Quarantined > 0 {
		said += fmt.Sprintf(", %s in quarantine", humanize.Comma(int64(r.Quarantined)))
	}
	return said
}

// hintsOwed is what the node keeps for others.
func hintsOwed(hints []api.HintState) string {
	var count uint64
	var oldest float64
	for _, h := range hints {
		count += h.Count
		oldest = max(oldest, h.Oldest)
	}
	if count == 0 {
		return "0"
	}
	return fmt.Sprintf("%d, oldest %s", count, seconds(oldest))
}

// cleanSince is the age of the oldest comparison that found nothing.
func cleanSince(age *float64) string {
	if age == nil {
		return "never"
	}
	return seconds(*age)
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond).String()
}

func clusterLine(c api.Cluster) string {
	if c.Layout == nil {
		return fmt.Sprintf("no cluster yet, as %s sees it: it waits to join one", c.Node)
	}
	return fmt.Sprintf("cluster %s, layout %d (%s), %d partitions, as %s sees it",
		c.ID, c.Layout.Version, c.Layout.Hash, len(c.Layout.Partitions), c.Node)
}

func nodeState(n api.Node) string {
	switch {
	case n.Alive && n.Member:
		return "alive"
	case n.Alive:
		return "alive, no member"
	}
	return "down"
}

// explanation is where a key lives and what is there.
type explanation struct {
	Node       string    `json:"node"`
	Bucket     string    `json:"bucket"`
	Key        string    `json:"key"` // percent-encoded, as in the path of a request
	KeyHash    string    `json:"key_hash"`
	Partition  int       `json:"partition"`
	N          int       `json:"n"`
	Preference []holding `json:"preference"`
}

// holding is what one node of the preference list holds.
type holding struct {
	Node     string       `json:"node"`
	ID       kv.NodeID    `json:"id"`
	Owner    bool         `json:"owner"`
	Alive    bool         `json:"alive"`
	Standing bool         `json:"standing"`
	Behind   bool         `json:"behind"`
	Error    string       `json:"error,omitempty"`
	Hash     string       `json:"hash,omitempty"`
	Siblings []ownedState `json:"siblings,omitempty"`
}

type ownedState struct {
	Dot      string `json:"dot"`
	Kind     string `json:"kind"`
	N        uint8  `json:"n"`
	Length   uint64 `json:"length"`
	Checksum string `json:"checksum"`
}

// explain asks a node, at its address for operators, about the key.
func (c *statusCmd) explain(ctx context.Context, w *world, cluster api.Cluster) error {
	admin := c.Admin
	if n, ok := named(cluster.Nodes, cluster.Node); admin == "" && ok && n.AdminAddr != "" {
		admin = "http://" + n.AdminAddr
	}
	if admin == "" {
		return errors.New("the node does not tell its address for operators: give it with --admin")
	}
	key := kv.Key(*c.Key)
	target := admin + "/explain/" + key.Bucket + "/" + client.Escape(key.Name)
	if c.N != 0 {
		target += "?" + url.Values{"n": {strconv.Itoa(c.N)}}.Encode()
	}
	var e explanation
	if err := look(ctx, target, &e); err != nil {
		return fmt.Errorf("explain %s: %w", key, err)
	}
	return c.print(w.stdout, e, func(p *page) { tableOfHoldings(p, e) })
}

func tableOfHoldings(p *page, e explanation) {
	p.linef("%s/%s, hash %s, partition %d, n=%d, as %s sees it", e.Bucket, e.Key, e.KeyHash, e.Partition, e.N, e.Node)
	p.row("#", "NODE", "ROLE", "STATE", "HOLDS", "SIZE", "CHECKSUM", "DOT")
	for i, h := range e.Preference {
		role := "stand-in"
		if h.Owner {
			role = "owner"
		}
		if len(h.Siblings) == 0 {
			p.row(i+1, h.Node, role, h.state(), h.nothing(), "-", "-", "-")
		}
		for _, s := range h.Siblings {
			p.row(i+1, h.Node, role, h.state(), s.Kind, humanize.IBytes(s.Length), s.Checksum, s.Dot)
		}
	}
}

func (h holding) state() string {
	switch {
	case h.Error != "":
		return "error: " + h.Error
	case !h.Alive:
		return "believed down"
	case !h.Owner:
		return "-"
	case !h.Standing:
		return "not counted yet"
	case h.Behind:
		return "behind"
	}
	return "up to date"
}

// nothing is what a node without siblings holds.
func (h holding) nothing() string {
	if h.Error != "" {
		return "?"
	}
	return "nothing"
}
