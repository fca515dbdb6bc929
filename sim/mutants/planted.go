package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// planted is a bug as a small edit of the production code. The edit is made in
// an overlay at build time: nothing in the code knows of it.
type planted struct {
	name   string
	breaks string // the promise, in a few words
	file   string // from the root of the module
	old    string // occurs exactly once
	new    string
	and    []edit // that it takes to make the mistake
}

// edit is one more change, of the same file or another.
type edit struct{ file, old, new string }

// apply returns the files that the bug changes, by path, as edited. root is that
// of the module.
func (p planted) apply(root string) (map[string][]byte, error) {
	edited := make(map[string][]byte)
	for _, e := range append([]edit{{p.file, p.old, p.new}}, p.and...) {
		source, changed := edited[e.file]
		if !changed {
			var err error
			if source, err = os.ReadFile(filepath.Join(root, e.file)); err != nil {
				return nil, err
			}
		}
		if n := bytes.Count(source, []byte(e.old)); n != 1 {
			return nil, fmt.Errorf("the edit of %s applies %d times, not once: bring it up to date", e.file, n)
		}
		edited[e.file] = bytes.Replace(source, []byte(e.old), []byte(e.new), 1)
	}
	return edited, nil
}

// bugs are mistakes that other systems made, or that the models of the design
// were asked about.
func bugs() []planted { return append(requests(), repairs()...) }

// requests are bugs in how requests are served.
func requests() []planted {
	return []planted{
		{
			name: "last write wins in the merge", breaks: "two writes that had not seen each other both stay",
			file: "vclock/set.go",
			old:  "	return Set[V]{Clock: s.Clock.Merge(t.Clock), Live: mergeLive(s, t)}",
			new:  "	live := mergeLive(s, t)\n	return Set[V]{Clock: s.Clock.Merge(t.Clock), Live: live[max(0, len(live)-1):]}",
		},
		{
			name: "actor reused after a restart", breaks: "one dot, one value",
			file: "kv/record.go",
			old:  "out.Mine.Actor == 0 || out.Mine.Boot != boot {\n		out.Mine = Mine{Actor: mint(), Boot: boot}",
			new:  "out.Mine.Actor == 0 || out.Mine.Boot != boot {\n		out.Mine = Mine{Actor: 1 + vclock.Actor(mint()%3), Boot: boot}",
		},
		{
			name: "actor of the node, for ever", breaks: "one dot, one value, also after a wiped disk",
			file: "kv/record.go",
			old:  "out.Mine = Mine{Actor: mint(), Boot: boot}",
			new:  "out.Mine = Mine{Actor: 7, Boot: boot}",
		},
		{
			name: "new value and its dot instead of the whole record", breaks: "a replica learns all that the coordinator knew",
			file: "coordinator/replicate.go",
			old:  "	s.encoded = kv.AppendRecord(nil, s.record)",
			new:  "	delta := s.record\n	delta.Set = delta.Without(func(v kv.Version) bool { return v.Dot != s.dot })\n	s.encoded = kv.AppendRecord(nil, delta)",
		},
		{
			name: "acknowledged before it is synced", breaks: "an acknowledged write survives a power cut",
			file: "node/replica/replica.go",
			old:  "d == coordinator.DurabilityDefault && r.sync {\n		return true, nil",
			new:  "d == coordinator.DurabilityDefault && r.sync {\n		return false, nil",
		},
		{
			name: "acknowledged before it is committed", breaks: "w nodes hold an acknowledged write",
			file: "node/replica/replica.go",
			old:  "			r.stored(slot, err)\n			done(told(err))",
			new:  "			r.stored(slot, err)\n			done(nil)",
		},
		{
			name: "a dropped hint", breaks: "what counted towards a sloppy w is kept",
			file: "node/replica/replica.go",
			old:  "			return r.merge(",
			new:  "			if req.Target != 0 {\n				return storage.Change{Record: old, Same: true}, nil\n			}\n			return r.merge(",
		},
		{
			name: "a tombstone forgotten at once", breaks: "deleted stays deleted",
			file: "kv/record.go",
			old:  "	out.IDs, out.IDFloor = mergeIDs(r, o)\n	return out.settle()",
			new:  "	out.IDs, out.IDFloor = mergeIDs(r, o)\n	if len(out.Live) == 1 && out.Live[0].Value.Kind == KindTombstone {\n		return r\n	}\n	return out.settle()",
		},
		{
			name: "one answer too few", breaks: "r and w owners, all of them",
			file: "coordinator/tally.go",
			old:  "func (t *Tally) Reached() bool { return t.Missing() == 0 }",
			new:  "func (t *Tally) Reached() bool { return t.Missing() <= 1 && len(t.votes) > 0 }",
		},
		{
			name: "refusals counted as answers", breaks: "w owners hold what is acknowledged",
			file: "coordinator/tally.go",
			old:  "		t.set(vote{owner: owner, reason: reason})",
			new:  "		t.set(vote{owner: owner, yes: true, reason: reason})",
		},
		{
			name: "overlapping quorums one short", breaks: "r + w > n means what it says",
			file: "coordinator/get.go",
			old:  "need: g.needs(), sloppy",
			new:  "need: max(1, g.needs()-1), sloppy",
		},
		{
			name: "siblings of others replaced by a blind write", breaks: "a write replaces only what its writer had seen",
			file: "vclock/set.go",
			old:  "return seen.Covers(x.Dot) })",
			new:  "return seen.Covers(x.Dot) || len(seen) == 0 })",
		},
		{
			name: "token of a write claims what the client never saw", breaks: "seen is what the client saw",
			file: "coordinator/assign.go",
			old:  "		return v.Value.Kind != kv.KindTombstone && !v.Value.Expired(now) && !in.made(v, dot)\n",
			new:  "		return false\n",
		},
		{
			name: "a retry is a new write", breaks: "a retry adds no sibling and brings nothing back",
			file: "kv/record.go",
			old:  "	if i, ok := r.findID(id); ok {\n		return r.IDs[i].Dots",
			new:  "	if i, ok := r.findID(id); ok && i < 0 {\n		return r.IDs[i].Dots",
		},
		{
			name: "a pruned vector", breaks: "clocks are never pruned",
			file: "vclock/clock.go",
			old:  "	return append(append(out, c...), o...)",
			new:  "	out = append(append(out, c...), o...)\n	return out[max(0, len(out)-2):]",
		},
		{
			name: "a commit that overwrites the record", breaks: "a commit merges into the record as it is then",
			file: "node/replica/replica.go",
			old:  "	next := old.Merge(incoming)\n	missing",
			new:  "	next := incoming\n	next.Mine = old.Mine\n	missing",
		},
		{
			name: "not applied, although state has left", breaks: "the truth about failure",
			file: "coordinator/replicate.go",
			old:  "Code: code, Outcome: kv.Unknown, N: s.put.N",
			new:  "Code: code, Outcome: kv.NotApplied, N: s.put.N",
		},
		{
			name: "reads that ignore their floor", breaks: "read-your-writes and monotonic reads",
			file: "coordinator/get.go",
			old:  "if !col.merged.Clock.Dominates(g.Floor) {",
			new:  "if false {",
		},
		{
			name: "a write that forgets what it was told", breaks: "what was replaced stays replaced",
			file: "vclock/set.go",
			old:  "	next.Clock = s.Clock.Merge(seen).With(d)",
			new:  "	next.Clock = s.Clock.With(d)",
		},
	}
}
