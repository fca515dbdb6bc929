package ring

import "slices"

// deal fills the holes: at first with owners that the partition had before,
// then from a deck for each position that holds every member as often as it is
// short there. Where no card fits it takes whoever fits and is the least over
// quota; balance mends that.
func (st *stage) deal(holes []int) {
	holes = st.fillHoles(holes, st.returning)
	decks := make([]*deck, st.n-st.first)
	for i := range decks {
		decks[i] = newDeck(st.short[i], st.zoneOf, uint64(st.first+i))
	}
	holes = st.fillHoles(holes, func(slot int) uint16 {
		row := st.rowOf(slot)[:st.n]
		return decks[st.position(slot)].take(func(m uint16) bool { return st.over(m) < 0 && st.fits(row, m) })
	})
	st.fillHoles(holes, st.leastOver)
}

// fillHoles gives each hole to whom choose names. It returns the holes for
// which that is none.
func (st *stage) fillHoles(holes []int, choose func(slot int) uint16) (left []int) {
	for _, slot := range holes {
		if m := choose(slot); m != none {
			st.give(slot, m)
		} else {
			left = append(left, slot)
		}
	}
	return left
}

// returning names who owned the partition before and may fill the hole at
// slot: one of its first n, lost to a stage before, which moves nothing; or one
// from further behind, which moves what anyone would for this n and less for
// those that it was within.
func (st *stage) returning(slot int) uint16 {
	row, pos := st.rowOf(slot)[:st.n], st.position(slot)
	for i, m := range st.oldRow(slot / st.width) {
		if m == none {
			continue
		}
		wanted := st.over(m) < 0 && st.short[pos][m] > 0
		if i < st.n {
			wanted = st.over(m) < st.slack(m)
		}
		if wanted && st.fits(row, m) {
			return m
		}
	}
	return none
}

// leastOver names, of the members that fit the row of slot, the one with the
// least load over, or the most short of, its quota.
func (st *stage) leastOver(slot int) uint16 {
	row, best := st.rowOf(slot)[:st.n], none
	for _, zone := range st.zones {
		for _, m := range zone {
			if (best == none || st.over(m) < st.over(best)) && st.fits(row, m) {
				best = m
			}
		}
	}
	return best
}

// deck is a shuffled pile of members: shuffled, so that a member comes to share
// partitions with many others, who can all help to rebuild it. A card that does
// not fit waits, with its zone's, for a row that it fits.
type deck struct {
	pile    []uint16
	zoneOf  []int
	waiting [][]uint16 // of each zone
	zones   []int      // where a card waits
}

// lookahead bounds the search among a zone's waiting cards for a member that
// is not in the row yet.
const lookahead = 16

func newDeck(short, zoneOf []int, seed uint64) *deck {
	d := &deck{zoneOf: zoneOf, waiting: make([][]uint16, slices.Max(zoneOf)+1)}
	for m, count := range short {
		for range count {
			d.pile = append(d.pile, uint16(m))
		}
	}
	shuffle(d.pile, seed)
	return d
}

// take removes a card that fits and returns it, or none: from the zone where
// most cards wait if it can, else from the pile.
func (d *deck) take(fits func(uint16) bool) uint16 {
	zone, card := -1, 0
	for _, z := range d.zones {
		cards := d.waiting[z]
		if zone >= 0 && len(cards) <= len(d.waiting[zone]) {
			continue
		}
		if i := slices.IndexFunc(cards[:min(lookahead, len(cards))], fits); i >= 0 {
			zone, card = z, i
		}
	}
	if zone >= 0 {
		return d.takeWaiting(zone, card)
	}
	for len(d.pile) > 0 {
		m := d.pile[0]
		d.pile = d.pile[1:]
		if fits(m) {
			return m
		}
		d.wait(m)
	}
	return none
}

func (d *deck) wait(m uint16) {
	z := d.zoneOf[m]
	if len(d.waiting[z]) == 0 {
		d.zones = append(d.zones, z)
	}
	d.waiting[z] = append(d.waiting[z], m)
}

func (d *deck) takeWaiting(zone, card int) uint16 {
	cards := d.waiting[zone]
	m := cards[card]
	cards[card] = cards[0]
	d.waiting[zone] = cards[1:]
	if len(cards) == 1 {
		d.zones = slices.DeleteFunc(d.zones, func(z int) bool { return z == zone })
	}
	return m
}
