package client

import (
	"net/url"
	"strconv"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Options are what a request may choose. What is zero is left to the bucket or
// the cluster.
type Options struct {
	// N is the number of replicas.
	N int
	// R and W are how many of them must answer a read, and a write: a number,
	// "one", "quorum" or "all".
	R, W string
	// Sloppy lets other nodes stand in for owners that cannot be reached.
	Sloppy bool
	// Timeout is the time that the cluster has for one attempt. The client gives
	// up on an attempt 5 s later, to leave time for bytes on their way.
	Timeout time.Duration
	// Durability says what a write's replicas have done when they acknowledge.
	Durability Durability
	// Hedge says when a read asks more replicas than it needs: "auto", "off" or
	// "all".
	Hedge string
}

// Durability says what a replica has done with a write that it acknowledges.
type Durability string

// The durabilities.
const (
	Sync  Durability = "sync"  // synced to disk
	Async Durability = "async" // handed to the operating system
)

// Write says how a value is written or deleted.
type Write struct {
	Options
	// Context is what the write replaces, from an earlier answer for this key.
	// Without one, the client reads the key's context first.
	Context string
	// Blind writes without a context: the value becomes a sibling of what is
	// there. A cluster refuses a blind delete.
	Blind bool
	// Overwrite replaces all that the replica holds which takes the write, read
	// or not.
	Overwrite bool
	// WriteID names this write over all attempts; zero lets the client choose.
	// Choose when a program must repeat a write after its own restart.
	WriteID kv.WriteID
	// IfMatch and IfNoneMatch are entity tags, or "*", that must and must not
	// be those of the key's values. They narrow races; they are no lock.
	IfMatch, IfNoneMatch string
}

const (
	defaultTimeout = 5 * time.Second // of a cluster that is told no other
	grace          = 5 * time.Second
)

// deadline is the time that one attempt may take.
func (o Options) deadline() time.Duration {
	if o.Timeout > 0 {
		return o.Timeout + grace
	}
	return defaultTimeout + grace
}

func (o Options) values() url.Values {
	q := url.Values{}
	set := func(name, value string, given bool) {
		if given {
			q.Set(name, value)
		}
	}
	set("n", strconv.Itoa(o.N), o.N != 0)
	set("sloppy", "true", o.Sloppy)
	set("timeout", o.Timeout.String(), o.Timeout != 0)
	return q
}

// readQuery is the part of o that concerns reads.
func (o Options) readQuery() url.Values {
	q := o.values()
	if o.R != "" {
		q.Set("r", o.R)
	}
	if o.Hedge != "" {
		q.Set("hedge", o.Hedge)
	}
	return q
}

// query is the part of w that concerns writes.
func (w Write) query() url.Values {
	q := w.values()
	if w.W != "" {
		q.Set("w", w.W)
	}
	if w.Durability != "" {
		q.Set("sync", strconv.FormatBool(w.Durability == Sync))
	}
	if w.Overwrite {
		q.Set("overwrite", "true")
	}
	return q
}
