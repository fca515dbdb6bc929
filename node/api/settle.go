package api

import (
	"context"
	"fmt"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/starling-kv/starling/kv"
)

// What became of a sibling of a record in quarantine.
const (
	// BecameRestored: it was written again, and a quorum of owners has it.
	BecameRestored = "restored"
	// BecameThere: a quorum of owners holds it, or an equal value, already.
	BecameThere = "there"
	// BecameReplaced: a write or delete that had seen it took its place.
	BecameReplaced = "replaced"
	// BecameExpired: its time to live has ended.
	BecameExpired = "expired"
	// BecameDelete: it is a tombstone, which holds nothing to restore.
	BecameDelete = "delete"
	// BecameDamaged: the disk has lost its bytes.
	BecameDamaged = "damaged"
	// BecameDiscarded: it is gone for good.
	BecameDiscarded = "discarded"
)

// Settled is what a person had done with a record in quarantine.
type Settled struct {
	Record kv.Record // as it was there
	Became []string  // of each of Record.Live: one of the constants above
	// Removed says that the record is in quarantine no more.
	Removed bool
}

// settleTimeout bounds what restores one record, values and all.
const settleTimeout = 30 * time.Second

// settledJSON says sibling by sibling what became of a record.
type settledJSON struct {
	Node     string               `json:"node"`
	Bucket   string               `json:"bucket"`
	Key      string               `json:"key"` // percent-encoded, as in the path of a request
	Hash     string               `json:"hash"`
	Removed  bool                 `json:"removed"`
	Siblings []settledSiblingJSON `json:"siblings"`
}

type settledSiblingJSON struct {
	quarantinedSiblingJSON

	Became string `json:"became"`
}

// settleParams are those of /quarantine/restore/ and /quarantine/discard/.
type settleParams struct{ hash string }

var knownSettleParams = []param[settleParams]{
	{"hash", func(p *settleParams, v string) error {
		if len(v) != 16 {
			return fmt.Errorf("%q: use the hash that /quarantine shows", v)
		}
		p.hash = v
		return nil
	}},
}

// settler is a method of [Repairs] that settles a record.
type settler func(ctx context.Context, key kv.Key, hash string) (Settled, error)

// restore writes again what a record in quarantine holds.
func (s *Server) restore(x *exchange) error { return s.settle(x, s.repairs.Restore) }

// discard removes a record from quarantine.
func (s *Server) discard(x *exchange) error { return s.settle(x, s.repairs.Discard) }

// settle does with a record in quarantine what was asked for. Nobody settles
// what was not shown: it is named by key and hash.
func (s *Server) settle(x *exchange, do settler) error {
	key, err := parseKey(x.path)
	if err != nil {
		return err
	}
	p, err := parseQuery(x.query, knownSettleParams)
	if err == nil && p.hash == "" {
		err = badRequest("parameter hash: say which record is meant, by the hash that /quarantine shows")
	}
	if err != nil {
		return err
	}
	ctx, cancel := x.context(settleTimeout)
	defer cancel()
	done, err := do(ctx, key, p.hash)
	if err != nil {
		return err
	}
	out := settledJSON{
		Node: s.inspector.Cluster().Node, Bucket: key.Bucket, Key: escape(key.Name), Hash: p.hash, Removed: done.Removed,
		Siblings: make([]settledSiblingJSON, len(done.Became)),
	}
	for i, v := range done.Record.Live {
		out.Siblings[i] = settledSiblingJSON{newQuarantinedSiblingJSON(v), done.Became[i]}
	}
	x.answerJSON(fasthttp.StatusOK, out)
	return nil
}
