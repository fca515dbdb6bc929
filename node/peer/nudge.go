package peer

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// Nudge asks the node to, which may be this one, to pull keys from the node from,
// zero standing for this one, as [Client.Pull] does. held says of each key whether it holds now, on its
// disk, all that the source does; room is how many keys it would take next, none
// until pause is over.
//
// That it is busy is a [*kv.Error] of [kv.CodeOverloaded] with a pause. At most
// 4096 keys are taken.
func (c *Client) Nudge(ctx context.Context, to, from kv.NodeID, keys []kv.Key, standIn bool) (
	held []bool, room int, pause time.Duration, err error,
) {
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, 0, 0, fmt.Errorf("a nudge for %d keys: 1 to %d can be named", len(keys), maxKeys)
	}
	req := NudgeRequest{From: from, Keys: keys, StandIn: standIn}
	var reply NudgeReply
	err = c.agreed(func(f coordinator.Fence) (err error) {
		req.Fence = f
		if to == c.self {
			reply, err = c.Nudged(ctx, c.self, req)
		} else {
			reply, err = ask(ctx, c, to, methodNudge, req, DecodeNudgeReply)
		}
		return err
	})
	if err == nil && len(reply.Held) != len(keys) {
		err = fmt.Errorf("node %v answered for %d of %d keys", to, len(reply.Held), len(keys))
	}
	if err != nil {
		return nil, 0, 0, err
	}
	return reply.Held, reply.Room, reply.Pause, nil
}

// Nudged pulls the keys that another node names. It is refused while the node
// pulls for others as much as it takes at once, and while it takes nothing.
func (c *Client) Nudged(ctx context.Context, caller kv.NodeID, req NudgeRequest) (NudgeReply, error) {
	select {
	case c.nudges <- struct{}{}:
		defer func() {
			c.nudged.Store(time.Now().UnixNano())
			<-c.nudges
		}()
	default:
		return NudgeReply{}, errBusy("it pulls from others already")
	}
	v := c.views.View()
	from := cmp.Or(req.From, caller)
	switch {
	case v.Digest() != req.Fence.Digest:
		return NudgeReply{}, &coordinator.StaleViewError{View: v}
	case from == c.self && !req.StandIn:
		return NudgeReply{}, notApplied(errOwnPull)
	case !isMember(v, from):
		return NudgeReply{}, notApplied(fmt.Errorf("node %v, from which to pull, is not a member of the cluster", from))
	case c.merger.Room() == 0:
		return NudgeReply{}, errFull()
	}
	held, err := c.Pull(ctx, from, req.Keys, req.StandIn)
	if err != nil {
		return NudgeReply{}, err
	}
	reply := NudgeReply{Held: held, Room: min(c.merger.Room(), maxKeys)}
	if c.pressed != nil && c.pressed() {
		reply.Room = 0
	}
	if reply.Room == 0 {
		reply.Pause = nudgePause
	}
	return reply, nil
}

// LastNudged returns when this node last pulled because another node asked it to;
// zero Unix time if it has not since the start.
func (c *Client) LastNudged() time.Time { return time.Unix(0, c.nudged.Load()) }

// isMember reports whether an active layout names the node.
func isMember(v ring.View, id kv.NodeID) bool {
	for _, l := range v.Active() {
		if _, ok := l.Member(id); ok {
			return true
		}
	}
	return false
}

// errBusy is the refusal of a node that would be asked again.
func errBusy(why string) error {
	return &kv.Error{Code: kv.CodeOverloaded, Outcome: kv.NotApplied, RetryAfter: nudgePause, Message: "the node is busy: " + why}
}

// errFull is the refusal of a node that takes no records: its queue or its disk
// is full, or it is not registered. That lasts.
func errFull() error {
	return &kv.Error{
		Code: kv.CodeOverloaded, Outcome: kv.NotApplied, RetryAfter: fullPause, Message: "the node takes no more records at the moment",
	}
}
