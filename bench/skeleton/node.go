package skeleton

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/starling-kv/starling/node/storage"
)

// Config is one node of three.
type Config struct {
	Client net.Listener
	Peer   net.Listener
	Others []string // peer addresses of the other two
	Engine storage.Engine
}

// Bucket is the only one that the skeleton knows.
const Bucket = "bench"

const (
	// replicas, writeQuorum and readQuorum are n, w and r.
	replicas    = 3
	writeQuorum = 2
	readQuorum  = 2

	prefix = "/kv/" + Bucket + "/"

	dialPause = 50 * time.Millisecond
	dialTime  = time.Second
)

// Node is a running node.
type Node struct {
	cfg       Config
	http      fasthttp.Server
	committer *committer
	others    [replicas - 1]*other
	turn      atomic.Uint32 // whom to read from besides

	ready   chan struct{}
	ctx     context.Context //nolint:containedctx // ends with the node
	end     context.CancelCauseFunc
	running sync.WaitGroup
	mu      sync.Mutex
	links   []*link
}

// other is another node, over the link that this one dialled.
type other struct {
	link  *link
	table table
}

var errClosed = errors.New("closed")

// Start runs a node; the engine and the listeners are the node's from now on.
func Start(cfg Config) (*Node, error) {
	if len(cfg.Others) != replicas-1 {
		return nil, fmt.Errorf("the skeleton has %d nodes, so %d others, not %d", replicas, replicas-1, len(cfg.Others))
	}
	n := &Node{cfg: cfg, committer: newCommitter(cfg.Engine), ready: make(chan struct{})}
	n.http = fasthttp.Server{Handler: n.serve, NoDefaultServerHeader: true, NoDefaultDate: true, NoDefaultContentType: true}
	n.ctx, n.end = context.WithCancelCause(context.Background())
	n.start(n.accept)
	n.start(n.committer.run)
	n.start(n.connect)
	return n, nil
}

// start runs f, whose end is the node's.
func (n *Node) start(f func() error) {
	n.running.Go(func() {
		if err := f(); err != nil {
			n.end(err)
		}
	})
}

// Ready reports whether the node is connected to the others and takes requests.
func (n *Node) Ready() bool {
	select {
	case <-n.ready:
		return true
	default:
		return false
	}
}

// Wait returns when the node has failed, with the reason, or was closed.
func (n *Node) Wait() error {
	<-n.ctx.Done()
	if err := context.Cause(n.ctx); !errors.Is(err, errClosed) {
		return err
	}
	return nil
}

// Close ends the node. Requests under way get no answer.
func (n *Node) Close() error {
	n.end(errClosed)
	_ = n.cfg.Client.Close()
	_ = n.cfg.Peer.Close()
	n.committer.close()
	n.mu.Lock()
	for _, l := range n.links {
		l.close()
	}
	n.mu.Unlock()
	n.running.Wait()
	return n.cfg.Engine.Close()
}

// connect dials the others and then takes clients.
func (n *Node) connect() error {
	for i, addr := range n.cfg.Others {
		conn, err := n.dial(addr)
		if err != nil {
			return err
		}
		o := &other{link: newLink(conn)}
		n.others[i] = o
		n.run(o.link, o.onAnswer)
	}
	close(n.ready)
	return n.http.Serve(n.cfg.Client)
}

// dial tries until the other node is up.
func (n *Node) dial(addr string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTime}
	for {
		conn, err := dialer.DialContext(n.ctx, "tcp", addr)
		if err == nil {
			return conn, nil
		}
		select {
		case <-n.ctx.Done():
			return nil, context.Cause(n.ctx)
		case <-time.After(dialPause):
		}
	}
}

func (n *Node) accept() error {
	for {
		conn, err := n.cfg.Peer.Accept()
		if err != nil {
			return err
		}
		l := newLink(conn)
		n.run(l, func(f frame) error { return n.onRequest(l, f) })
	}
}

func (n *Node) run(l *link, handle func(frame) error) {
	n.mu.Lock()
	n.links = append(n.links, l)
	n.mu.Unlock()
	if n.ctx.Err() != nil {
		l.close() // Close may have looked before
	}
	n.start(l.flush)
	n.start(func() error { return l.receive(handle) })
}

func (o *other) onAnswer(f frame) error {
	r, err := o.table.take(f.id)
	if err != nil {
		return err
	}
	if f.kind != kindAck {
		r.found, r.value = f.kind == kindValue, append(r.value[:0], f.value...)
	}
	r.answered()
	return nil
}

// onRequest serves another node, on the goroutine that reads from it.
func (n *Node) onRequest(l *link, f frame) error {
	switch f.kind {
	case kindGet:
		value, err := n.cfg.Engine.Get(f.key)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			l.send(frame{kind: kindMissing, id: f.id})
		case err != nil:
			return err
		default:
			l.send(frame{kind: kindValue, id: f.id, value: value})
		}
	case kindPut, kindPutSync:
		key, value := own(f.key, f.value)
		n.committer.add(write{key: key, value: value, sync: f.kind == kindPutSync, link: l, id: f.id})
	case kindAck, kindValue, kindMissing:
		return fmt.Errorf("%w: an answer from who asks", errFrame)
	}
	return nil
}

// own copies a key and a value into one piece of memory.
func own(key, value []byte) (k, v []byte) {
	b := append(append(make([]byte, 0, len(key)+len(value)), key...), value...)
	return b[:len(key):len(key)], b[len(key):]
}

// serve answers clients. The query of a write may say sync=true.
func (n *Node) serve(ctx *fasthttp.RequestCtx) {
	target, query, _ := bytes.Cut(ctx.Request.Header.RequestURI(), []byte("?"))
	key, ok := bytes.CutPrefix(target, []byte(prefix))
	switch {
	case !ok:
		ctx.SetStatusCode(fasthttp.StatusNotFound)
	case ctx.Request.Header.IsPut():
		n.put(key, ctx.Request.Body(), bytes.Contains(query, []byte("sync=true")))
		ctx.SetStatusCode(fasthttp.StatusNoContent)
	default:
		n.get(ctx, key)
	}
}

func (n *Node) put(key, value []byte, sync bool) {
	r := newRequest(replicas, writeQuorum)
	kind := kindPut
	if sync {
		kind = kindPutSync
	}
	for _, o := range n.others {
		o.link.send(frame{kind: kind, id: o.table.add(r), key: key, value: value})
	}
	key, value = own(key, value)
	n.committer.add(write{key: key, value: value, sync: sync, request: r})
	r.wait()
	r.leave()
}

// get answers with the value that this node has, or else the other one that it
// asks, once that has answered too.
func (n *Node) get(ctx *fasthttp.RequestCtx, key []byte) {
	r := newRequest(readQuorum-1, readQuorum-1)
	o := n.others[n.turn.Add(1)%uint32(len(n.others))]
	o.link.send(frame{kind: kindGet, id: o.table.add(r), key: key})
	value, err := n.cfg.Engine.Get(key)
	r.wait()
	defer r.leave()
	switch {
	case errors.Is(err, storage.ErrNotFound) && r.found:
		ctx.Response.SetBody(r.value)
	case errors.Is(err, storage.ErrNotFound):
		ctx.SetStatusCode(fasthttp.StatusNotFound)
	case err != nil:
		n.end(err)
		ctx.SetStatusCode(fasthttp.StatusInternalServerError)
	default:
		ctx.Response.SetBodyRaw(value)
	}
}
