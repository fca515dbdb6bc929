package reap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

const partitions = 2

// host is one member with all that it keeps.
type host struct {
	id       kv.NodeID
	view     ring.View
	records  map[kv.Slot]kv.Record
	damaged  map[kv.Slot]bool
	number   map[uint16]uint64
	fallen   bool
	lives    uint64
	raised   func() // nil, or called once a number was
	failing  error
	clock    func() time.Time
	member   *Member
	scans    int
	scanning error
}

func (h *host) View() ring.View { return h.view }

func (h *host) Standing(uint16) bool { return !h.fallen }

func (h *host) Lives() uint64 { return h.lives }

func (h *host) Step(_ context.Context, _ bool, fn func(Tx) error) error {
	if h.failing != nil {
		return h.failing
	}
	return fn(hostTx{h})
}

func (h *host) Number(partition uint16) uint64 { return h.number[partition] }

func (h *host) Root(partition uint16) (sum uint64) {
	for slot, r := range h.records { // a sum, whatever the order
		if slot.Target == 0 && slot.Partition == partition {
			sum += digest(slot.Key, r)
		}
	}
	return sum
}

// Scan meets the damage, if there is some, at its end.
func (h *host) Scan(partition uint16, after kv.Key, fn func(kv.Key, kv.Record, uint64) error) error {
	h.scans++
	for _, slot := range slices.SortedFunc(maps.Keys(h.records), func(a, b kv.Slot) int { return compareNames(a.Key, b.Key) }) {
		if slot.Target != 0 || slot.Partition != partition || compareNames(slot.Key, after) <= 0 {
			continue
		}
		if err := fn(slot.Key, h.records[slot], digest(slot.Key, h.records[slot])); err != nil {
			return err
		}
	}
	return h.scanning
}

func compareNames(a, b kv.Key) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) }

type hostTx struct{ *host }

var errDamaged = errors.New("damaged")

func (tx hostTx) Get(slot kv.Slot) (kv.Record, error) {
	if tx.damaged[slot] {
		return kv.Record{}, errDamaged
	}
	return tx.records[slot], nil
}

func (tx hostTx) Put(slot kv.Slot, r kv.Record) {
	tx.records[slot] = r
	if r.Absent() {
		delete(tx.records, slot)
	}
}

func (tx hostTx) HintTargets() []kv.NodeID {
	targets := make(map[kv.NodeID]bool)
	for slot := range tx.records {
		if slot.Target != 0 && slot.Target != kv.Quarantine {
			targets[slot.Target] = true
		}
	}
	return slices.Sorted(maps.Keys(targets))
}

func (tx hostTx) Number(partition uint16) (uint64, error) { return tx.number[partition], nil }

func (tx hostTx) Raise(partition uint16, to uint64) {
	tx.number[partition] = to
	if tx.raised != nil {
		tx.raised()
	}
}

// cluster carries what a reaper asks to its hosts, encoded as on the wire.
type cluster struct {
	t     *testing.T
	now   time.Time
	hosts []*host
	cut   map[kv.NodeID]bool // not connected
	// before is called with each call on its way; after with each answer.
	before, after func(to kv.NodeID, what string) error
}

func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, now: noon, cut: make(map[kv.NodeID]bool)}
	none := func(kv.NodeID, string) error { return nil }
	c.before, c.after = none, none
	view := viewOf(t, n, partitions)
	for i := range n {
		h := &host{
			id: kv.NodeID(i + 1), view: view, records: make(map[kv.Slot]kv.Record), damaged: make(map[kv.Slot]bool),
			number: make(map[uint16]uint64), clock: func() time.Time { return c.now },
		}
		h.member = NewMember(h, h, func() time.Time { return h.clock() })
		c.hosts = append(c.hosts, h)
	}
	return c
}

func (c *cluster) Connected(id kv.NodeID) bool { return !c.cut[id] }

func (c *cluster) Confirm(ctx context.Context, to kv.NodeID, req Request) (Reply, error) {
	return c.call(ctx, to, "confirm", req, (*Member).Confirm)
}

func (c *cluster) Apply(ctx context.Context, to kv.NodeID, req Request) (Reply, error) {
	return c.call(ctx, to, "apply", req, (*Member).Apply)
}

func (c *cluster) call(
	ctx context.Context, to kv.NodeID, what string, req Request, do func(*Member, context.Context, Request) (Reply, error),
) (Reply, error) {
	if _, ok := ctx.Deadline(); !ok {
		c.t.Errorf("%s without a deadline", what)
	}
	if err := c.before(to, what); err != nil {
		return Reply{}, err
	}
	got, err := DecodeRequest(req.Append(nil))
	if err != nil {
		c.t.Fatal(err)
	}
	reply, err := do(c.hosts[to-1].member, ctx, got)
	if err != nil {
		return Reply{}, err
	}
	if err := c.after(to, what); err != nil {
		return Reply{}, err
	}
	return DecodeReply(reply.Append(nil))
}

// reaper is that of the first owner of the partition.
func (c *cluster) reaper(partition uint16) (*Reaper, *host) {
	h := c.hosts[c.hosts[0].view.Active()[0].Owners(ring.Partition(partition))[0]-1]
	return New(Config{
		Self: h.id, Local: h, Peers: c, View: h.View, Lives: h.Lives, Now: func() time.Time { return c.now },
		Random: func() uint64 { return 0 }, Log: zap.NewNop(),
	}), h
}

// keysOf are names of n keys of the partition.
func keysOf(v ring.View, partition uint16, n int) []kv.Key {
	var keys []kv.Key
	for i := 0; len(keys) < n; i++ {
		key := kv.Key{Bucket: "b", Name: fmt.Sprintf("k%d", i)}
		if v.Active()[0].Partition(key.Hash()) == ring.Partition(partition) {
			keys = append(keys, key)
		}
	}
	return keys
}

// hold stores r for all keys on all hosts.
func (c *cluster) hold(partition uint16, r kv.Record, keys ...kv.Key) {
	for _, h := range c.hosts {
		for _, key := range keys {
			h.records[kv.Slot{Partition: partition, Key: key}] = r
		}
	}
}

// left counts the records of all hosts, hints too.
func (c *cluster) left() (n int) {
	for _, h := range c.hosts {
		n += len(h.records)
	}
	return n
}
