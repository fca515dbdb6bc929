package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/client"
	"github.com/starling-kv/starling/kv"
)

type getCmd struct {
	reach
	printer
	readChoices

	Key keyArg `arg:"" help:"BUCKET/KEY."`
}

// Help is the detail below the flags.
func (*getCmd) Help() string {
	return `The value goes to standard output as it is. If there are several, they
are listed on standard error, and the exit code is 4; -o json prints all of
them whole.

Examples:
  starling get carts/ann
  starling get pictures/cat --r 2 > cat.png`
}

// object is what a get prints as JSON.
type object struct {
	Bucket  string    `json:"bucket"`
	Key     string    `json:"key"` // percent-encoded, as in the path of a request
	Context string    `json:"context"`
	ETag    string    `json:"etag,omitempty"`
	Values  []content `json:"values"`
}

type content struct {
	Dot         string            `json:"dot,omitempty"`
	Modified    time.Time         `json:"modified"`
	ContentType string            `json:"content_type,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`
	Checksum    string            `json:"checksum,omitempty"`
	Value       []byte            `json:"value"` // base64
}

// Run prints the value.
func (c *getCmd) Run(ctx context.Context, w *world) error {
	cl, err := c.client(ctx, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	key := kv.Key(c.Key)
	o, err := cl.Get(ctx, key, c.read())
	if err != nil {
		return err
	}
	if err := c.show(w, key, o); err != nil {
		return err
	}
	if len(o.Siblings) > 1 {
		return &exitError{exitSiblings, fmt.Errorf(
			"%s has %d values, whose writers had not seen one another; starling put %s VALUE replaces all of them with one",
			key, len(o.Siblings), key)}
	}
	return nil
}

func (c *getCmd) show(w *world, key kv.Key, o client.Object) error {
	switch {
	case c.json():
		return c.print(w.stdout, newObject(key, o), nil)
	case len(o.Siblings) > 1:
		return printPage(w.stderr, func(p *page) { tableOfSiblings(p, o.Siblings) })
	}
	_, err := w.stdout.Write(o.Siblings[0].Data)
	return err
}

func newObject(key kv.Key, o client.Object) object {
	out := object{Bucket: key.Bucket, Key: client.Escape(key.Name), Context: o.Context, ETag: o.ETag}
	for _, s := range o.Siblings {
		out.Values = append(out.Values, content{
			Dot: s.Dot, Modified: s.Modified, ContentType: s.ContentType, Meta: s.Meta, Checksum: s.Checksum, Value: s.Data,
		})
	}
	return out
}

func tableOfSiblings(p *page, siblings []client.Sibling) {
	p.row("#", "MODIFIED", "TYPE", "SIZE", "BEGINS")
	for i, s := range siblings {
		p.row(i+1, s.Modified.UTC().Format(time.RFC3339), s.ContentType, humanize.IBytes(uint64(len(s.Data))), preview(s.Data))
	}
}

// preview is the beginning of a value, in characters that a terminal can take.
func preview(data []byte) string {
	const most = 32
	if len(data) <= most {
		return strconv.QuoteToGraphic(string(data))
	}
	return strconv.QuoteToGraphic(string(data[:most])) + " …"
}
