package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

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
owns with all other owners.

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
func (c *repairCmd) Run(ctx context.Context, w *world) error {
	cluster, err := c.cluster(ctx)
	if err != nil {
		return err
	}
	admins, err := adminsOf(ctx, cluster)
	if err != nil {
		return err
	}
	if c.Node != "" {
		admin, ok := admins[c.Node]
		if !ok {
			return usage("no member is named %s: see starling status", c.Node)
		}
		admins = map[string]string{c.Node: admin}
	}
	var outcomes []repaired
	for _, name := range slices.SortedFunc(maps.Keys(admins), compareNames) {
		run, err := c.at(ctx, w, name, admins[name])
		if err != nil {
			return fmt.Errorf("repair at %s: %w", name, err)
		}
		outcomes = append(outcomes, repaired{run, name})
	}
	if err := c.print(w.stdout, outcomes, func(p *page) { tableOfRepaired(p, outcomes) }); err != nil {
		return err
	}
	if slices.ContainsFunc(outcomes, func(r repaired) bool { return r.Error != "" }) {
		return errors.New("not everything could be compared: see what is down with starling status, then repair again")
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
func (c *repairCmd) at(ctx context.Context, w *world, name, admin string) (api.RepairRun, error) {
	state, err := post(ctx, admin+"/repair?"+c.query())
	if err != nil {
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
			shown = newProgress(w, "repair "+name, "comparisons", state.Run.Total)
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
		if err := look(ctx, admin+"/repairs", &state); err != nil {
			return api.RepairRun{}, err
		}
	}
}

// post begins a repair.
func post(ctx context.Context, target string) (api.RepairState, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, http.NoBody)
	if err != nil {
		return api.RepairState{}, err
	}
	resp, err := lookClient.Do(req)
	if err != nil {
		return api.RepairState{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or given up
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxLook))
	if err != nil {
		return api.RepairState{}, err
	}
	if resp.StatusCode != http.StatusAccepted {
		return api.RepairState{}, refusal(target, resp.Status, body)
	}
	var state api.RepairState
	return state, json.Unmarshal(body, &state)
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
