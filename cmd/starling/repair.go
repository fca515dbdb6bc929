package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
)

type repairCmd struct {
	reach
	printer

	Bucket    string `placeholder:"NAME" help:"Only keys of this bucket."`
	Partition *int   `placeholder:"NUMBER" help:"Only this partition."`
	Node      string `placeholder:"NAME" help:"Only what this node shares with others."`
}

// Help is the detail below the flags.
func (*repairCmd) Help() string {
	return `Nodes compare their replicas by themselves, again and again; this has them
do it now and waits for the end. Without --node every member compares what it
owns with all other owners. Members that are down are passed over, and it fails
then: what they share was not compared.

Examples:
  starling repair
  starling repair --bucket carts
  starling repair --partition 17 --node n2`
}

// repaired is the outcome at one node.
type repaired struct {
	api.RepairRun

	Node string `json:"node"`
}

// repairPoll is how often progress is asked for.
const repairPoll = 200 * time.Millisecond

// Run asks the nodes one after the other: they share what they compare with.
// Those that do not answer are passed over, and told.
func (c *repairCmd) Run(ctx context.Context, w *world) error {
	cluster, err := c.cluster(ctx)
	if err != nil {
		return err
	}
	if err := c.check(cluster); err != nil {
		return err
	}
	var outcomes []repaired
	var failed error
	for _, o := range operators(ctx, cluster, func(n api.Node) bool { return c.Node == "" || c.Node == n.Name }) {
		run, err := c.at(ctx, w, o)
		if err != nil {
			run.Error = err.Error()
		}
		if err != nil && failed == nil {
			failed = fmt.Errorf("repair at %s: %w", o.name, err)
		}
		outcomes = append(outcomes, repaired{run, o.name})
	}
	if err := c.print(w.stdout, outcomes, func(p *page) { tableOfRepaired(p, outcomes) }); err != nil {
		return err
	}
	if failed == nil && slices.ContainsFunc(outcomes, func(r repaired) bool { return r.Error != "" }) {
		return errors.New("not everything could be compared: see what is down with starling status, then repair again")
	}
	return failed
}

// check refuses what the cluster does not have.
func (c *repairCmd) check(cluster api.Cluster) error {
	if cluster.Layout == nil {
		return errors.New("there is no layout yet, and so nothing to compare")
	}
	if last := len(cluster.Layout.Partitions) - 1; c.Partition != nil && (*c.Partition < 0 || *c.Partition > last) {
		return usage("there is no partition %d: they are 0 to %d, and starling status --key shows that of a key", *c.Partition, last)
	}
	if err := (kv.Key{Bucket: c.Bucket, Name: "any"}).Validate(); c.Bucket != "" && err != nil {
		return usage("%w", err)
	}
	if n, ok := named(cluster.Nodes, c.Node); c.Node != "" && (!ok || !n.Member) {
		return usage("no member is named %s: see starling status", c.Node)
	}
	return nil
}

// query is the selection as the node reads it.
func (c *repairCmd) query() string {
	q := url.Values{}
	if c.Bucket != "" {
		q.Set("bucket", c.Bucket)
	}
	if c.Partition != nil {
		q.Set("partition", strconv.Itoa(*c.Partition))
	}
	return q.Encode()
}

// at has one node compare, and shows how far it is until it is done.
func (c *repairCmd) at(ctx context.Context, w *world, o operator) (api.RepairRun, error) {
	if o.err != nil {
		return api.RepairRun{}, o.err
	}
	var state api.RepairState
	if err := ask(ctx, http.MethodPost, o.url+"/repair?"+c.query(), &state); err != nil {
		return api.RepairRun{}, err
	}
	var shown *progress
	defer func() {
		if shown != nil {
			shown.close()
		}
	}()
	for done := 0; ; {
		switch {
		case state.Run == nil:
			return api.RepairRun{}, errors.New("the node was restarted meanwhile: repair again")
		case shown == nil && state.Run.Total > 0:
			shown = newProgress(w, "repair "+o.name, "comparisons", state.Run.Total)
		}
		for ; shown != nil && done < state.Run.Done; done++ {
			shown.add(0)
		}
		if state.Run.Ended {
			return *state.Run, nil
		}
		if err := pause(ctx, repairPoll); err != nil {
			return api.RepairRun{}, err
		}
		state = api.RepairState{}
		if err := look(ctx, o.url+"/repairs", &state); err != nil {
			return api.RepairRun{}, err
		}
	}
}

func tableOfRepaired(p *page, outcomes []repaired) {
	p.row("NODE", "COMPARISONS", "KEYS DIFFERENT", "HEALED", "EXCHANGED", "RESULT")
	for _, r := range outcomes {
		result := "done"
		if r.Error != "" {
			result = r.Error
		}
		p.row(r.Node, fmt.Sprintf("%d of %d", r.Done, r.Total), r.Keys, r.Heal, humanize.IBytes(r.Bytes), result)
	}
}
