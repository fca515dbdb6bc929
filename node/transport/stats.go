package transport

import "sync/atomic"

// Stats counts what a [TCP] transport did since it started. Connections is what
// stands now, both those dialled and those accepted.
type Stats struct {
	Calls             uint64 // made by this node
	BytesIn, BytesOut uint64 // after the handshakes
	Refused           uint64 // calls and replies that found a queue of this node full
	Busy              uint64 // requests that this node declined to run
	CorruptFrames     uint64 // each ended its link
	Dials             uint64 // attempts to connect
	Connections       int64
	// HandshakesRefused counts refusals by either side, reasons of later versions
	// under 0.
	HandshakesRefused map[Reason]uint64
}

type counters struct {
	calls, bytesIn, bytesOut, refused, busy, corrupt, dials atomic.Uint64

	connections atomic.Int64
	handshakes  [len(reasonNames)]atomic.Uint64
}

func (c *counters) refusedHandshake(r Reason) {
	if int(r) >= len(c.handshakes) {
		r = 0
	}
	c.handshakes[r].Add(1)
}

func (c *counters) stats() Stats {
	s := Stats{
		Calls:             c.calls.Load(),
		BytesIn:           c.bytesIn.Load(),
		BytesOut:          c.bytesOut.Load(),
		Refused:           c.refused.Load(),
		Busy:              c.busy.Load(),
		CorruptFrames:     c.corrupt.Load(),
		Dials:             c.dials.Load(),
		Connections:       c.connections.Load(),
		HandshakesRefused: make(map[Reason]uint64),
	}
	for r := range c.handshakes {
		if n := c.handshakes[r].Load(); n > 0 {
			s.HandshakesRefused[Reason(r)] = n
		}
	}
	return s
}
