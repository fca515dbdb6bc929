package coordinator

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
)

var update = flag.Bool("update", false, "write what the scripts in testdata print now")

// dumbTally is the twin of Tally: it keeps everything that was ever said and
// works out the rest by trying every way in which the open answers could turn
// out.
type dumbTally struct {
	need   int
	groups [][]kv.NodeID
	said   []string // "yes 1", "no 2", "3 for 1", as they came
}

// counted is how many of the group answered well, directly or by another.
func (d dumbTally) counted(group []kv.NodeID, said []string) int {
	well := map[kv.NodeID]bool{}
	standsFor := map[kv.NodeID]kv.NodeID{}
	for _, s := range said {
		var owner, by kv.NodeID
		switch {
		case scan(s, "yes %d", &owner):
			if by := standsFor[owner]; by != 0 {
				delete(standsFor, owner)
			}
			well[owner] = true
		case scan(s, "%d for %d", &by, &owner):
			isOwner := slices.ContainsFunc(d.groups, func(g []kv.NodeID) bool { return slices.Contains(g, by) })
			busy := false
			for _, other := range standsFor {
				busy = busy || other == by
			}
			if !isOwner && !busy && !well[owner] {
				well[owner], standsFor[owner] = true, by
			}
		}
	}
	n := 0
	for _, id := range group {
		if well[id] {
			n++
		}
	}
	return n
}

func scan(s, format string, into ...any) bool {
	n, err := fmt.Sscanf(s, format, into...)
	return err == nil && n == len(into)
}

func (d dumbTally) reached(said []string) bool {
	for _, g := range d.groups {
		if d.counted(g, said) < min(d.need, len(g)) {
			return false
		}
	}
	return true
}

// lost reports whether no way in which the open owners answer reaches the count.
func (d dumbTally) lost() bool {
	answered := map[kv.NodeID]bool{}
	for _, s := range d.said {
		var owner, by kv.NodeID
		if scan(s, "yes %d", &owner) || scan(s, "no %d", &owner) {
			answered[owner] = true
		}
		if scan(s, "%d for %d", &by, &owner) && d.counted([]kv.NodeID{owner}, d.said) == 1 {
			answered[owner] = true
		}
	}
	var open []kv.NodeID
	for _, g := range d.groups {
		for _, id := range g {
			if !answered[id] && !slices.Contains(open, id) {
				open = append(open, id)
			}
		}
	}
	for ways := range 1 << len(open) {
		said := slices.Clone(d.said)
		for i, id := range open {
			if ways>>i&1 == 1 {
				said = append(said, fmt.Sprintf("yes %d", id))
			}
		}
		if d.reached(said) {
			return false
		}
	}
	return true
}

func TestTallyAgreesWithItsTwin(t *testing.T) {
	anyNode := rapid.Uint64Range(1, 7)
	rapid.Check(t, func(t *rapid.T) {
		d := dumbTally{need: rapid.IntRange(1, 5).Draw(t, "need")}
		for range rapid.IntRange(1, 3).Draw(t, "layouts") {
			list := rapid.Permutation([]kv.NodeID{1, 2, 3, 4, 5}).Draw(t, "preference")
			d.groups = append(d.groups, list[:rapid.IntRange(1, 5).Draw(t, "n")])
		}
		tally := NewTally(d.need, d.groups)
		for range rapid.IntRange(0, 12).Draw(t, "answers") {
			owner, by := kv.NodeID(anyNode.Draw(t, "owner")), kv.NodeID(anyNode.Draw(t, "by"))
			switch rapid.IntRange(0, 2).Draw(t, "answer") {
			case 0:
				tally.Yes(owner)
				d.said = append(d.said, fmt.Sprintf("yes %d", owner))
			case 1:
				tally.No(owner, errConnRefused)
				d.said = append(d.said, fmt.Sprintf("no %d", owner))
			case 2:
				tally.StandIn(owner, by)
				d.said = append(d.said, fmt.Sprintf("%d for %d", by, owner))
			}
			if tally.Reached() != d.reached(d.said) || tally.Lost() != d.lost() {
				t.Fatalf("%v of %v, said %q: reached %v, lost %v", d.need, d.groups, d.said, tally.Reached(), tally.Lost())
			}
			if tally.Reached() != (tally.Missing() == 0) || tally.Reached() && tally.Lost() {
				t.Fatalf("missing %d, reached %v, lost %v", tally.Missing(), tally.Reached(), tally.Lost())
			}
		}
	})
}

