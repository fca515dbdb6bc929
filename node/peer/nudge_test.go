package peer

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/starling-kv/starling/kv"
)

func TestNudge(t *testing.T) {
	keys := names("a", "unreadable")
	for _, tt := range []struct {
		name     string
		to, from int // from -1: the caller
		source   int
	}{
		{"from the caller", 1, -1, 0},
		{"from the caller, by name", 1, 0, 0},
		{"from a third", 1, 2, 2},
		{"this node itself", 0, 2, 2},
	} {
		gather(t, func(c *trio) {
			source, to := c.shelves[tt.source], c.shelves[tt.to]
			source.records[keys[0]], source.records[keys[1]] = "A", "U"
			source.unreadable[keys[1]] = true
			to.room = 7
			held, room, pause, err := c.clients[0].Nudge(c.ctx, node(tt.to), kv.NodeID(tt.from+1), keys, false)
			if err != nil || !slices.Equal(held, []bool{true, false}) || room != 7 || pause != 0 {
				t.Errorf("%s: held %v, room %d, pause %v, %v", tt.name, held, room, pause, err)
			}
			if to.records[keys[0]] != "A" || to.merged != 0 {
				t.Errorf("%s: holds %v, %d not synced", tt.name, to.records, to.merged)
			}
		})
	}
}

// A node that owns a key takes what it keeps for another as its own.
func TestNudgeOfItself(t *testing.T) {
	gather(t, func(c *trio) {
		me, keys := c.shelves[0], names("a")
		me.records[keys[0]] = "A"
		held, _, _, err := c.clients[0].Nudge(c.ctx, node(0), 0, keys, true)
		if err != nil || !held[0] || me.records[keys[0]] != "A and hints" || me.merged != 0 {
			t.Errorf("held %v, %v, holds %v, %d not synced", held, err, me.records, me.merged)
		}
		if _, _, _, err := c.clients[0].Nudge(c.ctx, node(0), 0, keys, false); err == nil {
			t.Error("pulled from itself")
		}
	})
}

func TestNudgesThatAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		from   kv.NodeID
		keys   []kv.Key
		plan   func(c *trio)
		reason string
		busy   bool
	}{
		{"nothing named", 0, nil, nil, "0 keys", false},
		{"too much named", 0, slices.Repeat(names("a"), maxKeys+1), nil, "4097 keys", false},
		{"from the one who is asked", node(1), names("a"), nil, errOwnPull.Error(), false},
		{"from a stranger", 0xabc, names("a"), nil, "0000000000000abc", false},
		{"no room", 0, names("a"), func(c *trio) { c.shelves[1].room = 0 }, "takes no more", true},
		{"the source is down", node(2), names("a"), func(c *trio) { c.net.SetDown(node(2), true) }, "0000000000000003", false},
		{"it is down", 0, names("a"), func(c *trio) { c.net.SetDown(node(1), true) }, "refused", false},
		{
			"its disk does not keep up", 0, names("a"),
			func(c *trio) { c.shelves[1].answers[names("a")[0]] = []error{errBusy("a test")} },
			"a test", true,
		},
	} {
		gather(t, func(c *trio) {
			if tt.plan != nil {
				tt.plan(c)
			}
			_, room, _, err := c.clients[0].Nudge(c.ctx, node(1), tt.from, tt.keys, false)
			if err == nil || !strings.Contains(err.Error(), tt.reason) || overloaded(err) != tt.busy || room != 0 {
				t.Errorf("%s: room %d, %v", tt.name, room, err)
			}
			if len(c.shelves[1].records) > 0 {
				t.Errorf("%s: something was taken", tt.name)
			}
		})
	}
}

// A node pulls for a few at once. The next is told that it is busy, before
// anything is done.
func TestNudgesAreBounded(t *testing.T) {
	gather(t, func(c *trio) {
		c.shelves[0].wait = make(chan bool)
		nudge := func() error {
			_, _, _, err := c.clients[0].Nudge(c.ctx, node(1), 0, names("a"), false)
			return err
		}
		var waiting sync.WaitGroup
		for range nudgesAtOnce {
			waiting.Go(func() {
				if err := nudge(); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if err := nudge(); !overloaded(err) {
			t.Errorf("nudge %d: %v", nudgesAtOnce+1, err)
		}
		close(c.shelves[0].wait)
		waiting.Wait()
		if asked := c.shelves[0].asked; len(asked) != nudgesAtOnce {
			t.Errorf("asked %q", asked)
		}
		c.shelves[1].room = 1
		if _, room, pause, err := c.clients[0].Nudge(c.ctx, node(1), 0, names("a"), false); err != nil || room != 1 || pause != 0 {
			t.Errorf("room %d, pause %v, %v", room, pause, err)
		}
	})
}

// A nudge under another view is made under one that both know.
func TestNudgeAgreesOnTheView(t *testing.T) {
	old := viewOf(t, 3, nil)
	next := viewOf(t, 2, old.Active()[0])
	for behind := range 2 {
		gather(t, func(c *trio) {
			c.shelves[1-behind].view = next
			c.shelves[0].records[names("a")[0]] = "A"
			held, _, _, err := c.clients[0].Nudge(c.ctx, node(1), 0, names("a"), false)
			if err != nil || !held[0] || c.shelves[0].view.Digest() != next.Digest() || c.shelves[1].view.Digest() != next.Digest() {
				t.Errorf("node %d is behind: held %v, %v", behind, held, err)
			}
		})
	}
}
