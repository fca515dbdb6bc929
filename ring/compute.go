package ring

import (
	"slices"

	"github.com/starling-kv/starling/kv"
)

// Compute makes the layout that follows prev, or a cluster's first one if prev
// is nil. The result depends on nothing but the arguments, the order of
// members excepted, and moves close to the least data that restores balance;
// see DESIGN.md. Errors match [ErrInvalid].
//
// The number of partitions is fixed by the first layout of a cluster: 64 or
// more for each node that it may grow to keep loads within a few percent.
// Computing takes well under a second for 1,000 nodes and 65,536 partitions.
func Compute(cluster ClusterID, version uint64, members []Member, partitions int, prev *Layout) (*Layout, error) {
	members = slices.Clone(members)
	slices.SortFunc(members, byID)
	if err := checkMembers(members); err != nil {
		return nil, err
	}
	if err := checkPartitions(partitions); err != nil {
		return nil, err
	}
	if err := checkSuccession(cluster, version, partitions, prev); err != nil {
		return nil, err
	}
	l := Layout{
		cluster:    cluster,
		version:    version,
		ancestors:  ancestorsAfter(prev),
		members:    members,
		partitions: partitions,
		width:      min(MaxOwners, ownersOf(members)),
	}
	l.slots = assign(&l, prev)
	return newLayout(l), nil
}

func checkSuccession(cluster ClusterID, version uint64, partitions int, prev *Layout) error {
	if err := checkIdentity(cluster, version); err != nil {
		return err
	}
	switch {
	case prev == nil:
		return nil
	case cluster != prev.cluster:
		return invalid("cluster %s: the layout before it belongs to %s, and clusters never merge", cluster, prev.cluster)
	case version <= prev.version:
		return invalid("version %d: the layout before it has %d, use %d", version, prev.version, prev.version+1)
	case partitions != prev.partitions:
		return invalid("%d partitions: the cluster was made with %d, which never changes", partitions, prev.partitions)
	}
	return nil
}

func checkIdentity(cluster ClusterID, version uint64) error {
	if cluster == (ClusterID{}) {
		return invalid("cluster id 0 stands for no cluster: draw a random one at bootstrap")
	}
	if version == 0 {
		return invalid("version 0: the first layout of a cluster has version 1")
	}
	return nil
}

func ancestorsAfter(prev *Layout) []Hash {
	if prev == nil {
		return nil
	}
	all := append(slices.Clone(prev.ancestors), prev.hash)
	return all[max(0, len(all)-MaxAncestors):]
}

// assign returns the table of l.
func assign(l, prev *Layout) []uint16 {
	pl := &placement{
		population: newPopulation(l.members, l.partitions),
		width:      l.width,
		seeds:      make([]uint64, len(l.members)),
	}
	for i, m := range l.members {
		pl.seeds[i] = mix(uint64(m.ID))
	}
	if prev != nil {
		pl.old, pl.oldWidth = translate(prev, l.members), prev.width
		if samePlacement(l.members, prev.members) {
			return pl.old
		}
	}
	pl.place()
	return pl.table
}

// samePlacement reports whether members differ from before in nothing that
// placement looks at.
func samePlacement(members, before []Member) bool {
	return slices.EqualFunc(members, before, func(a, b Member) bool {
		return a.ID == b.ID && a.Weight == b.Weight && a.Zone == b.Zone
	})
}

// translate returns the table of prev in terms of members, with none for those
// who own nothing any more.
func translate(prev *Layout, members []Member) []uint16 {
	now := make(map[kv.NodeID]uint16, len(members))
	for i, m := range members {
		if m.Weight > 0 {
			now[m.ID] = uint16(i)
		}
	}
	index := make([]uint16, len(prev.members))
	for i, m := range prev.members {
		n, ok := now[m.ID]
		if !ok {
			n = none
		}
		index[i] = n
	}
	table := make([]uint16, len(prev.slots))
	for i, m := range prev.slots {
		table[i] = index[m]
	}
	return table
}
