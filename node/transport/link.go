package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// The lanes of a link. Bodies over bulkBody take the second one, so that a
// large value never stands in the way of small calls.
const (
	laneSmall = 0
	laneBulk  = 1
	laneCount = 2

	bulkBody = 64 << 10 // bytes
)

var (
	errSilent  = errors.New("nothing heard for too long")
	errStalled = errors.New("peer takes no more bytes")
	errEnded   = fmt.Errorf("%w: link has ended", ErrLost)
)

// link is the connections that one node dialled to another; requests go from
// the dialler to the accepter. Its lanes live and die together, so that an
// answer may come on another lane than its request went.
type link struct {
	remote  Peer
	limits  *Options
	count   *counters
	receive func(*lane, frame) error // on the read loop of the lane
	calls   calls                    // of the dialler

	ctx  context.Context // ends with the link
	fail context.CancelCauseFunc

	lanes   [laneCount]atomic.Pointer[lane]
	mu      sync.Mutex // orders attach and close
	closed  bool
	running sync.WaitGroup // read loops and flushers
}

func newLink(remote Peer, limits *Options, count *counters, receive func(*lane, frame) error) *link {
	k := &link{remote: remote, limits: limits, count: count, receive: receive}
	k.calls.open = make(map[uint64]*call)
	k.ctx, k.fail = context.WithCancelCause(context.Background())
	return k
}

// socket is a connection as frames see it, and what it is at the bottom.
type socket struct {
	net.Conn // TLS, if it is used

	raw net.Conn
}

// abort frees whoever reads or writes. It does not block, as the farewell of
// TLS might.
func (s socket) abort() { _ = s.raw.Close() } // nobody is left to be told of an error

// attach gives the link one of its lanes. It returns false, and does not take
// the socket, if the link has ended or has that lane.
func (k *link) attach(i int, s socket) bool {
	l := &lane{link: k, socket: s, out: newOutbox(k.limits.MaxQueued), flushed: make(chan struct{})}
	l.serving.open = make(map[uint64]*Request)
	l.frames = newFrameReader(l, k.limits.MaxBody)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || !k.lanes[i].CompareAndSwap(nil, l) {
		return false
	}
	k.count.connections.Add(1)
	k.running.Go(func() { k.fail(l.read()) })
	k.running.Go(func() {
		defer close(l.flushed)
		if err := l.out.flush(l); err != nil {
			k.fail(err)
		}
	})
	return true
}

// own waits until the link has failed, ends its lanes, waits for their
// goroutines and fails the calls in flight. By then it is known for each of
// them whether it left.
func (k *link) own() error {
	<-k.ctx.Done()
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	cause := context.Cause(k.ctx)
	for l := range k.attached {
		l.end(errors.Is(cause, io.EOF) || errors.Is(cause, io.ErrUnexpectedEOF))
	}
	k.running.Wait()
	for l := range k.attached {
		l.socket.abort()
		k.count.connections.Add(-1)
	}
	for _, c := range k.calls.end() {
		k.complete(c, 0, nil)
	}
	if damaged(cause) {
		k.count.corrupt.Add(1)
	}
	return cause
}

// finish lets what is queued leave until the deadline, then ends the link.
func (k *link) finish(deadline time.Time) {
	for l := range k.attached {
		_ = l.socket.SetWriteDeadline(deadline) // a socket that cannot is closed below all the same
		l.out.finish()
	}
	for l := range k.attached {
		<-l.flushed
	}
	k.fail(ErrClosed)
}

// tick looks after the lanes; see [lane.tick].
func (k *link) tick() {
	for l := range k.attached {
		if err := l.tick(k.limits.silentTicks()); err != nil {
			k.fail(err)
		}
	}
}

// attached yields the lanes that there are, in order.
func (k *link) attached(yield func(*lane) bool) {
	for i := range k.lanes {
		if l := k.lanes[i].Load(); l != nil && !yield(l) {
			return
		}
	}
}

// laneFor returns the lane for a body of so many bytes; otherwise where that
// one is missing.
func (k *link) laneFor(size int, otherwise *lane) *lane {
	i := laneSmall
	if size > bulkBody {
		i = laneBulk
	}
	if l := k.lanes[i].Load(); l != nil {
		return l
	}
	return otherwise
}

// lane is one connection of a link.
type lane struct {
	link    *link
	socket  socket
	out     *outbox
	frames  *frameReader
	serving serving       // of the accepter
	flushed chan struct{} // closed when out is flushed for good

	heard atomic.Bool // bytes came since the last tick

	// tick's alone:
	silent, stalled int    // ticks without a byte; in one and the same write
	writes          uint64 // at the last tick
}

// end makes the goroutines of the lane return. If it was the other side that
// closed the link, answers may still be on their way on this lane, and have a
// moment to arrive.
func (l *lane) end(closedByPeer bool) {
	l.out.close()
	if !closedByPeer || l.socket.SetDeadline(time.Now().Add(closeFlush)) != nil {
		l.socket.abort()
	}
}

// read delivers frames until the stream ends or makes no sense.
func (l *lane) read() error {
	for {
		f, err := l.frames.next()
		if err != nil {
			return err
		}
		if err := l.link.receive(l, f); err != nil {
			return err
		}
	}
}

// Read reads from the connection and takes note of it.
func (l *lane) Read(b []byte) (int, error) {
	n, err := l.socket.Read(b)
	if n > 0 {
		l.heard.Store(true)
		l.link.count.bytesIn.Add(uint64(n))
	}
	return n, err
}

// Write writes to the connection and takes note of it.
func (l *lane) Write(b []byte) (int, error) {
	n, err := l.socket.Write(b)
	l.link.count.bytesOut.Add(uint64(n))
	return n, err
}

// tick is called at every ping interval. It says something if nothing was said
// since the last tick, and returns an error after limit ticks in which the
// other side said nothing, or took nothing. Both sides do so; hence no ping
// needs an answer. It counts ticks and does not look at the clock: a process
// that was stopped itself finds its peers' bytes before it blames them.
func (l *lane) tick(limit int) error {
	writes, writing, idle := l.out.progress()
	still := writes == l.writes
	l.writes = writes
	l.silent = next(l.silent, !l.heard.Swap(false))
	l.stalled = next(l.stalled, still && writing)
	switch {
	case l.silent > limit:
		return errSilent
	case l.stalled > limit:
		return errStalled
	case still && idle:
		_ = l.out.addShort(header{kind: kindPing}, nil) // a closed outbox needs none
	}
	return nil
}

// next counts how often in a row something held.
func next(count int, held bool) int {
	if held {
		return count + 1
	}
	return 0
}
