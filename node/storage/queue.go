package storage

import "sync"

// task is one turn in the serial order of the committing goroutine.
type task struct {
	size int
	sync bool // done with nil means: on disk
	// run adds what the task changes to the round and says whether it does. An
	// error is answered at once; nothing was added then.
	run  func(*round) (wrote bool, err error)
	done func(error)
}

// queue holds the tasks that wait for the committing goroutine, bounded in
// number and bytes. It is safe for concurrent use; one goroutine takes.
type queue struct {
	maxLen, maxBytes int

	wake chan struct{} // holds a token when there may be something new to see

	mu      sync.Mutex
	tasks   []task
	bytes   int
	refusal error // why nothing more is taken in
	ended   bool  // await reports the end once the queue is empty
}

func newQueue(maxLen, maxBytes int) *queue {
	return &queue{maxLen: maxLen, maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// put appends t, or returns why it does not. An empty queue takes a task of any
// size, so that none is refused for ever.
func (q *queue) put(t task) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.refusal != nil:
		return q.refusal
	case len(q.tasks) == 0:
	case len(q.tasks) >= q.maxLen || q.bytes+t.size > q.maxBytes:
		return ErrBusy
	}
	q.tasks = append(q.tasks, t)
	q.bytes += t.size
	q.notify()
	return nil
}

// await waits until there is a task. It returns false after the end.
func (q *queue) await() bool {
	for {
		q.mu.Lock()
		waiting, ended := len(q.tasks), q.ended
		q.mu.Unlock()
		switch {
		case waiting > 0:
			return true
		case ended:
			return false
		}
		<-q.wake
	}
}

// take moves the oldest tasks to dst, up to the bounds given, but at least one
// if there is any.
func (q *queue) take(dst []task, maxLen, maxBytes int) []task {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.tasks) && n < maxLen && (n == 0 || bytes+q.tasks[n].size <= maxBytes) {
		bytes += q.tasks[n].size
		n++
	}
	dst = append(dst, q.tasks[:n]...)
	rest := copy(q.tasks, q.tasks[n:])
	clear(q.tasks[rest:])
	q.tasks, q.bytes = q.tasks[:rest], q.bytes-bytes
	return dst
}

// refuse makes put return err from now on. The first reason stays.
func (q *queue) refuse(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.refusal == nil {
		q.refusal = err
	}
}

// end makes await return false once the queue is empty.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.notify()
}

// depth returns how much is waiting.
func (q *queue) depth() (tasks, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.tasks), q.bytes
}

func (q *queue) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
