package main

import (
	"context"

	"github.com/starling-kv/starling/kv"
)

type deleteCmd struct {
	reach
	printer
	writeChoices

	Key       keyArg `arg:"" help:"BUCKET/KEY."`
	Blind     bool   `help:"Do not read first. A cluster refuses that without --overwrite."`
	Overwrite bool   `help:"Delete whatever is there, read or not."`
}

// Help is the detail below the flags.
func (*deleteCmd) Help() string {
	return `Without --context or --overwrite it reads the key first and deletes what
it finds, siblings too.

Examples:
  starling delete carts/ann
  starling delete carts/ann --w all`
}

// Run deletes the key.
func (c *deleteCmd) Run(ctx context.Context, w *world) error {
	write, err := c.write()
	if err != nil {
		return err
	}
	write.Blind, write.Overwrite = c.Blind, c.Overwrite
	cl, err := c.client(ctx, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	key := kv.Key(c.Key)
	done, err := cl.Delete(ctx, key, write)
	if err != nil {
		return err
	}
	warnOfSiblings(w.stderr, key, done)
	return c.print(w.stdout, newWritten(key, 0, done), func(p *page) { p.linef("deleted %s", key) })
}
