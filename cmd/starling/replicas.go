package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"

	"github.com/starling-kv/starling/node/api"
)

// replicasAtOnce is how many partitions are compared at the same time.
const replicasAtOnce = 4

// maxExamples is how many keys are named that are not the same everywhere.
const maxExamples = 20

// replicaReport is how the replicas of all keys compare. A key counts once as
// divergent if two of its owners hold different states, and once as missing if
// an owner holds nothing of it.
type replicaReport struct {
	Keys      int            `json:"keys"`
	Divergent int            `json:"divergent"`
	Missing   int            `json:"missing"`
	Leftover  int            `json:"leftover"` // records at nodes that do not own them
	Hints     int            `json:"hints"`    // records held for other nodes
	Nodes     map[string]int `json:"nodes"`    // records by node
	Examples  []differentKey `json:"examples,omitempty"`
}

// differentKey is a key that its owners do not hold alike.
type differentKey struct {
	Key    string            `json:"key"`
	Hashes map[string]string `json:"hashes"` // by owner; empty: it holds nothing
}

// heldLine is what is read of a line of /replica.
type heldLine struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Target string `json:"target"`
	Hash   string `json:"hash"`
	NMax   int    `json:"n_max"`
}

// heldKey is what the nodes hold of one key.
type heldKey struct {
	nMax   int
	hashes map[string]string // by node
}

// replicas compares what all members hold, as their raw dumps show it: nothing
// is read through a coordinator, and so nothing is repaired.
func (c *statusCmd) replicas(ctx context.Context, w *world, cluster api.Cluster) error {
	if cluster.Layout == nil {
		return errors.New("there is no layout yet, and so nothing to compare")
	}
	admins, err := adminsOf(ctx, cluster)
	if err != nil {
		return err
	}
	report, err := compare(ctx, w, cluster.Layout, admins)
	if err != nil {
		return err
	}
	if err := c.print(w.stdout, report, func(p *page) { tableOfReplicas(p, report) }); err != nil {
		return err
	}
	if report.Divergent+report.Missing > 0 {
		return errors.New("the replicas are not the same: wait for the repairs, or see starling repair")
	}
	return nil
}

// compare compares a few partitions at a time.
func compare(ctx context.Context, w *world, l *api.Layout, admins map[string]string) (replicaReport, error) {
	parts := make([]replicaReport, len(l.Partitions))
	shown := newProgress(w, "compared", "partitions", len(parts))
	defer shown.close()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(replicasAtOnce)
	for p := range parts {
		group.Go(func() error {
			d, err := dump(ctx, admins, p)
			parts[p] = d.judge(l.Partitions[p])
			shown.add(0)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return replicaReport{}, err
	}
	total := newReplicaReport()
	for _, part := range parts {
		total.add(part)
	}
	return total, nil
}

// adminsOf asks every member where it takes operators: each tells only of itself.
func adminsOf(ctx context.Context, c api.Cluster) (map[string]string, error) {
	admins := make(map[string]string)
	for _, n := range c.Nodes {
		if !n.Member {
			continue
		}
		var own api.Cluster
		if err := look(ctx, "http://"+n.ClientAddr+"/cluster", &own); err != nil {
			return nil, &exitError{exitNoAnswer, fmt.Errorf("compare the replicas: %s: %w: all members must be up", n.Name, err)}
		}
		self, _ := named(own.Nodes, n.Name)
		if self.AdminAddr == "" {
			return nil, fmt.Errorf("compare the replicas: %s does not tell its address for operators", n.Name)
		}
		admins[n.Name] = "http://" + self.AdminAddr
	}
	return admins, nil
}

// partitionDump is what all nodes hold of one partition.
type partitionDump struct {
	keys  map[string]*heldKey
	hints int
}

func dump(ctx context.Context, admins map[string]string, partition int) (partitionDump, error) {
	d := partitionDump{keys: make(map[string]*heldKey)}
	for _, node := range slices.Sorted(maps.Keys(admins)) {
		for _, hints := range []bool{false, true} {
			target := fmt.Sprintf("%s/replica?partition=%d&brief=true&hints=%t", admins[node], partition, hints)
			if err := lines(ctx, target, func(h heldLine) { d.add(node, h) }); err != nil {
				return d, fmt.Errorf("what %s holds of partition %d: %w", node, partition, err)
			}
		}
	}
	return d, nil
}

func (d *partitionDump) add(node string, h heldLine) {
	if h.Target != "" {
		d.hints++
		return
	}
	name := h.Bucket + "/" + h.Key
	k := d.keys[name]
	if k == nil {
		k = &heldKey{hashes: make(map[string]string)}
		d.keys[name] = k
	}
	k.nMax = max(k.nMax, h.NMax)
	k.hashes[node] = h.Hash
}

// lines calls fn with each line of a dump. A dump that breaks off is an error.
func lines(ctx context.Context, url string, fn func(heldLine)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or given up
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxLook))
		return refusal(url, resp.Status, body)
	}
	d := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var h heldLine
		switch err := d.Decode(&h); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		fn(h)
	}
}

