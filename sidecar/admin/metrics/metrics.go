package metrics

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"understudy/sidecar/admin"
	"understudy/sidecar/decide"
	"understudy/sidecar/keepalive"
)

// Config is what the metrics are read from.
type Config struct {
	Log *slog.Logger
	// Snapshot is the newest turn, as admin.Backend has it.
	Snapshot func() (decide.Policy, decide.View, decide.Decision, time.Time)
	// Beats counts what was sent and received. Nil: nobody does.
	Beats func() keepalive.Stats
	// Journal is the mail journal that runs here, as admin.Config has it.
	Journal func() *admin.Journal
	// Data is how this node's role is mirrored. Nil: it has no data.
	Data func() *admin.RoleData
	// Runs are this node's newest runs of Puppet, the newest first, Looks counts how often the control repo was asked, and the bytes
	// that took. Nil: no control repo is followed.
	Runs    func() []admin.PuppetRun
	Looks   func() (looks, bytes uint64)
	Version string
}

// scrapesAtOnce bounds how much work strangers to the loop can make.
const scrapesAtOnce = 4

// Handler answers Prometheus. Before the loop's first turn there are only the counters.
func Handler(cfg Config) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(cfg), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapesAtOnce, Timeout: 10 * time.Second,
	})
}

// collector makes the samples of the table when it is asked.
type collector struct {
	cfg   Config
	descs []*prometheus.Desc // as the table
}

func newCollector(cfg Config) *collector {
	c := &collector{cfg: cfg}
	for _, m := range table {
		c.descs = append(c.descs, prometheus.NewDesc("understudy_"+m.name, m.help, m.labels, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	p, v, d, at := c.cfg.Snapshot()
	r := reading{view: v, version: c.cfg.Version}
	if c.cfg.Beats != nil {
		s := c.cfg.Beats()
		r.beats = &s
	}
	if c.cfg.Journal != nil {
		r.journal = c.cfg.Journal()
	}
	if c.cfg.Runs != nil {
		r.runs = c.cfg.Runs()
	}
	if c.cfg.Looks != nil {
		r.follows = true
		r.looks, r.lookBytes = c.cfg.Looks()
	}
	if c.cfg.Data != nil {
		r.data = c.cfg.Data()
	}
	if !at.IsZero() {
		r.status, r.plan = admin.NewStatus(p, v, d).Dated(at, time.Now()), admin.NewPlan(p, v, d)
	}
	for i, m := range table {
		kind := prometheus.GaugeValue
		if m.counter {
			kind = prometheus.CounterValue
		} else if at.IsZero() {
			continue
		}
		m.read(r, func(value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(c.descs[i], kind, value, labels...)
		})
	}
}
