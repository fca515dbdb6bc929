package hints

import (
	"slices"
	"testing"

	"github.com/starling-kv/starling/kv"
)

func TestStandIns(t *testing.T) {
	preference := []kv.NodeID{5, 3, 9, 1, 7}
	for name, c := range map[string]struct {
		excluded []kv.NodeID
		want     []kv.NodeID
	}{
		"beyond the owners, in order":   {[]kv.NodeID{5, 3, 9}, []kv.NodeID{1, 7}},
		"one taken down":                {[]kv.NodeID{5, 3, 9, 1}, []kv.NodeID{7}},
		"owners of two layouts":         {[]kv.NodeID{5, 3, 9, 7}, []kv.NodeID{1}},
		"none left":                     {preference, nil},
		"an owner outside of the list":  {[]kv.NodeID{5, 3, 4}, []kv.NodeID{9, 1, 7}},
		"nothing excluded, all in turn": {nil, preference},
	} {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(preference)
			got := StandIns(preference, func(id kv.NodeID) bool { return slices.Contains(c.excluded, id) })
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if !slices.Equal(preference, before) {
				t.Error("the preference list, which is shared, was changed")
			}
		})
	}
}
