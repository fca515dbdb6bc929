package storage

import (
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// Cache keeps copies of encoded records in memory, so that those in use need not
// be looked for in the engine. It may forget anything at any moment, and is safe
// for concurrent use. What it is given stays the caller's. The cache of
// github.com/VictoriaMetrics/fastcache is one.
type Cache interface {
	// HasGet appends what is kept under key to dst.
	HasGet(dst, key []byte) (value []byte, ok bool)
	Set(key, value []byte)
	Del(key []byte)
	// Reset forgets everything and gives its memory back.
	Reset()
}

// maxCached is the size in bytes of the largest encoded record that is cached:
// larger ones would push out many that cost as much to find.
const maxCached = 16 << 10

// recordCache keeps a [Cache] true to the engine: what it returns was the
// engine's at some moment since the call began. A commit replaces what is cached
// once the engine shows it. Readers add what they found, unless there was a
// commit in the same stripe since they began to look: it may be older.
//
// Nothing is cached of what has parts elsewhere, nor that there is nothing.
type recordCache struct {
	cache   Cache // nil: nothing is cached
	stripes [256]stripe

	hits, misses atomic.Uint64
}

type stripe struct {
	mu      sync.Mutex
	commits uint64
}

func (c *recordCache) stripe(key []byte) *stripe {
	return &c.stripes[xxhash.Sum64(key)%uint64(len(c.stripes))]
}

func (c *recordCache) get(key []byte) ([]byte, bool) {
	if c.cache == nil {
		return nil, false
	}
	payload, ok := c.cache.HasGet(nil, key)
	if ok {
		c.hits.Add(1)
	} else {
		c.misses.Add(1)
	}
	return payload, ok
}

// look is to be called before the engine is asked for key, and what it returns
// given to found.
func (c *recordCache) look(key []byte) (commits uint64) {
	if c.cache == nil {
		return 0
	}
	s := c.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// found adds what the engine holds under key, unless it may have been replaced
// since look returned commits.
func (c *recordCache) found(key []byte, commits uint64, payload []byte, ref reference) {
	if c.cache == nil || payload == nil || !ref.isZero() || len(payload) > maxCached {
		return
	}
	s := c.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.commits == commits {
		c.cache.Set(key, payload)
	}
}

// committed follows a commit of the engine that showed ops to readers, or failed
// and may have done so. Only the committing goroutine calls it, before it answers
// for any of them.
func (c *recordCache) committed(ops []Op, err error) {
	if c.cache == nil {
		return
	}
	for _, op := range ops {
		if space(op.Key[0]) == spaceRecord {
			c.replace(op, err)
		}
	}
}

func (c *recordCache) replace(op Op, err error) {
	s := c.stripe(op.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	payload, cacheable := cacheable(op)
	if err != nil || !cacheable {
		c.cache.Del(op.Key)
		return
	}
	c.cache.Set(op.Key, payload)
}

// cacheable returns the record that an operation stores, if it is one to cache.
func cacheable(op Op) ([]byte, bool) {
	if op.Delete || kind(op.Value[1]) != kindWhole || len(op.Value) > envelopeBytes+maxCached {
		return nil, false
	}
	return op.Value[envelopeBytes:], true
}

// reset forgets everything. Only the committing goroutine calls it.
func (c *recordCache) reset() {
	if c.cache == nil {
		return
	}
	for i := range c.stripes { // or who is reading could add what it found before
		c.stripes[i].mu.Lock()
		c.stripes[i].commits++
		c.stripes[i].mu.Unlock()
	}
	c.cache.Reset()
}
