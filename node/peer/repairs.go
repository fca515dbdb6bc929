package peer

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/starling-kv/starling/antientropy"
	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/reap"
	"github.com/starling-kv/starling/standing"
)

// Bounds of what is served of the repairs at once.
const (
	pullsAtOnce = 8
	looksAtOnce = 16 // of all else
)

// Source serves this node's records to those who pull them.
type Source interface {
	// Raise makes to the partition's reap number, durably, if it is lower.
	Raise(ctx context.Context, partition uint16, to uint64) error
	// Numbers returns the reap numbers of partitions that are not zero.
	Numbers() map[uint16]uint64
	// Parcels returns what the node holds of keys, a page of it, and how many of
	// the keys it got to; those without a parcel it cannot read.
	Parcels(fence uint64, keys []kv.Key, standIn bool) (parcels []kv.Parcel, taken int, err error)
	// LeafParcels returns a page of the records of leaves that the node to owns,
	// and whether there are more, and damaged ones.
	LeafParcels(fence uint64, to kv.NodeID, partition uint16, leaves []uint8, after kv.Key) (
		parcels []kv.Parcel, more, damaged bool, err error)
}

// Nudges makes this node pull what others name; the [Client] does.
type Nudges interface {
	Nudged(ctx context.Context, caller kv.NodeID, req NudgeRequest) (NudgeReply, error)
}

// Lives remembers the lives of other nodes.
type Lives interface {
	Announced(a standing.Announcement) (standing.Known, error)
}

// Exchanges compares what this node holds with what another does.
type Exchanges interface {
	Compare(from kv.NodeID, req antientropy.CompareRequest) (antientropy.CompareReply, error)
	Children(from kv.NodeID, req antientropy.ChildrenRequest) (antientropy.ChildrenReply, error)
	Keys(from kv.NodeID, req antientropy.KeysRequest) (antientropy.KeysReply, error)
}

// ReapRounds takes part in rounds of reaping.
type ReapRounds interface {
	Confirm(ctx context.Context, req reap.Request) (reap.Reply, error)
	Apply(ctx context.Context, req reap.Request) (reap.Reply, error)
}

// Announce tells a member of a life of this node.
func (c *Client) Announce(ctx context.Context, to kv.NodeID, a standing.Announcement) (standing.Known, error) {
	return ask(ctx, c, to, methodAnnounce, a, standing.DecodeKnown)
}

// Numbers asks a node for its reap numbers, by rising partition; those that are
// zero are left out. A node whose own were lost must know them before it takes
// records: those that were read before a round of reaping may still be on their
// way.
func (c *Client) Numbers(ctx context.Context, from kv.NodeID) ([]ReapNumber, error) {
	return ask(ctx, c, from, methodNumbers, nothing{}, decodeNumbers)
}

// Compare asks a node which trees differ.
func (c *Client) Compare(ctx context.Context, to kv.NodeID, req antientropy.CompareRequest) (antientropy.CompareReply, error) {
	return ask(ctx, c, to, methodCompare, req, antientropy.DecodeCompareReply)
}

// Children asks a node for the leaves beneath inner nodes.
func (c *Client) Children(ctx context.Context, to kv.NodeID, req antientropy.ChildrenRequest) (antientropy.ChildrenReply, error) {
	return ask(ctx, c, to, methodChildren, req, antientropy.DecodeChildrenReply)
}

// Keys asks a node which keys of leaves differ.
func (c *Client) Keys(ctx context.Context, to kv.NodeID, req antientropy.KeysRequest) (antientropy.KeysReply, error) {
	return ask(ctx, c, to, methodKeys, req, antientropy.DecodeKeysReply)
}

// Confirm asks a member, which may not be this node, to confirm a round of
// reaping.
func (c *Client) Confirm(ctx context.Context, to kv.NodeID, req reap.Request) (reap.Reply, error) {
	return ask(ctx, c, to, methodConfirm, req, reap.DecodeReply)
}

// Apply asks a member, which may not be this node, to reap what was confirmed.
func (c *Client) Apply(ctx context.Context, to kv.NodeID, req reap.Request) (reap.Reply, error) {
	return ask(ctx, c, to, methodApply, req, reap.DecodeReply)
}

// handler serves one method of the repairs.
type handler func(ctx context.Context, req *transport.Request)

