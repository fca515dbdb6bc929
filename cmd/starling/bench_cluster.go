package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/starling-kv/starling/bench"
	"github.com/starling-kv/starling/cmd/starling/internal/devcluster"
)

// processes are those of a cluster that this command started.
type processes struct {
	Names     []string
	Endpoints []string
	Admins    []string
	PIDs      []int

	cancel context.CancelFunc
	ended  chan error // how the supervisor ended
}

// startProcesses starts the nodes of a plan, each with the command line that
// args gives it, and waits until all are ready. An empty dir is a temporary
// one. The caller stops what it got.
func startProcesses(
	ctx context.Context, plan devcluster.Plan, dir string, args func(devcluster.Home, devcluster.Node) []string,
) (*processes, error) {
	if err := devcluster.CheckPorts(ctx, plan.Layout()); err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	home, err := devcluster.OpenHome(dir, plan)
	if err != nil {
		return nil, err
	}
	control, err := devcluster.Listen(ctx, devcluster.SocketPath(plan.PortBase))
	if err != nil {
		return nil, errors.Join(err, home.Close())
	}
	running, cancel := context.WithCancel(ctx)
	p := &processes{cancel: cancel, ended: make(chan error, 1)}
	events := make(chan devcluster.Event, 16*plan.Nodes)
	go func() {
		err := devcluster.Run(running, devcluster.Config{
			Nodes: plan.Layout(), Home: home, Program: program, Env: devEnvironment(os.Environ()),
			Args: func(n devcluster.Node) []string { return args(home, n) },
			Report: func(e devcluster.Event) {
				select {
				case events <- e:
				default: // nobody listens any more
				}
			},
			ReadyTimeout: devReadyTimeout, StopTimeout: devStopTimeout,
		}, control)
		p.ended <- errors.Join(err, home.Close())
	}()
	for range plan.Nodes {
		if err := p.await(events); err != nil {
			return nil, errors.Join(err, p.stop())
		}
	}
	return p, nil
}

// await takes in that one more node is ready.
func (p *processes) await(events <-chan devcluster.Event) error {
	select {
	case e := <-events:
		if e.Kind != devcluster.EventReady {
			return fmt.Errorf("node %s ended: %s; see %s", e.Name, e.How, e.Log)
		}
		p.Names = append(p.Names, e.Name)
		p.Endpoints = append(p.Endpoints, e.Client)
		p.Admins = append(p.Admins, e.Admin)
		p.PIDs = append(p.PIDs, e.PID)
		return nil
	case err := <-p.ended:
		p.ended <- nil
		if err == nil {
			err = context.Canceled
		}
		return err
	case <-time.After(2 * devReadyTimeout):
		return errors.New("the cluster does not become ready")
	}
}

// stop ends all processes and waits for them. It may be called more than once.
func (p *processes) stop() error {
	p.cancel()
	err := <-p.ended
	p.ended <- nil
	return err
}

// starlingNodes are the command lines of a cluster of nodes like those of
// starling dev, with the given settings of starling serve.
func starlingNodes(plan devcluster.Plan, set map[string]string) func(devcluster.Home, devcluster.Node) []string {
	dev := &devRunCmd{Set: set}
	return func(h devcluster.Home, n devcluster.Node) []string { return dev.serveArgs(plan, h, n) }
}

// skeletonNodes are the command lines of the three processes of the quorum
// skeleton.
func skeletonNodes(plan devcluster.Plan) func(devcluster.Home, devcluster.Node) []string {
	return func(h devcluster.Home, n devcluster.Node) []string {
		args := []string{
			"bench", bench.Skeleton, leash, "--name=" + n.Name, "--dir=" + h.Data(n.Name),
			"--listen=" + n.Listen, "--admin=" + n.Admin, "--peer=" + n.Peer,
		}
		for _, other := range plan.Layout() {
			if other.Name != n.Name {
				args = append(args, "--others="+other.Peer)
			}
		}
		return args
	}
}

// echoNode is the command line of the echo server.
func echoNode() func(devcluster.Home, devcluster.Node) []string {
	return func(_ devcluster.Home, n devcluster.Node) []string {
		return []string{"bench", bench.Echo, leash, "--listen=" + n.Listen, "--admin=" + n.Admin}
	}
}
