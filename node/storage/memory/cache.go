package memory

import (
	"bytes"
	"sync"

	"github.com/starling-kv/starling/node/storage"
)

// Cache is a [storage.Cache] that forgets nothing by itself, for tests and the
// simulation. The zero Cache is empty.
type Cache struct {
	mu      sync.Mutex
	entries map[string][]byte
}

var _ storage.Cache = (*Cache)(nil)

// HasGet implements [storage.Cache].
func (c *Cache) HasGet(dst, key []byte) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	value, ok := c.entries[string(key)]
	return append(dst, value...), ok
}

// Set implements [storage.Cache].
func (c *Cache) Set(key, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = make(map[string][]byte)
	}
	c.entries[string(key)] = bytes.Clone(value)
}

// Del implements [storage.Cache].
func (c *Cache) Del(key []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, string(key))
}

// Reset implements [storage.Cache].
func (c *Cache) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
}
