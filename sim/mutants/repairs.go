package main

// repairs are bugs in what keeps replicas the same, and in what removes for good.
func repairs() []planted {
	return []planted{
		{
			name: "counted at once after a wipe", breaks: "who lost its disk does not count before it has caught up",
			file: "standing/fall.go",
			old:  "	return l.stands(partition, owners)",
			new:  "	return l.stands(partition, owners) || true",
		},
		{
			name: "caught up after one source", breaks: "a partition counts once it was merged from all other owners",
			file: "standing/catchup.go",
			old:  "list[n] != self && !c.has(list[n], starts) {",
			new:  "list[n] != self && !c.has(list[n], starts) && len(c.merged) == 0 {",
		},
		{
			name: "registered with nobody", breaks: "a disk that was set back is found out before it takes part",
			file: "standing/register.go",
			old:  "	return 2*yes > others ||",
			new:  "	return yes >= 0 || 2*yes > others ||",
		},
		{
			name: "a power cut forgotten", breaks: "who acknowledged unsynced writes before a power cut has fallen",
			file: "standing/ledger.go",
			old:  "	case l.config.OSBoot != \"\" && string(b[1:]) == l.config.OSBoot:",
			new:  "	case l.config.OSBoot != \"\":",
		},
		{
			name: "a set-back disk keeps its records", breaks: "what was reaped since does not return from an old disk",
			file: "node/repairs.go",
			old:  "	if _, err := c.repairs.setback.PutAway(ctx); err != nil {",
			new:  "	if err := ctx.Err(); err != nil {",
		},
		{
			name: "quarantine given back whole", breaks: "what was reaped since does not return from quarantine",
			file: "standing/setback.go",
			old:  "	case then == now:",
			new:  "	case then <= now:",
		},
		{
			name: "restored over what lives", breaks: "what is restored from quarantine replaces nothing",
			file: "node/restore.go",
			old:  "		Options: optionsOf(q), Key: q.slot.Key, Value: v.Data,",
			new:  "		Options: optionsOf(q), Key: q.slot.Key, Value: v.Data, Overwrite: true,",
		},
		{
			name: "removed before it is restored", breaks: "a record leaves the quarantine once a quorum has its values",
			file: "node/restore.go",
			old:  "			if err := r.write(ctx, q, there, id); err != nil {",
			new:  "			if err := ctx.Err(); err != nil && !id.IsZero() {",
		},
		{
			name: "a hint dropped before its target confirmed", breaks: "what counted towards a sloppy w is kept until an owner has it",
			file: "hints/pass.go",
			old:  "		case lacking[i] == 0:",
			new:  "		case lacking[i] >= 0:",
		},
		{
			name: "no hint replayed, nothing exchanged", breaks: "a healed cluster converges by itself",
			file: "node/repairs.go",
			old:  " r.replayer.Run, r.reader.Run, r.exchanger.Run,",
			new:  "",
		},
		{
			name: "trees miss some writes", breaks: "trees say what the records are",
			file: "node/storage/trees.go",
			old:  "		if d.Sum != 0 || d.Count != 0 {",
			new:  "		if d.Sum%4 != 0 {",
		},
		{
			name: "some leaves not told", breaks: "catching up brings all records",
			file: "node/replica/parcels.go",
			old:  "			case !asked[key.Leaf()], !owns(v, key, rec.NMax, to):",
			new:  "			case key.Leaf()%4 == 3, !owns(v, key, rec.NMax, to):",
		},
		{
			name: "reaped by half of the members", breaks: "only what all members hold alike, or nothing of, is reaped",
			file: "reap/round.go",
			old:  "	return slices.Insert(list, 0, self)",
			new:  "	return slices.Insert(list[:len(list)/2], 0, self)",
		},
		{
			name: "confirmed under the old number", breaks: "who confirmed refuses what was read before",
			file: "reap/member.go",
			old:  "			tx.Raise(req.Partition, req.Number)\n			reply.Number = req.Number",
			new:  "			reply.Number = req.Number",
			and:  []edit{{"reap/member.go", "		if number < req.Number {", "		if number > req.Number {"}},
		},
		{
			name: "records of a lower reap number taken", breaks: "what was read before a round is refused after it",
			file: "node/replica/numbers.go",
			old:  "	if at := n.get(partition); reap < at.known {",
			new:  "	if at := n.get(partition); reap+1000 < at.known {",
		},
		{
			name: "reaped without another look", breaks: "a write since the confirmation stays",
			file: "reap/member.go",
			old:  "slot.Target != kv.Quarantine && digest(it.Key, r) == it.Digest {",
			new:  "slot.Target != kv.Quarantine {",
		},
		{
			name: "an expired value and its neighbours", breaks: "what has not expired stays",
			file: "kv/reap.go",
			old:  "	out.Set = r.Without(func(v Version) bool { return slices.Contains(p.Drop, v.Dot) })",
			new:  "	out.Set = r.Without(func(Version) bool { return len(p.Drop) > 0 })",
		},
		{
			name: "a live dot folded away", breaks: "folding takes only what nothing live names",
			file: "kv/reap.go",
			old:  "		needed = append(needed, v.Dot.Actor)",
			new:  "		needed = append(needed, v.Dot.Actor-1)",
		},
		{
			name: "a learnt number confirms", breaks: "only a number raised by the confirmation refuses what was read before",
			file: "reap/member.go",
			old:  "		case number >= req.Number:",
			new:  "		case number > req.Number:",
		},
		{
			name: "an emptied member has confirmed", breaks: "who loses its disk during a round knows of it, or the round fails",
			file: "reap/member.go",
			old:  "bool { return m.node.Lives() != req.Lives }",
			new:  "bool { return false && m.node.Lives() != req.Lives }",
		},
		{
			name: "an expired value shown", breaks: "what has expired is not shown",
			file: "kv/record.go",
			old:  "		case v.Value.Expired(now):",
			new:  "		case v.Value.Expires < 0:",
		},
		{
			name: "numbers not asked for after a wipe", breaks: "an emptied disk refuses what was read before a round",
			file: "node/admission.go",
			old:  "		if numbers[p] <= a.core.replica.Number(p) {",
			new:  "		if numbers[p] > 0 {",
		},
		{
			name: "a damaged record passes for none", breaks: "what cannot be read is not absent",
			file: "node/replica/read.go",
			old:  "	r.notice(slot, err)\n	return rec, err",
			new:  "	if errors.Is(err, storage.ErrCorrupt) {\n		return kv.Record{}, nil\n	}\n	return rec, err",
			and:  []edit{{"node/replica/read.go", "	err := r.store.CheckLeaf(slot.Partition, slot.Key.Leaf())", "	var err error // nor is the leaf looked at"}},
		},
		{
			name: "a damaged record stays", breaks: "what rots is mended from other owners",
			file: "node/replica/merge.go",
			old:  "		Mend: r.standing.Doubted(slot.Partition, p.Key.Leaf()),",
			new:  "		Mend: false,",
		},
		{
			name: "a lost value stays", breaks: "what rots is mended from other owners",
			file: "antientropy/scrub.go",
			old:  "		x.checkValues(ctx, id)\n",
			new:  "",
		},
		{
			name: "a leaf in order doubted for ever", breaks: "a leaf counts again once it was merged from all owners",
			file: "antientropy/scrub.go",
			old:  "	case err == nil && x.Doubts.Doubted(id.partition, id.leaf):",
			new:  "	case err == nil && false:",
		},
	}
}
