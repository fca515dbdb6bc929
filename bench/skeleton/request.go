package skeleton

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// request is one client's request over the replicas.
type request struct {
	missing atomic.Int32  // answers until it is enough
	open    atomic.Int32  // answers still to come, and the one who waits
	enough  chan struct{} // has room for the one signal
	// found and value are what the other replica of a read answered. They belong
	// to the one who waits once there is enough.
	found bool
	value []byte
}

var requests = sync.Pool{New: func() any { return &request{enough: make(chan struct{}, 1)} }}

// newRequest returns a request that is asked of so many replicas and needs so
// many answers.
func newRequest(asked, needed int32) *request {
	r, _ := requests.Get().(*request)
	r.missing.Store(needed)
	r.open.Store(asked + 1)
	return r
}

// answered counts one answer.
func (r *request) answered() {
	if r.missing.Add(-1) == 0 {
		r.enough <- struct{}{}
	}
	r.leave()
}

// wait returns when there are enough answers. Leave follows.
func (r *request) wait() { <-r.enough }

// leave is the last use of the request by who waited, or by an answer.
func (r *request) leave() {
	if r.open.Add(-1) == 0 {
		requests.Put(r)
	}
}

// table pairs the answers on a link with the requests.
type table struct {
	mu   sync.Mutex
	open []*request
	free []uint32
}

func (t *table) add(r *request) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		id := t.free[n-1]
		t.free = t.free[:n-1]
		t.open[id] = r
		return id
	}
	t.open = append(t.open, r)
	return uint32(len(t.open) - 1)
}

func (t *table) take(id uint32) (*request, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if int(id) >= len(t.open) || t.open[id] == nil {
		return nil, fmt.Errorf("%w: nobody asked for answer %d", errFrame, id)
	}
	r := t.open[id]
	t.open[id] = nil
	t.free = append(t.free, id)
	return r, nil
}
