package ring

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestComputeRefuses(t *testing.T) {
	three := members(3)
	prev := compute(t, three, 64, nil)
	with := func(edit func(*Member)) []Member {
		ms := slices.Clone(three)
		edit(&ms[1])
		return ms
	}
	for _, tc := range []struct {
		name       string
		cluster    ClusterID
		version    uint64
		members    []Member
		partitions int
		prev       *Layout
		want       string // in the message
	}{
		{"no members", testCluster, 1, nil, 64, nil, "name at least one"},
		{"too many members", testCluster, 1, members(MaxMembers + 1), 64, nil, "at most 4096"},
		{"weight 0 everywhere", testCluster, 1, []Member{member(0, "", 0)}, 64, nil, "weight of 1 or more"},
		{"duplicate name", testCluster, 1, with(func(m *Member) { m.Name = three[0].Name }), 64, nil, "rename one"},
		{"duplicate id", testCluster, 1, with(func(m *Member) { m.ID = three[0].ID }), 64, nil, "own data directory"},
		{"duplicate address", testCluster, 1, with(func(m *Member) { m.Address = three[0].Address }), 64, nil, "own host or port"},
		{"id 0", testCluster, 1, with(func(m *Member) { m.ID = 0 }), 64, nil, "draw a random one"},
		{"no name", testCluster, 1, with(func(m *Member) { m.Name = "" }), 64, nil, "A-Z a-z 0-9"},
		{"bad name", testCluster, 1, with(func(m *Member) { m.Name = "a b" }), 64, nil, "A-Z a-z 0-9"},
		{"long name", testCluster, 1, with(func(m *Member) { m.Name = strings.Repeat("a", 65) }), 64, nil, "1 to 64"},
		{"bad zone", testCluster, 1, with(func(m *Member) { m.Zone = "eu/1" }), 64, nil, "at most 64"},
		{"bad state", testCluster, 1, with(func(m *Member) { m.State = 2 }), 64, nil, "unknown state"},
		{"bad address", testCluster, 1, with(func(m *Member) { m.Address = "nowhere" }), 64, nil, "host:port"},
		{"no partitions", testCluster, 1, three, 0, nil, "power of two"},
		{"negative partitions", testCluster, 1, three, -4, nil, "power of two"},
		{"odd partitions", testCluster, 1, three, 100, nil, "power of two"},
		{"too many partitions", testCluster, 1, three, 2 * MaxPartitions, nil, "65536"},
		{"no cluster", ClusterID{}, 1, three, 64, nil, "bootstrap"},
		{"version 0", testCluster, 0, three, 64, nil, "version 1"},
		{"old version", testCluster, 1, three, 64, prev, "use 2"},
		{"other cluster", ClusterID{1}, 2, three, 64, prev, "never merge"},
		{"other partitions", testCluster, 2, three, 128, prev, "made with 64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Compute(tc.cluster, tc.version, tc.members, tc.partitions, tc.prev)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want ErrInvalid with %q", err, tc.want)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"10.0.0.1:7000":                 true,
		"node-1.example.org:65535":      true,
		"[2001:db8::1]:7000":            true,
		"[fe80::1%eth0]:7000":           true,
		"":                              false,
		":7000":                         false,
		"host":                          false,
		"host:":                         false,
		"host:0":                        false,
		"host:65536":                    false,
		"host:07000":                    false,
		"host:http":                     false,
		"2001:db8::1:7000":              false,
		"[2001:db8::1:7000":             false,
		"[host]:7000":                   false,
		"ho st:7000":                    false,
		"http://host:7000":              false,
		strings.Repeat("a", 255) + ":1": false,
	} {
		if got := isAddress(address); got != want {
			t.Errorf("%q: %v, want %v", address, got, want)
		}
	}
}

func TestSmallClusters(t *testing.T) {
	for n := 1; n <= 20; n++ {
		l := compute(t, members(n), 64, nil)
		if want := min(n, MaxOwners); l.Width() != want {
			t.Errorf("%d members: %d owners, want %d", n, l.Width(), want)
		}
	}
	ms := members(3)
	ms[2].Weight = 0
	if l := compute(t, ms, 64, nil); l.Width() != 2 || loads(l, 2)[ms[2].ID] != 0 {
		t.Error("a member of weight 0 owns something")
	}
}

