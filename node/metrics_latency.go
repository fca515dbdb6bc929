package node

import (
	"github.com/prometheus/client_golang/prometheus"
)

var peerLatency = metricDesc("coordinator_peer_p98_seconds",
	"98th percentile of the answers of a node to reads, as this node believes it to be.", "peer")

// latencyCollector shows how fast this node believes the others to be. It
// implements [prometheus.Collector].
type latencyCollector struct{ *Node }

// Describe implements [prometheus.Collector].
func (latencyCollector) Describe(ch chan<- *prometheus.Desc) { ch <- peerLatency }

// Collect implements [prometheus.Collector].
func (c latencyCollector) Collect(ch chan<- prometheus.Metric) {
	believed := c.coordinator.PeerLatencies()
	l := c.views.Current().Active()
	if len(l) == 0 {
		return
	}
	for _, m := range l[0].Members() {
		if p98, ok := believed[m.ID]; ok && m.ID != c.id {
			ch <- prometheus.MustNewConstMetric(peerLatency, prometheus.GaugeValue, p98.Seconds(), m.Name)
		}
	}
}
