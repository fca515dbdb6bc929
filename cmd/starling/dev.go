package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/starling-kv/starling/cmd/starling/internal/devcluster"
)

type devCmd struct {
	PortBase int `default:"8700" placeholder:"PORT" help:"Port before that of the first node."`

	Run     devRunCmd     `cmd:"" default:"withargs" help:"Run a cluster until Ctrl-C (the default)."`
	Status  devStatusCmd  `cmd:"" help:"List the processes of the running cluster."`
	Restart devRestartCmd `cmd:"" help:"Restart a node, or start it again after its end."`
	Kill    devKillCmd    `cmd:"" help:"Kill a node, as kill -9 does."`
	Stop    devStopCmd    `cmd:"" help:"Stop the running cluster."`
}

// Help is the detail below the flags.
func (*devCmd) Help() string {
	return `Without a command it runs a cluster: see starling dev run --help.

Examples:
  starling dev --nodes 5
  starling dev kill n2
  starling dev restart n2`
}

type devRunCmd struct {
	printer

	Nodes int               `default:"5" help:"Number of nodes, at most 99."`
	Zones int               `help:"Number of zones over which the nodes are dealt; 0 for none."`
	Dir   string            `type:"path" placeholder:"DIR" help:"Keep the data here; else it goes at the end."`
	Set   map[string]string `placeholder:"KEY=VALUE" help:"A key of starling serve for every node, such as durability=async."`
}

// Help is the detail below the flags.
func (*devRunCmd) Help() string {
	return `When the cluster is ready, a line for each node is printed; with -o json,
an object for each node and for everything that happens to one later. With
--dir, the same command starts the same cluster again.

Node i listens on 127.0.0.1 for clients on port 8700+i, for operators on 8800+i,
for its peers on 8900+i and for gossip on 9000+i; --port-base moves all of them.

Examples:
  starling dev --nodes 5
  starling dev --nodes 3 --zones 3 --dir ./cluster --set durability=async`
}

// leash makes a child end with the process that started it.
const leash = "--exit-with-stdin"

const (
	devReadyTimeout = time.Minute
	devStopTimeout  = 10 * time.Second
)

