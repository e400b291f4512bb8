package main

// This file is GET /metrics: the text format of Prometheus, version 0.0.4, written by hand.
//
// Its rules: names and units are Prometheus' own (seconds, _total for what only grows); a series that cannot be known
// here is left out, never 0; labels are few and of few values, or they say what is so right now.

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// metrics is one answer to GET /metrics on its way.
type metrics struct {
	strings.Builder
}

// label is one of a series.
type label struct{ key, value string }

// writeMetrics says in numbers what v says; the look at the kernel is in it already.
func writeMetrics(out io.Writer, v statusView, t tally, f facts) error {
	var m metrics
	m.instance(v, f)
	m.restarts(v, t)
	m.generations(v)
	m.listeners(v)
	m.about("dropped_lines_total", "counter", "Lines that nobody could be told, by what they were for.")
	for _, what := range slices.Sorted(maps.Keys(f.lost)) {
		m.value("dropped_lines_total", float64(f.lost[what]), label{"to", what})
	}
	_, err := io.WriteString(out, m.String())
	return err
}

// about opens a metric.
func (m *metrics) about(name, kind, help string) {
	_, _ = fmt.Fprintf(m, "# HELP hotwrap_%s %s\n# TYPE hotwrap_%s %s\n", name, help, name, kind)
}

// value adds one series.
func (m *metrics) value(name string, value float64, labels ...label) {
	m.WriteString("hotwrap_" + name)
	for i, l := range labels {
		m.WriteString(map[bool]string{true: "{", false: ","}[i == 0] + l.key + `="` + labelValue(l.value) + `"`)
	}
	if len(labels) > 0 {
		m.WriteString("}")
	}
	m.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

// one opens a metric that has one series.
func (m *metrics) one(name, kind, help string, value float64, labels ...label) {
	m.about(name, kind, help)
	m.value(name, value, labels...)
}

// labelValue escapes a label's value; the format wants UTF-8.
func labelValue(text string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(text, "\ufffd"))
}

func oneIf(set bool) float64 {
	if set {
		return 1
	}
	return 0
}

// instance is about hotwrap itself, and what serves.
func (m *metrics) instance(v statusView, f facts) {
	m.one("info", "gauge", "The hotwrap that runs.", 1, label{"version", v.Version}, label{"name", v.Name})
	m.one("start_time_seconds", "gauge", "When it was started, in seconds since 1970.",
		float64(f.since.UnixMilli())/float64(time.Second/time.Millisecond))
	m.about("build_info", "gauge", "The build that serves.")
	for _, g := range v.Generations {
		if g.State == genServing && g.Generation == v.Generation {
			m.value("build_info", 1, label{"build", g.Build}, label{"path", g.Path})
		}
	}
	m.one("generation", "gauge", "The generation that serves, 0 if none does.", float64(v.Generation))
	m.one("serving", "gauge", "Whether new connections are served.", oneIf(v.serves()))
}

// restarts is about what was asked and how it ended.
func (m *metrics) restarts(v statusView, t tally) {
	m.one("restart_in_progress", "gauge", "Whether a successor is being started.", oneIf(v.Restart != nil))
	m.about("restarts_total", "counter", "Starts, restarts and rollbacks, by verdict.")
	for _, res := range []result{promoted, failed, superseded, stopped} {
		m.value("restarts_total", float64(t.Verdicts[res]), label{"verdict", string(res)})
	}
	const histogram = "restart_duration_seconds"
	m.about(histogram, "histogram", "From the beginning of a start that succeeded to the switch.")
	for i, bound := range tallyBounds {
		n := 0
		if i < len(t.Buckets) {
			n = t.Buckets[i]
		}
		m.value(histogram+"_bucket", float64(n), label{"le", strconv.FormatFloat(bound, 'g', -1, 64)})
	}
	m.value(histogram+"_bucket", float64(t.Completed), label{"le", "+Inf"})
	m.value(histogram+"_sum", t.Took.Seconds())
	m.value(histogram+"_count", float64(t.Completed))
	m.one("crashes_total", "counter", "Ends of serving workers that nobody ordered.", float64(t.Crashes))
}

// generations is about workers and their connections.
func (m *metrics) generations(v statusView) {
	workers, open, draining, seen := map[workerState]int{}, map[genState]int{}, 0, false
	for _, g := range v.Generations {
		if g.State == genDraining {
			draining++
		}
		for _, w := range g.Workers {
			workers[w.State]++
		}
		if g.Connections != nil {
			open[g.State] += *g.Connections
			seen = true
		}
	}
	m.about("workers", "gauge", "Processes of the program, by state.")
	for _, state := range []workerState{workerStarting, workerReady, workerState(finishing), workerStopping, workerKilling, workerExited} {
		m.value("workers", float64(workers[state]), label{"state", string(state)})
	}
	m.shares(v)
	m.one("draining_generations", "gauge", "Generations that finish what is in flight.", float64(draining))
	if !seen {
		return
	}
	m.about("open_connections", "gauge", "Connections that clients have open, by the state of the generation that holds them.")
	for _, state := range []genState{genStarting, genReady, genServing, genDraining, genFailed} {
		m.value("open_connections", float64(open[state]), label{"state", string(state)})
	}
}

// shares is about who gets the new connections.
func (m *metrics) shares(v statusView) {
	opened := false
	for _, g := range v.Generations {
		if g.Share == nil || *g.Share == 0 {
			continue
		}
		if !opened {
			m.about("generation_share", "gauge", "Which part of the new connections a generation gets.")
			opened = true
		}
		m.value("generation_share", *g.Share, label{"generation", strconv.Itoa(g.Generation)})
	}
}

// listeners is about the queues.
func (m *metrics) listeners(v statusView) {
	for _, q := range []struct {
		name, help string
		of         func(l listenerView) *int
	}{
		{"listener_queue", "Connections that nobody has accepted yet.", func(l listenerView) *int { return l.Queue }},
		{"listener_queue_limit", "How many of them there may be.", func(l listenerView) *int { return l.Limit }},
	} {
		opened := false
		for _, l := range v.Listeners {
			if n := q.of(l); n != nil {
				if !opened {
					m.about(q.name, "gauge", q.help)
					opened = true
				}
				m.value(q.name, float64(*n), label{"listener", l.Name})
			}
		}
	}
}
