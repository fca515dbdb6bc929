package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

// maxHandshakes bounds the accepted connections that have proven nothing yet.
const maxHandshakes = 256

// linkKey names a link on its accepter's side.
type linkKey struct {
	node        kv.NodeID
	incarnation uint64
	link        uint64
}

// accept takes connections until the listener is closed.
func (t *TCP) accept() {
	for {
		raw, err := t.opts.Listener.Accept()
		switch {
		case t.ctx.Err() != nil:
			return
		case err != nil:
			t.log.Warn("cannot accept connections", zap.Error(err))
			t.pause()
		default:
			t.admit(raw)
		}
	}
}

// pause waits until an accept may work again, for want of a file descriptor
// say.
func (t *TCP) pause() {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
	}
}

// admit starts the handshake of an accepted connection, if there is a slot.
func (t *TCP) admit(raw net.Conn) {
	s := socket{Conn: raw, raw: raw}
	select {
	case t.handshakes <- struct{}{}:
	default:
		s.abort()
		return
	}
	if t.opts.ListenTLS != nil {
		s.Conn = tls.Server(raw, t.opts.ListenTLS)
	}
	t.running.Go(func() {
		defer func() { <-t.handshakes }()
		t.welcome(s)
	})
}

// welcome shakes hands with a dialler and gives the lane to its link.
func (t *TCP) welcome(s socket) {
	var remote Hello
	var id laneID
	err := t.inTime(s, func() (err error) {
		remote, id, err = t.hands.accept(s)
		return err
	})
	if err != nil {
		t.log.Warn("connection not accepted", zap.Stringer("from", s.RemoteAddr()), zap.Error(err))
		return
	}
	if id.lane >= laneCount || !t.enter(remote, id, s) {
		s.abort()
	}
}

// enter gives an accepted lane to its link, which its first lane makes.
func (t *TCP) enter(remote Hello, id laneID, s socket) bool {
	key := linkKey{node: remote.Node, incarnation: remote.Incarnation, link: id.link}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	k := t.accepted[key]
	if k == nil {
		k = newLink(remote.peer(), &t.opts, &t.count, t.onRequest)
		t.links[k] = struct{}{}
		t.accepted[key] = k
		t.running.Go(func() { t.serveLink(key, k) })
	}
	return k.attach(int(id.lane), s)
}

// serveLink stays with an accepted link to its end.
func (t *TCP) serveLink(key linkKey, k *link) {
	cause := k.own()
	t.mu.Lock()
	delete(t.accepted, key)
	t.mu.Unlock()
	t.ended(k, cause)
}

// inTime runs a handshake within its time, and ends it if the transport closes.
// If it fails, the connection is closed and the refusal counted.
func (t *TCP) inTime(s socket, handshake func() error) error {
	release := context.AfterFunc(t.ctx, s.abort)
	defer release()
	err := s.SetDeadline(time.Now().Add(t.opts.HandshakeTimeout))
	if err == nil {
		err = handshake()
	}
	if err == nil {
		err = s.SetDeadline(time.Time{})
	}
	if err == nil {
		return nil
	}
	if refused, ok := errors.AsType[*HandshakeError](err); ok {
		t.count.refusedHandshake(refused.Reason)
	}
	s.abort()
	return err
}
