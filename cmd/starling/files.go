package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"github.com/starling-kv/starling/kv"
)

// tree is the files below a directory, as keys of a bucket.
type tree struct {
	root     string
	bucket   string
	files    []file
	bytes    int64
	symlinks int
	special  int // sockets, devices and the like
}

// file is a regular file; path is relative to the root, with slashes.
type file struct {
	path string
	size int64
}

// scan lists the regular files below dir for a bucket; an empty one is named
// after the directory. Symbolic links are not followed.
func scan(ctx context.Context, dir, bucket string) (*tree, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if bucket == "" {
		bucket = bucketFor(filepath.Base(root))
	}
	if err := (kv.Key{Bucket: bucket, Name: "x"}).Validate(); err != nil {
		return nil, usage("--bucket: %w", err)
	}
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return nil, usage("%s is no directory that can be read", root)
	}
	t := &tree{root: root, bucket: bucket}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return t.add(path, d)
	})
	return t, err
}

func (t *tree) add(path string, d fs.DirEntry) error {
	switch mode := d.Type(); {
	case mode.IsDir():
		return nil
	case mode&fs.ModeSymlink != 0:
		t.symlinks++
		return nil
	case !mode.IsRegular():
		t.special++
		return nil
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(t.root, path)
	if err != nil {
		return err
	}
	t.files = append(t.files, file{filepath.ToSlash(relative), info.Size()})
	t.bytes += info.Size()
	return nil
}

// bucketFor makes the name of a bucket of that of a directory.
func bucketFor(name string) string {
	allowed := func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}
	name = strings.Map(allowed, name)
	return name[:min(len(name), kv.MaxBucketBytes)]
}

func (t *tree) key(f file) kv.Key { return kv.Key{Bucket: t.bucket, Name: f.path} }

// maxFile is the largest file that is read into memory: no cluster takes a
// value of that size.
const maxFile = 64 << 20

func (t *tree) read(f file) ([]byte, error) {
	if f.size > maxFile {
		return nil, fmt.Errorf("%d bytes are more than a value may have", f.size)
	}
	return os.ReadFile(filepath.Join(t.root, filepath.FromSlash(f.path)))
}

// each calls do for every file, so many at once, until ctx ends.
func (t *tree) each(ctx context.Context, parallel int, do func(file)) {
	var workers errgroup.Group
	workers.SetLimit(parallel)
	for _, f := range t.files {
		if ctx.Err() != nil {
			break
		}
		workers.Go(func() error {
			do(f)
			return nil
		})
	}
	_ = workers.Wait() // none fails
}

// checksum is that of a value as the cluster tells it.
func checksum(data []byte) string { return fmt.Sprintf("xxh64:%016x", xxhash.Sum64(data)) }
