package peer

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// shelf is a node's records, as far as pulling goes: they are text, a later one
// replaces an earlier one, and all keys are of one partition.
type shelf struct {
	mu         sync.Mutex
	view       ring.View
	records    map[kv.Key]string
	reap       uint64
	stubborn   bool // does not raise its number
	unreadable map[kv.Key]bool
	pageLen    int // parcels on a page
	endless    bool
	room       int
	answers    map[kv.Key][]error // of MergeParcels, before it merges
	syncErr    error
	wait       chan bool // if set, Parcels waits for it to be closed

	asked  []string // what was asked of it, in order
	merged int      // since the last Sync
}

func newShelf(v ring.View) *shelf {
	return &shelf{
		view: v, records: make(map[kv.Key]string), unreadable: make(map[kv.Key]bool), pageLen: 100, room: 50,
		answers: make(map[kv.Key][]error),
	}
}

func (s *shelf) note(what string) { s.asked = append(s.asked, what) }

func (s *shelf) Numbers() map[uint16]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[uint16]uint64{0: s.reap}
}

func (s *shelf) View() ring.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

func (s *shelf) Learn(v ring.View) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("learn")
	s.view, err = s.view.Merge(v)
	return err
}

func (s *shelf) fenced(digest uint64) error {
	if digest != s.view.Digest() {
		return &coordinator.StaleViewError{View: s.view}
	}
	return nil
}

func (s *shelf) Raise(_ context.Context, _ uint16, to uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("raise")
	if s.stubborn {
		return errors.New("not registered")
	}
	s.reap = max(s.reap, to)
	return nil
}

func (s *shelf) Parcels(fence uint64, keys []kv.Key, standIn bool) (parcels []kv.Parcel, taken int, err error) {
	if s.wait != nil {
		<-s.wait
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("keys")
	if err := s.fenced(fence); err != nil {
		return nil, 0, err
	}
	for ; taken < len(keys) && taken < s.pageLen; taken++ {
		k := keys[taken]
		if s.unreadable[k] {
			continue
		}
		p := kv.Parcel{Key: k, Reap: s.reap, Record: []byte(s.records[k])}
		if standIn {
			p.Record = append(p.Record, " and hints"...)
		}
		parcels = append(parcels, p)
	}
	return parcels, taken, nil
}

func (s *shelf) LeafParcels(fence uint64, _ kv.NodeID, _ uint16, leaves []uint8, after kv.Key) (
	parcels []kv.Parcel, more, damaged bool, err error,
) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("leaves")
	if err := s.fenced(fence); err != nil {
		return nil, false, false, err
	}
	for _, k := range s.sorted() {
		switch {
		case !slices.Contains(leaves, k.Leaf()), k.Leaf() == after.Leaf() && k.Name <= after.Name:
		case s.unreadable[k]:
			damaged = true
		case len(parcels) == s.pageLen:
			return parcels, true, damaged, nil
		default:
			parcels = append(parcels, kv.Parcel{Key: k, Reap: s.reap, Record: []byte(s.records[k])})
		}
	}
	return parcels, s.endless, damaged, nil
}

// sorted lists the keys by leaf.
func (s *shelf) sorted() []kv.Key {
	keys := make([]kv.Key, 0, len(s.records))
	for k := range s.records {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b kv.Key) int {
		if d := int(a.Leaf()) - int(b.Leaf()); d != 0 {
			return d
		}
		return slices.Compare([]byte(a.Name), []byte(b.Name))
	})
	return keys
}

