package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/client"
	"github.com/starling-kv/starling/node/api"
)

type verifyCmd struct {
	reach
	printer

	Dir      rawText       `arg:"" help:"The directory."`
	Bucket   string        `help:"Bucket to read; by default the name of the directory."`
	Parallel int           `default:"32" help:"Files in flight at once."`
	N        int           `placeholder:"N" help:"Replicas that the files were stored with."`
	R        string        `default:"2" help:"Replicas that must answer each read: a number, one, quorum or all."`
	Timeout  time.Duration `placeholder:"TIME" help:"Time that the cluster has for one attempt."`
}

// Help is the detail below the flags.
func (*verifyCmd) Help() string {
	return `Every file of DIR is read back through each live node and compared byte by
byte. It fails if any differs, is missing, has siblings or cannot be read.

Examples:
  starling verify ./site
  starling verify "$(go env GOROOT)/src" --bucket go --r all`
}

// verified is what one node returned.
type verified struct {
	Node      string    `json:"node"`
	Alive     bool      `json:"alive"`
	Files     int       `json:"files"`
	Equal     int       `json:"equal"`
	Different int       `json:"different"`
	Missing   int       `json:"missing"`
	Siblings  int       `json:"siblings"`
	Errors    int       `json:"errors"`
	Seconds   float64   `json:"seconds"`
	Failures  []failure `json:"failures,omitempty"`
}

// Run verifies the directory through one node after the other.
func (c *verifyCmd) Run(ctx context.Context, w *world) error {
	if c.Parallel < 1 {
		return usage("--parallel %d: use 1 or more", c.Parallel)
	}
	t, err := scan(ctx, string(c.Dir), c.Bucket)
	if err != nil {
		return err
	}
	cluster, err := c.cluster(ctx)
	if err != nil {
		return err
	}
	nodes := slices.DeleteFunc(cluster.Nodes, func(n api.Node) bool { return !n.Member || n.ClientAddr == "" })
	slices.SortFunc(nodes, func(a, b api.Node) int { return compareNames(a.Name, b.Name) })
	results := make([]verified, len(nodes))
	for i, n := range nodes {
		// Gossip takes seconds to notice that a node is gone: ask it.
		alive := n.Alive && look(ctx, "http://"+n.ClientAddr+"/cluster", new(api.Cluster)) == nil
		results[i] = verified{Node: n.Name, Alive: alive}
		if !alive {
			continue
		}
		if results[i], err = c.through(ctx, w, t, n); err != nil {
			return err
		}
	}
	if err := c.print(w.stdout, results, func(p *page) { tableOfVerified(p, t, results) }); err != nil {
		return err
	}
	return verdict(ctx, results)
}

// through reads all files by way of the node n.
func (c *verifyCmd) through(ctx context.Context, w *world, t *tree, n api.Node) (verified, error) {
	cl, err := client.New([]string{"http://" + n.ClientAddr}, client.Config{Attempts: c.Attempts})
	if err != nil {
		return verified{}, err
	}
	defer cl.Close()
	read := client.Read{N: c.N, R: c.R, Timeout: c.Timeout}
	var mu sync.Mutex
	result, silent := verified{Node: n.Name, Alive: true}, 0
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	shown, began := newProgress(w, "read through "+n.Name, "files", len(t.files)), w.now()
	t.each(ctx, c.Parallel, func(f file) {
		want, err := t.read(f)
		var o client.Object
		if err == nil {
			o, err = cl.Get(ctx, t.key(f), read)
		}
		mu.Lock()
		result.count(t.key(f).String(), want, o, err)
		if err != nil && client.CodeOf(err) == "" {
			if silent++; silent == silentEnough {
				giveUp()
			}
		}
		mu.Unlock()
		shown.add(len(want))
	})
	shown.close()
	result.Seconds = w.now().Sub(began).Seconds()
	slices.SortFunc(result.Failures, func(a, b failure) int { return cmp.Compare(a.Key, b.Key) })
	if left := len(t.files) - result.Files; left > 0 && silent >= silentEnough {
		result.Failures = append(result.Failures, failure{fmt.Sprintf("%d more files", left), "the node stopped answering"})
	}
	return result, nil
}

// silentEnough is how many files must get no answer at all, after all attempts,
// for a node to be given up.
const silentEnough = 3

// count judges what came back for one file.
func (v *verified) count(key string, want []byte, o client.Object, err error) {
	v.Files++
	var wrong string
	switch {
	case client.IsNotFound(err):
		v.Missing++
		wrong = "missing"
	case err != nil:
		v.Errors++
		wrong = reason(err)
	case len(o.Siblings) != 1:
		v.Siblings++
		wrong = fmt.Sprintf("%d values", len(o.Siblings))
	case !bytes.Equal(o.Siblings[0].Data, want):
		v.Different++
		wrong = "different"
	default:
		v.Equal++
		return
	}
	v.Failures = append(v.Failures, failure{key, wrong})
}

func verdict(ctx context.Context, results []verified) error {
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
	alive := 0
	for _, v := range results {
		if v.Equal != v.Files {
			return errors.New("what the cluster returned is not what the directory holds")
		}
		if v.Alive {
			alive++
		}
	}
	if alive == 0 {
		return &exitError{exitNoAnswer, errors.New("no node is alive")}
	}
	return nil
}

func tableOfVerified(p *page, t *tree, results []verified) {
	p.row("NODE", "FILES", "EQUAL", "DIFFERENT", "MISSING", "SIBLINGS", "ERRORS", "SECONDS")
	for _, v := range results {
		if !v.Alive {
			p.row(v.Node, "down", "-", "-", "-", "-", "-", "-")
			continue
		}
		p.row(v.Node, v.Files, v.Equal, v.Different, v.Missing, v.Siblings, v.Errors, fmt.Sprintf("%.1f", v.Seconds))
	}
	p.linef("%s files, %s, bucket %s", humanize.Comma(int64(len(t.files))), humanize.IBytes(uint64(t.bytes)), t.bucket)
	for _, v := range results {
		tableOfFailures(p, v.throughNode())
	}
}

// throughNode are the failures with the node that they came by.
func (v *verified) throughNode() []failure {
	named := make([]failure, len(v.Failures))
	for i, f := range v.Failures {
		named[i] = failure{f.Key + " through " + v.Node, f.Error}
	}
	return named
}
