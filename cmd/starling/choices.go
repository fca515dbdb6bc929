package main

import (
	"time"

	"github.com/starling-kv/starling/client"
	"github.com/starling-kv/starling/kv"
)

// choices are what every request on a key may choose.
type choices struct {
	N       int           `placeholder:"N" help:"Replicas."`
	R       string        `placeholder:"R" help:"Replicas that must answer a read: a number, one, quorum or all."`
	Sloppy  bool          `help:"Let other nodes stand in for owners that cannot be reached."`
	Timeout time.Duration `placeholder:"TIME" help:"Time that the cluster has for one attempt, as 250ms or 2s."`
	Context string        `placeholder:"TOKEN" help:"Context of an earlier answer for this key."`
}

// readChoices are those of a read.
type readChoices struct {
	choices

	Hedge     string `placeholder:"WHEN" help:"Ask more replicas than needed: auto, off or all."`
	Monotonic bool   `help:"Wait until enough replicas hold the answer that no later read of as many returns less."`
}

// writeChoices are those of a write.
type writeChoices struct {
	choices

	W       string `placeholder:"W" help:"Replicas that must acknowledge: a number, one, quorum or all."`
	Sync    *bool  `negatable:"" help:"Acknowledge when synced to disk, or when the operating system has it."`
	WriteID string `placeholder:"ID" help:"Name of this write, to repeat it: a UUID of version 7."`
}

func (c readChoices) read() client.Read {
	return client.Read{N: c.N, R: c.R, Sloppy: c.Sloppy, Timeout: c.Timeout, Hedge: c.Hedge, Monotonic: c.Monotonic, Context: c.Context}
}

func (c writeChoices) write() (client.Write, error) {
	w := client.Write{N: c.N, W: c.W, R: c.R, Sloppy: c.Sloppy, Timeout: c.Timeout, Context: c.Context}
	if c.Sync != nil {
		w.Durability = client.Async
		if *c.Sync {
			w.Durability = client.Sync
		}
	}
	if c.WriteID != "" {
		id, err := kv.ParseWriteID(c.WriteID)
		if err != nil {
			return client.Write{}, usage("--write-id: %w", err)
		}
		w.WriteID = id
	}
	return w, nil
}