// What placement does not look at leaves the table as it is.
func TestUnrelatedChangesMoveNothing(t *testing.T) {
	ms := members(7, 1, 1, 1)
	before := compute(t, ms, 256, nil)
	ms[3].State, ms[3].Name, ms[3].Address = StateDown, "other", "elsewhere:1"
	after := compute(t, ms, 256, before)
	if !slices.Equal(before.owners, after.owners) {
		t.Error("the table changed")
	}
	if before.Hash() == after.Hash() {
		t.Error("the hash did not change")
	}
}

func TestAncestors(t *testing.T) {
	l := compute(t, members(3), 1, nil)
	if l.Version() != 1 || len(l.Ancestors()) != 0 {
		t.Fatalf("version %d with ancestors %v", l.Version(), l.Ancestors())
	}
	all := make([]Hash, 0, MaxAncestors+5)
	for range MaxAncestors + 5 {
		all = append(all, l.Hash())
		l = compute(t, members(3), 1, l)
	}
	if got, want := l.Ancestors(), all[len(all)-MaxAncestors:]; !slices.Equal(got, want) {
		t.Errorf("%d ancestors, want the youngest %d, oldest first", len(got), len(want))
	}
}

func TestLookups(t *testing.T) {
	ms := members(5, 1, 1)
	l := compute(t, ms, 128, nil)
	for _, m := range ms {
		if got, ok := l.Member(m.ID); !ok || got != m {
			t.Errorf("Member(%s) = %v, %v", m.ID, got, ok)
		}
		if got, ok := l.MemberByName(m.Name); !ok || got != m {
			t.Errorf("MemberByName(%s) = %v, %v", m.Name, got, ok)
		}
	}
	if _, ok := l.Member(1); ok {
		t.Error("found a member that there is not")
	}
	if _, ok := l.MemberByName("nobody"); ok {
		t.Error("found a name that there is not")
	}
}

// A partition is an equal share of the hash space, from the top bits.
func TestPartition(t *testing.T) {
	for _, tc := range []struct {
		partitions int
		hash       uint64
		want       Partition
	}{
		{1, 0, 0},
		{1, 1<<64 - 1, 0},
		{2, 1<<63 - 1, 0},
		{2, 1 << 63, 1},
		{64, 1<<64 - 1, 63},
		{MaxPartitions, 0x1234 << 48, 0x1234},
		{MaxPartitions, 1<<64 - 1, 65535},
	} {
		if got := compute(t, members(1), tc.partitions, nil).Partition(tc.hash); got != tc.want {
			t.Errorf("hash %#x of %d partitions: %d, want %d", tc.hash, tc.partitions, got, tc.want)
		}
	}
}

// A caller that appends to the owners does not write into the table.
func TestOwnersAreCapped(t *testing.T) {
	l := compute(t, members(3), 2, nil)
	want := slices.Clone(l.Owners(1))
	_ = append(l.Owners(0), 42)
	if got := l.Owners(1); !slices.Equal(got, want) {
		t.Errorf("owners of partition 1 became %v, were %v", got, want)
	}
}

func TestTextForms(t *testing.T) {
	text := strings.Repeat("0f", 16)
	var h Hash
	var id ClusterID
	if err := errors.Join(h.UnmarshalText([]byte(text)), id.UnmarshalText([]byte(text))); err != nil {
		t.Fatal(err)
	}
	a, _ := h.MarshalText()
	b, _ := id.MarshalText()
	if string(a) != text || string(b) != text || h.String() != text || id.String() != text {
		t.Errorf("got %s, %s, %s, %s, want %s", a, b, h, id, text)
	}
	for _, bad := range []string{"", "0f", text + "00", strings.Repeat("xy", 16)} {
		if h.UnmarshalText([]byte(bad)) == nil || id.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("read %q", bad)
		}
	}
	if got := fmt.Sprint(StateActive, StateDown, State(7)); got != "active down State(7)" {
		t.Error(got)
	}
}
