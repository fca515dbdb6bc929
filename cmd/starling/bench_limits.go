package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/bench/skeleton"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/badgerengine"
)

// limitFlags are those of the servers that show the machine's limits.
type limitFlags struct {
	Listen        string `default:"127.0.0.1:18701" help:"Address for clients."`
	Admin         string `default:"127.0.0.1:18801" help:"Address for operators: /readyz and /debug/pprof/."`
	ExitWithStdin bool   `help:"End when standard input ends."`
}

// skeletonMemTable and skeletonMemory are as those of a node of Starling, so
// that the two differ in what they do and not in what they are given.
const (
	skeletonMemTable = 16 << 20
	skeletonMemory   = 512 << 20
)

type benchSkeletonCmd struct {
	limitFlags

	Name   string   `default:"n1" help:"Name of this node."`
	Dir    string   `required:"true" type:"path" help:"Directory for its data."`
	Peer   string   `default:"127.0.0.1:18901" help:"Address for the other nodes."`
	Others []string `required:"true" placeholder:"HOST:PORT" help:"Peer addresses of the other two."`
}

// Run runs one of the three nodes until ctx ends or it fails.
func (c *benchSkeletonCmd) Run(ctx context.Context, w *world) (err error) {
	shareProcessors(w.getenv)
	debug.SetMemoryLimit(skeletonMemory)
	dir, err := storage.OpenDir(c.Dir, c.Name, random64)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	engine, err := badgerengine.Open(dir, badgerengine.Options{MemTableSize: skeletonMemTable, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	client, err := listenTCP(ctx, c.Listen)
	if err != nil {
		return errors.Join(err, engine.Close())
	}
	peer, err := listenTCP(ctx, c.Peer)
	if err != nil {
		return errors.Join(err, client.Close(), engine.Close())
	}
	n, err := skeleton.Start(skeleton.Config{Client: client, Peer: peer, Others: c.Others, Engine: engine})
	if err != nil {
		return errors.Join(err, client.Close(), peer.Close(), engine.Close())
	}
	return c.serve(ctx, w, n.Ready, n.Wait, n.Close)
}

type benchEchoCmd struct{ limitFlags }

// Run serves until ctx ends.
func (c *benchEchoCmd) Run(ctx context.Context, w *world) error {
	l, err := listenTCP(ctx, c.Listen)
	if err != nil {
		return err
	}
	server := skeleton.NewEcho()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	return c.serve(ctx, w, func() bool { return true }, func() error { return <-ended }, l.Close)
}

// serve answers operators until the server fails or ctx ends, and closes it.
func (c *limitFlags) serve(ctx context.Context, w *world, ready func() bool, wait, closeServer func() error) error {
	if c.ExitWithStdin {
		ctx = untilEOF(ctx, w.stdin)
	}
	l, err := listenTCP(ctx, c.Admin)
	if err != nil {
		return errors.Join(err, closeServer())
	}
	admin := &http.Server{Handler: adminOfLimits(ready), ReadHeaderTimeout: time.Second}
	go func() { _ = admin.Serve(l) }() // ends by the below
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	select {
	case err := <-ended:
		return errors.Join(err, admin.Close(), closeServer())
	case <-ctx.Done():
		err := errors.Join(admin.Close(), closeServer())
		return errors.Join(err, <-ended)
	}
}

func adminOfLimits(ready func() bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

func random64() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
