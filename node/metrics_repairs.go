package node

import (
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-kv/starling/antientropy"
	"github.com/starling-kv/starling/hints"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/readrepair"
	"github.com/starling-kv/starling/reap"
	"github.com/starling-kv/starling/standing"
)

// repairSample is the state of all repairs at one moment.
type repairSample struct {
	at          time.Time
	hints       hints.Stats
	reads       readrepair.Stats
	exchanges   antientropy.Stats
	standing    standing.Stats
	registered  bool
	quarantined uint64
	reaping     reap.Stats
	late        time.Duration // by which timers fire, on average
	yielding    bool          // repairs give way to requests
}

func (n *Node) repairSample() repairSample {
	r := &n.repairs
	return repairSample{
		at: time.Now(), hints: r.replayer.Stats(), reads: r.reader.Stats(), exchanges: r.exchanger.Stats(),
		standing: n.ledger.Stats(), registered: n.admission.Registered(), quarantined: r.release.held.Load(),
		reaping: r.reaper.Stats(), late: n.strain.average(), yielding: n.pressed(),
	}
}

// age is how long ago t was, in seconds; unknown if t is zero.
func (s repairSample) age(t time.Time) float64 {
	if t.IsZero() {
		return unknown
	}
	return max(0, s.at.Sub(t).Seconds())
}

// unknown is the value of a metric that has none at the moment: it is left out.
var unknown = math.NaN()

// repairMetric is one number of a sample.
type repairMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(repairSample) float64
}

func metricDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("starling", "", name), help, labels, nil)
}

func countOf(name, help string, of func(repairSample) uint64) repairMetric {
	return repairMetric{
		desc: metricDesc(name, help), kind: prometheus.CounterValue, of: func(s repairSample) float64 { return float64(of(s)) },
	}
}

func gaugeOf(name, help string, of func(repairSample) float64) repairMetric {
	return repairMetric{desc: metricDesc(name, help), kind: prometheus.GaugeValue, of: of}
}

