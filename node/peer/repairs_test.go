package peer

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/starling-kv/starling/antientropy"
	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/reap"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/standing"
)

func (s *stub) Announced(a standing.Announcement) (standing.Known, error) {
	s.note("announced " + a.From.String())
	return standing.Known{Stored: true}, s.err
}

func (s *stub) Compare(from kv.NodeID, _ antientropy.CompareRequest) (antientropy.CompareReply, error) {
	s.note("compare " + from.String())
	return antientropy.CompareReply{Starts: 7}, s.err
}

func (s *stub) Children(from kv.NodeID, _ antientropy.ChildrenRequest) (antientropy.ChildrenReply, error) {
	s.note("children " + from.String())
	return antientropy.ChildrenReply{Starts: 7}, s.err
}

func (s *stub) Keys(from kv.NodeID, _ antientropy.KeysRequest) (antientropy.KeysReply, error) {
	s.note("keys " + from.String())
	return antientropy.KeysReply{Starts: 7}, s.err
}

func (s *stub) Confirm(_ context.Context, req reap.Request) (reap.Reply, error) {
	s.note("confirm " + req.Items[0].Key.Name)
	return reap.Reply{Number: 7, Done: []bool{true}}, s.err
}

func (s *stub) Apply(_ context.Context, req reap.Request) (reap.Reply, error) {
	s.note("apply " + req.Items[0].Key.Name)
	return reap.Reply{Number: 7, Done: []bool{true}}, s.err
}

// repair makes one call of every other repair and returns their errors.
func (c *trio) repair() map[string]error {
	client, to := c.clients[0], node(1)
	life := standing.History{Sure: standing.Position{Life: standing.Life{Starts: 1, Nonce: 2}}}
	round := reap.Request{Number: 1, Items: []reap.Item{{Key: key}}}
	known, announce := client.Announce(c.ctx, to, standing.Announcement{From: node(0), History: life})
	roots, compare := client.Compare(c.ctx, to, antientropy.CompareRequest{})
	leaves, children := client.Children(c.ctx, to, antientropy.ChildrenRequest{})
	listed, keys := client.Keys(c.ctx, to, antientropy.KeysRequest{})
	confirmed, confirm := client.Confirm(c.ctx, to, round)
	applied, apply := client.Apply(c.ctx, to, round)
	whole := known.Stored && roots.Starts == 7 && leaves.Starts == 7 && listed.Starts == 7 && confirmed.Number == 7 && applied.Number == 7
	errs := map[string]error{
		"announce": announce, "compare": compare, "children": children, "keys": keys, "confirm": confirm, "apply": apply,
	}
	if errors.Join(announce, compare, children, keys, confirm, apply) == nil && !whole {
		c.t.Errorf("answered %+v, %+v, %+v, %+v, %+v, %+v", known, roots, leaves, listed, confirmed, applied)
	}
	return errs
}

// The calls of the other repairs arrive, with who makes them, and are answered.
func TestRepairs(t *testing.T) {
	gather(t, func(c *trio) {
		for name, err := range c.repair() {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		me := node(0).String()
		want := []string{"announced " + me, "compare " + me, "children " + me, "keys " + me, "confirm k", "apply k"}
		if asked := c.stubs[1].notes(); !slices.Equal(asked, want) {
			t.Errorf("asked %q", asked)
		}
		c.stubs[1].err = errors.New("input/output error")
		for name, err := range c.repair() {
			if err == nil || err.Error() != "input/output error" {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A node speaks for itself only.
func TestAnnouncementOfAnother(t *testing.T) {
	gather(t, func(c *trio) {
		life := standing.History{Sure: standing.Position{Life: standing.Life{Starts: 1, Nonce: 2}}}
		_, err := c.clients[0].Announce(c.ctx, node(1), standing.Announcement{From: node(2), History: life})
		if err == nil || len(c.stubs[1].notes()) > 0 {
			t.Errorf("believed it: %v", err)
		}
	})
}

// What is not served, and what is not understood, is refused.
func TestForeignRepairs(t *testing.T) {
	meet(t, func(p *pair) { // which serves none of them
		for m := methodPull; m <= methodApply; m++ {
			if _, err := p.raw.Call(p.ctx, 2, m, []byte{9, 9}); !transport.NotRun(err) {
				t.Errorf("method %d: %v", m, err)
			}
		}
		if _, err := p.client.Compare(p.ctx, 2, antientropy.CompareRequest{}); !overloaded(err) || !coordinator.NotRun(err) {
			t.Errorf("declined by the transport: %v", err)
		}
	})
	gather(t, func(c *trio) {
		for m := methodPull; m <= methodApply; m++ {
			b, err := c.clients[0].transport.Call(c.ctx, node(1), m, []byte{9, 9})
			if err != nil || len(b) == 0 || b[0] != replyRefusal {
				t.Fatalf("method %d: %x, %v", m, b, err)
			}
			if e, ok := errors.AsType[*kv.Error](coordinator.DecodeError(b[1:])); !ok || e.Outcome != kv.NotApplied {
				t.Errorf("method %d: %v", m, e)
			}
		}
	})
}

// A view that cannot be learnt keeps what it came with from being served.
func TestViewsThatCannotBeLearnt(t *testing.T) {
	gather(t, func(c *trio) {
		fence := coordinator.Fence{Full: []byte("no view")}
		for name, m := range map[transport.Method]message{
			methodPull:  PullRequest{Fence: fence, Keys: names("a")},
			methodNudge: NudgeRequest{Fence: fence, Keys: names("a")},
		} {
			_, err := c.clients[0].call(c.ctx, node(1), name, m)
			if e, ok := errors.AsType[*kv.Error](err); !ok || e.Outcome != kv.NotApplied {
				t.Errorf("method %d: %v", name, err)
			}
		}
		c.clients[0].views = deaf{c.shelves[0]}
		c.shelves[1].view = viewOf(t, 2, c.shelves[1].view.Active()[0])
		if _, err := c.clients[0].Pull(c.ctx, node(1), names("a"), false); !errors.Is(err, errDeaf) {
			t.Errorf("%v", err)
		}
	})
}

// deaf are views that nothing can be added to.
type deaf struct{ *shelf }

var errDeaf = errors.New("no space left on device")

func (deaf) Learn(ring.View) error { return errDeaf }
