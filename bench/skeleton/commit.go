package skeleton

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/starling-kv/starling/node/storage"
)

// write is one write on its way into the engine. Its answer goes to a request
// of this node or to a link.
type write struct {
	key, value []byte
	sync       bool
	request    *request
	link       *link
	id         uint32
}

func (w *write) answer() {
	if w.request != nil {
		w.request.answered()
		return
	}
	w.link.send(frame{kind: kindAck, id: w.id})
}

// committer gathers writes and commits them together. What is queued is bounded
// by the requests under way.
type committer struct {
	engine storage.Engine

	mu     sync.Mutex
	filled sync.Cond
	queue  []write
	closed bool
}

func newCommitter(e storage.Engine) *committer {
	c := &committer{engine: e}
	c.filled.L = &c.mu
	return c
}

func (c *committer) add(w write) {
	c.mu.Lock()
	c.queue = append(c.queue, w)
	c.mu.Unlock()
	c.filled.Signal()
}

func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.filled.Broadcast()
}

// run commits until the committer is closed or the engine fails.
func (c *committer) run() error {
	var writes []write
	var batch storage.Batch
	for {
		var ok bool
		if writes, ok = c.take(writes); !ok {
			return nil
		}
		if err := c.commit(writes, &batch); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		clear(writes)
	}
}

// take waits for writes, lets all that is ready to run add its own, and takes
// them all.
func (c *committer) take(done []write) ([]write, bool) {
	c.mu.Lock()
	for len(c.queue) == 0 && !c.closed {
		c.filled.Wait()
	}
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false
	}
	taken := c.queue
	c.queue = done[:0]
	return taken, true
}

// commit reads and writes each key, in as few transactions as the engine takes,
// and answers each write when its transaction is done.
func (c *committer) commit(writes []write, batch *storage.Batch) error {
	answered, sync := 0, false
	flush := func(upTo int) error {
		if err := c.engine.Commit(batch, sync); err != nil {
			return err
		}
		for i := range writes[answered:upTo] {
			writes[answered+i].answer()
		}
		batch.Reset()
		answered, sync = upTo, false
		return nil
	}
	for i, w := range writes {
		if _, err := c.engine.Get(w.key); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if batch.Size()+len(w.key)+len(w.value)+1024 > c.engine.MaxBatch() {
			if err := flush(i); err != nil {
				return err
			}
		}
		batch.Set(w.key, w.value)
		sync = sync || w.sync
	}
	return flush(len(writes))
}