// judge compares what the nodes hold of a partition, by its ordered owners.
func (d *partitionDump) judge(owners []string) replicaReport {
	r := newReplicaReport()
	r.Keys, r.Hints = len(d.keys), d.hints
	for _, name := range slices.Sorted(maps.Keys(d.keys)) {
		k := d.keys[name]
		own := owners[:min(k.nMax, len(owners))]
		for node := range k.hashes {
			r.Nodes[node]++
			if !slices.Contains(own, node) {
				r.Leftover++
			}
		}
		divergent, missing := k.judge(own)
		if divergent {
			r.Divergent++
		}
		if missing {
			r.Missing++
		}
		if divergent || missing {
			r.Examples = append(r.Examples, k.example(name, own))
		}
	}
	return r
}

func newReplicaReport() replicaReport { return replicaReport{Nodes: make(map[string]int)} }

// add adds the report of a part.
func (r *replicaReport) add(part replicaReport) {
	r.Keys += part.Keys
	r.Divergent += part.Divergent
	r.Missing += part.Missing
	r.Leftover += part.Leftover
	r.Hints += part.Hints
	for node, records := range part.Nodes {
		r.Nodes[node] += records
	}
	r.Examples = append(r.Examples, part.Examples[:min(len(part.Examples), maxExamples-len(r.Examples))]...)
}

// judge compares what the owners hold.
func (k *heldKey) judge(owners []string) (divergent, missing bool) {
	var first string
	for _, o := range owners {
		hash := k.hashes[o]
		if hash == "" {
			missing = true
			continue
		}
		first = cmp.Or(first, hash)
		divergent = divergent || hash != first
	}
	return divergent, missing
}

func (k *heldKey) example(name string, owners []string) differentKey {
	e := differentKey{Key: name, Hashes: make(map[string]string)}
	for _, o := range owners {
		e.Hashes[o] = k.hashes[o]
	}
	return e
}

func tableOfReplicas(p *page, r replicaReport) {
	p.linef("%s keys, %s divergent, %s missing at an owner, %s hints, %s leftovers", humanize.Comma(int64(r.Keys)),
		humanize.Comma(int64(r.Divergent)), humanize.Comma(int64(r.Missing)), humanize.Comma(int64(r.Hints)), humanize.Comma(int64(r.Leftover)))
	p.row("NODE", "RECORDS")
	for _, n := range slices.SortedFunc(maps.Keys(r.Nodes), compareNames) {
		p.row(n, r.Nodes[n])
	}
	for _, e := range r.Examples {
		held := make([]string, 0, len(e.Hashes))
		for _, o := range slices.SortedFunc(maps.Keys(e.Hashes), compareNames) {
			held = append(held, o+" "+cmp.Or(e.Hashes[o], "nothing"))
		}
		p.linef("%s: %s", e.Key, strings.Join(held, ", "))
	}
}
