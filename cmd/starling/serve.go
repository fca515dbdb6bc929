package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/node"
	"github.com/starling-kv/starling/reap"
)

type serveCmd struct {
	Config string `name:"config" type:"path" placeholder:"FILE" help:"TOML file with any of these settings but this one."`

	Name string `help:"Name of this node, unique in the cluster and the same at every start."`
	Dir  string `type:"path" help:"Directory for the data of this node."`

	Listen        string   `default:"127.0.0.1:8701" help:"Address for clients."`
	Admin         string   `default:"127.0.0.1:8801" help:"Address for operators: whoever reaches it sees everything."`
	Peer          string   `default:"127.0.0.1:8901" help:"Address for the other nodes."`
	Gossip        string   `default:"127.0.0.1:9001" help:"Address for membership, TCP and UDP."`
	AdvertiseHost string   `placeholder:"IP" help:"Where others reach this node; by default the host of --peer."`
	Seeds         []string `placeholder:"HOST:PORT" help:"Gossip addresses of other nodes, one or more."`
	SecretFile    string   `type:"path" placeholder:"FILE" help:"Secret of the cluster in hex or base64; or set STARLING_SECRET."`

	RejoinEmpty bool `help:"If the data directory is empty and the name is a member's that is down, take its place."`

	Zone   string `help:"What this node shares with others that may fail together."`
	Weight uint32 `default:"1" help:"Share of the keys, relative to other nodes."`

	Bootstrap  bool `help:"Make a new cluster if this node is part of none. Give it to exactly one node."`
	Expect     int  `default:"1" placeholder:"NODES" help:"With --bootstrap: wait for so many nodes, this one included."`
	Partitions int  `default:"1024" help:"With --bootstrap: partitions of the key space, a power of two."`

	DefaultN   int           `default:"3" help:"Replicas. This and what follows is for requests that do not choose."`
	DefaultR   string        `default:"quorum" help:"Replicas that must answer a read: a number, one, quorum or all."`
	DefaultW   string        `default:"quorum" help:"Replicas that must acknowledge a write."`
	Timeout    time.Duration `default:"5s" help:"Time for a request."`
	Durability string        `enum:"sync,async" default:"sync" help:"Acknowledge a write when it is synced to disk, or async."`

	MaxValue byteSize `default:"4MiB" help:"Largest value."`
	MinFree  byteSize `default:"0" help:"Free disk space below which writes are refused; 0 lets the storage engine choose."`

	ExchangeEvery time.Duration `default:"30s" help:"Compare replicas with each other node so often."`
	ReapAfter     time.Duration `default:"24h" help:"Remove deletes for good, everywhere, when they are so old."`
	ReapEvery     time.Duration `default:"1m" help:"Look so often for what can be removed."`

	MemoryLimit byteSize `default:"448MiB" help:"Memory that the garbage collector aims at; 0: none. GOMEMLIMIT ranks before it."`

	RecordCache byteSize `default:"128MiB" help:"Of that, memory for copies of the records in use; 0: none."`

	LogLevel  string `enum:"debug,info,warn,error" default:"info" help:"debug, info, warn or error."`
	LogFormat string `enum:"json,console" default:"json" help:"json or console."`

	ExitWithStdin bool `hidden:"" help:"End when standard input ends."`
}

// Help is the detail below the flags.
func (*serveCmd) Help() string {
	return `Each setting is a flag (--default-n=3), a variable (STARLING_DEFAULT_N=3)
and a key of the file (default-n = 3). Flags rank before variables, and both
before the file.

Examples:
  starling serve --name n1 --dir /var/lib/starling --secret-file /etc/starling/secret --bootstrap --expect 3
  starling serve --config /etc/starling/node.toml`
}

// BeforeResolve makes the file, if one is named, a source of flags.
func (*serveCmd) BeforeResolve(k *kong.Context) error {
	for _, f := range k.Flags() {
		if f.Name != configFlag {
			continue
		}
		if path, ok := k.FlagValue(f).(string); ok && path != "" {
			r, err := openConfig(path, k.Selected().Flags)
			if err != nil {
				return err
			}
			k.AddResolver(r)
		}
	}
	return nil
}

