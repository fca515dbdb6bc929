package deadline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// What ends a context must show however late, or never, the real one is made.
func TestContextEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(c *Context, parent, also context.CancelFunc)
		want error
	}{
		{"never", func(*Context, context.CancelFunc, context.CancelFunc) {}, nil},
		{"by itself", func(c *Context, _, _ context.CancelFunc) { c.End() }, context.Canceled},
		{"with its parent", func(_ *Context, parent, _ context.CancelFunc) { parent() }, context.Canceled},
		{"with the other", func(_ *Context, _, also context.CancelFunc) { also() }, context.Canceled},
		{"at the deadline", func(*Context, context.CancelFunc, context.CancelFunc) { time.Sleep(time.Minute) }, context.DeadlineExceeded},
	} {
		for _, made := range []string{"early", "late", "only asked"} {
			synctest.Test(t, func(t *testing.T) {
				c, parent, also := living(t)
				if made == "early" {
					_ = c.Done()
				}
				test.end(c, parent, also)
				synctest.Wait()
				if made == "late" {
					_ = c.Done()
				}
				if err := c.Err(); !errors.Is(err, test.want) {
					t.Errorf("ends %s, made %s: %v, want %v", test.name, made, err, test.want)
				}
				if test.want != nil {
					<-c.Done()
				}
			})
		}
	}
}

// living returns a context of a minute and what ends its parents. It ends with
// the test.
func living(t *testing.T) (c *Context, endParent, endAlso context.CancelFunc) {
	t.Helper()
	parent, endParent := context.WithCancel(t.Context())
	also, endAlso := context.WithCancel(t.Context())
	c = &Context{Parent: parent, Also: also, At: time.Now().Add(time.Minute)}
	t.Cleanup(func() {
		c.End()
		c.End()
		endAlso()
		endParent()
	})
	return c, endParent, endAlso
}

func TestChildrenEndWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := living(t)
		child, cancel := context.WithTimeout(c, time.Hour)
		defer cancel()
		if at, _ := child.Deadline(); !at.Equal(c.At) {
			t.Errorf("the child's deadline is %v", at)
		}
		c.End()
		<-child.Done()
	})
}

// An end must not be taken back: what is asked later is answered alike.
func TestEndIsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := living(t)
		c.End()
		before := c.Err()
		time.Sleep(time.Hour)
		if after := c.Err(); !errors.Is(after, before) {
			t.Errorf("first %v, then %v", before, after)
		}
	})
}

func TestToAskMakesNoTimer(t *testing.T) {
	c, _, _ := living(t)
	if err := c.Err(); err != nil || c.real != nil {
		t.Errorf("error %v, real context %v", err, c.real)
	}
}

func BenchmarkContext(b *testing.B) {
	parent, cancel := context.WithCancel(b.Context())
	defer cancel()
	at := time.Now().Add(time.Hour)
	b.Run("asked", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c := &Context{Parent: parent, Also: parent, At: at}
			_ = c.Err()
			c.End()
		}
	})
	b.Run("waited for", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c := &Context{Parent: parent, Also: parent, At: at}
			_ = c.Done()
			c.End()
		}
	})
}
