package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"

	"github.com/starling-kv/starling/node/api"
)

// settleChoice names the records in quarantine that a command settles. To mean
// all of them takes a word.
type settleChoice struct {
	quarantineChoice

	All bool `xor:"which" help:"All records in quarantine."`
}

// chosen returns the records that are meant, by node.
func (c *settleChoice) chosen(ctx context.Context, r reach) (states []quarantineState, count int, failed error) {
	if !c.All && !c.some() {
		return nil, 0, usage("say which records: --key BUCKET/KEY, --bucket NAME or --all; starling quarantine lists them")
	}
	states, failed = c.states(ctx, r, 0)
	for _, s := range states {
		count += len(s.Records)
	}
	if count == 0 && failed == nil && c.Key != nil {
		failed = fmt.Errorf("nothing of %s/%s is in quarantine: see starling quarantine", c.Key.Bucket, c.Key.Name)
	}
	return states, count, failed
}

// settledRecord is what became of one record.
type settledRecord struct {
	Node     string           `json:"node"`
	Bucket   string           `json:"bucket"`
	Key      string           `json:"key"` // percent-encoded, as in the path of a request
	Hash     string           `json:"hash"`
	Removed  bool             `json:"removed"` // it is in quarantine no more
	Siblings []settledSibling `json:"siblings"`
	Error    string           `json:"error,omitempty"`
}

type settledSibling struct {
	quarantinedSibling

	Became string `json:"became,omitempty"` // as in package api
}

// settleTimeout is longer than a node takes for one record.
const settleTimeout = 35 * time.Second

// settle has the nodes restore or discard the records one by one, and shows how
// far it is. What failed is in the outcomes; the error tells of it.
func settle(ctx context.Context, w *world, what string, states []quarantineState, count int) (all []settledRecord, failed error) {
	all = make([]settledRecord, 0, count)
	shown := newProgress(w, what, "records", count)
	defer shown.close()
	var first error
	failures := 0
	for _, s := range states {
		for _, r := range s.Records {
			if ctx.Err() != nil {
				return all, ctx.Err()
			}
			out, err := settleOne(ctx, s.at, what, r)
			if err != nil {
				failures++
				if first == nil {
					first = fmt.Errorf("%s/%s at %s: %w", r.Bucket, r.Key, s.Node, err)
				}
			}
			all = append(all, out)
			shown.add(0)
		}
	}
	if failures > 0 {
		failed = fmt.Errorf("%s failed for %s of %s; what is wrong may pass, and nothing is done twice if you repeat it: %w",
			what, humanize.Comma(int64(failures)), english.Plural(count, "record", ""), first)
	}
	return all, failed
}

func settleOne(ctx context.Context, o operator, what string, r quarantinedRecord) (settledRecord, error) {
	out := settledRecord{Node: o.name, Bucket: r.Bucket, Key: r.Key, Hash: r.Hash}
	target := fmt.Sprintf("%s/quarantine/%s/%s/%s?hash=%s", o.url, what, r.Bucket, r.Key, r.Hash)
	err := askFor(ctx, settleTimeout, http.MethodPost, target, &out)
	if err != nil {
		out.Error = err.Error()
		for _, s := range r.Siblings {
			out.Siblings = append(out.Siblings, settledSibling{quarantinedSibling: s})
		}
	}
	return out, err
}

type quarantineRestoreCmd struct {
	reach
	printer
	settleChoice
}

// Help is the detail below the flags.
func (*quarantineRestoreCmd) Help() string {
	return `Every value is written again as a new write that has seen nothing: it replaces
nothing, and is a sibling of what its key holds. Type, metadata and the time at
which it expires are kept. Once a quorum of owners has it on disk, the record
leaves the quarantine. A value that lives already is not written again, nor is
one that another write replaced. Repeating it adds nothing.

A record of deletes, or of values that were replaced or have expired, has nothing
to restore: it stays until it is discarded.

Examples:
  starling quarantine restore --key carts/ann
  starling quarantine restore --bucket carts --node n2
  starling quarantine restore --all -o json`
}

