package transport

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

const (
	// closeFlush is how long Close lets answers leave, closeWait how long it waits
	// for goroutines.
	closeFlush = 500 * time.Millisecond
	closeWait  = 5 * time.Second
)

// TCP is a [Transport] over TCP. Make one with [NewTCP].
type TCP struct {
	opts  Options
	log   *zap.Logger
	count counters
	hands handshaker
	peers sync.Map // kv.NodeID -> *peer; nodes are few

	ctx        context.Context // ends at Close
	cancel     context.CancelFunc
	running    sync.WaitGroup
	handshakes chan struct{} // slots
	randomness sync.Mutex

	mu       sync.Mutex
	closed   bool
	links    map[*link]struct{}
	accepted map[linkKey]*link
}

// NewTCP starts a transport; it serves requests at once.
func NewTCP(opts Options) (*TCP, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	key, err := proofKey(opts.Secret)
	if err != nil {
		return nil, err
	}
	t := &TCP{
		opts: opts, log: opts.Log,
		hands:      handshaker{local: opts.Local, admit: opts.Admit, key: key},
		handshakes: make(chan struct{}, maxHandshakes),
		links:      make(map[*link]struct{}),
		accepted:   make(map[linkKey]*link),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.running.Go(t.accept)
	t.running.Go(t.watch)
	t.running.Go(t.sweep)
	return t, nil
}

// Addr returns the address at which the transport listens.
func (t *TCP) Addr() net.Addr { return t.opts.Listener.Addr() }

// Stats returns the counters.
func (t *TCP) Stats() Stats { return t.count.stats() }

// Call implements [Transport].
func (t *TCP) Call(ctx context.Context, to kv.NodeID, m Method, body []byte) ([]byte, error) {
	t.count.calls.Add(1)
	deadline, err := checkCall(ctx, to, body, t.opts.MaxBody)
	if err != nil {
		return nil, err
	}
	p, err := t.peer(to)
	if err != nil {
		return nil, err
	}
	return t.callPeer(ctx, p, deadline, m, body)
}

func (t *TCP) callPeer(ctx context.Context, p *peer, deadline time.Time, m Method, body []byte) (reply []byte, err error) {
	for range 2 { // a link that ended before it took the request is tried anew
		var k *link
		if k, err = p.connect(ctx, redial.veto); err != nil {
			return nil, err
		}
		if reply, err = k.call(ctx, deadline, m, body); !errors.Is(err, errEnded) {
			break
		}
	}
	t.refusedCall(err)
	return reply, err
}

// refusedCall counts a call that found the queue full.
func (t *TCP) refusedCall(err error) {
	if errors.Is(err, ErrQueueFull) {
		t.count.refused.Add(1)
	}
}

// Reachable implements [Transport].
func (t *TCP) Reachable(ctx context.Context, to kv.NodeID) error {
	if _, err := checkCall(ctx, to, nil, 0); err != nil {
		return err
	}
	p, err := t.peer(to)
	if err != nil {
		return err
	}
	_, err = p.connect(ctx, redial.fresh)
	return err
}

// Connected implements [Transport].
func (t *TCP) Connected(to kv.NodeID) bool {
	p, ok := t.peers.Load(to)
	return ok && p.(*peer).standing() != nil //nolint:errcheck,forcetypeassert // nothing else is stored
}

// peer returns the state kept for a node, made if an address is known for it.
func (t *TCP) peer(id kv.NodeID) (*peer, error) {
	if t.ctx.Err() != nil {
		return nil, notRun(id, ErrClosed)
	}
	p, ok := t.peers.Load(id)
	if !ok {
		if _, known := t.opts.Resolve(id); !known {
			return nil, notRun(id, ErrUnknownPeer)
		}
		p, _ = t.peers.LoadOrStore(id, &peer{t: t, id: id})
	}
	return p.(*peer), nil //nolint:errcheck,forcetypeassert // nothing else is stored
}

// Close implements [Transport]. Answers that are queued still leave, for half a
// second at most. An error means that a handler did not return.
func (t *TCP) Close() error {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		t.running.Go(t.finish)
	}
	t.mu.Unlock()
	return waitAtMost(&t.running, closeWait)
}

// finish ends all that runs. No link comes after those that it sees.
func (t *TCP) finish() {
	t.cancel()
	_ = t.opts.Listener.Close() // the accept loop ends either way
	deadline := time.Now().Add(closeFlush)
	for _, k := range t.standing() {
		k.finish(deadline)
	}
}

// standing returns the links that there are.
func (t *TCP) standing() []*link {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.links))
}

// waitAtMost waits for goroutines, and returns an error if they take too long.
func waitAtMost(running *sync.WaitGroup, most time.Duration) error {
	done := make(chan struct{})
	go func() {
		running.Wait()
		close(done)
	}()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return errors.New("transport: a handler has not returned: handlers must not block")
	}
}

// start runs f in a goroutine that Close waits for. It returns false if it is
// too late for that.
func (t *TCP) start(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.running.Go(f)
	}
	return !t.closed
}

// register lets a link be watched, and ended by Close. It returns false if it
// is too late for that.
func (t *TCP) register(k *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.links[k] = struct{}{}
	}
	return !t.closed
}

// ended forgets a link.
func (t *TCP) ended(k *link, cause error) {
	t.mu.Lock()
	delete(t.links, k)
	t.mu.Unlock()
	log := t.log.Info
	if damaged(cause) {
		log = t.log.Warn
	}
	log("connection ended", zap.Stringer("node", k.remote.ID), zap.String("name", k.remote.Name), zap.Error(cause))
}

// watch ticks all links.
func (t *TCP) watch() {
	ticker := time.NewTicker(t.opts.PingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-ticker.C:
		}
		for _, k := range t.standing() {
			k.tick()
		}
	}
}

// jitter returns a number in [0, 1).
func (t *TCP) jitter() float64 {
	t.randomness.Lock()
	defer t.randomness.Unlock()
	return t.opts.Rand()
}
