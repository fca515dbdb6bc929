package main

import (
	"errors"
	"net/url"
	"time"

	"github.com/starling-kv/starling/bench"
	"github.com/starling-kv/starling/kv"
)

type benchCmd struct {
	Run     benchRunCmd     `cmd:"" default:"withargs" help:"Put a cluster under load (the default)."`
	Compare benchCompareCmd `cmd:"" help:"Measure Starling beside the machine's limits and other stores."`

	Gray     benchGrayCmd     `cmd:"" help:"Measure what a node that is neither well nor gone does to requests."`
	Overload benchOverloadCmd `cmd:"" help:"Measure what far more load than the cluster can take does to it."`
	Memory   benchMemoryCmd   `cmd:"" help:"Measure the memory of one node that holds many small keys."`
	Growth   benchGrowthCmd   `cmd:"" help:"Measure the processor time of a request as keys or nodes grow many."`

	Skeleton benchSkeletonCmd `cmd:"" hidden:"" help:"Run one node of the quorum skeleton."`
	Echo     benchEchoCmd     `cmd:"" hidden:"" help:"Run the echo server."`
}

// Help is the detail below the flags.
func (*benchCmd) Help() string {
	return `Without a command it puts a cluster under load: see starling bench run --help.

Examples:
  starling bench --own 3 --workload mix
  starling bench compare --rounds 1 --seconds 2 --keys 100000`
}

// loadFlags choose a load.
type loadFlags struct {
	Connections int           `default:"64" help:"Connections; each has one request under way."`
	Keys        int64         `default:"100000" help:"Keys that the load uses."`
	KeySize     int           `default:"16" help:"Bytes of a key."`
	Overwrites  int           `default:"0" help:"How often the preload writes each key once more: a fresh store flatters."`
	WarmUp      time.Duration `default:"2s" help:"Load that goes before and does not count."`
	Seed        uint64        `default:"1" help:"Chooses keys, operations and values."`
}

// benchTimeout is long, so that what is slow is seen as slow and not as failed.
const benchTimeout = 10 * time.Second

// benchBucket holds the keys of a load, where nobody says otherwise.
const benchBucket = "bench"

// preloading is the query of writes that replace whatever is there and wait for
// no disk.
func preloading() url.Values { return url.Values{"overwrite": {"true"}, "sync": {"false"}} }

func newWriteID(now func() time.Time) func() string {
	return func() string { return kv.NewWriteID(now(), random64).String() }
}

func parseWorkload(name, distribution string) (bench.Workload, error) {
	load, err := bench.ParseWorkload(name)
	if errors.Is(err, bench.ErrScans) {
		return load, usage("%w: choose another of %s", err, bench.WorkloadNames())
	}
	if err != nil {
		return load, usage("%w", err)
	}
	if distribution != "" {
		load.Keys = bench.Distribution(distribution)
	}
	return load, nil
}
