package ring

import "slices"

// chains are ways to even out loads: u gives a place to v, v one of its own
// elsewhere to w, and so on, from a member over its quota to one short of it. A
// step moves data if the giver had the place before and the taker had not.
type chains struct {
	moves  int                 // how many steps of a chain may move data
	behind bool                // only to members further behind in the row
	loose  bool                // to members not due up to slack over quota, from such down to slack below
	place  func(slot int) bool // which places may change hands; nil: all
	from   func(m uint16) bool // where a chain may start; nil: anywhere
	to     func(m uint16) bool // where a chain may end; nil: anywhere
}

func (c *chains) starts(m uint16) bool { return c.from == nil || c.from(m) }
func (c *chains) ends(m uint16) bool   { return c.to == nil || c.to(m) }

// search applies chains, those first that move the least, then the shortest,
// in phases: it finds the layers of members that chains reach, then chains
// through the layers until none is left (Dinic: Algorithm for solution of a
// problem of maximum flow in networks with power estimation, 1970).
//
// From a layer, steps that move nothing lead to the next. Where they reach
// nobody more, steps that move data lead from all layers since the last such
// step to one new layer.
type search struct {
	*stage
	chains
	due []bool // of each member: at the outset it missed its quota by more than slack

	layer  []int    // of each member: its layer, -1 if not reached or a dead end
	layers []*crowd // the members of each, dead ends left out
	bases  []int    // the layers that steps which move data lead to; at first 0
	next   []int    // of each member: which of its places to try next
	rows   []int    // the partitions that the chain under construction changes
}

func newSearch(st *stage) *search {
	members := len(st.weights)
	s := &search{stage: st, due: make([]bool, members), layer: make([]int, members), next: make([]int, members)}
	for m := range s.due {
		over := st.over(uint16(m))
		s.due[m] = max(over, -over) > st.slack(uint16(m))
	}
	return s
}

// exhaust applies chains until there is none.
func (s *search) exhaust(c chains) {
	s.chains = c
	for again := true; again; {
		again = s.findLayers() && s.applyChains()
	}
}

func (s *search) gives(u uint16) bool { return s.over(u) > -s.leeway(u) && s.starts(u) }
func (s *search) takes(v uint16) bool { return s.over(v) < s.leeway(v) && s.ends(v) }

func (s *search) leeway(m uint16) int {
	if s.loose && !s.due[m] {
		return s.slack(m)
	}
	return 0
}

// findLayers finds layers up to the first with a member that takes, and
// reports whether there is one.
func (s *search) findLayers() bool {
	rest, takers := s.start()
	if takers == 0 {
		return false
	}
	for moves := 0; ; moves++ {
		base := s.bases[moves]
		for len(s.layers[len(s.layers)-1].zones) > 0 {
			if s.addLayer(s.layers[len(s.layers)-1:], false, rest) {
				return true
			}
		}
		if len(s.layers)-1 == base || moves == s.moves {
			return false
		}
		s.bases = append(s.bases, len(s.layers))
		if s.addLayer(s.layers[base:], true, rest) {
			return true
		}
	}
}

// start makes the layer of the members that give. It returns the others, and
// how many of these take.
func (s *search) start() (rest *crowd, takers int) {
	givers, rest := s.newCrowd(), s.newCrowd()
	for z, members := range s.zones {
		for _, m := range members {
			s.layer[m], s.next[m] = -1, 0
			if s.gives(m) {
				s.layer[m] = 0
				givers.add(z, m)
				continue
			}
			rest.add(z, m)
			if s.takes(m) {
				takers++
			}
		}
	}
	s.layers, s.bases = append(s.layers[:0], givers), append(s.bases[:0], 0)
	return rest, takers
}

// addLayer takes out of rest the members one step from those of from to make a
// layer, and reports whether one of them takes.
func (s *search) addLayer(from []*crowd, moving bool, rest *crowd) (found bool) {
	layer := s.newCrowd()
	reach := func(v uint16) verdict {
		if s.layer[v] < 0 {
			s.layer[v] = len(s.layers)
			layer.add(s.zoneOf[v], v)
			found = found || s.takes(v)
		}
		return drop
	}
	for _, c := range from {
		for _, z := range c.zones {
			for _, u := range c.byZone[z] {
				for _, slot := range s.slots[u] {
					if len(rest.zones) > 0 && s.mayChange(slot) {
						s.ask(slot, moving, -1, rest, reach)
					}
				}
			}
		}
	}
	s.layers = append(s.layers, layer)
	return found
}

// applyChains applies chains through the layers until there is none, and
// reports whether there was one.
func (s *search) applyChains() (applied bool) {
	for _, z := range s.layers[0].zones {
		for _, u := range s.layers[0].byZone[z] {
			for s.gives(u) && s.giveOne(u) {
				applied = true
			}
		}
	}
	return applied
}

