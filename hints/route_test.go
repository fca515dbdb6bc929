package hints

import (
	"reflect"
	"testing"

	"github.com/starling-kv/starling/kv"
)

func TestRoute(t *testing.T) {
	owners := func(partition uint16, n int) []kv.NodeID {
		all := map[uint16][]kv.NodeID{1: {2, 3, 4, 5}, 2: {5, 4, 3}}[partition]
		return all[:min(n, len(all))]
	}
	missed := func(target kv.NodeID, partition uint16) debt {
		return debt{Missed: Missed{Target: target, Partition: partition}}
	}
	copied := func(target kv.NodeID, partition uint16, n int) debt {
		d := missed(target, partition)
		d.copied, d.n = true, n
		return d
	}
	for name, c := range map[string]struct {
		batch  []debt
		asks   []ask
		strays []int
	}{
		"nothing":                       {},
		"missed by owners":              {[]debt{missed(2, 1), missed(2, 1)}, []ask{{2, []int{0, 1}}}, nil},
		"missed by one beyond a wide n": {[]debt{missed(5, 1), missed(9, 1)}, []ask{{5, []int{0}}}, []int{1}},
		"copies for owners":             {[]debt{copied(3, 1, 2), copied(3, 2, 3)}, []ask{{3, []int{0, 1}}}, nil},
		"copies for one beyond n": {
			[]debt{copied(3, 2, 2), copied(3, 1, 2)}, []ask{{5, []int{0}}, {4, []int{0}}, {3, []int{1}}}, nil,
		},
		"copies for a stranger": {
			[]debt{copied(9, 1, 3), copied(9, 2, 1)}, []ask{{2, []int{0}}, {3, []int{0}}, {4, []int{0}}, {5, []int{1}}}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			asks, strays := route(c.batch, owners)
			if !reflect.DeepEqual(asks, c.asks) || !reflect.DeepEqual(strays, c.strays) {
				t.Errorf("asks %+v, strays %v, want %+v, %v", asks, strays, c.asks, c.strays)
			}
		})
	}
}

func TestRedirect(t *testing.T) {
	m := Missed{Target: 9, Partition: 1, Key: key(1), Since: epoch, Edition: 4}
	to := func(id kv.NodeID) Missed { return Missed{Target: id, Partition: 1, Key: key(1), Since: epoch} }
	for name, c := range map[string]struct {
		owners  []kv.NodeID
		instead []Missed
		stays   bool
	}{
		"still an owner":      {[]kv.NodeID{2, 9}, nil, true},
		"to others":           {[]kv.NodeID{2, 3}, []Missed{to(2), to(3)}, false},
		"not to this node":    {[]kv.NodeID{2, self}, []Missed{to(2)}, false},
		"nobody else owns it": {[]kv.NodeID{self}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			instead, stays := redirect(m, c.owners, self)
			if stays != c.stays || !reflect.DeepEqual(instead, c.instead) {
				t.Errorf("%+v, stays %v", instead, stays)
			}
		})
	}
}
