// Package deadline has the context of a request: one that costs next to nothing
// unless somebody waits for its end.
//
// Most requests end long before their deadline, and those that carry them out
// look at the deadline, or now and then at the error, but wait for neither. A
// context of the standard library costs such a request a timer and an entry in
// the list of its parent's children, which all requests share under one lock.
package deadline

import (
	"context"
	"sync"
	"time"
)

// Context ends at a time, with another context, or by [Context.End]. The real
// context, with its timer, is made when it is first asked for. A Context is safe
// for concurrent use, and must not be copied. Its exported fields are set before
// it is used and do not change.
type Context struct {
	// Parent ends the context with itself; its values are the context's.
	Parent context.Context
	// Also, if set, is another whose end ends the context.
	Also context.Context
	// At is the deadline: not after the Parent's.
	At time.Time

	mu     sync.Mutex
	ended  bool
	real   context.Context // nil until asked for
	cancel context.CancelFunc
}

var _ context.Context = (*Context)(nil)

// std returns the real context. Children derived from a Context attach themselves
// to it, not to a goroutine, because Value answers through it too.
func (c *Context) std() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		return c.real
	}
	c.real, c.cancel = context.WithDeadline(c.Parent, c.At)
	switch {
	case c.ended || c.Also != nil && c.Also.Err() != nil:
		c.cancel()
	case c.Also != nil:
		cancel, unhook := c.cancel, context.AfterFunc(c.Also, c.cancel)
		c.cancel = func() {
			unhook()
			cancel()
		}
	}
	return c.real
}

// End cancels the context and frees what it holds. It may be called again.
func (c *Context) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}

// Deadline implements [context.Context].
func (c *Context) Deadline() (time.Time, bool) { return c.At, true }

// Done implements [context.Context]. Whoever can do without, as it has a timer of
// its own to wait for, saves the real context.
func (c *Context) Done() <-chan struct{} { return c.std().Done() }

// Value implements [context.Context].
func (c *Context) Value(key any) any { return c.std().Value(key) }

// Err implements [context.Context], without the real context while nothing has
// ended.
func (c *Context) Err() error {
	c.mu.Lock()
	live := c.real == nil && !c.ended
	c.mu.Unlock()
	if live && c.Parent.Err() == nil && (c.Also == nil || c.Also.Err() == nil) && time.Until(c.At) > 0 {
		return nil
	}
	return c.std().Err()
}
