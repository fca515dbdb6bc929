package api

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"
)

// metrics are what the server counts about itself.
type metrics struct {
	requests    *prometheus.CounterVec   // by route, method, status
	seconds     *prometheus.HistogramVec // by route, method
	received    prometheus.Counter
	sent        prometheus.Counter
	inFlight    prometheus.Gauge
	connections prometheus.Gauge
	refused     *prometheus.CounterVec // by what was exhausted

	mu    sync.RWMutex
	kinds map[kind]counted
}

// kind is what answers are counted by.
type kind struct {
	route, method string
	status        int
}

// counted counts the answers of one kind.
type counted struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

// buckets reach from 128 µs to 67 s, each twice the one before.
var buckets = prometheus.ExponentialBuckets(128e-6, 2, 20)

// namespace and subsystem are part of the names of all metrics.
const namespace, subsystem = "starling", "http"

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	m := &metrics{
		kinds: make(map[kind]counted),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts(
			opts("requests_total", "Requests answered.")), []string{"route", "method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "request_seconds",
			Help: "Time from the first byte of a request to its answer, before that is sent.", Buckets: buckets,
		}, []string{"route", "method"}),
		received: prometheus.NewCounter(prometheus.CounterOpts(
			opts("received_bytes_total", "Bytes of the bodies of requests."))),
		sent: prometheus.NewCounter(prometheus.CounterOpts(
			opts("sent_bytes_total", "Bytes sent to clients."))),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts(
			opts("requests_in_flight", "Requests that are being answered."))),
		connections: prometheus.NewGauge(prometheus.GaugeOpts(
			opts("connections", "Connections of clients."))),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts(
			opts("refused_total", "Requests and connections refused because the node was at a limit.")), []string{"limit"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.received, m.sent, m.inFlight, m.connections, m.refused} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// showLimit shows how many requests are let in.
func (*metrics) showLimit(reg prometheus.Registerer, l *limiter) error {
	return reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "requests_limit",
		Help: "Requests on keys that may be under way at once: fewer while the machine does not keep up.",
	}, func() float64 { return float64(l.bound()) }))
}

// answered counts an exchange whose answer is ready.
func (m *metrics) answered(route, method string, x *exchange, took time.Duration) {
	c := m.of(kind{route, method, x.status()})
	c.requests.Inc()
	c.seconds.Observe(took.Seconds())
	m.received.Add(float64(x.received))
}

// of returns what counts a kind of answers. It is looked up by its labels once:
// that costs as much as all the rest of counting.
func (m *metrics) of(k kind) counted {
	m.mu.RLock()
	c, ok := m.kinds[k]
	m.mu.RUnlock()
	if ok {
		return c
	}
	c = counted{
		m.requests.WithLabelValues(k.route, k.method, strconv.Itoa(k.status)), m.seconds.WithLabelValues(k.route, k.method),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kinds[k] = c
	return c
}

// shed counts a refusal at a limit: "requests", "bytes" or "connections".
func (m *metrics) shed(limit string) { m.refused.WithLabelValues(limit).Inc() }

// knownMethod keeps the number of label values small, whatever clients send.
func knownMethod(method []byte) string {
	for _, known := range []string{fasthttp.MethodGet, fasthttp.MethodHead, fasthttp.MethodPut, fasthttp.MethodDelete} {
		if string(method) == known {
			return known
		}
	}
	return otherMethod
}

const otherMethod = "other"

// logger lets fasthttp log.
type logger struct{ *zap.Logger }

func (l logger) Printf(format string, args ...any) { l.Sugar().Infof(format, args...) }
