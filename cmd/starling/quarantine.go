package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
)

type quarantineCmd struct {
	List    quarantineListCmd    `cmd:"" default:"withargs" help:"List what is in quarantine (the default)."`
	Restore quarantineRestoreCmd `cmd:"" help:"Write the values of records in quarantine again."`
	Discard quarantineDiscardCmd `cmd:"" help:"Remove records from quarantine for good."`
}

// Help is the detail below the flags.
func (*quarantineCmd) Help() string {
	return `What a node held when its disk was set back, and nobody but a person can judge.

Examples:
  starling quarantine
  starling quarantine restore --all
  starling quarantine discard --key carts/ann`
}

// quarantineChoice names records in quarantine.
type quarantineChoice struct {
	Key    *keyArg `xor:"which" placeholder:"BUCKET/KEY" help:"Only this key."`
	Bucket string  `xor:"which" placeholder:"NAME" help:"Only keys of this bucket."`
	Node   string  `placeholder:"NAME" help:"Only what this node has in quarantine."`
}

// check refuses what the cluster does not have.
func (c *quarantineChoice) check(cluster api.Cluster) error {
	if err := (kv.Key{Bucket: c.Bucket, Name: "any"}).Validate(); c.Bucket != "" && err != nil {
		return usage("%w", err)
	}
	if n, ok := named(cluster.Nodes, c.Node); c.Node != "" && (!ok || !n.Member) {
		return usage("no member is named %s: see starling status", c.Node)
	}
	return nil
}

func (c *quarantineChoice) at(n api.Node) bool { return c.Node == "" || c.Node == n.Name }

func (c *quarantineChoice) names(r quarantinedRecord) bool {
	if c.Key != nil {
		name, err := url.PathUnescape(r.Key)
		return err == nil && r.Bucket == c.Key.Bucket && name == c.Key.Name
	}
	return c.Bucket == "" || c.Bucket == r.Bucket
}

func (c *quarantineChoice) some() bool { return c.Key != nil || c.Bucket != "" }

type quarantineListCmd struct {
	reach
	printer
	quarantineChoice

	Limit int `default:"100" placeholder:"COUNT" help:"So many records of each member; 0 for all. Default: 100."`
}

// Help is the detail below the flags.
func (*quarantineListCmd) Help() string {
	return `WHY is "waits" while the partition is still merged from its other owners; then
what is needed comes back by itself. "maybe deleted" is a record that no other
node has, in a partition in which deletes were removed for good since: it may be
a write that was lost elsewhere, or a deleted one. "not owner" is one that was
kept for another node. /replica/BUCKET/KEY?values=true of the node's address for
operators shows what a record holds.

Examples:
  starling quarantine
  starling quarantine --bucket carts --limit 0
  starling quarantine -o json`
}

// Run lists what all members have in quarantine. Those that do not answer are
// passed over, and told.
func (c *quarantineListCmd) Run(ctx context.Context, w *world) error {
	if c.Limit < 0 {
		return usage("--limit %d: use a number of records, 0 for all", c.Limit)
	}
	states, failed := c.states(ctx, c.reach, c.Limit)
	if states == nil {
		return failed
	}
	if err := c.print(w.stdout, states, func(p *page) { tableOfQuarantine(p, states) }); err != nil {
		return err
	}
	return failed
}

// maxQuarantinePage is how many records are asked for at once.
const maxQuarantinePage = 500

// quarantineState is what one member has in quarantine of what was asked for.
type quarantineState struct {
	Node    string              `json:"node"`
	Total   uint64              `json:"total"` // all that it has in quarantine
	Records []quarantinedRecord `json:"records"`
	Error   string              `json:"error,omitempty"`

	at   operator
	more bool // there are records that were not asked for
}

type quarantinedRecord struct {
	Bucket    string               `json:"bucket"`
	Key       string               `json:"key"` // percent-encoded, as in the path of a request
	Partition int                  `json:"partition"`
	Since     *time.Time           `json:"since"`
	Why       string               `json:"why"`
	Hash      string               `json:"hash"`
	Siblings  []quarantinedSibling `json:"siblings"`
}