// Run restores what was chosen and prints what became of it.
func (c *quarantineRestoreCmd) Run(ctx context.Context, w *world) error {
	states, count, failed := c.chosen(ctx, c.reach)
	if states == nil || c.Key != nil && count == 0 {
		return failed
	}
	all, err := settle(ctx, w, "restore", states, count)
	if err != nil {
		failed = err
	}
	if err := c.print(w.stdout, all, func(p *page) { tableOfRestored(p, all) }); err != nil {
		return err
	}
	return failed
}

func tableOfRestored(p *page, all []settledRecord) {
	if len(all) == 0 {
		p.linef("nothing to restore is in quarantine")
		return
	}
	p.row("NODE", "KEY", "SIBLINGS", "SIZE", "RESULT")
	idle := 0
	for _, s := range all {
		if !s.Removed && s.Error == "" {
			idle++
		}
		p.row(s.Node, s.Bucket+"/"+s.Key, len(s.Siblings), s.size(), s.result())
	}
	p.linef("%s restored", removed(all))
	if idle > 0 {
		p.linef("with nothing to restore, and left in quarantine: %s; starling quarantine discard removes such",
			english.Plural(idle, "record", ""))
	}
}

// results are the words for what became of siblings, in the order in which they
// are told.
var results = []struct{ became, word string }{
	{api.BecameRestored, "restored"},
	{api.BecameThere, "there already"},
	{api.BecameReplaced, "replaced since"},
	{api.BecameExpired, "expired"},
	{api.BecameDelete, "delete"},
	{api.BecameDamaged, "lost by the disk"},
}

// result says what became of the record's siblings.
func (s settledRecord) result() string {
	if s.Error != "" {
		return "failed"
	}
	var parts []string
	for _, r := range results {
		count := 0
		for _, v := range s.Siblings {
			if v.Became == r.became {
				count++
			}
		}
		switch {
		case count > 0 && len(s.Siblings) == 1:
			parts = append(parts, r.word)
		case count > 0:
			parts = append(parts, fmt.Sprintf("%d %s", count, r.word))
		}
	}
	if !s.Removed {
		parts = append(parts, "stays")
	}
	return strings.Join(parts, ", ")
}

func (s settledRecord) size() string {
	var bytes uint64
	for _, v := range s.Siblings {
		bytes += v.Length
	}
	return humanize.IBytes(bytes)
}

type quarantineDiscardCmd struct {
	reach
	printer
	settleChoice

	Yes bool `help:"Do not ask."`
}

// Help is the detail below the flags.
func (*quarantineDiscardCmd) Help() string {
	return `It lists what it is about to remove, and asks. What is removed is gone: nobody
else may have it.

Examples:
  starling quarantine discard --key carts/ann
  starling quarantine discard --all --yes`
}

// Run removes what was chosen, once somebody has said so.
func (c *quarantineDiscardCmd) Run(ctx context.Context, w *world) error {
	if !c.Yes && !w.terminal {
		return usage("there is no terminal to ask on: add --yes if you know what is in quarantine")
	}
	states, count, failed := c.chosen(ctx, c.reach)
	if states == nil || c.Key != nil && count == 0 {
		return failed
	}
	if err := c.confirm(w, states, count); err != nil {
		return err
	}
	all, err := settle(ctx, w, "discard", states, count)
	if err != nil {
		failed = err
	}
	if err := c.print(w.stdout, all, func(p *page) { p.linef("%s discarded", removed(all)) }); err != nil {
		return err
	}
	return failed
}

// confirm lists what is about to be discarded, and fails unless somebody agrees.
func (c *quarantineDiscardCmd) confirm(w *world, states []quarantineState, count int) error {
	list := w.stdout
	if c.json() {
		list = w.stderr
	}
	if !c.json() || !c.Yes {
		if err := printPage(list, func(p *page) { tableOfQuarantine(p, states) }); err != nil {
			return err
		}
	}
	if count > 0 && !c.Yes && !agreed(w, fmt.Sprintf("Discard %s for good?", english.Plural(count, "record", ""))) {
		return errors.New("nothing was discarded")
	}
	return nil
}

// removed counts the records that are in quarantine no more.
func removed(all []settledRecord) string {
	count := 0
	for _, s := range all {
		if s.Removed {
			count++
		}
	}
	return english.Plural(count, "record", "")
}

// agreed asks a person and reports whether the answer was yes.
func agreed(w *world, question string) bool {
	sayf(w.stderr, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(w.stdin).ReadString('\n') // no answer is a no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}
