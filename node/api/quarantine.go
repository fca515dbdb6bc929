package api

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/starling-kv/starling/kv"
)

// Why a record is in quarantine still.
const (
	// QuarantineWaits: the partition is not merged from all other owners yet;
	// then it is judged.
	QuarantineWaits = "waits"
	// QuarantineMaybeDeleted: nobody else has it, and deletes were reaped since:
	// it may be a write that only this disk had, or one that was deleted.
	QuarantineMaybeDeleted = "maybe_deleted"
	// QuarantineNotOwner: nobody else has it, and it was kept for another node:
	// here it would be served by nobody.
	QuarantineNotOwner = "not_owner"
)

// Quarantined is a record of a disk that was set back.
type Quarantined struct {
	Place

	Since  time.Time // zero: unknown
	Why    string    // one of the constants above
	Record kv.Record
}

// Place is a place in quarantine, which is ordered by them.
type Place struct {
	Partition int
	Key       kv.Key
}

// The records of a page of /quarantine.
const (
	defaultPage = 100
	maxPage     = 1000
)

// quarantinePage is a part of what is in quarantine. Next, if there is more,
// is the parameter after of the page that follows.
type quarantinePage struct {
	Node    string            `json:"node"`
	Total   uint64            `json:"total"` // records in quarantine, in all pages
	Records []quarantinedJSON `json:"records"`
	Next    string            `json:"next,omitempty"`
}

type quarantinedJSON struct {
	Bucket    string                   `json:"bucket"`
	Key       string                   `json:"key"` // percent-encoded, as in the path of a request
	Partition int                      `json:"partition"`
	Since     *time.Time               `json:"since"` // null: unknown
	Why       string                   `json:"why"`
	Hash      string                   `json:"hash"` // as in /replica
	Siblings  []quarantinedSiblingJSON `json:"siblings"`
}

// quarantinedSiblingJSON is a value, without its bytes: /replica/{bucket}/{key}
// shows them.
type quarantinedSiblingJSON struct {
	Dot      string    `json:"dot"`
	Kind     string    `json:"kind"`
	Modified time.Time `json:"modified"`
	Length   uint64    `json:"length"`
	Checksum string    `json:"checksum"`
}

type quarantineParams struct {
	after Place
	limit int
}

var knownQuarantineParams = []param[quarantineParams]{
	{"after", func(p *quarantineParams, v string) (err error) { p.after, err = parsePlace(v); return err }},
	{"limit", func(p *quarantineParams, v string) (err error) {
		if p.limit, err = strconv.Atoi(v); err != nil || p.limit < 1 || p.limit > maxPage {
			return fmt.Errorf("%q: use 1 to %d records", v, maxPage)
		}
		return nil
	}},
}

// quarantine answers with a page of what is in quarantine on this node.
func (s *Server) quarantine(x *exchange) error {
	p, err := parseQuery(x.query, knownQuarantineParams)
	if err != nil {
		return err
	}
	if p.limit == 0 {
		p.limit = defaultPage
	}
	state := s.repairs.Repairs()
	ctx, cancel := x.context(inspectTimeout)
	defer cancel()
	records, more, err := s.repairs.Quarantine(ctx, p.after, p.limit)
	if err != nil {
		return err
	}
	page := quarantinePage{Node: state.Node, Total: state.Quarantined, Records: make([]quarantinedJSON, len(records))}
	for i, r := range records {
		page.Records[i] = newQuarantinedJSON(r)
	}
	if more && len(records) > 0 {
		page.Next = records[len(records)-1].String()
	}
	x.answerJSON(fasthttp.StatusOK, page)
	return nil
}

func newQuarantinedJSON(q Quarantined) quarantinedJSON {
	out := quarantinedJSON{
		Bucket: q.Key.Bucket, Key: escape(q.Key.Name), Partition: q.Partition, Why: q.Why, Hash: RecordHash(q.Record),
		Siblings: make([]quarantinedSiblingJSON, len(q.Record.Live)),
	}
	if !q.Since.IsZero() {
		at := q.Since.UTC()
		out.Since = &at
	}
	for i, v := range q.Record.Live {
		out.Siblings[i] = newQuarantinedSiblingJSON(v)
	}
	return out
}

func newQuarantinedSiblingJSON(v kv.Version) quarantinedSiblingJSON {
	return quarantinedSiblingJSON{
		Dot: v.Dot.String(), Kind: kindName(v.Value.Kind), Modified: v.Value.Stamp.Time().UTC(),
		Length: v.Value.Length, Checksum: string(appendChecksum(nil, v.Value.Checksum)),
	}
}

// String writes the place as the parameter after has it: partition/bucket/key,
// the key percent-encoded.
func (p Place) String() string {
	return strconv.Itoa(p.Partition) + "/" + p.Key.Bucket + "/" + escape(p.Key.Name)
}

func parsePlace(v string) (Place, error) {
	number, path, _ := bytes.Cut([]byte(v), []byte("/"))
	partition, err := strconv.ParseUint(string(number), 10, 16)
	if err != nil {
		return Place{}, fmt.Errorf("%q: use what next says in the page before", v)
	}
	key, err := parseKey(path)
	return Place{Partition: int(partition), Key: key}, err
}
