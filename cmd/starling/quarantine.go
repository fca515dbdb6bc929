package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/node/api"
)

// quarantinePage is how many records are asked for at once.
const quarantinePage = 500

// quarantineState is what one member has in quarantine.
type quarantineState struct {
	Node    string              `json:"node"`
	Total   uint64              `json:"total"`
	Records []quarantinedRecord `json:"records"`
	Error   string              `json:"error,omitempty"`

	next string
	err  error
}

type quarantinedRecord struct {
	Bucket    string               `json:"bucket"`
	Key       string               `json:"key"` // percent-encoded, as in the path of a request
	Partition int                  `json:"partition"`
	Since     *time.Time           `json:"since"`
	Why       string               `json:"why"`
	Siblings  []quarantinedSibling `json:"siblings"`
}

type quarantinedSibling struct {
	Dot      string    `json:"dot"`
	Kind     string    `json:"kind"`
	Modified time.Time `json:"modified"`
	Length   uint64    `json:"length"`
	Checksum string    `json:"checksum"`
}

// quarantine lists what all members have in quarantine. Those that do not answer
// are passed over, and told.
func (c *statusCmd) quarantine(ctx context.Context, w *world, cluster api.Cluster) error {
	if c.Limit < 0 {
		return usage("--limit %d: use a number of records, 0 for all", c.Limit)
	}
	var states []quarantineState
	var failed error
	for _, o := range operators(ctx, cluster, everyMember) {
		s := c.quarantineOf(ctx, o)
		if states = append(states, s); s.err != nil && failed == nil {
			failed = fmt.Errorf("the quarantine of %s: %w", s.Node, s.err)
		}
	}
	if err := c.print(w.stdout, states, func(p *page) { tableOfQuarantine(p, states) }); err != nil {
		return err
	}
	return failed
}

// quarantineOf reads pages until there are enough records or no more.
func (c *statusCmd) quarantineOf(ctx context.Context, o operator) quarantineState {
	all := quarantineState{Node: o.name, Records: []quarantinedRecord{}, err: o.err}
	for more := true; more && all.err == nil; {
		size := quarantinePage
		if c.Limit > 0 {
			size = min(size, c.Limit-len(all.Records))
		}
		all.next, all.err = all.page(ctx, o, size)
		more = all.next != "" && (c.Limit == 0 || len(all.Records) < c.Limit)
	}
	if all.err != nil {
		all.Error = all.err.Error()
	}
	return all
}

// page adds the next page of so many records, and returns the place after it.
func (s *quarantineState) page(ctx context.Context, o operator, size int) (next string, err error) {
	q := url.Values{"limit": {strconv.Itoa(size)}}
	if s.next != "" {
		q.Set("after", s.next)
	}
	var page struct {
		quarantineState

		Next string `json:"next"`
	}
	// The server takes a plus for itself.
	err = look(ctx, o.url+"/quarantine?"+strings.ReplaceAll(q.Encode(), "+", "%20"), &page)
	s.Total = max(s.Total, page.Total)
	s.Records = append(s.Records, page.Records...)
	return page.Next, err
}

func tableOfQuarantine(p *page, states []quarantineState) {
	p.row("NODE", "KEY", "PARTITION", "SINCE", "SIBLINGS", "SIZE", "WHY")
	for _, s := range states {
		for _, r := range s.Records {
			p.row(s.Node, r.Bucket+"/"+r.Key, r.Partition, r.since(), len(r.Siblings), r.size(), strings.ReplaceAll(r.Why, "_", " "))
		}
		switch more := max(s.Total, uint64(len(s.Records))) - uint64(len(s.Records)); {
		case s.err != nil:
			p.row(s.Node, "?", "-", "-", "-", "-", "does not answer")
		case more > 0:
			p.row(s.Node, fmt.Sprintf("and %s more", humanize.Comma(int64(more))), "-", "-", "-", "-", "see --limit")
		case s.Total == 0:
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