// Run runs the cluster until ctx ends.
func (c *devRunCmd) Run(ctx context.Context, w *world, dev *devCmd) (err error) {
	plan := devcluster.Plan{Nodes: c.Nodes, Zones: c.Zones, PortBase: dev.PortBase}
	if err := plan.Validate(); err != nil {
		return usage("%w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	control, err := devcluster.Listen(ctx, devcluster.SocketPath(plan.PortBase))
	if err != nil {
		return err
	}
	if err := devcluster.CheckPorts(ctx, plan.Layout()); err != nil {
		return errors.Join(err, control.Close())
	}
	home, err := devcluster.OpenHome(c.Dir, plan)
	if err != nil {
		return errors.Join(err, control.Close())
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	events := devPrinter{out: w.stdout, json: c.json(), nodes: plan.Nodes, portBase: plan.PortBase}
	return devcluster.Run(ctx, devcluster.Config{
		Nodes: plan.Layout(), Home: home,
		Program: program, Args: func(n devcluster.Node) []string { return c.serveArgs(plan, home, n) }, Env: devEnvironment(os.Environ()),
		Report: events.report, ReadyTimeout: devReadyTimeout, StopTimeout: devStopTimeout,
	}, control)
}

// serveArgs is the command line of a node. Every node seeks all others, so that
// any of them can be restarted while any others are away; n1 makes the cluster,
// unless it is there.
func (c *devRunCmd) serveArgs(p devcluster.Plan, h devcluster.Home, n devcluster.Node) []string {
	nodes := p.Layout()
	args := []string{
		"serve", leash, "--rejoin-empty", "--name=" + n.Name, "--dir=" + h.Data(n.Name), "--secret-file=" + h.Secret(),
		"--listen=" + n.Listen, "--admin=" + n.Admin, "--peer=" + n.Peer, "--gossip=" + n.Gossip,
		"--log-format=console", "--default-n=" + strconv.Itoa(min(3, p.Nodes)),
	}
	if n.Zone != "" {
		args = append(args, "--zone="+n.Zone)
	}
	if n.Name == nodes[0].Name {
		args = append(args, "--bootstrap", "--expect="+strconv.Itoa(p.Nodes))
	}
	for _, other := range nodes {
		if other.Name != n.Name {
			args = append(args, "--seeds="+other.Gossip)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.Set)) {
		args = append(args, "--"+key+"="+c.Set[key])
	}
	return args
}

// devEnvironment leaves out what is meant for a node that is started by hand.
func devEnvironment(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(v string) bool { return strings.HasPrefix(v, envPrefix) })
}

// devPrinter prints what happens to the nodes.
type devPrinter struct {
	out             io.Writer
	json            bool
	nodes, portBase int
	ready           int // events of readiness so far
}

func (p *devPrinter) report(e devcluster.Event) {
	if p.json {
		if b, err := json.Marshal(e); err == nil {
			sayf(p.out, "%s\n", b)
		}
		return
	}
	switch e.Kind {
	case devcluster.EventReady:
		sayf(p.out, "%-4s pid %-8d %s  operators %s  log %s\n", e.Name, e.PID, e.Client, e.Admin, e.Log)
		if p.ready++; p.ready == p.nodes {
			sayf(p.out, "ready: Ctrl-C stops the cluster; in another terminal: starling put carts/ann milk%s\n", p.hint())
		}
	case devcluster.EventEnded:
		p.reportEnd(e)
	}
}

func (p *devPrinter) reportEnd(e devcluster.Event) {
	sayf(p.out, "%-4s pid %-8d ended: %s", e.Name, e.PID, e.How)
	if e.Asked {
		sayf(p.out, "\n")
		return
	}
	sayf(p.out, "; bring it back: starling dev restart %s%s\n", e.Name, p.portFlag())
	if strings.HasPrefix(e.How, "exit status") {
		for _, line := range e.Output {
			sayf(p.out, "     | %s\n", line)
		}
	}
}

// hint is what a client needs to find this cluster.
func (p *devPrinter) hint() string {
	if p.portBase == devcluster.DefaultPortBase {
		return ""
	}
	return fmt.Sprintf(" --endpoint http://127.0.0.1:%d", p.portBase+1)
}

func (p *devPrinter) portFlag() string {
	if p.portBase == devcluster.DefaultPortBase {
		return ""
	}
	return fmt.Sprintf(" --port-base %d", p.portBase)
}

type devStatusCmd struct{ printer }

// Run lists the processes.
func (c *devStatusCmd) Run(ctx context.Context, w *world, dev *devCmd) error {
	list, err := dev.ask(ctx, devcluster.OpStatus, "")
	if err != nil {
		return err
	}
	return c.print(w.stdout, list, func(p *page) {
		p.row("NODE", "STATE", "PID", "CLIENTS", "OPERATORS", "LOG")
		for _, s := range list {
			pid := "-"
			if s.PID != 0 {
				pid = strconv.Itoa(s.PID)
			}
			p.row(s.Name, s.State, pid, s.Client, s.Admin, s.Log)
		}
	})
}

type devRestartCmd struct {
	Names []string `arg:"" name:"name" help:"The nodes, such as n2 n3."`
}

// Run restarts the nodes, all at once since one may need the others to become
// ready, and waits until they are.
func (c *devRestartCmd) Run(ctx context.Context, w *world, dev *devCmd) error {
	return dev.each(ctx, w, devcluster.OpRestart, c.Names, "is ready")
}

type devKillCmd struct {
	Names []string `arg:"" name:"name" help:"The nodes, such as n2 n3."`
}

// Run kills the nodes and waits until they are gone.
func (c *devKillCmd) Run(ctx context.Context, w *world, dev *devCmd) error {
	return dev.each(ctx, w, devcluster.OpKill, c.Names, "is killed")
}

// each asks the same for several nodes at once.
func (dev *devCmd) each(ctx context.Context, w *world, op devcluster.Op, names []string, done string) error {
	errs := make([]error, len(names))
	var asked sync.WaitGroup
	for i, name := range names {
		asked.Go(func() { _, errs[i] = dev.ask(ctx, op, name) })
	}
	asked.Wait()
	for i, name := range names {
		if errs[i] == nil {
			sayf(w.stdout, "%s %s\n", name, done)
		}
	}
	return errors.Join(errs...)
}

type devStopCmd struct{}

// Run stops the cluster and waits until it is down.
func (*devStopCmd) Run(ctx context.Context, w *world, dev *devCmd) error {
	_, err := dev.ask(ctx, devcluster.OpStop, "")
	return dev.done(w, err, "the cluster is down")
}

func (dev *devCmd) ask(ctx context.Context, op devcluster.Op, name string) ([]devcluster.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, devReadyTimeout)
	defer cancel()
	return devcluster.Ask(ctx, devcluster.SocketPath(dev.PortBase), op, name)
}

func (*devCmd) done(w *world, err error, text string) error {
	if err == nil {
		sayf(w.stdout, "%s\n", text)
	}
	return err
}
