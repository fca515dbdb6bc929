package client

import (
	"net/url"
	"strconv"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Read says how a key is read. What is zero is left to the bucket or the cluster.
type Read struct {
	// N is the number of replicas, of which R must answer: a number, "one",
	// "quorum" or "all".
	N int
	R string
	// Sloppy lets other nodes stand in for owners that cannot be reached.
	Sloppy bool
	// Timeout is the time that the cluster has for one attempt. The client gives
	// up on an attempt 5 s later, to leave time for bytes on their way.
	Timeout time.Duration
	// Hedge says when more replicas are asked than are needed: "auto", "off" or
	// "all".
	Hedge string
	// Monotonic holds the answer back until so many owners hold it that every
	// later read with the same R reflects it. It waits for the fewest owners with
	// R "quorum".
	Monotonic bool
	// Context is what the answer must reflect at least, from an earlier answer
	// for this key.
	Context string
}

// Write says how a value is written or deleted. What is zero is left to the
// bucket or the cluster.
type Write struct {
	// N is the number of replicas, of which W must acknowledge: a number, "one",
	// "quorum" or "all".
	N int
	W string
	// Sloppy and Timeout are as those of [Read].
	Sloppy  bool
	Timeout time.Duration
	// Durability says what a replica has done when it acknowledges.
	Durability Durability
	// Context is what the write replaces, from an earlier answer for this key.
	// Without one, the client reads the key's context first.
	Context string
	// R is how many replicas answer that read, and the one that judges IfMatch
	// and IfNoneMatch.
	R string
	// Blind writes without a context: the value becomes a sibling of what is
	// there. A cluster refuses a blind delete.
	Blind bool
	// Overwrite replaces all that the replica holds which takes the write, read
	// or not.
	Overwrite bool
	// TTL is how long the value is shown, a second at least; zero: for ever. A
	// delete has none.
	TTL time.Duration
	// WriteID names this write over all attempts; zero lets the client choose.
	// Choose when a program must repeat a write after its own restart.
	WriteID kv.WriteID
	// IfMatch and IfNoneMatch are entity tags, or "*", that must and must not
	// be those of the key's values. They narrow races; they are no lock.
	IfMatch, IfNoneMatch string
}

// Durability says what a replica has done with a write that it acknowledges.
type Durability string

// The durabilities.
const (
	Sync  Durability = "sync"  // synced to disk
	Async Durability = "async" // handed to the operating system
)

const (
	defaultTimeout = 5 * time.Second // of a cluster that is told no other
	grace          = 5 * time.Second
)

// deadline is the time that one attempt may take of which the cluster has timeout.
func deadline(timeout time.Duration) time.Duration {
	if timeout > 0 {
		return timeout + grace
	}
	return defaultTimeout + grace
}

// reading is how w finds the context that it lacks.
func (w Write) reading() Read {
	return Read{N: w.N, R: w.R, Sloppy: w.Sloppy, Timeout: w.Timeout}
}

func (r Read) query() url.Values {
	q := query{}
	q.common(r.N, r.Sloppy, r.Timeout)
	q.set("r", r.R, r.R != "")
	q.set("hedge", r.Hedge, r.Hedge != "")
	q.set("monotonic", "true", r.Monotonic)
	return url.Values(q)
}

func (w Write) query() url.Values {
	q := query{}
	q.common(w.N, w.Sloppy, w.Timeout)
	q.set("w", w.W, w.W != "")
	q.set("r", w.R, w.R != "")
	q.set("sync", strconv.FormatBool(w.Durability == Sync), w.Durability != "")
	q.set("overwrite", "true", w.Overwrite)
	q.set("ttl", w.TTL.String(), w.TTL != 0)
	return url.Values(q)
}

// query holds the parameters that are given.
type query url.Values

func (q query) set(name, value string, given bool) {
	if given {
		url.Values(q).Set(name, value)
	}
}

func (q query) common(n int, sloppy bool, timeout time.Duration) {
	q.set("n", strconv.Itoa(n), n != 0)
	q.set("sloppy", "true", sloppy)
	q.set("timeout", timeout.String(), timeout != 0)
}