// Run runs the node until ctx ends or it fails.
func (c *serveCmd) Run(ctx context.Context, w *world) error {
	cfg, err := c.nodeConfig(w.getenv)
	if err != nil {
		return err
	}
	log, err := newLogger(w.stderr, c.LogLevel, c.LogFormat)
	if err != nil {
		return err
	}
	shareProcessors(w.getenv)
	if c.MemoryLimit > 0 && w.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(c.MemoryLimit - c.RecordCache)) // which is not on the heap
	}
	if c.ExitWithStdin {
		ctx = untilEOF(ctx, w.stdin)
	}
	for {
		n, err := w.startNode(ctx, cfg, log)
		if err != nil {
			return err
		}
		if err = serveUntil(ctx, n, log); err == nil || ctx.Err() != nil {
			return err
		}
		err = n.Rejoin(err)
		if errors.Is(err, node.ErrHolderAlive) {
			log.Warn("waiting", zap.Error(err))
			if err = pause(ctx, rejoinPause); err != nil {
				return nil //nolint:nilerr // ended before it had anything to end
			}
		}
		if err != nil {
			return err
		}
	}
}

// rejoinPause is how long to wait for the others to notice that the node in
// whose place this one is to come has ended.
const rejoinPause = 2 * time.Second

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// serveUntil waits until ctx ends or the node fails, and closes it.
func serveUntil(ctx context.Context, n running, log *zap.Logger) error {
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }()
	select {
	case err := <-ended:
		return errors.Join(err, n.Close())
	case <-ctx.Done():
	}
	log.Info("closing")
	err := n.Close()
	return errors.Join(err, <-ended)
}

// untilEOF returns a context that ends with ctx or with in. Its goroutine ends
// with in, or with the process.
func untilEOF(ctx context.Context, in io.Reader) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, in)
	}()
	return ctx
}

// nodeConfig translates the flags.
func (c *serveCmd) nodeConfig(getenv func(string) string) (node.Config, error) {
	if c.Name == "" {
		return node.Config{}, usage("the node needs a name, the same one at every start: --name n1")
	}
	if c.Dir == "" {
		return node.Config{}, usage("the node needs a directory for its data: --dir /var/lib/starling")
	}
	if c.MemoryLimit > 0 && c.RecordCache > c.MemoryLimit/2 {
		return node.Config{}, usage("--record-cache is more than half of --memory-limit: lower it, or raise the limit")
	}
	r, err := coordinator.ParseCount(c.DefaultR)
	if err != nil {
		return node.Config{}, usage("--default-r: %w", err)
	}
	w, err := coordinator.ParseCount(c.DefaultW)
	if err != nil {
		return node.Config{}, usage("--default-w: %w", err)
	}
	secret, err := loadSecret(c.SecretFile, getenv(secretVariable))
	if err != nil {
		return node.Config{}, err
	}
	return node.Config{
		Name: c.Name, Dir: c.Dir,
		Listen: c.Listen, Admin: c.Admin, Peer: c.Peer, Gossip: c.Gossip,
		AdvertiseHost: c.AdvertiseHost, Seeds: c.Seeds, Secret: secret,
		RejoinEmpty: c.RejoinEmpty,
		Zone:        c.Zone, Weight: c.Weight,
		Bootstrap: c.Bootstrap, Expect: c.Expect, Partitions: c.Partitions,
		Async:    c.Durability == "async",
		Defaults: coordinator.Defaults{N: c.DefaultN, R: r, W: w, Timeout: c.Timeout},
		MaxValue: int(c.MaxValue), RecordCache: int(c.RecordCache), MinFree: uint64(c.MinFree),
		Repairs: node.RepairOptions{
			Exchange: c.ExchangeEvery, ReapEvery: c.ReapEvery, Reap: reap.Rules{After: c.ReapAfter},
		},
	}, nil
}

// byteSize is a number of bytes, written as 4MiB or 1048576.
type byteSize uint64

// UnmarshalText reads a number with or without a unit.
func (s *byteSize) UnmarshalText(b []byte) error {
	n, err := humanize.ParseBytes(string(b))
	if err != nil {
		return fmt.Errorf("%q: write a size as 1048576, 512KiB or 4MiB", b)
	}
	*s = byteSize(n)
	return nil
}

func newLogger(out io.Writer, level, format string) (*zap.Logger, error) {
	at, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, usage("--log-level: %w", err)
	}
	cfg := zap.NewProductionEncoderConfig()
	cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(cfg)
	if format == "console" {
		cfg.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(cfg)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(out)), at)), nil
}

// shareProcessors lets twice as many goroutines run at once as there are
// processors, unless GOMAXPROCS says how many. Flushes and compactions are
// goroutines that compute for long; between them and those of requests the
// kernel changes within a fraction of a millisecond, Go only after ten.
func shareProcessors(getenv func(string) string) {
	if getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // which knows the limits of a container
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
}