func flagOf(name, help string, of func(repairSample) bool) repairMetric {
	return gaugeOf(name, help, func(s repairSample) float64 { return oneIf(of(s)) })
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// repairMetrics are the numbers that there are once.
var repairMetrics = slices.Concat(
	hintMetrics, exchangeMetrics, standingMetrics, reapMetrics, readRepairMetrics, strainMetrics)

var hintMetrics = []repairMetric{
	countOf("hints_replayed_total", "Debts that their targets hold now.",
		func(s repairSample) uint64 { return s.hints.Replayed }),
	countOf("hints_redirected_total", "Debts that were given other targets.",
		func(s repairSample) uint64 { return s.hints.Redirected }),
	countOf("hints_failed_total", "Attempts at a replay that failed.",
		func(s repairSample) uint64 { return s.hints.Failed }),
}

var exchangeMetrics = []repairMetric{
	countOf("antientropy_exchanges_total", "Comparisons of a partition with another owner that came to an end.",
		func(s repairSample) uint64 { return s.exchanges.Exchanges }),
	countOf("antientropy_clean_total", "Of these, the ones in which nothing differed.",
		func(s repairSample) uint64 { return s.exchanges.Clean }),
	countOf("antientropy_put_off_total", "Comparisons given up, to be tried again.",
		func(s repairSample) uint64 { return s.exchanges.PutOff }),
	countOf("antientropy_keys_differ_total", "Keys found to differ for longer than a write takes.",
		func(s repairSample) uint64 { return s.exchanges.KeysDiffer }),
	countOf("antientropy_keys_healed_total", "Keys that both nodes were brought to agree on.",
		func(s repairSample) uint64 { return s.exchanges.KeysHealed }),
	countOf("antientropy_compared_bytes_total", "Bytes of the messages that compare.",
		func(s repairSample) uint64 { return s.exchanges.ComparedBytes }),
	countOf("antientropy_streamed_bytes_total", "Bytes of records fetched as whole leaves.",
		func(s repairSample) uint64 { return s.exchanges.StreamedBytes }),
	countOf("antientropy_streamed_records_total", "Records fetched as whole leaves.",
		func(s repairSample) uint64 { return s.exchanges.StreamedRecords }),
	gaugeOf("antientropy_oldest_clean_seconds",
		"Age of the oldest clean comparison, over all partitions and other owners; since the start where there was none.",
		func(s repairSample) float64 { return s.age(s.exchanges.OldestClean) }),
	countOf("scrub_leaves_total", "Ranges of this node's records that were verified.",
		func(s repairSample) uint64 { return s.exchanges.Scrub.Leaves }),
	countOf("scrub_damaged_total", "Of these, the ones with damaged or lost records.",
		func(s repairSample) uint64 { return s.exchanges.Scrub.Damaged }),
	countOf("scrub_values_total", "Values outside of their records that were verified.",
		func(s repairSample) uint64 { return s.exchanges.Scrub.Values }),
	countOf("scrub_values_lost_total", "Of these, the ones that were damaged or missing.",
		func(s repairSample) uint64 { return s.exchanges.Scrub.ValuesLost }),
	countOf("scrub_values_healed_total", "Of these, the ones that were fetched from another owner.",
		func(s repairSample) uint64 { return s.exchanges.Scrub.ValuesHealed }),
	gaugeOf("antientropy_doubted_leaves", "Ranges with damaged or lost records that were not fetched from all other owners yet.",
		func(s repairSample) float64 { return float64(s.standing.Doubted) }),
}

var standingMetrics = []repairMetric{
	flagOf("standing_registered", "1 if enough members know of this start, so that the node takes part.",
		func(s repairSample) bool { return s.registered }),
	countOf("standing_falls_total", "Times, over all starts, that the disk turned out to have lost something.",
		func(s repairSample) uint64 { return s.standing.Falls }),
	flagOf("standing_fallen", "1 while some partition is not in good standing.",
		func(s repairSample) bool { return s.standing.Fallen > 0 || s.standing.Pending }),
	gaugeOf("standing_partitions", "Partitions that the node owns.",
		func(s repairSample) float64 { return float64(s.standing.Partitions) }),
	gaugeOf("standing_fallen_partitions", "Of these, the ones that readers do not count: not merged yet from every other owner.",
		func(s repairSample) float64 { return float64(s.standing.Fallen) }),
	gaugeOf("quarantine_records", "Records of a disk that was set back, neither served nor discarded.",
		func(s repairSample) float64 { return float64(s.quarantined) }),
}

var reapMetrics = []repairMetric{
	countOf("reap_rounds_total", "Rounds of reaping begun by this node.",
		func(s repairSample) uint64 { return s.reaping.Rounds }),
	countOf("reap_confirmed_total", "Records that all members confirmed.",
		func(s repairSample) uint64 { return s.reaping.Confirmed }),
	countOf("reap_reaped_total", "Records out of which this node then took what was dead.",
		func(s repairSample) uint64 { return s.reaping.Reaped }),
	countOf("reap_refused_total", "Batches of records that wait for a member that refused or is missing.",
		func(s repairSample) uint64 { return s.reaping.Refused }),
	gaugeOf("reap_waiting_seconds", "Age of the oldest delete that is due and could not be reaped; 0 if none is.",
		func(s repairSample) float64 {
			if s.reaping.Oldest.IsZero() {
				return 0
			}
			return s.age(s.reaping.Oldest)
		}),
}

var readRepairMetrics = []repairMetric{
	gaugeOf("readrepair_waiting", "Keys that reads found to differ and that are to be looked at.",
		func(s repairSample) float64 { return float64(s.reads.Waiting) }),
	countOf("readrepair_dropped_total", "Such keys left alone because too many were waiting.",
		func(s repairSample) uint64 { return s.reads.Dropped }),
	countOf("readrepair_surveys_total", "Keys whose owners were asked what they hold.",
		func(s repairSample) uint64 { return s.reads.Surveys }),
	countOf("readrepair_behind_total", "Owners that lacked something then.",
		func(s repairSample) uint64 { return s.reads.Behind }),
	countOf("readrepair_healed_total", "Of these, the ones that have it now.",
		func(s repairSample) uint64 { return s.reads.Healed }),
	countOf("readrepair_failed_total", "Of these, the ones that have not, and keys whose owners could not be asked.",
		func(s repairSample) uint64 { return s.reads.Failed }),
}

var strainMetrics = []repairMetric{
	gaugeOf("strain_late_seconds", "How late timers fire on average over some tenths of a second: above 0.002, repairs give way.",
		func(s repairSample) float64 { return s.late.Seconds() }),
	flagOf("repairs_yielding", "1 while repairs give way to requests.",
		func(s repairSample) bool { return s.yielding }),
}

// What there is by member.
var (
	descHintsOwed    = metricDesc("hints_owed", "What a member missed: writes, and records kept in its place.", "target")
	descHintsBytes   = metricDesc("hints_owed_bytes", "Bytes of that as stored, about.", "target")
	descHintsOldest  = metricDesc("hints_oldest_seconds", "Age of the oldest of it; 0 if nothing is owed.", "target")
	descHintsDropped = metricDesc("hints_dropped_total", "Hints dropped at a limit and left to comparisons.", "target")
	descReapMissing  = metricDesc("reap_missing", "1 if deletes wait for the member.", "member")
)

// repairCollector shows the repairs of a node. It implements
// [prometheus.Collector].
type repairCollector struct{ *Node }

// Describe implements [prometheus.Collector].
func (c repairCollector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range repairMetrics {
		out <- m.desc
	}
	for _, d := range []*prometheus.Desc{descHintsOwed, descHintsBytes, descHintsOldest, descHintsDropped, descReapMissing} {
		out <- d
	}
}

// Collect implements [prometheus.Collector].
func (c repairCollector) Collect(out chan<- prometheus.Metric) {
	s := c.repairSample()
	for _, m := range repairMetrics {
		if v := m.of(s); !math.IsNaN(v) {
			out <- prometheus.MustNewConstMetric(m.desc, m.kind, v)
		}
	}
	members := c.otherMembers()
	for _, o := range debts(s, members) {
		gauge := func(d *prometheus.Desc, v float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, o.member)
		}
		gauge(descHintsOwed, float64(o.count))
		gauge(descHintsBytes, float64(o.bytes))
		gauge(descHintsOldest, o.oldest)
		out <- prometheus.MustNewConstMetric(descHintsDropped, prometheus.CounterValue, float64(o.dropped), o.member)
	}
	for _, m := range members {
		missing := oneIf(slices.Contains(s.reaping.Missing, m.id))
		out <- prometheus.MustNewConstMetric(descReapMissing, prometheus.GaugeValue, missing, m.name)
	}
}

