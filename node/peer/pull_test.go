package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

func TestPull(t *testing.T) {
	gather(t, func(c *trio) {
		here, there := c.shelves[0], c.shelves[1]
		keys := names("absent", "a", "unreadable", "b", "external")
		there.records[keys[1]], there.records[keys[2]], there.records[keys[3]], there.records[keys[4]] = "A", "U", "B", "external"
		there.unreadable[keys[2]] = true
		held, err := c.clients[0].Pull(c.ctx, node(1), keys, false)
		if err != nil || !slices.Equal(held, []bool{true, true, false, true, true}) {
			t.Errorf("held %v, %v", held, err)
		}
		if len(here.records) != 3 || here.records[keys[1]] != "A" || here.records[keys[4]] != "value" {
			t.Errorf("here is %v", here.records)
		}
		if !slices.Equal(here.asked, []string{"sync"}) || !slices.Equal(c.stubs[1].notes(), []string{"value external"}) {
			t.Errorf("asked here %q, there %q", here.asked, c.stubs[1].notes())
		}
		held, err = c.clients[0].Pull(c.ctx, node(1), keys[1:2], true)
		if err != nil || !held[0] || here.records[keys[1]] != "A and hints" {
			t.Errorf("as a stand-in: held %v, %v, here is %v", held, err, here.records)
		}
		if _, err := c.clients[0].Pull(c.ctx, node(0), keys, false); !errors.Is(err, errOwnPull) {
			t.Errorf("from itself: %v", err)
		}
	})
}

func TestPullOfPages(t *testing.T) {
	gather(t, func(c *trio) {
		keys := make([]kv.Key, 2*pullKeys+10)
		for i := range keys {
			keys[i] = kv.Key{Bucket: "b", Name: fmt.Sprint("k", i)}
			c.shelves[1].records[keys[i]] = "v"
		}
		c.shelves[1].pageLen = 1000
		held, err := c.clients[0].Pull(c.ctx, node(1), keys, false)
		if err != nil || slices.Contains(held, false) || len(c.shelves[0].records) != len(keys) {
			t.Errorf("here are %d, %v", len(c.shelves[0].records), err)
		}
		if pages := len(c.shelves[1].asked); pages != 3 {
			t.Errorf("%d pages", pages)
		}
	})
}

// Whoever knows a higher reap number refuses what was read under a lower one. A
// source that is behind learns the number and reads again, if it may; a puller
// that is behind takes what comes.
func TestPullAndReapNumbers(t *testing.T) {
	keys := names("a", "b")
	for _, tt := range []struct {
		name        string
		here, there uint64
		stubborn    bool
		held        bool
		after       uint64 // the number of the source
		asked       []string
	}{
		{"equal", 5, 5, false, true, 5, []string{"keys"}},
		{"the source is ahead", 4, 5, false, true, 5, []string{"keys"}},
		{"the source is behind", 6, 5, false, true, 6, []string{"keys", "raise", "keys"}},
		{"and does not raise", 6, 5, true, false, 5, []string{"keys", "raise", "keys", "raise", "keys"}},
	} {
		gather(t, func(c *trio) {
			here, there := c.shelves[0], c.shelves[1]
			here.reap, there.reap, there.stubborn = tt.here, tt.there, tt.stubborn
			there.records[keys[0]], there.records[keys[1]] = "A", "B"
			held, err := c.clients[0].Pull(c.ctx, node(1), keys, false)
			if err != nil || held[0] != tt.held || held[1] != tt.held || (len(here.records) == 2) != tt.held {
				t.Errorf("%s: held %v, %v", tt.name, held, err)
			}
			if there.reap != tt.after || here.reap != tt.here || !slices.Equal(there.asked, tt.asked) {
				t.Errorf("%s: numbers %d here, %d there, asked %q", tt.name, here.reap, there.reap, there.asked)
			}
		})
	}
}

// Before anything is told, both sides know the same layouts.
func TestPullAgreesOnTheView(t *testing.T) {
	old := viewOf(t, 3, nil)
	next := viewOf(t, 2, old.Active()[0])
	keys := names("a")
	for _, tt := range []struct {
		name       string
		behind     int
		askedHere  []string
		askedThere []string
	}{
		{"the puller is behind", 0, []string{"learn", "sync"}, []string{"keys", "keys"}},
		{"the source is behind", 1, []string{"sync"}, []string{"keys", "learn", "keys"}},
	} {
		gather(t, func(c *trio) {
			c.shelves[1-tt.behind].view = next
			c.shelves[1].records[keys[0]] = "A"
			held, err := c.clients[0].Pull(c.ctx, node(1), keys, false)
			if err != nil || !held[0] {
				t.Errorf("%s: held %v, %v", tt.name, held, err)
			}
			if !slices.Equal(c.shelves[0].asked, tt.askedHere) || !slices.Equal(c.shelves[1].asked, tt.askedThere) {
				t.Errorf("%s: asked here %q, there %q", tt.name, c.shelves[0].asked, c.shelves[1].asked)
			}
		})
	}
}

