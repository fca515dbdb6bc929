package bench

import (
	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Result is what a run did. Requests count that were due, or in a closed loop
// sent, after the warm-up.
type Result struct {
	Counts

	Workload    Workload `json:"workload"`
	Keys        int64    `json:"keys"`
	KeySize     int      `json:"key_bytes"`
	ValueSize   int      `json:"value_bytes"`
	Connections int      `json:"connections"`
	Rate        float64  `json:"rate"` // asked for, 0: closed loop
	WarmUp      float64  `json:"warm_up_seconds"`
	Seconds     float64  `json:"seconds"`
	Seed        uint64   `json:"seed"`
	Tokens      bool     `json:"tokens"`

	Done       int64             `json:"done"`
	Throughput float64           `json:"throughput"` // requests that succeeded per second
	Latency    Latency           `json:"latency"`
	ByKind     map[string]ByKind `json:"by_operation"`
	Curve      []Point           `json:"percentiles"`
	Timeline   []Second          `json:"timeline"`
	// Lag is how long after they were due the requests of an open loop were sent.
	// It is part of their latency: its median is what this process's timers add,
	// its tail what full connections add.
	Lag *Latency `json:"lag,omitempty"`
	CPU *CPU     `json:"cpu,omitempty"` // nil where the servers' processes are not known

	histogram *hdr.Histogram // of all operations
}

// ByKind is what became of the operations of one kind.
type ByKind struct {
	Done    int64   `json:"done"`
	Latency Latency `json:"latency"`
	Curve   []Point `json:"percentiles"`
}

// CPU is processor time, user and system, in seconds.
type CPU struct {
	Servers float64 `json:"servers"`
	Client  float64 `json:"client"`
	// Others is what other processes used meanwhile, and the kernel for nobody in
	// particular. Much of it makes the figures worthless.
	Others  float64 `json:"others"`
	Per100k float64 `json:"servers_per_100k"` // of requests that succeeded
}

// result is called when all workers have ended.
func (l *load) result() Result {
	r := Result{
		Workload: l.Workload, Keys: l.Keys, KeySize: l.KeySize, ValueSize: l.ValueSize, Connections: l.Connections,
		Rate: l.Rate, WarmUp: l.WarmUp.Seconds(), Seconds: l.Duration.Seconds(), Seed: l.Seed, Tokens: l.Tokens != nil,
		ByKind: map[string]ByKind{}, Timeline: l.timeline, histogram: newHistogram(),
	}
	lag := newHistogram()
	var kinds [operations]*hdr.Histogram
	for op := range kinds {
		kinds[op] = newHistogram()
		for _, rec := range l.recorders {
			kinds[op].Merge(rec.total[op])
		}
		r.histogram.Merge(kinds[op])
		if n := kinds[op].TotalCount(); n > 0 {
			r.ByKind[Operation(op).String()] = ByKind{n, latencyOf(kinds[op]), curve(kinds[op])}
		}
	}
	for _, rec := range l.recorders {
		r.Counts.add(rec.counts)
		lag.Merge(rec.lag)
	}
	r.Done = r.histogram.TotalCount()
	r.Throughput = float64(r.Done) / r.Seconds
	r.Latency, r.Curve = latencyOf(r.histogram), curve(r.histogram)
	if l.Rate > 0 {
		of := latencyOf(lag)
		r.Lag = &of
	}
	if l.cpu.ok {
		r.CPU = l.cpu.of(r.Done)
	}
	return r
}

func (m *cpuMeter) of(done int64) *CPU {
	s := m.spent
	return &CPU{
		Servers: s.servers.Seconds(), Client: s.self.Seconds(),
		Others:  max(0, (s.all - s.servers - s.self).Seconds()), // the clocks were read one after the other
		Per100k: s.servers.Seconds() * 1e5 / max(1, float64(done)),
	}
}
