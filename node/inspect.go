package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/ring"
)

// inspector shows what the node is, knows and holds. It implements
// [api.Inspector].
type inspector struct{ *Node }

// Cluster implements [api.Inspector].
func (i inspector) Cluster() api.Cluster {
	view := i.views.Current()
	out := api.Cluster{Node: i.cfg.Name, View: fmt.Sprintf("%016x", view.Digest())}
	if id, ok := i.views.Cluster(); ok {
		out.ID = id.String()
	}
	nodes := make(map[kv.NodeID]*api.Node)
	for _, p := range i.gossip.Peers() {
		nodes[p.ID] = &api.Node{
			Name: p.Name, ID: p.ID, Zone: p.Zone, ClientAddr: strings.TrimPrefix(p.ClientURL, "http://"),
			PeerAddr: p.PeerAddress, Alive: p.State == membership.Alive, Incarnation: p.Incarnation,
		}
	}
	if own, ok := nodes[i.id]; ok {
		own.AdminAddr = i.listeners.admin.Addr().String()
	}
	if active := view.Active(); len(active) > 0 {
		out.Layout = i.layout(active[0], nodes)
	}
	for _, n := range nodes {
		out.Nodes = append(out.Nodes, *n)
	}
	slices.SortFunc(out.Nodes, func(a, b api.Node) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// layout describes l and enters its members, and what each owns, into nodes.
func (i inspector) layout(l *ring.Layout, nodes map[kv.NodeID]*api.Node) *api.Layout {
	names := make(map[kv.NodeID]string)
	for _, m := range l.Members() {
		names[m.ID] = m.Name
		if nodes[m.ID] == nil {
			nodes[m.ID] = &api.Node{Name: m.Name, ID: m.ID, PeerAddr: m.Address}
		}
		nodes[m.ID].Member, nodes[m.ID].Zone = true, m.Zone
	}
	out := &api.Layout{Version: l.Version(), Hash: l.Hash().String(), Partitions: make([][]string, l.Partitions())}
	for p := range out.Partitions {
		for at, id := range l.Owners(ring.Partition(p)) {
			out.Partitions[p] = append(out.Partitions[p], names[id])
			if at < i.cfg.Defaults.N {
				nodes[id].Partitions++
			}
		}
	}
	return out
}

// Checks implements [api.Inspector].
func (i inspector) Checks() []api.Check {
	joined, why := i.gossip.Ready()
	stats := i.store.Stats()
	reach := 0
	view := i.views.Current()
	var members []ring.Member
	if active := view.Active(); len(active) > 0 {
		members = active[0].Members()
	}
	for _, m := range members {
		if m.ID == i.id || i.gossip.Alive(m.ID) {
			reach++
		}
	}
	return []api.Check{
		{Name: "layout", OK: joined, Detail: why},
		{Name: "standing", OK: i.admission.Registered(), Detail: i.standing()},
		{
			Name: "storage", OK: stats.State == storage.StateOK,
			Detail: fmt.Sprintf("%v, %d bytes free", stats.State, stats.Free),
		},
		{
			Name: "members", OK: len(members) > 0 && reach > len(members)/2,
			Detail: fmt.Sprintf("%d of %d seem alive", reach, len(members)),
		},
	}
}

// standing says in words whether the node takes part.
func (i inspector) standing() string {
	st := i.ledger.Stats()
	switch {
	case st.Pending:
		return "the disk was set back: what it holds is put into quarantine"
	case !i.admission.Registered():
		return "waits until enough members know of this start"
	case st.Fallen > 0:
		return fmt.Sprintf("%d partitions are not counted yet: %v", st.Fallen, st.Cause)
	}
	return ""
}

// Replica implements [api.Inspector].
func (i inspector) Replica(_ context.Context, key kv.Key, values bool) ([]api.Held, error) {
	own, hints, err := i.replica.Holds(key)
	if err != nil {
		return nil, err
	}
	apart, err := i.store.Get(kv.Slot{Target: kv.Quarantine, Partition: uint16(i.partition(key)), Key: key})
	if err != nil {
		return nil, err
	}
	hints[0], hints[kv.Quarantine] = own, apart
	var out []api.Held
	for target, r := range hints {
		if r.Absent() {
			continue
		}
		h := i.held(kv.Slot{Target: target, Partition: uint16(i.partition(key)), Key: key}, r)
		if values {
			if h.Values, err = i.values(key, target, r); err != nil {
				return nil, err
			}
		}
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b api.Held) int { return strings.Compare(a.Target, b.Target) })
	return out, nil
}

// values reads the values of a record that the node holds for a target.
func (i inspector) values(key kv.Key, target kv.NodeID, r kv.Record) ([][]byte, error) {
	values := make([][]byte, 0, len(r.Live))
	for _, v := range r.Live {
		b, err := i.replica.ValueOf(key, target, v)
		if err != nil {
			return nil, err
		}
		values = append(values, b)
	}
	return values, nil
}

// Partitions implements [api.Inspector].
func (i inspector) Partitions(ctx context.Context, first, last int, hints bool, fn func(api.Held) error) error {
	emit := func(slot kv.Slot, r kv.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(i.held(slot, r))
	}
	if hints {
		return i.hints(uint16(first), uint16(last), emit)
	}
	for p := first; p <= last; p++ {
		err := i.store.ScanPartition(uint16(p), func(key kv.Key, r kv.Record) error {
			return emit(kv.Slot{Partition: uint16(p), Key: key}, r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hints calls fn with the hints for some partitions.
func (i inspector) hints(first, last uint16, fn func(kv.Slot, kv.Record) error) error {
	targets, err := i.store.HintTargets()
	if err != nil {
		return err
	}
	for _, target := range targets {
		err := i.store.ScanHints(target, func(slot kv.Slot, r kv.Record) error {
			if slot.Partition < first || slot.Partition > last {
				return nil
			}
			return fn(slot, r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (i inspector) held(slot kv.Slot, r kv.Record) api.Held {
	h := api.Held{Key: slot.Key, Partition: int(slot.Partition), Record: r}
	switch slot.Target {
	case 0:
	case kv.Quarantine:
		h.Quarantined = true
	default:
		h.Target = i.name(slot.Target)
	}
	return h
}

// name returns the name of a member, or the id of who is none.
func (c *Core) name(id kv.NodeID) string {
	for _, l := range c.views.Current().Active() {
		if m, ok := l.Member(id); ok {
			return m.Name
		}
	}
	return id.String()
}

// partition returns the partition of a key, 0 before a layout is known.
func (c *Core) partition(key kv.Key) ring.Partition {
	if active := c.views.Current().Active(); len(active) > 0 {
		return active[0].Partition(key.Hash())
	}
	return 0
}

// Explain implements [api.Inspector].
func (i inspector) Explain(ctx context.Context, key kv.Key, n int) (coordinator.Explanation, error) {
	return i.coordinator.Explain(ctx, key, n, 0)
}
