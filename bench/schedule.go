package bench

import "time"

// schedule is when the requests of one connection of an open loop are due: the
// requests of all connections, dealt in turn, are evenly spaced.
type schedule struct {
	start       time.Time
	rate        float64 // of all connections, per second
	connections int64
	index       int64 // of this connection
}

// due returns when request i of the connection, counted from 0, is due.
func (s schedule) due(i int64) time.Time {
	nth := float64(i*s.connections + s.index)
	return s.start.Add(time.Duration(nth / s.rate * float64(time.Second)))
}

// until returns how many requests of the connection are due before end.
func (s schedule) until(end time.Time) int64 {
	span := end.Sub(s.start).Seconds() * s.rate // requests of all connections
	i := max(0, int64((span-float64(s.index))/float64(s.connections))-1)
	for s.due(i).Before(end) { // at most a few: of rounding
		i++
	}
	return i
}
