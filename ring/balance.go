package ring

import "math"

// balance brings members to their quotas as far as that is worth it. Chains
// that move no data are free. Others serve only members that are due, which
// miss their quota by more than slack, and bring these right to it. For the set
// no more than one place moves for one, as long as others within their slack
// can take or give it.
func (st *stage) balance() {
	s := newSearch(st)
	switch {
	case !st.open:
		s.exhaustDue(chains{moves: math.MaxInt})
	case st.first > 0:
		s.exhaustDue(chains{})
		s.exhaustDue(chains{moves: math.MaxInt, behind: true})
		s.exhaustDue(chains{moves: math.MaxInt})
	default:
		s.exhaust(chains{})
		s.align(true)
		s.align(false)
		s.exhaustDue(chains{moves: 1})
		s.exhaustDue(chains{moves: 1, loose: true})
		s.exhaustDue(chains{moves: math.MaxInt})
	}
}

// slack is by how much m may miss its quota before data is moved for it: below
// two hundredths, a fraction of the goal for balance.
func (st *stage) slack(m uint16) int { return st.quota[m] / 64 }

// align moves places of the set where the giver is over its quota at that very
// position, so that smaller n gain as well; with both, only to takers that are
// short of theirs there.
func (s *search) align(both bool) {
	for pos, short := range s.short {
		s.exhaustDue(chains{
			moves: 1,
			place: func(slot int) bool { return s.position(slot) == pos },
			from:  func(u uint16) bool { return short[u] < 0 },
			to:    func(v uint16) bool { return short[v] > 0 || !both },
		})
	}
}

// exhaustDue applies those of the chains that start or end at a member that is
// due: at first those that do both.
func (s *search) exhaustDue(c chains) {
	from, to := c, c
	from.from = func(u uint16) bool { return s.due[u] && c.starts(u) }
	to.to = func(v uint16) bool { return s.due[v] && c.ends(v) }
	both := from
	both.to = to.to
	s.exhaust(both)
	s.exhaust(from)
	s.exhaust(to)
}