// namedMember is a member of the cluster.
type namedMember struct {
	id   kv.NodeID
	name string
}

// otherMembers returns the members of all active layouts but for this node,
// each name once, the newest layout's first.
func (n *Node) otherMembers() []namedMember {
	var all []namedMember
	for _, l := range n.views.Current().Active() {
		for _, m := range l.Members() {
			known := slices.ContainsFunc(all, func(o namedMember) bool { return o.id == m.ID || o.name == m.Name })
			if m.ID != n.id && !known {
				all = append(all, namedMember{m.ID, m.Name})
			}
		}
	}
	return all
}

// debt is what is owed to one member.
type debt struct {
	member       string
	count, bytes int64
	oldest       float64 // seconds
	dropped      uint64
}

// formerMembers is the target of what is owed to nodes that are members no
// longer: together, so that the number of labels is bounded by the members.
const formerMembers = "(former members)"

// debts sorts what is owed by member, those to whom nothing is owed included.
func debts(s repairSample, members []namedMember) []debt {
	all := make([]debt, 0, len(members)+1)
	for _, m := range members {
		all = append(all, debt{member: m.name})
	}
	all = append(all, debt{member: formerMembers})
	for _, o := range s.hints.Owed {
		i := slices.IndexFunc(members, func(m namedMember) bool { return m.id == o.Target })
		if i < 0 {
			i = len(members)
		}
		all[i].add(s, o)
	}
	return all
}

func (d *debt) add(s repairSample, o hints.Owed) {
	d.count += int64(o.Missed.Count + o.Copies.Count)
	d.bytes += o.Missed.Bytes + o.Copies.Bytes
	d.dropped += o.Dropped
	for _, oldest := range []time.Time{o.Missed.Oldest, o.Copies.Oldest} {
		if !oldest.IsZero() {
			d.oldest = max(d.oldest, s.age(oldest))
		}
	}
}
