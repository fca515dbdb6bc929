package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"

	"github.com/starling-kv/starling/node/api"
)

// rangesAtOnce is how many ranges of partitions are compared at the same time:
// each of them takes one answer of every node, however long.
const rangesAtOnce = 4

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
	Bucket    string `json:"bucket"`
	Key       string `json:"key"`
	Partition int    `json:"partition"`
	Target    string `json:"target"`
	Hash      string `json:"hash"`
	NMax      int    `json:"n_max"`
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
	members := operators(ctx, cluster, everyMember)
	for _, o := range members {
		if o.err != nil {
			return fmt.Errorf("compare the replicas: %s: %w: all members must be up, see starling status", o.name, o.err)
		}
	}
	report, err := compare(ctx, w, cluster.Layout, members)
	if err != nil {
		return fmt.Errorf("compare the replicas: %w", err)
	}
	if err := c.print(w.stdout, report, func(p *page) { tableOfReplicas(p, report) }); err != nil {
		return err
	}
	if report.Divergent+report.Missing > 0 {
		return errors.New("the replicas are not the same: wait for the repairs, or see starling repair")
	}
	return nil
}

// compare compares a few ranges of partitions at a time.
func compare(ctx context.Context, w *world, l *api.Layout, members []operator) (replicaReport, error) {
	parts := make([]replicaReport, rangesAtOnce+1)
	shown := newProgress(w, "compared", "partitions", len(l.Partitions))
	defer shown.close()
	group, ctx := errgroup.WithContext(ctx)
	for i := range rangesAtOnce {
		first, next := len(l.Partitions)*i/rangesAtOnce, len(l.Partitions)*(i+1)/rangesAtOnce
		group.Go(func() (err error) {
			parts[i], err = compareRange(ctx, l, members, first, next-1, func() { shown.add(0) })
			return err
		})
	}
	group.Go(func() (err error) {
		parts[rangesAtOnce], err = countHints(ctx, members, len(l.Partitions)-1)
		return err
	})
	if err := group.Wait(); err != nil {
		return replicaReport{}, err
	}
	total := newReplicaReport()
	for _, part := range parts {
		total.add(part)
	}
	return total, nil
}

// compareRange compares the partitions from first to last, one after the other:
// what is held of one at a time is all that it remembers.
func compareRange(ctx context.Context, l *api.Layout, members []operator, first, last int, compared func()) (replicaReport, error) {
	total := newReplicaReport()
	if last < first {
		return total, nil
	}
	dumps := make([]*dump, 0, len(members))
	defer func() {
		for _, d := range dumps {
			d.close()
		}
	}()
	for _, m := range members {
		d, err := openDump(ctx, m, fmt.Sprintf("partition=%d-%d", first, last))
		if err != nil {
			return total, err
		}
		dumps = append(dumps, d)
	}
	for p := first; p <= last; p++ {
		held := partitionKeys{}
		for _, d := range dumps {
			if err := d.partition(p, func(h heldLine) { held.add(d.member.name, h) }); err != nil {
				return total, err
			}
		}
		total.add(held.judge(l.Partitions[p]))
		compared()
	}
	for _, d := range dumps {
		if err := d.end(); err != nil {
			return total, err
		}
	}
	return total, nil
}

// countHints counts what the nodes hold for others.
func countHints(ctx context.Context, members []operator, last int) (replicaReport, error) {
	total := newReplicaReport()
	for _, m := range members {
		d, err := openDump(ctx, m, fmt.Sprintf("partition=0-%d&hints=true", last))
		if err != nil {
			return total, err
		}
		err = d.each(func(heldLine) { total.Hints++ })
		d.close()
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// partitionKeys is what all nodes hold of one partition, by bucket/key.
type partitionKeys map[string]*heldKey

func (p partitionKeys) add(node string, h heldLine) {
	name := h.Bucket + "/" + h.Key
	k := p[name]
	if k == nil {
		k = &heldKey{hashes: make(map[string]string)}
		p[name] = k
	}
	k.nMax = max(k.nMax, h.NMax)
	k.hashes[node] = h.Hash
}

// judge compares what the nodes hold of a partition, by its ordered owners.
func (p partitionKeys) judge(owners []string) replicaReport {
	r := newReplicaReport()
	r.Keys = len(p)
	for _, name := range slices.Sorted(maps.Keys(p)) {
		k := p[name]
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
