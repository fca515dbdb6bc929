package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is what is done to frames. The zero Fault passes all of them on.
type Fault struct {
	// Drop is the share of frames that are withheld, in [0, 1], each by chance;
	// nobody is told.
	Drop float64
	// Slow, if above 1, holds every answer back until its call has taken so many
	// times as long as the node took.
	Slow float64
}

// slowest bounds how long an answer is held back.
const slowest = 2 * time.Second

// Proxy passes connections on to a node. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	seed     uint64
	fault    atomic.Pointer[Fault]
	frames   atomic.Uint64
	dropped  atomic.Uint64
	strange  atomic.Uint64

	ctx     context.Context //nolint:containedctx // ends with Close
	stop    context.CancelFunc
	running sync.WaitGroup
	closing sync.Once
}

// Listen starts a proxy that listens at addr and passes on to target, both
// host:port. The seed chooses which frames are dropped.
func Listen(ctx context.Context, addr, target string, seed uint64) (*Proxy, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p := &Proxy{listener: ln, target: target, seed: seed}
	p.fault.Store(new(Fault))
	p.ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() net.Addr { return p.listener.Addr() }

// Set puts f in place of the fault that there was, on all connections.
func (p *Proxy) Set(f Fault) { p.fault.Store(&f) }

// Frames returns how many frames came, either way, and how many of them were
// dropped.
func (p *Proxy) Frames() (all, dropped uint64) { return p.frames.Load(), p.dropped.Load() }

// Strange returns how many connections were cut because what came was not the
// protocol between nodes.
func (p *Proxy) Strange() uint64 { return p.strange.Load() }

// Close cuts all connections and waits for what the proxy began. It may be
// called more than once.
func (p *Proxy) Close() error {
	var err error
	p.closing.Do(func() {
		p.stop()
		err = p.listener.Close()
	})
	p.running.Wait()
	return err
}

func (p *Proxy) accept() {
	for n := uint64(0); ; n += 2 {
		dialler, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.join(dialler, n) })
	}
}

// join carries one connection until either side closes it.
func (p *Proxy) join(dialler net.Conn, n uint64) {
	defer func() { _ = dialler.Close() }()
	node, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		return // the dialler sees its connection close, as it would without a proxy
	}
	defer func() { _ = node.Close() }()
	unhook := context.AfterFunc(p.ctx, func() { _, _ = dialler.Close(), node.Close() })
	defer unhook()
	pair := newPair(p, dialler, node)
	var pumps sync.WaitGroup
	pumps.Go(func() { p.carry(dialler, node, pair.toNode, n) })
	pumps.Go(func() { p.carry(dialler, node, pair.toDialler, n+1) })
	pumps.Wait()
	pair.held.Wait()
}

// carry runs one direction and, when it ends, cuts both.
func (p *Proxy) carry(dialler, node net.Conn, direction func(seed uint64) error, n uint64) {
	if err := direction(p.seed + n); errors.Is(err, errFrame) {
		p.strange.Add(1)
	}
	_, _ = dialler.Close(), node.Close()
}
