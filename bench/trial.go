package bench

// Phase is what a cluster did in one part of a trial.
type Phase struct {
	Name       string  `json:"name"`
	Seconds    float64 `json:"seconds"`
	Rate       float64 `json:"rate"` // asked for, 0: closed loop
	Throughput float64 `json:"throughput"`
	Latency    Latency `json:"latency"`
	Reads      Latency `json:"reads"`
	Writes     Latency `json:"writes"`
	Counts     Counts  `json:"counts"`
	CPU        *CPU    `json:"cpu,omitempty"`
	// PeerCalls are the calls that the nodes which clients talk to made of others,
	// for a request that succeeded.
	PeerCalls float64 `json:"peer_calls_per_request,omitempty"`
	// Extra is the share of these calls that were made because another was late,
	// or to see whether a slow node has recovered.
	Extra float64 `json:"extra_calls,omitempty"`
}

// The counters of a node of which [NewPhase] makes sums.
const (
	metricCalls   = "starling_transport_calls_total"
	metricHedges  = "starling_coordinator_hedges_total"
	metricRescues = "starling_coordinator_rescues_total"
	metricProbes  = "starling_coordinator_probes_total"
)

// NewPhase sums up a run, during which the counters of the nodes grew so much.
func NewPhase(name string, r *Result, grown Metrics) Phase {
	p := Phase{
		Name: name, Seconds: r.Seconds, Rate: r.Rate, Throughput: r.Throughput, Latency: r.Latency,
		Reads: r.ByKind[Read.String()].Latency, Writes: r.ByKind[Update.String()].Latency, Counts: r.Counts, CPU: r.CPU,
	}
	if calls := grown.Sum(metricCalls); calls > 0 {
		p.PeerCalls = calls / max(1, float64(r.Done)) * r.Seconds / (r.Seconds + r.WarmUp)
		p.Extra = (grown.Sum(metricHedges) + grown.Sum(metricRescues) + grown.Sum(metricProbes)) / calls
	}
	return p
}

// Bound is the worst 99th percentile of any slice of a timeline: what is no
// worse can be chance.
func Bound(timeline []Second) (worst float64) {
	for _, s := range timeline {
		worst = max(worst, s.Latency.P99)
	}
	return worst
}

// Settled returns when a timeline came within a bound for good: the end of the
// last slice with failures, without any request, or with a 99th percentile, in
// milliseconds, beyond it. It is 0 if there is none, and false if that is the
// last slice.
func Settled(timeline []Second, bound float64) (at float64, ok bool) {
	ok = len(timeline) > 0
	for i, s := range timeline {
		if s.Failed > 0 || s.Done == 0 || s.Latency.P99 > bound {
			at, ok = s.At, i < len(timeline)-1
		}
	}
	return at, ok
}

// Over returns how many times one latency is another, 0 where that is unknown.
func Over(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