// giveOne lets u give one of its places to a member of a layer to come that is
// short of its quota or can give one in turn. It reports false if u cannot.
func (s *search) giveOne(u uint16) bool {
	free := s.layer[u] + 1
	base, _ := slices.BinarySearch(s.bases, free) // of the next steps that move data
	for ; s.next[u] < len(s.slots[u]); s.next[u]++ {
		slot := s.slots[u][s.next[u]]
		if !s.mayChange(slot) {
			continue
		}
		v := none
		if free < len(s.layers) && (base == len(s.bases) || free < s.bases[base]) {
			v = s.giveTo(slot, false, free)
		}
		if v == none && base < len(s.bases) {
			v = s.giveTo(slot, true, s.bases[base])
		}
		if v != none {
			s.replace(slot, v)
			return true
		}
	}
	return false
}

// giveTo finds who of a layer can take the place at slot, after passing on one
// of its own if the layer is not the last. It returns none if nobody can.
func (s *search) giveTo(slot int, moving bool, layer int) uint16 {
	s.rows = append(s.rows, slot/s.width)
	defer func() { s.rows = s.rows[:len(s.rows)-1] }()
	return s.ask(slot, moving, layer, s.layers[layer], func(v uint16) verdict {
		last := layer == len(s.layers)-1
		if last && s.takes(v) || !last && s.giveOne(v) {
			return stop
		}
		s.layer[v] = -1
		return drop
	})
}

// mayChange reports whether the place at slot may change hands: two changes of
// one row by one chain might together break the rule for zones.
func (s *search) mayChange(slot int) bool {
	return (s.place == nil || s.place(slot)) && !slices.Contains(s.rows, slot/s.width)
}

// verdict is what becomes of a member that was asked to take a place.
type verdict int

const (
	drop verdict = iota // it is out; ask the next
	skip                // not by this step; ask the next
	stop                // it takes
)

// ask asks the members of a layer, who are those of a crowd, to take the place
// at slot by a step that moves data or by one that does not, until one says
// stop. It returns that one, or none.
func (s *search) ask(slot int, moving bool, layer int, c *crowd, answer func(uint16) verdict) uint16 {
	row, before := s.rowOf(slot), s.before(slot)
	had := slices.Contains(before, s.table[slot])
	switch {
	case moving && !had:
		return none
	case s.behind || !s.open:
		return s.askSome(slot, row[s.n:s.limit], layer, func(v uint16) verdict {
			if had && !moving && !slices.Contains(before, v) {
				return skip
			}
			return answer(v)
		})
	case had && !moving:
		return s.askSome(slot, before, layer, answer)
	}
	owners, from := row[:s.n], s.zoneOf[s.table[slot]]
	for i := 0; i < len(c.zones); i++ {
		z := c.zones[i]
		if !s.mayFollow(owners, from, z) {
			continue
		}
		if v := c.ask(z, owners, answer); v != none {
			return v
		}
		if len(c.byZone[z]) == 0 {
			c.zones = slices.Delete(c.zones, i, i+1)
			i--
		}
	}
	return none
}

// before returns who were the first n owners of slot's partition before.
func (s *search) before(slot int) []uint16 {
	return s.oldRow(slot / s.width)[:min(s.n, s.oldWidth)]
}

// askSome asks those of some members that are of the layer.
func (s *search) askSome(slot int, some []uint16, layer int, answer func(uint16) verdict) uint16 {
	owners, from := s.rowOf(slot)[:s.n], s.zoneOf[s.table[slot]]
	for _, v := range some {
		if v == none || s.layer[v] != layer || slices.Contains(owners, v) || !s.mayFollow(owners, from, s.zoneOf[v]) {
			continue
		}
		if answer(v) == stop {
			return v
		}
	}
	return none
}

// mayFollow reports whether the rule for zones lets a member of one zone take
// the place of one of another among owners, the first n of a partition.
func (s *search) mayFollow(owners []uint16, from, to int) bool {
	return from == to ||
		s.inZone(owners, to) < s.rule.most[to] && s.inZone(owners, from) > s.rule.least[from]
}

func (s *search) inZone(owners []uint16, zone int) int {
	n := 0
	for _, o := range owners {
		if s.zoneOf[o] == zone {
			n++
		}
	}
	return n
}

// crowd is a set of members by zone.
type crowd struct {
	byZone [][]uint16
	zones  []int // that are not empty
}

func (s *search) newCrowd() *crowd { return &crowd{byZone: make([][]uint16, len(s.zones))} }

func (c *crowd) add(z int, m uint16) {
	if len(c.byZone[z]) == 0 {
		c.zones = append(c.zones, z)
	}
	c.byZone[z] = append(c.byZone[z], m)
}

// ask asks the members of zone z that are not among owners, drops them from
// the crowd as answer says, and returns the one that says stop, or none.
func (c *crowd) ask(z int, owners []uint16, answer func(uint16) verdict) uint16 {
	members := c.byZone[z]
	for i := 0; i < len(members); {
		v := members[i]
		switch {
		case slices.Contains(owners, v):
			i++
		case answer(v) == stop:
			c.byZone[z] = members
			return v
		default:
			last := len(members) - 1
			members[i], members = members[last], members[:last]
		}
	}
	c.byZone[z] = members
	return none
}