func (s *shelf) MergeParcels(ctx context.Context, fence uint64, parcels []kv.Parcel,
	values func(ctx context.Context, key kv.Key, v kv.Version) ([]byte, error),
) []error {
	errs := make([]error, len(parcels))
	for i, p := range parcels {
		if string(p.Record) == "external" {
			value, err := values(ctx, p.Key, kv.Version{Dot: vclock.Dot{Actor: 1, Counter: 1}})
			errs[i], parcels[i].Record = err, value
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range parcels {
		switch planned := s.answers[p.Key]; {
		case errs[i] != nil:
		case len(planned) > 0:
			errs[i], s.answers[p.Key] = planned[0], planned[1:]
		case s.fenced(fence) != nil:
			errs[i] = s.fenced(fence)
		case len(p.Record) == 0:
		case p.Reap < s.reap:
			errs[i] = &coordinator.StaleReapError{Number: s.reap}
		default:
			s.records[p.Key] = string(p.Record)
			s.merged++
		}
	}
	return errs
}

func (s *shelf) MendValue(_ context.Context, key kv.Key, _ kv.Version, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[key] = string(data)
	return nil
}

func (s *shelf) Sync(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("sync")
	s.merged = 0
	return cmp.Or(ctx.Err(), s.syncErr)
}

func (s *shelf) Room() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.room
}

// trio is three nodes of one cluster, each with a client and what it keeps. The
// first is the one that pulls.
type trio struct {
	t       *testing.T
	clients [3]*Client
	shelves [3]*shelf
	stubs   [3]*stub
	net     *transport.Network
	ctx     context.Context //nolint:containedctx // of all calls of a test
}

// node is the id of the i-th node.
func node(i int) kv.NodeID { return kv.NodeID(i + 1) }

// viewOf is the view of a cluster of size nodes.
func viewOf(tb testing.TB, size int, prev *ring.Layout) ring.View {
	tb.Helper()
	members := make([]ring.Member, size)
	for i := range members {
		name := string(rune('a' + i))
		members[i] = ring.Member{ID: node(i), Name: name, Address: name + ":1", Weight: 1}
	}
	version := uint64(1)
	var v ring.View
	var err error
	if prev != nil {
		version = prev.Version() + 1
		if v, err = v.With(prev); err != nil {
			tb.Fatal(err)
		}
	}
	l, err := ring.Compute(ring.ClusterID{7}, version, members, 1, prev)
	if err != nil {
		tb.Fatal(err)
	}
	if v, err = v.With(l); err != nil {
		tb.Fatal(err)
	}
	return v
}

func gather(t *testing.T, fn func(c *trio)) {
	t.Helper()
	view := viewOf(t, 3, nil)
	synctest.Test(t, func(t *testing.T) {
		c := &trio{t: t, net: transport.NewNetwork()}
		servers, ends := make([]*Server, 3), make([]transport.Transport, 3)
		for i := range servers {
			c.shelves[i], c.stubs[i] = newShelf(view), &stub{}
			late := &struct{ Nudges }{}
			servers[i] = NewServer(Handlers{
				Replica: c.stubs[i], Coordinator: c.stubs[i], Learn: c.shelves[i].Learn, Source: c.shelves[i], Nudges: late,
				Lives: c.stubs[i], Exchanges: c.stubs[i], ReapRounds: c.stubs[i],
			})
			ends[i] = c.net.Join(node(i), servers[i])
			c.clients[i] = NewClient(Config{
				Self: node(i), Local: c.stubs[i], Merger: c.shelves[i], Views: c.shelves[i], Transport: ends[i],
			})
			late.Nudges = c.clients[i]
		}
		var cancel context.CancelFunc
		c.ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		fn(c)
		cancel()
		for i := range ends {
			if err := ends[i].Close(); err != nil {
				t.Error(err)
			}
			servers[i].Wait()
		}
	})
}

// names returns keys with these names.
func names(list ...string) []kv.Key {
	keys := make([]kv.Key, 0, len(list))
	for _, name := range list {
		keys = append(keys, kv.Key{Bucket: "b", Name: name})
	}
	return keys
}

// overloaded reports whether err says that a node is busy, and when not.
func overloaded(err error) bool {
	e, ok := errors.AsType[*kv.Error](err)
	return ok && e.Code == kv.CodeOverloaded && e.Outcome == kv.NotApplied && e.RetryAfter > 0
}
