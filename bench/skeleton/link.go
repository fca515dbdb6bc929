package skeleton

import (
	"net"
	"runtime"
	"sync"
)

// link is one connection between two nodes. Whoever dialled it sends requests
// over it and gets the answers.
type link struct {
	conn net.Conn

	mu      sync.Mutex
	filled  sync.Cond
	pending []byte // frames to be written
	spare   []byte // the other buffer
	closed  bool
}

func newLink(conn net.Conn) *link {
	l := &link{conn: conn}
	l.filled.L = &l.mu
	return l
}

// send queues a frame. What is queued is bounded by the requests under way.
func (l *link) send(f frame) {
	l.mu.Lock()
	l.pending = appendFrame(l.pending, f)
	l.mu.Unlock()
	l.filled.Signal()
}

// flush writes what is queued until the link is closed. It yields once before
// it takes the frames: under load all that is ready to run adds its own first.
func (l *link) flush() error {
	for {
		l.mu.Lock()
		for len(l.pending) == 0 && !l.closed {
			l.filled.Wait()
		}
		l.mu.Unlock()
		runtime.Gosched()
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return net.ErrClosed
		}
		frames := l.pending
		l.pending = l.spare[:0]
		l.mu.Unlock()
		if _, err := l.conn.Write(frames); err != nil {
			return err
		}
		l.spare = frames
	}
}

// receive calls handle for every frame that arrives.
func (l *link) receive(handle func(frame) error) error {
	r := newFrameReader(l.conn)
	for {
		f, err := r.next()
		if err != nil {
			return err
		}
		if err := handle(f); err != nil {
			return err
		}
	}
}

func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.filled.Broadcast()
	_ = l.conn.Close()
}
