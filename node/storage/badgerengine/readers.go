package badgerengine

import "sync"

// readers knows what reads may see and who is reading, so that a commit shows
// only when it is done, compaction keeps the versions that a read under way
// needs, and the database closes after the last read: it unmaps its files then.
//
// Versions are badger's timestamps, here a count of commits. They are kept here
// and not by badger because badger makes every new read wait for the commit
// under way, and with it for a stalled disk (txn.go, readTs).
type readers struct {
	mu      sync.Mutex
	visible uint64         // reads see commits up to this one
	active  map[uint64]int // reads under way, by what they see
	closed  bool
	idle    chan struct{} // made by close, closed when nobody reads
}

func newReaders(visible uint64) *readers {
	return &readers{visible: visible, active: map[uint64]int{}}
}

// enter returns what a new read sees, or false after close. Each enter that
// returned true is followed by one leave.
func (r *readers) enter() (version uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, false
	}
	r.active[r.visible]++
	return r.visible, true
}

func (r *readers) leave(version uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.active[version]--; r.active[version] == 0 {
		delete(r.active, version)
	}
	if r.closed && len(r.active) == 0 {
		close(r.idle)
	}
}

// show makes the commits up to version visible and returns the oldest version
// that a read may still need.
func (r *readers) show(version uint64) (oldest uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.visible = version
	oldest = version
	for v := range r.active {
		oldest = min(oldest, v)
	}
	return oldest
}

// close lets no read begin any more and waits for those under way. It reports
// whether this call was the first.
func (r *readers) close() bool {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return false
	}
	r.closed = true
	r.idle = make(chan struct{})
	if len(r.active) == 0 {
		close(r.idle)
	}
	r.mu.Unlock()
	<-r.idle
	return true
}
