package storage

// results are what a round has made of entries so far, by storage key. They are
// large for the values of a map, and their room serves one round after the other.
type results struct {
	places map[string]int
	list   []result
}

// roomyRound is the number of results of which a round may leave the room behind.
const roomyRound = 512

func newResults() *results { return &results{places: make(map[string]int)} }

func (rs *results) of(key []byte) (result, bool) {
	i, ok := rs.places[string(key)]
	if !ok {
		return result{}, false
	}
	return rs.list[i], true
}

func (rs *results) keep(key []byte, made result) {
	if i, ok := rs.places[string(key)]; ok {
		rs.list[i] = made
		return
	}
	rs.places[string(key)] = len(rs.list)
	rs.list = append(rs.list, made)
}

// forget empties them.
func (rs *results) forget() {
	if len(rs.list) > roomyRound {
		*rs = *newResults()
		return
	}
	clear(rs.places)
	clear(rs.list)
	rs.list = rs.list[:0]
}
