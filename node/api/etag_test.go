package api

import (
	"slices"
	"testing"
)

func TestETags(t *testing.T) {
	const a, b = `"00000000000000aa"`, `"bbbbbbbbbbbbbbbb"`
	for _, c := range []struct {
		value string
		weak  bool
		any   bool
		list  []uint64
	}{
		{value: "*", any: true, list: []uint64{}},
		{value: " *\t", any: true, list: []uint64{}},
		{value: a, list: []uint64{0xaa}},
		{value: a + "," + b, list: []uint64{0xaa, 0xbbbbbbbbbbbbbbbb}},
		{value: a + " \t, " + b + " ", list: []uint64{0xaa, 0xbbbbbbbbbbbbbbbb}},
		{value: "W/" + a, weak: true, list: []uint64{0xaa}},
		{value: "W/" + a + ", " + b, list: []uint64{0xbbbbbbbbbbbbbbbb}},
		{value: `"other"`, list: []uint64{}},
		{value: `""`, list: []uint64{}},
		{value: `"00000000000000AA"`, list: []uint64{}},
		{value: `"+0000000000000aa"`, list: []uint64{}},
	} {
		var e etags
		err := e.add([]byte(c.value), c.weak)
		if err != nil || e.any != c.any || !slices.Equal(e.list, c.list) || e.list == nil || !e.given {
			t.Errorf("%s: got %+v, %v", c.value, e, err)
		}
	}
}

func TestETagsRefuses(t *testing.T) {
	const a = `"00000000000000aa"`
	for _, lines := range [][]string{
		{""},
		{" "},
		{"00000000000000aa"},
		{`"00000000000000aa`},
		{a + a},
		{a + " " + a},
		{a + ","},
		{"," + a},
		{a + ",," + a},
		{"w/" + a},
		{"W/"},
		{"*, " + a},
		{a + ", *"},
		{"*", a},
		{a, "*"},
		{`"a b"`},
	} {
		var e etags
		var err error
		for _, line := range lines {
			if err == nil {
				err = e.add([]byte(line), true)
			}
		}
		if err == nil {
			t.Errorf("%q was taken: %+v", lines, e)
		}
	}
}

func TestETagsMatch(t *testing.T) {
	tags := etags{given: true, list: []uint64{1, 2}}
	all := etags{given: true, any: true, list: []uint64{}}
	for _, c := range []struct {
		tags   etags
		tag    uint64
		exists bool
		want   bool
	}{
		{tags, 2, true, true}, {tags, 3, true, false}, {tags, 2, false, false}, {all, 3, true, true}, {all, 3, false, false},
	} {
		if got := c.tags.matches(c.tag, c.exists); got != c.want {
			t.Errorf("%+v", c)
		}
	}
}

// FuzzETags: tags that we gave are found again in any list that is taken.
func FuzzETags(f *testing.F) {
	for _, seed := range []string{`*`, `"00000000000000aa"`, `W/"a", "b"`, `"",""`} {
		f.Add([]byte(seed), uint64(0xaa))
	}
	f.Fuzz(func(t *testing.T, list []byte, id uint64) {
		var e etags
		if err := e.add(list, true); err != nil || e.any {
			return
		}
		var longer etags
		if err := longer.add(append(append(slices.Clone(list), ','), appendETag(nil, id)...), true); err != nil {
			t.Fatalf("%q was taken, but not with one tag more: %v", list, err)
		}
		if !slices.Equal(longer.list, append(e.list, id)) {
			t.Fatalf("%q: %x, with %x: %x", list, e.list, id, longer.list)
		}
	})
}