// repairs are the methods of the repairs that this node serves. All of them may
// wait for the disk, and are served aside; how many at once is bounded for what
// is costly.
func (s *Server) repairs() map[transport.Method]handler {
	m := make(map[transport.Method]handler)
	if s.Source != nil {
		m[methodPull] = serving(s, s.pulls, DecodePullRequest, s.pull)
		m[methodNumbers] = serving(s, s.looks, decodeNothing, s.numbers)
	}
	if s.Nudges != nil {
		m[methodNudge] = serving(s, nil, DecodeNudgeRequest, s.nudge)
	}
	if s.Lives != nil {
		m[methodAnnounce] = serving(s, nil, standing.DecodeAnnouncement, s.announce)
	}
	if x := s.Exchanges; x != nil {
		m[methodCompare] = serving(s, s.looks, antientropy.DecodeCompareRequest, withoutContext(x.Compare))
		m[methodChildren] = serving(s, s.looks, antientropy.DecodeChildrenRequest, withoutContext(x.Children))
		m[methodKeys] = serving(s, s.looks, antientropy.DecodeKeysRequest, withoutContext(x.Keys))
	}
	if r := s.ReapRounds; r != nil {
		m[methodConfirm] = serving(s, s.looks, reap.DecodeRequest, withoutSender(r.Confirm))
		m[methodApply] = serving(s, s.looks, reap.DecodeRequest, withoutSender(r.Apply))
	}
	return m
}

// serving returns the handler that decodes a request and runs do aside, unless
// as many as limit has room for are under way.
func serving[Req any, Reply message](
	s *Server, limit chan struct{}, decode func([]byte) (Req, error), do func(context.Context, kv.NodeID, Req) (Reply, error),
) handler {
	return func(ctx context.Context, req *transport.Request) {
		m, err := decode(req.Body)
		if err != nil {
			answer(req, nil, notApplied(err))
			return
		}
		s.besides(req, func() {
			if limit != nil {
				select {
				case limit <- struct{}{}:
					defer func() { <-limit }()
				default:
					answer(req, nil, errBusy("it serves as many others as it can"))
					return
				}
			}
			got, err := do(ctx, req.From.ID, m)
			reply(req, got, err)
		})
	}
}

func withoutContext[Req, Reply any](do func(kv.NodeID, Req) (Reply, error)) func(context.Context, kv.NodeID, Req) (Reply, error) {
	return func(_ context.Context, from kv.NodeID, m Req) (Reply, error) { return do(from, m) }
}

func withoutSender[Req, Reply any](do func(context.Context, Req) (Reply, error)) func(context.Context, kv.NodeID, Req) (Reply, error) {
	return func(ctx context.Context, _ kv.NodeID, m Req) (Reply, error) { return do(ctx, m) }
}

// taught makes the view of a fence known to this node, if there is one.
func (s *Server) taught(f coordinator.Fence) error {
	if len(f.Full) == 0 {
		return nil
	}
	if err := s.teach(f); err != nil {
		return notApplied(err)
	}
	return nil
}

func (s *Server) pull(ctx context.Context, from kv.NodeID, m PullRequest) (r PullReply, err error) {
	if err := s.taught(m.Fence); err != nil {
		return PullReply{}, err
	}
	for _, n := range m.Reap {
		// What cannot be raised is served all the same, and refused by its number.
		if err := s.Source.Raise(ctx, n.Partition, n.Number); err != nil && ctx.Err() != nil {
			return PullReply{}, err
		}
	}
	if len(m.Keys) > 0 {
		r.Parcels, r.Taken, err = s.Source.Parcels(m.Fence.Digest, m.Keys, m.StandIn)
	} else {
		r.Parcels, r.More, r.Damaged, err = s.Source.LeafParcels(m.Fence.Digest, from, m.Partition, m.Leaves, m.After)
	}
	return r, err
}

func (s *Server) numbers(context.Context, kv.NodeID, nothing) (numbers, error) {
	all := s.Source.Numbers()
	reply := make(numbers, 0, len(all))
	for _, p := range slices.Sorted(maps.Keys(all)) {
		reply = append(reply, ReapNumber{Partition: p, Number: all[p]})
	}
	return reply, nil
}

func (s *Server) nudge(ctx context.Context, from kv.NodeID, m NudgeRequest) (NudgeReply, error) {
	if err := s.taught(m.Fence); err != nil {
		return NudgeReply{}, err
	}
	return s.Nudges.Nudged(ctx, from, m)
}

var errOtherName = errors.New("a node announces another: two processes use one data directory, or one name")

// announce takes a node's word only for itself.
func (s *Server) announce(_ context.Context, from kv.NodeID, m standing.Announcement) (standing.Known, error) {
	if m.From != from {
		return standing.Known{}, notApplied(errOtherName)
	}
	return s.Lives.Announced(m)
}
