package transport

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

// peer is a node to which calls were made. Connections are made when they are
// wanted, by one attempt at a time that all who want one wait for.
type peer struct {
	t    *TCP
	id   kv.NodeID
	link atomic.Pointer[link] // the last one made; it may have ended

	mu      sync.Mutex
	attempt *attempt // under way
	redial  redial
}

// attempt is one try to make a link. Its results are there once done is closed.
type attempt struct {
	done chan struct{}
	link *link
	err  error
}

// standing returns the link if it is up.
func (p *peer) standing() *link {
	if k := p.link.Load(); k != nil && k.ctx.Err() == nil {
		return k
	}
	return nil
}

// connect returns a link, made anew if none is up, unless veto has something
// against an attempt. Errors prove that nothing has run.
func (p *peer) connect(ctx context.Context, veto func(redial, time.Time, string) error) (*link, error) {
	if k := p.standing(); k != nil {
		return k, nil
	}
	a, err := p.join(veto) //nolint:contextcheck // an attempt serves all who wait for it, so it outlives the one who started it
	if err != nil {
		return nil, notRun(p.id, err)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil, notRun(p.id, fmt.Errorf("connecting: %w", ctx.Err()))
	}
	if a.err != nil {
		return nil, notRun(p.id, a.err)
	}
	return a.link, nil
}

// join returns the attempt under way, or starts one.
func (p *peer) join(veto func(redial, time.Time, string) error) (*attempt, error) {
	addr, ok := p.t.opts.Resolve(p.id)
	if !ok {
		return nil, ErrUnknownPeer
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.attempt != nil {
		return p.attempt, nil
	}
	a := &attempt{done: make(chan struct{})}
	if k := p.standing(); k != nil { // made since the caller looked
		a.link = k
		close(a.done)
		return a, nil
	}
	if err := veto(p.redial, time.Now(), addr); err != nil {
		return nil, err
	}
	if !p.t.start(func() { p.run(a, addr) }) {
		return nil, ErrClosed
	}
	p.attempt = a
	return a, nil
}

// run makes the attempt and, if it succeeds, stays with the link to its end.
func (p *peer) run(a *attempt, addr string) {
	k, err := p.t.dialLink(p.id, addr)
	p.settle(a, addr, k, err)
	if k == nil {
		return
	}
	p.t.log.Info("connected", zap.Stringer("node", p.id), zap.String("name", k.remote.Name), zap.String("addr", addr))
	cause := k.own()
	if errors.Is(cause, errSilent) || errors.Is(cause, errStalled) {
		p.mu.Lock()
		p.redial = fellSilent(time.Now(), addr, cause)
		p.mu.Unlock()
	}
	p.t.ended(k, cause)
}

// silent returns why no call should wait for a link: at the last attempt, nobody
// answered. It has the next attempt made when that is due.
func (p *peer) silent() error {
	addr, ok := p.t.opts.Resolve(p.id)
	if !ok {
		return nil
	}
	p.mu.Lock()
	why := p.redial.silent(addr)
	p.mu.Unlock()
	if why == nil {
		return nil
	}
	if _, err := p.join(redial.veto); err != nil {
		why = err
	}
	return notRun(p.id, why)
}

func (p *peer) settle(a *attempt, addr string, k *link, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.link, a.err, p.attempt = k, err, nil
	if err == nil {
		p.link.Store(k)
		p.redial = redial{}
	} else {
		p.report(addr, err)
		p.redial = p.redial.after(time.Now(), addr, err, p.t.jitter(), p.t.opts.RedialMin, p.t.opts.RedialMax)
	}
	close(a.done)
}

// report logs a failed attempt, once for a row of failures of one kind.
func (p *peer) report(addr string, err error) {
	level := zap.WarnLevel
	if p.redial.err != nil && p.redial.err.Error() == err.Error() {
		level = zap.DebugLevel
	}
	p.t.log.Log(level, "cannot connect", zap.Stringer("node", p.id), zap.String("addr", addr), zap.Error(err))
}

// dialLink connects all lanes of a new link, or none.
func (t *TCP) dialLink(to kv.NodeID, addr string) (*link, error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // ends the process rather than return an error
	id := laneID{link: binary.BigEndian.Uint64(random[:])}
	var lanes [laneCount]socket
	var remote Hello
	for i := range lanes {
		var err error
		id.lane = uint8(i)
		if lanes[i], remote, err = t.dialLane(to, addr, id); err != nil {
			closeAll(lanes[:i])
			return nil, err
		}
	}
	k := newLink(remote.peer(), &t.opts, &t.count, onAnswer)
	if !t.register(k) {
		closeAll(lanes[:])
		return nil, ErrClosed
	}
	for i, s := range lanes {
		if !k.attach(i, s) {
			k.fail(errEnded)
		}
	}
	return k, nil
}

func closeAll(lanes []socket) {
	for _, s := range lanes {
		s.abort()
	}
}

// dialLane connects and shakes hands.
func (t *TCP) dialLane(to kv.NodeID, addr string, id laneID) (socket, Hello, error) {
	t.count.dials.Add(1)
	ctx, cancel := context.WithTimeout(t.ctx, t.opts.DialTimeout)
	raw, err := t.opts.Dial(ctx, "tcp", addr)
	cancel()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return socket{}, Hello{}, fmt.Errorf("%w: %w", ErrRefused, err)
	case err != nil:
		return socket{}, Hello{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	s := socket{Conn: raw, raw: raw}
	if t.opts.DialTLS != nil {
		s.Conn = tls.Client(raw, t.opts.DialTLS)
	}
	var remote Hello
	err = t.inTime(s, func() (err error) {
		remote, err = t.hands.dial(s, to, id)
		return err
	})
	if err != nil && !errors.Is(err, ErrHandshake) {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return s, remote, err
}
