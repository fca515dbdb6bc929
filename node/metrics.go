package node

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// registerMetrics shows what the parts of the node count. The names are part of
// the interface to operators.
func (n *Node) registerMetrics() {
	n.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	n.counter("coordinator_hedges_total", "Replicas asked because another was late.", func() uint64 { return n.coordinator.Stats().Hedges })
	n.counter("coordinator_rescues_total", "Nodes asked because another was long silent.", func() uint64 { return n.coordinator.Stats().Rescues })
	n.counter("coordinator_forwards_total", "Writes handed to an owner to coordinate.", func() uint64 { return n.coordinator.Stats().Forwards })
	n.counter("coordinator_restarts_total", "Requests begun again because layouts differed.", func() uint64 { return n.coordinator.Stats().Restarts })
	n.counter("coordinator_behind_total", "Answers of replicas that lacked what others held.", func() uint64 { return n.coordinator.Stats().Behind })
	n.counter("coordinator_unreached_total", "Requests that did not reach their count.", func() uint64 { return n.coordinator.Stats().Unreached })
	n.counter("coordinator_many_siblings_total", "Writes that left a key with many siblings.", func() uint64 { return n.coordinator.Stats().Siblings })
	n.counter("replica_reused_dots_total", "Alarms that a dot was given twice.", n.replica.ReusedDots)

	n.counter("store_updates_total", "Updates answered.", func() uint64 { return n.store.Stats().Updates })
	n.counter("store_commits_total", "Transactions of the engine.", func() uint64 { return n.store.Stats().Commits })
	n.counter("store_syncs_total", "Transactions that were synced.", func() uint64 { return n.store.Stats().Syncs })
	n.counter("store_bytes_total", "Bytes given to the engine.", func() uint64 { return n.store.Stats().Bytes })
	n.counter("store_corrupt_total", "Damaged values met by reads.", func() uint64 { return n.store.Stats().Corrupt })
	n.gauge("store_queue_updates", "Updates waiting for the disk.", func() float64 { return float64(n.store.Stats().QueueLen) })
	n.gauge("store_free_bytes", "Free space on the disk.", func() float64 { return float64(n.store.Stats().Free) })
	n.gauge("store_state", "0 ok, 1 disk full, 2 failed.", func() float64 { return float64(n.store.Stats().State) })

	n.counter("transport_calls_total", "Calls made of other nodes.", func() uint64 { return n.tcp.Stats().Calls })
	n.counter("transport_received_bytes_total", "Bytes received from other nodes.", func() uint64 { return n.tcp.Stats().BytesIn })
	n.counter("transport_sent_bytes_total", "Bytes sent to other nodes.", func() uint64 { return n.tcp.Stats().BytesOut })
	n.counter("transport_refused_total", "Calls and replies that found a queue full.", func() uint64 { return n.tcp.Stats().Refused })
	n.counter("transport_corrupt_frames_total", "Damaged frames, each of which ended its connection.", func() uint64 { return n.tcp.Stats().CorruptFrames })
	n.gauge("transport_connections", "Connections to other nodes.", func() float64 { return float64(n.tcp.Stats().Connections) })

	n.counter("gossip_contacts_total", "Exchanges of states begun to find or teach nodes.", func() uint64 { return n.gossip.Stats().Contacts })
	n.counter("gossip_contacts_failed_total", "Exchanges of states that failed.", func() uint64 { return n.gossip.Stats().ContactsFailed })
}

func (n *Node) counter(name, help string, read func() uint64) {
	n.registry.MustRegister(prometheus.NewCounterFunc(
		prometheus.CounterOpts{Namespace: "starling", Name: name, Help: help}, func() float64 { return float64(read()) }))
}

func (n *Node) gauge(name, help string, read func() float64) {
	n.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "starling", Name: name, Help: help}, read))
}
