package main

import (
	"context"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/client"
	"github.com/starling-kv/starling/kv"
)

type putCmd struct {
	reach
	printer
	writeChoices

	Key       keyArg            `arg:"" help:"BUCKET/KEY."`
	Value     rawText           `arg:"" optional:"" help:"The value, or - to read it from standard input."`
	File      rawText           `placeholder:"FILE" help:"Store the content of FILE."`
	Type      string            `placeholder:"TYPE" help:"Content type; by default a guess from name and content."`
	Meta      map[string]string `placeholder:"NAME=VALUE" help:"Metadata to keep with the value."`
	Blind     bool              `help:"Do not read first: the value becomes a sibling of what is there."`
	Overwrite bool              `help:"Replace whatever is there, read or not."`
	TTL       time.Duration     `name:"ttl" placeholder:"TIME" help:"Stop showing the value after this time, as 90s or 36h."`
}

// Help is the detail below the flags.
func (*putCmd) Help() string {
	return `Without --context, --blind or --overwrite it reads the key first and
replaces what it finds, siblings too.

Examples:
  starling put carts/ann milk
  echo milk | starling put carts/ann - --w all
  starling put pictures/cat --file cat.png --n 5 --w 2
  starling put sessions/ann token --ttl 30m`
}

// written is what a write prints as JSON.
type written struct {
	Bucket   string `json:"bucket"`
	Key      string `json:"key"` // percent-encoded, as in the path of a request
	Bytes    int    `json:"bytes,omitempty"`
	WriteID  string `json:"write_id"`
	Siblings int    `json:"siblings"`
	Context  string `json:"context"`
	ETag     string `json:"etag,omitempty"`
}

// Run stores the value.
func (c *putCmd) Run(ctx context.Context, w *world) error {
	data, err := c.data(w)
	if err != nil {
		return err
	}
	write, err := c.write()
	if err != nil {
		return err
	}
	write.Blind, write.Overwrite, write.TTL = c.Blind, c.Overwrite, c.TTL
	cl, err := c.client(ctx, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	v := client.Value{Data: data, ContentType: c.Type, Meta: c.Meta}
	if v.ContentType == "" {
		v.ContentType = contentType(string(c.File), data)
	}
	key := kv.Key(c.Key)
	done, err := cl.Put(ctx, key, v, write)
	if err != nil {
		return err
	}
	warnOfSiblings(w.stderr, key, done)
	return c.print(w.stdout, newWritten(key, len(data), done), func(p *page) {
		p.linef("stored %s, %s", key, humanize.IBytes(uint64(len(data))))
	})
}

func (c *putCmd) data(w *world) ([]byte, error) {
	switch {
	case (c.Value == nil) == (c.File == nil):
		return nil, usage("give the value once: as an argument, as - for standard input, or with --file")
	case c.File != nil:
		return os.ReadFile(string(c.File))
	case string(c.Value) == "-":
		return io.ReadAll(w.stdin)
	}
	return c.Value, nil
}

// contentType is the type that the name of a file stands for on this system, or
// what its bytes look like.
func contentType(name string, data []byte) string {
	if t := mime.TypeByExtension(filepath.Ext(name)); t != "" {
		return t
	}
	return http.DetectContentType(data)
}

func newWritten(key kv.Key, size int, d client.Written) written {
	return written{
		Bucket: key.Bucket, Key: client.Escape(key.Name), Bytes: size,
		WriteID: d.WriteID.String(), Siblings: d.Siblings, Context: d.Context, ETag: d.ETag,
	}
}

func warnOfSiblings(w io.Writer, key kv.Key, d client.Written) {
	if d.Siblings > 1 {
		sayf(w, "%s has %d values now, because somebody else wrote too: starling get %s shows them\n", key, d.Siblings, key)
	}
}
