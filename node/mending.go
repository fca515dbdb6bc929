package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/starling-kv/starling/antientropy"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
)

// mending shows the repairs of a node and has them run on demand. It implements
// [api.Repairs].
type mending struct {
	*Node

	mu  sync.Mutex
	run *api.RepairRun
}

// Repairs implements [api.Repairs].
func (m *mending) Repairs() api.RepairState {
	st, ex := m.ledger.Stats(), m.repairs.exchanger.Stats()
	out := api.RepairState{
		Node: m.cfg.Name,
		Standing: api.StandingState{
			Registered: m.admission.Registered(), Partitions: st.Partitions, Fallen: st.Fallen,
			Doubted: st.Doubted, Pulled: ex.CatchUp.Records,
		},
		Hints: m.hints(), Found: ex.KeysDiffer, Healed: ex.KeysHealed, Reads: m.repairs.reader.Stats().Healed,
		Quarantined: m.repairs.release.held.Load(), Reap: m.reaping(),
	}
	if st.Fallen > 0 {
		out.Standing.Cause = st.Cause.String()
	}
	if !ex.OldestClean.IsZero() {
		age := time.Since(ex.OldestClean).Seconds()
		out.OldestClean = &age
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run != nil {
		run := *m.run
		out.Run = &run
	}
	return out
}

func (m *mending) hints() []api.HintState {
	now := time.Now()
	owed := m.repairs.replayer.Stats().Owed
	out := make([]api.HintState, 0, len(owed))
	for _, o := range owed {
		h := api.HintState{
			Node: m.name(o.Target), Dropped: o.Dropped,
			Count: uint64(o.Missed.Count + o.Copies.Count), Bytes: uint64(o.Missed.Bytes + o.Copies.Bytes),
		}
		for _, oldest := range []time.Time{o.Missed.Oldest, o.Copies.Oldest} {
			if !oldest.IsZero() {
				h.Oldest = max(h.Oldest, now.Sub(oldest).Seconds())
			}
		}
		out = append(out, h)
	}
	return out
}

func (m *mending) reaping() api.ReapState {
	s := m.repairs.reaper.Stats()
	out := api.ReapState{Reaped: s.Reaped}
	if !s.Oldest.IsZero() {
		out.Waiting = time.Since(s.Oldest).Seconds()
	}
	for _, id := range s.Missing {
		out.Missing = append(out.Missing, m.name(id))
	}
	slices.SortFunc(out.Missing, strings.Compare)
	return out
}

// Repair implements [api.Repairs]. One repair runs at a time.
func (m *mending) Repair(s api.Selection) error {
	sel, err := m.selection(s)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run != nil && !m.run.Ended {
		return &kv.Error{Code: kv.CodeOverloaded, Message: "a repair is under way: wait for its end", RetryAfter: time.Second}
	}
	m.run = &api.RepairRun{Began: time.Now().UTC()}
	m.serving.Go(func() { m.repair(m.running, sel) })
	return nil
}

func (m *mending) selection(s api.Selection) (antientropy.Selection, error) {
	sel := antientropy.Selection{Bucket: s.Bucket}
	if s.Partition != nil {
		p := uint16(*s.Partition)
		if active := m.views.Current().Active(); len(active) == 0 || *s.Partition >= active[0].Partitions() {
			return sel, &kv.Error{Code: kv.CodeBadRequest, Message: "there is no such partition: see starling status --key"}
		}
		sel.Partition = &p
	}
	if s.Node == "" {
		return sel, nil
	}
	for _, l := range m.views.Current().Active() {
		if member, ok := l.MemberByName(s.Node); ok {
			sel.Node = member.ID
			return sel, nil
		}
	}
	return sel, &kv.Error{Code: kv.CodeBadRequest, Message: "no member has that name: see starling status"}
}

// repair runs one repair and notes how far it is.
func (m *mending) repair(ctx context.Context, sel antientropy.Selection) {
	before := m.repairs.exchanger.Stats()
	err := m.Core.Repair(ctx, sel, func(p antientropy.Progress) {
		m.note(func(r *api.RepairRun) { r.Done, r.Total, r.Keys, r.Heal = p.Done, p.Total, p.Differ, p.Healed })
	})
	after := m.repairs.exchanger.Stats()
	m.note(func(r *api.RepairRun) {
		r.Ended = true
		r.Bytes = after.ComparedBytes - before.ComparedBytes + after.StreamedBytes - before.StreamedBytes
		if err != nil && !errors.Is(err, antientropy.ErrNothingSelected) {
			r.Error = m.explain(err)
		}
	})
}

func (m *mending) note(change func(*api.RepairRun)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.run)
}

// explain says in one line what a repair did not reach, by the names of members.
func (m *mending) explain(err error) string {
	failed, ok := errors.AsType[*antientropy.RepairError](err)
	if !ok {
		return err.Error()
	}
	parts := make([]string, len(failed.Peers))
	for i, p := range failed.Peers {
		parts[i] = fmt.Sprintf("%d partitions not compared with %s: %v", p.Partitions, m.name(p.Peer), p.Err)
	}
	return strings.Join(parts, "; ")
}
