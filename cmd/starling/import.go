package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/starling-kv/starling/client"
)

type importCmd struct {
	reach
	printer

	Dir      rawText       `arg:"" help:"The directory."`
	Bucket   string        `help:"Bucket to store into; by default the name of the directory."`
	Parallel int           `default:"32" help:"Files in flight at once."`
	N        int           `placeholder:"N" help:"Replicas."`
	W        string        `placeholder:"W" help:"Replicas that must acknowledge: a number, one, quorum or all."`
	Sync     *bool         `negatable:"" help:"Acknowledge when synced to disk, or when the operating system has it."`
	Timeout  time.Duration `placeholder:"TIME" help:"Time that the cluster has for one attempt."`
}

// Help is the detail below the flags.
func (*importCmd) Help() string {
	return `Every regular file is stored under its path below DIR, with the type that
its name stands for. Symbolic links are skipped. What is stored already with
the same content is skipped too, so that a second run goes on where the first
one ended. A failed attempt is repeated at another node.

Examples:
  starling import ./site
  starling import "$(go env GOROOT)/src" --bucket go --n 3 --w all`
}

// importAttempts outlasts the seconds in which a cluster finds out that a node
// has gone.
const importAttempts = 12

// imported is the outcome of an import.
type imported struct {
	Bucket         string    `json:"bucket"`
	Files          int       `json:"files"`
	Bytes          int64     `json:"bytes"`
	Stored         int       `json:"stored"`
	Already        int       `json:"already_stored"`
	Failed         int       `json:"failed"`
	Retried        int       `json:"retried_attempts"`
	Symlinks       int       `json:"skipped_symlinks"`
	Special        int       `json:"skipped_special_files"`
	Seconds        float64   `json:"seconds"`
	FilesPerSecond float64   `json:"files_per_second"`
	Failures       []failure `json:"failures,omitempty"`
}

// failure is a file that could not be handled.
type failure struct {
	Key   string `json:"key"`
	Error string `json:"error"`
}

// importer is an import under way.
type importer struct {
	tree   *tree
	client *client.Client
	write  client.Write
	read   client.Read
	shown  *progress

	mu     sync.Mutex
	result imported
}

// Run imports the directory.
func (c *importCmd) Run(ctx context.Context, w *world) error {
	if c.Parallel < 1 {
		return usage("--parallel %d: use 1 or more", c.Parallel)
	}
	t, err := scan(ctx, string(c.Dir), c.Bucket)
	if err != nil {
		return err
	}
	write, err := writeChoices{choices: choices{N: c.N, Timeout: c.Timeout}, W: c.W, Sync: c.Sync}.write()
	if err != nil {
		return err
	}
	shown := newProgress(w, "stored", "files", len(t.files))
	im := &importer{tree: t, write: write, read: client.Read{N: c.N, Timeout: c.Timeout}, shown: shown}
	c.Attempts = cmp.Or(c.Attempts, importAttempts)
	im.client, err = c.client(ctx, im.retried)
	if err != nil {
		return err
	}
	defer im.client.Close()
	began := w.now()
	t.each(ctx, c.Parallel, func(f file) { im.store(ctx, f) })
	im.shown.close()
	result := im.finish(w.now().Sub(began))
	if err := c.print(w.stdout, result, func(p *page) { tableOfImport(p, result) }); err != nil {
		return err
	}
	return result.verdict(ctx)
}

func (im *importer) retried(error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.result.Retried++
}

// store stores one file, unless it is stored.
func (im *importer) store(ctx context.Context, f file) {
	data, err := im.tree.read(f)
	stored := false
	if err == nil {
		stored, err = im.put(ctx, f, data)
	}
	if err != nil && ctx.Err() != nil {
		return // interrupted, not failed
	}
	im.count(f, stored, err)
	im.shown.add(len(data))
}

func (im *importer) count(f file, stored bool, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	switch {
	case err != nil:
		im.result.Failures = append(im.result.Failures, failure{im.tree.key(f).String(), reason(err)})
	case stored:
		im.result.Stored++
	default:
		im.result.Already++
	}
}

// put stores data, and reports false if the key holds just that.
func (im *importer) put(ctx context.Context, f file, data []byte) (bool, error) {
	key, write := im.tree.key(f), im.write
	there, err := im.client.Head(ctx, key, im.read)
	switch {
	case err == nil && there.Siblings == 1 && there.Length == int64(len(data)) && there.Checksum == checksum(data):
		return false, nil
	case err == nil:
		write.Context = there.Context
	case client.IsNotFound(err):
		write.Context, write.Blind = client.ContextOf(err), true
	default:
		return false, err
	}
	v := client.Value{Data: data, ContentType: contentType(f.path, data)}
	_, err = im.client.Put(ctx, key, v, write)
	return true, err
}

// reason is err without the key, which stands beside it.
func reason(err error) string {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return fmt.Sprintf("%s, attempt %d: %v", e.Op, e.Attempts, e.Err)
	}
	return err.Error()
}

func (im *importer) finish(took time.Duration) imported {
	r := &im.result
	r.Bucket, r.Files, r.Bytes = im.tree.bucket, len(im.tree.files), im.tree.bytes
	r.Symlinks, r.Special, r.Failed = im.tree.symlinks, im.tree.special, len(r.Failures)
	r.Seconds = took.Seconds()
	r.FilesPerSecond = float64(r.Stored+r.Already) / max(r.Seconds, 1e-9)
	slices.SortFunc(r.Failures, func(a, b failure) int { return cmp.Compare(a.Key, b.Key) })
	return *r
}

func (r imported) verdict(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted after %d of %d files: the same command goes on from there", r.Stored+r.Already+r.Failed, r.Files)
	case r.Failed > 0:
		return errors.New("some files could not be stored: the same command tries them again")
	}
	return nil
}

// maxShown bounds the failures in a table.
const maxShown = 20

func tableOfImport(p *page, r imported) {
	p.row("bucket", r.Bucket)
	p.row("files", humanize.Comma(int64(r.Files)))
	p.row("bytes", humanize.Comma(r.Bytes))
	p.row("stored", humanize.Comma(int64(r.Stored)))
	p.row("stored already", humanize.Comma(int64(r.Already)))
	p.row("failed", humanize.Comma(int64(r.Failed)))
	p.row("attempts retried", humanize.Comma(int64(r.Retried)))
	p.row("symbolic links skipped", humanize.Comma(int64(r.Symlinks)))
	if r.Special > 0 {
		p.row("special files skipped", humanize.Comma(int64(r.Special)))
	}
	p.row("seconds", fmt.Sprintf("%.1f", r.Seconds))
	p.row("files a second", humanize.Comma(int64(r.FilesPerSecond)))
	tableOfFailures(p, r.Failures)
}

func tableOfFailures(p *page, failures []failure) {
	for i, f := range failures {
		if i == maxShown {
			p.linef("and %d more: -o json lists all", len(failures)-maxShown)
			return
		}
		p.linef("failed: %s: %s", f.Key, f.Error)
	}
}
