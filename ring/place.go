package ring

import "slices"

// setSize is the number of owners that are chosen together, as a set. Three is
// the n that clusters run, so its loads and its movement come before those of
// any other n.
const setSize = 3

// none marks a place without an owner. It is no member's index.
const none = uint16(MaxMembers)

// placement is a table under construction.
type placement struct {
	*population
	width    int
	seeds    []uint64 // of each member, from its id
	old      []uint16 // the previous table in today's indexes; none for who owns no more
	oldWidth int
	table    []uint16 // partition p is owned by table[p*width:][:width]
}

// place fills the table: the first setSize owners as a set, then which of them
// comes first and which second, then one owner after the other behind them.
// Every stage keeps what it can of the previous table.
func (pl *placement) place() {
	pl.table = slices.Repeat([]uint16{none}, pl.partitions*pl.width)
	for p := range pl.partitions {
		copy(pl.row(p), pl.oldRow(p))
	}
	set := min(setSize, pl.width)
	pl.fill(0, set)
	for n := 1; n < set; n++ {
		pl.order(n, set)
	}
	for n := set + 1; n <= pl.width; n++ {
		pl.fill(n-1, n)
	}
}

// fill chooses the owners at positions first to n-1 of every partition.
func (pl *placement) fill(first, n int) {
	st := pl.newStage(first, n)
	st.open, st.limit = true, pl.width
	holes := st.evict()
	st.count()
	st.deal(holes)
	st.balance()
}

// order chooses which of the owners at positions n-1 to set-1 stands at n-1.
func (pl *placement) order(n, set int) {
	st := pl.newStage(n-1, n)
	st.limit = set
	st.reorder()
	st.count()
	st.balance()
}

func (pl *placement) row(p int) []uint16      { return pl.table[p*pl.width:][:pl.width] }
func (pl *placement) rowOf(slot int) []uint16 { return pl.row(slot / pl.width) }
func (pl *placement) oldRow(p int) []uint16   { return pl.old[p*pl.oldWidth:][:pl.oldWidth] }

// stage decides the owners at positions first to n-1, of all partitions, so
// that each member has its quota among the first n. It does not touch those
// before first.
type stage struct {
	*placement
	rule     spread // for the first n
	first, n int
	limit    int  // members at positions n to limit-1 may swap places with the stage's
	open     bool // members from outside the row may come in

	load, quota []int   // of each member, among the first n
	short       [][]int // of each position from first, of each member: its quota there less its load there
	slots       [][]int // of each member: the indexes in table of its places at positions first to n-1
	index       []int   // of each of these places: its index in slots
	tally       []int   // of each zone: scratch, zero between uses
}

func (pl *placement) newStage(first, n int) *stage {
	return &stage{
		placement: pl,
		rule:      pl.spread(n),
		first:     first,
		n:         n,
		load:      make([]int, len(pl.weights)),
		slots:     make([][]int, len(pl.weights)),
		index:     make([]int, len(pl.table)),
		tally:     make([]int, len(pl.zones)),
	}
}

// evict takes out of positions first to n-1 who is gone, stands there twice or
// breaks the rule for zones. It returns the places without an owner.
func (st *stage) evict() (holes []int) {
	for p := range st.partitions {
		row := st.row(p)
		for pos := st.first; pos < st.n; pos++ {
			if row[pos] == none || !st.fits(row[:pos], row[pos]) {
				row[pos] = none
				holes = append(holes, p*st.width+pos)
			}
		}
	}
	return holes
}

// reorder puts at position n-1 the first of the set, from there on, that the
// rule for zones allows. There is one: the first n-1 hold too few of some zone
// for the rule at n, the whole set holds enough of it.
func (st *stage) reorder() {
	for p := range st.partitions {
		row := st.row(p)
		next := st.n - 1
		for !st.fits(row[:st.n-1], row[next]) {
			next++
		}
		row[st.n-1], row[next] = row[next], row[st.n-1]
	}
}

// fits reports whether m may join owners, some of the first n of a partition,
// such that the rest can still be filled by the rule for zones.
func (st *stage) fits(owners []uint16, m uint16) bool {
	if slices.Contains(owners, m) {
		return false
	}
	extra := st.rule.extra
	for _, o := range owners {
		if o == none {
			continue
		}
		z := st.zoneOf[o]
		st.tally[z]++
		if st.tally[z] > st.rule.least[z] {
			extra--
		}
	}
	z := st.zoneOf[m]
	n := st.tally[z]
	st.clearTally(owners)
	return n < st.rule.least[z] || n < st.rule.most[z] && extra > 0
}

func (st *stage) clearTally(owners []uint16) {
	for _, o := range owners {
		if o != none {
			st.tally[st.zoneOf[o]] = 0
		}
	}
}

// count takes stock of loads, quotas and places.
func (st *stage) count() {
	for p := range st.partitions {
		for _, m := range st.row(p)[:st.first] {
			st.load[m]++
		}
	}
	st.quota = slices.Clone(st.load)
	for pos := st.first; pos < st.n; pos++ {
		st.short = append(st.short, st.countPosition(pos))
	}
	for m, slots := range st.slots {
		shuffle(slots, st.seeds[m])
		for i, slot := range slots {
			st.index[slot] = i
		}
	}
}

// countPosition adds a position to loads and places and raises the quotas to
// those for that many owners. It returns what each member is short of there.
func (st *stage) countPosition(pos int) []int {
	short := make([]int, len(st.load))
	for slot := pos; slot < len(st.table); slot += st.width {
		if m := st.table[slot]; m != none {
			st.load[m]++
			short[m]--
			st.attach(slot, m)
		}
	}
	before := st.quota
	st.quota = st.quotas(pos+1, st.spread(pos+1), st.load)
	for m := range short {
		short[m] += st.quota[m] - before[m]
	}
	return short
}

// position returns which of positions first to n-1, from 0, slot is at.
func (st *stage) position(slot int) int { return slot%st.width - st.first }

// over returns by how much m is over its quota, negative if it is short.
func (st *stage) over(m uint16) int { return st.load[m] - st.quota[m] }

func (st *stage) attach(slot int, m uint16) {
	st.table[slot] = m
	st.index[slot] = len(st.slots[m])
	st.slots[m] = append(st.slots[m], slot)
}

// give fills a place without an owner.
func (st *stage) give(slot int, m uint16) {
	st.attach(slot, m)
	st.load[m]++
	st.short[st.position(slot)][m]--
}

// replace gives the place at slot to v. If v stands further behind in the row,
// it swaps places with the member that had it.
func (st *stage) replace(slot int, v uint16) {
	u := st.table[slot]
	behind := st.rowOf(slot)[st.n:]
	if i := slices.Index(behind, v); i >= 0 {
		behind[i] = u
	}
	places, i := st.slots[u], st.index[slot]
	last := places[len(places)-1]
	places[i], st.index[last] = last, i
	st.slots[u] = places[:len(places)-1]
	st.load[u]--
	st.short[st.position(slot)][u]++
	st.give(slot, v)
}

// shuffle scatters what would otherwise follow the order of members or
// partitions, the same way for the same seed (Durstenfeld: Algorithm 235, 1964).
func shuffle[T any](s []T, seed uint64) {
	for i := len(s) - 1; i > 0; i-- {
		seed = mix(seed)
		j := seed % uint64(i+1)
		s[i], s[j] = s[j], s[i]
	}
}

// mix is SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
