package api

import (
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	runtimepprof "runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

const typeNDJSON = "application/x-ndjson"

// inspectTimeout bounds what looks at one key.
const inspectTimeout = 10 * time.Second

// replicaParams are those of /replica/{bucket}/{key}.
type replicaParams struct{ values bool }

var knownReplicaParams = []param[replicaParams]{
	{"values", func(p *replicaParams, v string) (err error) { p.values, err = parseBool(v); return err }},
}

// replicaJSON is what this node holds of one key.
type replicaJSON struct {
	Node   string     `json:"node"`
	Bucket string     `json:"bucket"`
	Key    string     `json:"key"`
	Record *heldJSON  `json:"record"` // null if the node holds none of its own
	Hints  []heldJSON `json:"hints"`
	// Quarantine is what it holds in quarantine, absent if it does not.
	Quarantine *heldJSON `json:"quarantine,omitempty"`
}

// replica answers with what this node alone holds of a key.
func (s *Server) replica(x *exchange) error {
	key, err := parseKey(x.path)
	if err != nil {
		return err
	}
	params, err := parseQuery(x.query, knownReplicaParams)
	if err != nil {
		return err
	}
	ctx, cancel := x.context(inspectTimeout)
	defer cancel()
	held, err := s.inspector.Replica(ctx, key, params.values)
	if err != nil {
		return err
	}
	out := replicaJSON{Node: s.inspector.Cluster().Node, Bucket: key.Bucket, Key: escape(key.Name), Hints: []heldJSON{}}
	for _, h := range held {
		j := newHeldJSON(h)
		switch {
		case h.Quarantined:
			out.Quarantine = &j
		case h.Target == "":
			out.Record = &j
		default:
			out.Hints = append(out.Hints, j)
		}
	}
	x.answerJSON(fasthttp.StatusOK, out)
	return nil
}

// partitionParams are those of /replica.
type partitionParams struct {
	first, last int
	given       bool
	hints       bool
	brief       bool
}

var knownPartitionParams = []param[partitionParams]{
	{"partition", func(p *partitionParams, v string) (err error) {
		p.given = true
		p.first, p.last, err = parsePartitions(v)
		return err
	}},
	{"hints", func(p *partitionParams, v string) (err error) { p.hints, err = parseBool(v); return err }},
	{"brief", func(p *partitionParams, v string) (err error) { p.brief, err = parseBool(v); return err }},
}

// parsePartitions reads the number of a partition, or those of the first and the
// last of several as 0-63.
func parsePartitions(v string) (first, last int, err error) {
	from, to, several := strings.Cut(v, "-")
	if !several {
		to = from
	}
	first, err = strconv.Atoi(from)
	if err == nil {
		last, err = strconv.Atoi(to)
	}
	if err != nil || last < first {
		return 0, 0, fmt.Errorf("%q: use the number of a partition, or those of the first and the last as 0-63", v)
	}
	return first, last, nil
}

// partition answers with all records of some partitions that this node alone
// holds, partition by partition, one JSON object a line, sent as they are read;
// or with all hints for them, by the node that they are for.
func (s *Server) partition(x *exchange) error {
	p, err := parseQuery(x.query, knownPartitionParams)
	if err != nil {
		return err
	}
	layout := s.inspector.Cluster().Layout
	switch {
	case layout == nil:
		return notReady("this node knows no layout yet, and so no partitions")
	case !p.given || p.last >= len(layout.Partitions):
		return badRequest(fmt.Sprintf("name a partition: partition=0 to partition=%d", len(layout.Partitions)-1))
	}
	x.answerWith(fasthttp.StatusOK, typeNDJSON, chunkedLength, func(w io.Writer) error {
		var line []byte
		return s.inspector.Partitions(s.base, p.first, p.last, p.hints, func(h Held) error {
			if p.brief {
				line = appendJSON(line[:0], newBriefJSON(h))
			} else {
				line = appendJSON(line[:0], newHeldJSON(h))
			}
			_, err := w.Write(line)
			return err
		})
	})
	return nil
}

// explainParams are those of /explain/{bucket}/{key}.
type explainParams struct{ n int }

var knownExplainParams = []param[explainParams]{
	{"n", func(p *explainParams, v string) (err error) { p.n, err = parseN(v); return err }},
}

// explanationJSON is where a key lives and what is there.
type explanationJSON struct {
	Node       string        `json:"node"`
	Bucket     string        `json:"bucket"`
	Key        string        `json:"key"`
	KeyHash    string        `json:"key_hash"`
	Partition  int           `json:"partition"`
	N          int           `json:"n"`
	Preference []holdingJSON `json:"preference"`
}

// holdingJSON is what one node of the preference list holds.
type holdingJSON struct {
	Node     string      `json:"node"`
	ID       kv.NodeID   `json:"id"`
	Owner    bool        `json:"owner"` // the others could stand in
	Alive    bool        `json:"alive"`
	Standing bool        `json:"standing"` // its answers count
	Behind   bool        `json:"behind"`   // lacks something that another one holds
	Error    string      `json:"error,omitempty"`
	Hash     string      `json:"hash,omitempty"` // as in /replica; absent if nothing is held
	Siblings []ownedJSON `json:"siblings,omitempty"`
}

type ownedJSON struct {
	Dot      string `json:"dot"`
	Kind     string `json:"kind"`
	N        uint8  `json:"n"`
	Length   uint64 `json:"length"`
	Checksum string `json:"checksum"`
}

// explainKey answers with the preference list of a key, and what each node of
// it holds.
func (s *Server) explainKey(x *exchange) error {
	key, err := parseKey(x.path)
	if err != nil {
		return err
	}
	params, err := parseQuery(x.query, knownExplainParams)
	if err != nil {
		return err
	}
	ctx, cancel := x.context(inspectTimeout)
	defer cancel()
	e, err := s.inspector.Explain(ctx, key, params.n)
	if err != nil {
		return err
	}
	out := explanationJSON{
		Node: s.inspector.Cluster().Node, Bucket: key.Bucket, Key: escape(key.Name), KeyHash: hexWord(key.Hash()),
		Partition: int(e.Partition), N: e.N, Preference: make([]holdingJSON, len(e.Holdings)),
	}
	for i, h := range e.Holdings {
		out.Preference[i] = newHoldingJSON(h)
	}
	x.answerJSON(fasthttp.StatusOK, out)
	return nil
}

func newHoldingJSON(h coordinator.Holding) holdingJSON {
	out := holdingJSON{Node: h.Name, ID: h.Node, Owner: h.Owner, Alive: h.Alive, Standing: h.Standing, Behind: h.Behind}
	if h.Err != nil {
		out.Error = h.Err.Error()
	}
	if !h.Record.Absent() {
		out.Hash = RecordHash(h.Record)
	}
	for _, v := range h.Record.Live {
		out.Siblings = append(out.Siblings, ownedJSON{
			Dot: v.Dot.String(), Kind: kindName(v.Value.Kind), N: v.Value.N, Length: v.Value.Length,
			Checksum: string(appendChecksum(nil, v.Value.Checksum)),
		})
	}
	return out
}

// profiles are those of the Go runtime that are more than a name.
var profiles = map[string]http.HandlerFunc{
	"":        pprof.Index,
	"cmdline": pprof.Cmdline,
	"profile": pprof.Profile,
	"symbol":  pprof.Symbol,
	"trace":   pprof.Trace,
}

// profile answers with what the Go runtime tells about the process.
func (s *Server) profile(x *exchange) error {
	name := string(x.path)
	if show := profiles[name]; show != nil {
		x.answerBy(show)
		return nil
	}
	if runtimepprof.Lookup(name) == nil {
		return &httpError{status: fasthttp.StatusNotFound, code: codeNoRoute, message: "there is no such profile: see /debug/pprof/"}
	}
	x.answerBy(pprof.Handler(name))
	return nil
}

// metricsPage answers with the metrics of the node, as Prometheus reads them.
func (s *Server) metricsPage(x *exchange) error {
	x.answerBy(s.scrape)
	return nil
}

// answerBy lets a handler of net/http answer. Its context ends with the server.
func (x *exchange) answerBy(h http.Handler) {
	base := x.server.base
	fasthttpadaptor.NewFastHTTPHandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(base))
	})(&x.http)
}