// What is wrong with one key is tried again and concerns no other; what is wrong
// with the node ends the pull, and what was merged is synced and stays.
func TestPullThatFails(t *testing.T) {
	keys := names("a", "b", "c")
	odd := errors.New("changed meanwhile")
	busy := errBusy("a test")
	stale := func(c *trio) error { return &coordinator.StaleViewError{View: c.shelves[0].view} }
	for _, tt := range []struct {
		name string
		plan func(c *trio)
		held []bool
		err  error
	}{
		{"once", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{odd} }, []bool{true, true, true}, nil},
		{"a view is learnt meanwhile", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{stale(c)} }, []bool{true, true, true}, nil},
		{
			"for ever", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{odd, odd, odd, nil} },
			[]bool{true, false, true},
			nil,
		},
		{
			"not owned", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{coordinator.ErrNotOwner, nil} },
			[]bool{true, false, true},
			nil,
		},
		{"this node is busy", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{busy} }, []bool{true, false, false}, busy},
		{
			"the time is over", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{context.DeadlineExceeded} },
			[]bool{true, false, false},
			context.DeadlineExceeded,
		},
		{"the disk fails", func(c *trio) { c.shelves[0].syncErr = odd }, []bool{false, false, false}, odd},
		{
			"the source is gone", func(c *trio) { c.net.SetDown(node(1), true) },
			[]bool{false, false, false},
			transport.ErrRefused,
		},
	} {
		gather(t, func(c *trio) {
			c.shelves[1].pageLen = 2
			for _, k := range keys {
				c.shelves[1].records[k] = "v"
			}
			tt.plan(c)
			held, err := c.clients[0].Pull(c.ctx, node(1), keys, false)
			if !slices.Equal(held, tt.held) || !errors.Is(err, tt.err) {
				t.Errorf("%s: held %v, %v", tt.name, held, err)
			}
			if c.shelves[0].merged != 0 {
				t.Errorf("%s: %d merged, not synced", tt.name, c.shelves[0].merged)
			}
		})
	}
}

// A source serves a few at once, and tells the others to come back.
func TestSourceIsBounded(t *testing.T) {
	gather(t, func(c *trio) {
		there := c.shelves[1]
		there.wait = make(chan bool)
		ask := func() error {
			_, err := c.clients[0].Pull(c.ctx, node(1), names("a"), false)
			return err
		}
		var waiting sync.WaitGroup
		for range pullsAtOnce {
			waiting.Go(func() {
				if err := ask(); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if err := ask(); !overloaded(err) {
			t.Errorf("pull %d: %v", pullsAtOnce+1, err)
		}
		close(there.wait)
		waiting.Wait()
		if err := ask(); err != nil {
			t.Error(err)
		}
	})
}

// leafKeys are so many keys, and the leaves that they are of.
func leafKeys(n int) (keys []kv.Key, leaves []uint8) {
	for i := range n {
		k := kv.Key{Bucket: "b", Name: fmt.Sprint("k", i)}
		keys = append(keys, k)
		leaves = append(leaves, k.Leaf())
	}
	slices.Sort(leaves)
	return keys, slices.Compact(leaves)
}

func TestPullLeaves(t *testing.T) {
	keys, leaves := leafKeys(1000)
	for _, pageLen := range []int{1, 7, 1000, 2000} {
		gather(t, func(c *trio) {
			here, there := c.shelves[0], c.shelves[1]
			there.pageLen = pageLen
			for _, k := range keys {
				there.records[k] = "value"
			}
			there.records[keys[5]] = "external"
			records, bytes, err := c.clients[0].PullLeaves(c.ctx, node(1), 0, leaves)
			if err != nil || records != 1000 || len(here.records) != 1000 {
				t.Errorf("pages of %d: %d records, here are %d, %v", pageLen, records, len(here.records), err)
			}
			if bytes < 5000 || bytes > 5020 || here.merged != 0 {
				t.Errorf("pages of %d: %d bytes, %d not synced", pageLen, bytes, here.merged)
			}
			if _, _, err := c.clients[0].PullLeaves(c.ctx, node(0), 0, leaves); !errors.Is(err, errOwnPull) {
				t.Errorf("from itself: %v", err)
			}
		})
	}
}

// All records of the leaves are held in the end, or there is an error; what
// belongs to other owners only is no part of it.
func TestPullLeavesThatFails(t *testing.T) {
	keys, leaves := leafKeys(10)
	odd := errors.New("changed meanwhile")
	for _, tt := range []struct {
		name string
		plan func(c *trio)
		here int // records
		ok   bool
	}{
		{"once", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{odd, odd} }, 10, true},
		{"for ever", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{odd, odd, odd, odd} }, -1, false},
		{"not owned", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{coordinator.ErrNotOwner} }, 9, true},
		{"the number of the source is behind", func(c *trio) { c.shelves[0].reap = 3 }, 10, true},
		{"and stays so", func(c *trio) { c.shelves[0].reap, c.shelves[1].stubborn = 3, true }, 0, false},
		{"the source has damaged records", func(c *trio) { c.shelves[1].unreadable[keys[3]] = true }, 9, false},
		{"this node is busy", func(c *trio) { c.shelves[0].answers[keys[1]] = []error{errBusy("a test")} }, -1, false},
		{"the disk fails", func(c *trio) { c.shelves[0].syncErr = odd }, 10, false},
		{"the source is gone", func(c *trio) { c.net.SetDown(node(1), true) }, 0, false},
		{"pages without an end", func(c *trio) { c.shelves[1].endless = true }, 10, false},
	} {
		gather(t, func(c *trio) {
			here, there := c.shelves[0], c.shelves[1]
			there.pageLen = 3
			for _, k := range keys {
				there.records[k] = "v"
			}
			tt.plan(c)
			records, _, err := c.clients[0].PullLeaves(c.ctx, node(1), 0, leaves)
			if (err == nil) != tt.ok || tt.here >= 0 && len(here.records) != tt.here || tt.ok && records != tt.here {
				t.Errorf("%s: %d records, here are %d, %v", tt.name, records, len(here.records), err)
			}
			if here.merged != 0 {
				t.Errorf("%s: %d merged, not synced", tt.name, here.merged)
			}
		})
	}
}