type quarantinedSibling struct {
	Dot      string    `json:"dot"`
	Kind     string    `json:"kind"`
	Modified time.Time `json:"modified"`
	Length   uint64    `json:"length"`
	Checksum string    `json:"checksum"`
}

// states asks all members for up to limit of the records that are chosen, 0 for
// all, and returns what those have that answer, with the first failure. Without
// a state nobody was asked.
func (c *quarantineChoice) states(ctx context.Context, r reach, limit int) (states []quarantineState, failed error) {
	cluster, err := r.cluster(ctx)
	if err == nil {
		err = c.check(cluster)
	}
	if err != nil {
		return nil, err
	}
	for _, o := range operators(ctx, cluster, c.at) {
		s, err := c.stateOf(ctx, o, limit)
		if err != nil {
			s.Error = err.Error()
		}
		if states = append(states, s); err != nil && failed == nil {
			failed = fmt.Errorf("the quarantine of %s: %w", s.Node, err)
		}
	}
	if states == nil && failed == nil {
		failed = errors.New("the cluster has no members yet, and so nothing in quarantine")
	}
	return states, failed
}

// stateOf reads pages until there are enough records or no more.
func (c *quarantineChoice) stateOf(ctx context.Context, o operator, limit int) (quarantineState, error) {
	all := quarantineState{Node: o.name, Records: []quarantinedRecord{}, at: o}
	if o.err != nil {
		return all, o.err
	}
	for after := ""; ; {
		size := maxQuarantinePage
		if limit > 0 && !c.some() {
			size = min(size, limit)
		}
		page, err := quarantinePageAt(ctx, o, after, size)
		if err != nil {
			return all, err
		}
		all.Total = max(all.Total, page.Total)
		for _, r := range page.Records {
			switch {
			case !c.names(r):
			case limit > 0 && len(all.Records) == limit:
				all.more = true
				return all, nil
			default:
				all.Records = append(all.Records, r)
			}
		}
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// quarantinePage is a part of what a node has in quarantine.
type quarantinePage struct {
	Total   uint64              `json:"total"`
	Records []quarantinedRecord `json:"records"`
	Next    string              `json:"next"` // the place after it; empty: there is no more
}

// quarantinePageAt reads the page that comes after a place.
func quarantinePageAt(ctx context.Context, o operator, after string, size int) (page quarantinePage, err error) {
	q := url.Values{"limit": {strconv.Itoa(size)}}
	if after != "" {
		q.Set("after", after)
	}
	// The server takes a plus for itself.
	err = look(ctx, o.url+"/quarantine?"+strings.ReplaceAll(q.Encode(), "+", "%20"), &page)
	return page, err
}

func tableOfQuarantine(p *page, states []quarantineState) {
	p.row("NODE", "KEY", "PARTITION", "SINCE", "SIBLINGS", "SIZE", "WHY")
	for _, s := range states {
		for _, r := range s.Records {
			p.row(s.Node, r.Bucket+"/"+r.Key, r.Partition, r.since(), len(r.Siblings), r.size(), strings.ReplaceAll(r.Why, "_", " "))
		}
		switch {
		case s.Error != "":
			p.row(s.Node, "?", "-", "-", "-", "-", "does not answer")
		case s.more:
			p.row(s.Node, "and more", "-", "-", "-", "-", fmt.Sprintf("%s in all: see --limit", humanize.Comma(int64(s.Total))))
		case len(s.Records) == 0:
			p.row(s.Node, "nothing", "-", "-", "-", "-", "-")
		}
	}
}

func (r quarantinedRecord) since() string {
	if r.Since == nil {
		return "unknown"
	}
	return r.Since.Format(time.DateTime)
}

func (r quarantinedRecord) size() string {
	var bytes uint64
	for _, s := range r.Siblings {
		bytes += s.Length
	}
	return humanize.IBytes(bytes)
}
