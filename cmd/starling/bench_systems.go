package main

import (
	"cmp"
	"context"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"github.com/starling-kv/starling/bench"
	"github.com/starling-kv/starling/bench/peers"
	"github.com/starling-kv/starling/bench/skeleton"
	"github.com/starling-kv/starling/cmd/starling/internal/devcluster"
)

// peerPorts is how far above the port base those of the other stores begin.
const peerPorts = 500

// systems are all that the comparison knows, in the order in which they are
// measured, on ports above base. Memory is a directory on a file system in
// memory, empty if there is none.
func systems(ctx context.Context, base int, dir, memory string) []bench.System {
	at := func(name string) peers.Place {
		return peers.Place{Dir: filepath.Join(dir, name), Port: base + peerPorts}
	}
	three := devcluster.Plan{Nodes: 3, PortBase: base}
	return []bench.System{
		echoSystem(base),
		ownSystem(bench.Skeleton, dir, three, skeletonNodes(three),
			"3 processes, HTTP, frames, the engine with one read and one write per replica and put, w=2, r=2, last write wins"),
		ownSystem(bench.Starling, dir, three, starlingNodes(three, map[string]string{"log-level": "warn"}),
			"3 nodes, n=3, w=2, r=2, writes with tokens; everything as starling serve has it by default"),
		peers.Etcd(ctx, at("etcd"), false, ""),
		peers.Etcd(ctx, at("etcd-no-fsync"), true, memory),
		peers.Redis(ctx, at("redis"), "everysec"),
		peers.Redis(ctx, at("redis-always"), "always"),
		peers.NATS(ctx, at("nats"), false),
		peers.NATS(ctx, at("nats-always"), true),
	}
}

// ownSystem is Starling or its skeleton, whose requests choose between sync and
// async.
func ownSystem(
	name, dir string, plan devcluster.Plan, args func(devcluster.Home, devcluster.Node) []string, setting string,
) bench.System {
	return bench.System{
		Name: name, Version: revision(), Setting: setting, Tokens: name == bench.Starling,
		Variants: []bench.Variant{
			{Name: bench.VariantName(name, false)},
			{Name: bench.VariantName(name, true), Sync: true, WritesOnly: true},
		},
		Start: func(ctx context.Context) (bench.Instance, error) {
			p, err := startProcesses(ctx, plan, filepath.Join(dir, name), args)
			return ownInstance{p}, err
		},
	}
}

// echoSystem is one process that stores nothing.
func echoSystem(base int) bench.System {
	plan := devcluster.Plan{Nodes: 1, PortBase: base}
	return bench.System{
		Name: bench.Echo, Version: revision(), Setting: "one process, HTTP, no storage: the limit of the HTTP library",
		Variants: []bench.Variant{{Name: bench.Echo}},
		Start: func(ctx context.Context) (bench.Instance, error) {
			p, err := startProcesses(ctx, plan, "", echoNode())
			return ownInstance{p}, err
		},
	}
}

// ownInstance are processes of this binary.
type ownInstance struct{ *processes }

func (i ownInstance) PIDs() []int { return i.processes.PIDs }

func (i ownInstance) Stop() error { return i.stop() }

// Dial chooses durability per request; a preload waits for no disk.
func (i ownInstance) Dial(v bench.Variant, preload bool) bench.Dial {
	link := bench.HTTP{
		Endpoints: i.Endpoints, Bucket: skeleton.Bucket, Timeout: benchTimeout,
		Query: url.Values{"n": {"3"}, "r": {"2"}, "w": {"2"}}, WriteQuery: url.Values{"sync": {strconv.FormatBool(v.Sync && !preload)}},
	}
	if preload {
		link.WriteQuery.Set("overwrite", "true")
	}
	return link.Dial
}

// revision is the commit that this binary was built from, as far as it knows.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = " and changes"
		}
	}
	return cmp.Or(revision+changed, info.Main.Version)
}
