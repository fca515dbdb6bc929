package transport

import (
	"errors"
	"io"
	"runtime"
	"sync"
)

const (
	// keptBuffer bounds what an outbox keeps for the next frames, in bytes.
	keptBuffer = 256 << 10
	// writeChunk bounds one write, so that a slow peer shows progress between
	// writes where a stalled one shows none.
	writeChunk = 256 << 10
)

var errOutboxClosed = errors.New("outbox closed")

// outbox is what waits to be written to one connection. Frames are appended to
// one buffer, and one goroutine, in flush, writes what has gathered: tens of
// frames go out in one system call under load.
type outbox struct {
	limit int // most bytes to hold, beyond which frames are refused

	mu     sync.Mutex
	filled sync.Cond // pending is not empty, or state has changed
	state  outboxState
	// pending are frames not yet taken, in order. Small ones share a buffer, which
	// is the last one if shared is true.
	pending [][]byte
	shared  bool
	spare   []byte // a buffer that was written, for the next small frames
	held    int    // bytes accepted and not yet written
	put     uint64 // bytes ever accepted
	writes  uint64 // writes begun and ended: odd while one is under way

	// sent counts the bytes that the connection took. It is flush's alone while
	// flush runs.
	sent uint64
}

type outboxState uint8

const (
	outboxOpen      outboxState = iota
	outboxFinishing             // takes no more frames, writes what it has
	outboxClosed                // writes nothing any more
)

func newOutbox(limit int) *outbox {
	o := &outbox{limit: limit}
	o.filled.L = &o.mu
	return o
}

// add queues a frame and returns the number of bytes ever queued up to its end:
// the frame has left in full once sent is no less. It never blocks: at the
// limit it returns [ErrQueueFull].
func (o *outbox) add(h header, body []byte) (end uint64, err error) {
	return o.queue(h, body, o.limit)
}

// addShort queues a frame of few bytes that the limit does not hold up; the
// number of such frames is bounded by what they answer.
func (o *outbox) addShort(h header, body []byte) error {
	_, err := o.queue(h, body, 2*o.limit)
	return err
}

func (o *outbox) queue(h header, body []byte, limit int) (uint64, error) {
	var whole []byte
	if len(body) > bulkBody { // copied before others are made to wait
		whole = appendFrame(make([]byte, 0, len(body)+frameExtra), h, body)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.state != outboxOpen:
		return 0, errOutboxClosed
	case o.held+len(body)+frameExtra > limit:
		return 0, ErrQueueFull
	}
	if whole != nil {
		o.pending = append(o.pending, whole)
		o.shared = false
	} else {
		b := o.buffer()
		*b = appendFrame(*b, h, body)
	}
	o.held += len(body) + frameExtra
	o.put += uint64(len(body) + frameExtra)
	o.filled.Signal()
	return o.put, nil
}

// buffer returns the place for the next small frame.
func (o *outbox) buffer() *[]byte {
	if !o.shared {
		o.pending = append(o.pending, o.spare)
		o.spare, o.shared = nil, true
	}
	return &o.pending[len(o.pending)-1]
}

// flush writes frames until the outbox is closed, or finished and empty, or a
// write fails.
func (o *outbox) flush(to io.Writer) error {
	var batch [][]byte
	for {
		var ok bool
		if batch, ok = o.take(batch); !ok {
			return nil
		}
		for _, frames := range batch {
			if err := o.write(to, frames); err != nil {
				return err
			}
		}
		o.recycle(batch)
	}
}

// take waits for frames and returns all there are; done is for reuse. Between
// waking up and taking, it lets every goroutine that is ready to run add its
// frame: under load that gathers tens of them, and it costs nothing when idle.
func (o *outbox) take(done [][]byte) ([][]byte, bool) {
	o.mu.Lock()
	for len(o.pending) == 0 && o.state == outboxOpen {
		o.filled.Wait()
	}
	o.mu.Unlock()
	runtime.Gosched()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == outboxClosed || len(o.pending) == 0 {
		return nil, false
	}
	batch := o.pending
	o.pending, o.shared = done[:0], false
	return batch, true
}

// write writes b in chunks and keeps the accounts.
func (o *outbox) write(to io.Writer, b []byte) error {
	for len(b) > 0 {
		o.account(0)
		n, err := to.Write(b[:min(len(b), writeChunk)])
		o.account(n)
		o.sent += uint64(n)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// account marks the begin or the end of a write of which n bytes went.
func (o *outbox) account(n int) {
	o.mu.Lock()
	o.writes++
	o.held -= n
	o.mu.Unlock()
}

// recycle keeps one written buffer for the next small frames and forgets the
// others.
func (o *outbox) recycle(batch [][]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, b := range batch {
		if cap(b) <= keptBuffer && cap(b) > cap(o.spare) {
			o.spare = b[:0]
		}
		batch[i] = nil
	}
}

// progress returns a number that changes with every write, whether a write is
// under way, and whether anything waits.
func (o *outbox) progress() (writes uint64, writing, idle bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.writes, o.writes%2 == 1, o.held == 0
}

// finish lets flush write what is queued and return.
func (o *outbox) finish() { o.enter(outboxFinishing) }

// close makes flush return after the write that is under way.
func (o *outbox) close() { o.enter(outboxClosed) }

func (o *outbox) enter(s outboxState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = max(o.state, s)
	o.filled.Broadcast()
}