// Whatever two counts with r + w > n are reached in a layout, they have a node
// in common: also in one that has fewer owners than n.
func TestTalliesMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "n")
		w := rapid.IntRange(1, n).Draw(t, "w")
		r := rapid.IntRange(n+1-w, n).Draw(t, "r")
		owners := []kv.NodeID{1, 2, 3, 4, 5, 6, 7}[:rapid.IntRange(1, n).Draw(t, "owners")]
		answer := func(need int, label string) map[kv.NodeID]bool {
			tally, counted := NewTally(need, [][]kv.NodeID{owners}), map[kv.NodeID]bool{}
			for _, id := range rapid.Permutation(owners).Draw(t, label) {
				if !tally.Reached() {
					tally.Yes(id)
					counted[id] = true
				}
			}
			return counted
		}
		wrote, meets := answer(w, "wrote"), false
		for id := range answer(r, "read") {
			meets = meets || wrote[id]
		}
		if !meets {
			t.Fatalf("r=%d and w=%d do not meet in %d owners", r, w, len(owners))
		}
	})
}

// TestTallyScripts runs the scripts in testdata/tally*.txt. A script is a line
// that says what is counted, what is answered in which order, and after a line
// of dashes a picture of every step:
//
//	need=2 (n1 n2 n3) (n2 n3 n4)
//	n1 yes
//	n3 no
//	n5 for n2
//	----
//	           n1 n2 n3 | n2 n3 n4
//	n1 yes     x        |            open, 2 missing
//
// x is an answer that counts, - one that does not, and a name is that of the
// stand-in which answered.
func TestTallyScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/tally*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for script := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
			head, _, _ := strings.Cut(script, "\n----")
			if got.Len() > 0 {
				got.WriteString("\n")
			}
			got.WriteString(head + "\n----\n" + runScript(t, head))
		}
		if *update {
			if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got.String() != string(text) {
			t.Errorf("%s: run with -update to see:\n%s", file, got.String())
		}
	}
}

func runScript(t *testing.T, script string) string {
	t.Helper()
	var tally *Tally
	var groups [][]kv.NodeID
	var out strings.Builder
	width := 0
	lines := strings.Split(script, "\n")
	for _, line := range lines {
		width = max(width, len(line))
	}
	for _, line := range lines {
		f := strings.Fields(line)
		switch {
		case f[0] == "#":
		case strings.HasPrefix(line, "need="):
			need, list, _ := strings.Cut(strings.TrimPrefix(line, "need="), " ")
			k, err := strconv.Atoi(need)
			if err != nil {
				t.Fatal(line, err)
			}
			width, groups = 10, parseGroups(t, list)
			tally = NewTally(k, groups)
			fmt.Fprintf(&out, "%*s %s\n", width, "", strings.TrimRight(picture(groups, shortName), " "))
		default:
			answer(t, tally, f)
			fmt.Fprintf(&out, "%-*s %s%s\n", width, line, picture(groups, func(id kv.NodeID) string {
				v, answered := tally.vote(id)
				switch {
				case v.by != 0:
					return shortName(v.by)
				case v.yes:
					return "x"
				case answered:
					return "-"
				}
				return ""
			}), verdict(tally))
		}
	}
	return out.String()
}

func answer(t *testing.T, tally *Tally, f []string) {
	t.Helper()
	who := parseNode(t, f[0])
	switch strings.Join(f[1:], " ") {
	case "yes":
		tally.Yes(who)
	case "no":
		tally.No(who, errConnRefused)
	default:
		if len(f) != 3 || f[1] != "for" {
			t.Fatalf("cannot read %q", f)
		}
		tally.StandIn(parseNode(t, f[2]), who)
	}
}

func parseGroups(t *testing.T, list string) [][]kv.NodeID {
	t.Helper()
	var groups [][]kv.NodeID
	for g := range strings.SplitSeq(strings.Trim(list, "()"), ") (") {
		var group []kv.NodeID
		for name := range strings.FieldsSeq(g) {
			group = append(group, parseNode(t, name))
		}
		groups = append(groups, group)
	}
	return groups
}

func parseNode(t *testing.T, name string) kv.NodeID {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(name, "n"))
	if err != nil {
		t.Fatalf("%q is no node", name)
	}
	return kv.NodeID(n)
}

func picture(groups [][]kv.NodeID, cell func(kv.NodeID) string) string {
	var out strings.Builder
	for i, g := range groups {
		if i > 0 {
			out.WriteString("| ")
		}
		for _, id := range g {
			fmt.Fprintf(&out, "%-3s", cell(id))
		}
	}
	return out.String()
}

func verdict(tally *Tally) string {
	switch {
	case tally.Reached():
		return "  reached"
	case tally.Lost():
		return fmt.Sprintf("  lost, %d missing", tally.Missing())
	}
	return fmt.Sprintf("  open, %d missing", tally.Missing())
}

func shortName(id kv.NodeID) string { return fmt.Sprintf("n%d", id) }
