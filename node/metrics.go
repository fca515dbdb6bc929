package node

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/transport"
)

// registerMetrics shows what the parts of the node count. The names are part of
// the interface to operators.
func (n *Node) registerMetrics() {
	n.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	n.counter("replica_reused_dots_total", "Alarms that a dot was given twice.", n.replica.ReusedDots)
	n.coordinatorMetrics()
	n.storeMetrics()
	n.peerMetrics()
	n.registry.MustRegister(repairCollector{n}, latencyCollector{n})
}

func (n *Node) coordinatorMetrics() {
	count := func(name, help string, of func(coordinator.Stats) uint64) {
		n.counter("coordinator_"+name, help, func() uint64 { return of(n.coordinator.Stats()) })
	}
	type stats = coordinator.Stats
	count("hedges_total", "Replicas asked because another was late.", func(s stats) uint64 { return s.Hedges })
	count("probes_total", "Nodes asked to see whether they are still slow.", func(s stats) uint64 { return s.Probes })
	count("rescues_total", "Nodes asked because another was long silent.", func(s stats) uint64 { return s.Rescues })
	count("forwards_total", "Writes handed to an owner to coordinate.", func(s stats) uint64 { return s.Forwards })
	count("restarts_total", "Requests begun again because layouts differed.", func(s stats) uint64 { return s.Restarts })
	count("behind_total", "Answers of replicas that lacked what others held.", func(s stats) uint64 { return s.Behind })
	count("unreached_total", "Requests that did not reach their count.", func(s stats) uint64 { return s.Unreached })
	count("many_siblings_total", "Writes that left a key with many siblings.", func(s stats) uint64 { return s.Siblings })
}

func (n *Node) storeMetrics() {
	type stats = storage.Stats
	count := func(name, help string, of func(stats) uint64) {
		n.counter("store_"+name, help, func() uint64 { return of(n.store.Stats()) })
	}
	gauge := func(name, help string, of func(stats) float64) {
		n.gauge("store_"+name, help, func() float64 { return of(n.store.Stats()) })
	}
	count("updates_total", "Updates answered.", func(s stats) uint64 { return s.Updates })
	count("commits_total", "Transactions of the engine.", func(s stats) uint64 { return s.Commits })
	count("syncs_total", "Transactions that were synced.", func(s stats) uint64 { return s.Syncs })
	count("bytes_total", "Bytes given to the engine.", func(s stats) uint64 { return s.Bytes })
	count("corrupt_total", "Damaged values met by reads.", func(s stats) uint64 { return s.Corrupt })
	count("cache_hits_total", "Reads of records answered from copies in memory.", func(s stats) uint64 { return s.CacheHits })
	count("cache_misses_total", "Reads of records that needed the engine.", func(s stats) uint64 { return s.CacheMiss })
	gauge("queue_updates", "Updates waiting for the disk.", func(s stats) float64 { return float64(s.QueueLen) })
	gauge("free_bytes", "Free space on the disk.", func(s stats) float64 { return float64(s.Free) })
	gauge("state", "0 ok, 1 disk full, 2 failed.", func(s stats) float64 { return float64(s.State) })
}

func (n *Node) peerMetrics() {
	type stats = transport.Stats
	count := func(name, help string, of func(stats) uint64) {
		n.counter("transport_"+name, help, func() uint64 { return of(n.tcp.Stats()) })
	}
	count("calls_total", "Calls made of other nodes.", func(s stats) uint64 { return s.Calls })
	count("received_bytes_total", "Bytes received from other nodes.", func(s stats) uint64 { return s.BytesIn })
	count("sent_bytes_total", "Bytes sent to other nodes.", func(s stats) uint64 { return s.BytesOut })
	count("refused_total", "Calls and replies that found a queue full.", func(s stats) uint64 { return s.Refused })
	count("corrupt_frames_total", "Damaged frames, each of which ended its connection.", func(s stats) uint64 { return s.CorruptFrames })
	n.gauge("transport_connections", "Connections to other nodes.", func() float64 { return float64(n.tcp.Stats().Connections) })
	gossip := func(name, help string, of func(membership.Stats) uint64) {
		n.counter("gossip_"+name, help, func() uint64 { return of(n.gossip.Stats()) })
	}
	gossip("contacts_total", "Exchanges of states begun to find or teach nodes.", func(s membership.Stats) uint64 { return s.Contacts })
	gossip("contacts_failed_total", "Exchanges of states that failed.", func(s membership.Stats) uint64 { return s.ContactsFailed })
}

func (n *Node) counter(name, help string, read func() uint64) {
	n.registry.MustRegister(prometheus.NewCounterFunc(
		prometheus.CounterOpts{Namespace: "starling", Name: name, Help: help}, func() float64 { return float64(read()) }))
}

func (n *Node) gauge(name, help string, read func() float64) {
	n.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "starling", Name: name, Help: help}, read))
}
