package proxy

import (
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// metrics are the server's. Every label takes its values from a set that is bounded by code or policy,
// never from a request.
type metrics struct {
	registry *prometheus.Registry

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter

	sealed   *prometheus.CounterVec
	opened   *prometheus.CounterVec
	unopened *prometheus.CounterVec
	refused  *prometheus.CounterVec

	reloadOK   prometheus.Gauge
	reloadTime prometheus.Gauge
}

func newMetrics(s *Server) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "esproxy_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "esproxy_" + name, Help: help})
	}
	gaugeFunc := func(name, help string, labels prometheus.Labels, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "esproxy_" + name, Help: help, ConstLabels: labels}, f)
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: counter("requests_total", "Requests by route template, method and status class.", "route", "method", "class"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "esproxy_request_seconds", Help: "Time from head to end of the reply.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
		inFlight:   gauge("requests_in_flight", "Requests being served."),
		panics:     prometheus.NewCounter(prometheus.CounterOpts{Name: "esproxy_panics_total", Help: "Requests that met a fault of the program."}),
		sealed:     counter("sealed_values_total", "Values sealed.", "rule", "field"),
		opened:     counter("opened_values_total", "Values shown, plain or masked.", "rule", "field", "how"),
		unopened:   counter("unopened_values_total", "Values that stayed sealed for a caller with a grant.", "reason"),
		refused:    counter("refused_total", "Refused requests and bulk items by fault type.", "type"),
		reloadOK:   gauge("reload_success", "1 when the last load of policy, keys and certificates succeeded, else 0."),
		reloadTime: gauge("reload_success_timestamp_seconds", "When policy and keys were last loaded."),
	}
	version := s.cfg.Version
	if version == "" {
		version = "unknown"
	}
	m.registry.MustRegister(
		m.requests, m.seconds, m.inFlight, m.panics, m.sealed, m.opened, m.unopened, m.refused, m.reloadOK, m.reloadTime,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gaugeFunc("memory_budget_bytes", "Memory that bodies may use.", nil, func() float64 { return float64(s.budget.size) }),
		gaugeFunc("memory_used_bytes", "Memory that bodies use.", nil, func() float64 { return float64(s.budget.used.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "esproxy_memory_refusals_total", Help: "Waits for memory that took too long."},
			func() float64 { return float64(s.budget.late.Load()) }),
		gaugeFunc("draining", "1 while the proxy ends.", nil, func() float64 { return number(s.draining.Load()) }),
		gaugeFunc("build_info", "Always 1.", prometheus.Labels{"version": version, "go": goVersion()}, func() float64 { return 1 }),
		gaugeFunc("upstream_last_answer_timestamp_seconds", "When a node answered last.", nil,
			func() float64 { return float64(s.pool.last.Load()) / 1e9 }),
	)
	seen := map[string]bool{}
	for _, n := range s.pool.nodes {
		if seen[n.name] {
			continue
		}
		seen[n.name] = true
		m.registry.MustRegister(gaugeFunc("upstream_node_up", "1 unless the node is left out after failed connections.",
			prometheus.Labels{"node": n.name}, func() float64 { return number(n.up(s.cfg.Clock.Now())) }))
	}
	return m
}

func goVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.GoVersion
	}
	return "unknown"
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) reloaded(ok bool, now time.Time) {
	m.reloadOK.Set(number(ok))
	if ok {
		m.reloadTime.Set(float64(now.UnixNano()) / 1e9)
	}
}

// request counts one request. An aborted one has its class whatever its head said: the client did not get all.
func (m *metrics) request(route, method string, status int, aborted bool, took time.Duration) {
	class := "aborted"
	if !aborted && status >= 100 && status <= 599 {
		class = strconv.Itoa(status/100) + "xx"
	}
	m.requests.WithLabelValues(route, methodLabel(method), class).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

// methodLabel bounds methods, which clients may make up.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
		return method
	}
	return "other"
}

// maxAuditIndices bounds the indices that one audit line names.
const maxAuditIndices = 32

// requestCounter counts one request's events, for metrics and its audit line. It fulfils rewrite.Counter.
type requestCounter struct {
	m *metrics

	mu       sync.Mutex
	sealed   map[string]int
	opened   map[string]shown
	unopened map[string]int
	indices  map[string]int
	more     bool // there were more indices
}

type shown struct {
	Plain  int `json:"plain,omitempty"`
	Masked int `json:"masked,omitempty"`
}

var _ rewrite.Counter = (*requestCounter)(nil)

func newRequestCounter(m *metrics) *requestCounter { return &requestCounter{m: m} }

func fieldName(f *policy.Field) (rule, name string) {
	if f.Rule != nil {
		rule = f.Rule.Name
	}
	return rule, rule + "." + f.Path
}

func (c *requestCounter) Sealed(f *policy.Field, n int) {
	rule, name := fieldName(f)
	c.m.sealed.WithLabelValues(rule, f.Path).Add(float64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	add(&c.sealed, name, n)
}

func (c *requestCounter) Opened(f *policy.Field, how policy.Reveal, index string, n int) {
	rule, name := fieldName(f)
	label := "plain"
	if how == policy.Masked {
		label = "masked"
	}
	c.m.opened.WithLabelValues(rule, f.Path, label).Add(float64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened == nil {
		c.opened = map[string]shown{}
	}
	s := c.opened[name]
	if how == policy.Masked {
		s.Masked += n
	} else {
		s.Plain += n
	}
	c.opened[name] = s
	if _, known := c.indices[index]; known || len(c.indices) < maxAuditIndices {
		add(&c.indices, index, n)
	} else {
		c.more = true
	}
}

func (c *requestCounter) Unopened(reason string, n int) {
	c.m.unopened.WithLabelValues(reason).Add(float64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	add(&c.unopened, reason, n)
}

func (c *requestCounter) Refused(faultType string) { c.m.refused.WithLabelValues(faultType).Inc() }

func add(m *map[string]int, key string, n int) {
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[key] += n
}
