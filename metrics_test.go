package main

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// exposition is a page of metrics: the kind of each, and each series by its text.
type exposition struct {
	kinds  map[string]string
	series map[string]float64
	order  []string
}

var (
	metricLine  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	metricLabel = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)`)
)

// parseExposition reads the text format 0.0.4 strictly: each metric has its HELP, its TYPE and then its series in one
// block, nothing comes twice, names follow the rules of promtool's lint.
func parseExposition(text string) (e exposition, err error) {
	e = exposition{kinds: map[string]string{}, series: map[string]float64{}}
	if !strings.HasSuffix(text, "\n") {
		return e, fmt.Errorf("no line end at the end")
	}
	helped, current := "", ""
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			if help == "" || e.kinds[name] != "" {
				return e, fmt.Errorf("%q: no help, or again", line)
			}
			helped = name
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			if name != helped || !slices.Contains([]string{"counter", "gauge", "histogram"}, kind) {
				return e, fmt.Errorf("%q: after the help of %q", line, helped)
			}
			if (kind == "counter") != strings.HasSuffix(name, "_total") || regexp.MustCompile(`_(ms|bucket|count|sum)$`).MatchString(name) {
				return e, fmt.Errorf("%q: not a name for a %s", name, kind)
			}
			e.kinds[name], current = kind, name
			continue
		}
		if err := e.add(line, current); err != nil {
			return e, err
		}
	}
	return e, nil
}

// add takes the line of one series.
func (e *exposition) add(line, current string) error {
	parts := metricLine.FindStringSubmatch(line)
	if parts == nil {
		return fmt.Errorf("%q: no series", line)
	}
	name := parts[1]
	if e.kinds[current] == "histogram" {
		for _, end := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, end)
		}
	}
	if name != current {
		return fmt.Errorf("%q: in the block of %q", line, current)
	}
	var keys []string
	for rest := parts[2]; rest != ""; {
		l := metricLabel.FindStringSubmatch(rest)
		if l == nil || slices.Contains(keys, l[1]) || strings.HasPrefix(l[1], "__") {
			return fmt.Errorf("%q: bad label at %q", line, rest)
		}
		keys, rest = append(keys, l[1]), rest[len(l[0]):]
	}
	value, err := strconv.ParseFloat(parts[3], 64)
	if err != nil || math.IsNaN(value) {
		return fmt.Errorf("%q: bad value", line)
	}
	series, _, _ := strings.Cut(line, " "+parts[3])
	if _, again := e.series[series]; again {
		return fmt.Errorf("%q: twice", line)
	}
	e.series[series] = value
	e.order = append(e.order, series)
	return nil
}

// TestExposition: the parser finds what it is for.
func TestExposition(t *testing.T) {
	const head = "# HELP a help\n# TYPE a gauge\n"
	for _, text := range []string{
		"", "a 1\n", head + "a 1", head + "a 1\na 1\n", head + "b 1\n", head + "a{x=\"1} 1\n", head + "a{x=\"\\t\"} 1\n", head + head + "a 1\n",
		head + "a NaN\n", "# TYPE a gauge\na 1\n", "# HELP a help\n# TYPE a counter\na 1\n", head + "a{x=\"1\",x=\"2\"} 1\n", head + "a 1 \n",
	} {
		if _, err := parseExposition(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if e, err := parseExposition(head + "a{x=\"\\\"\\\\\\n\",y=\"\"} 1.5\n"); err != nil || len(e.series) != 1 {
		t.Errorf("%v, %v", e, err)
	}
}

// TestMetrics: every number that there is, in the format; what cannot be known is left out.
func TestMetrics(t *testing.T) {
	v, f := someStatus(t), someFacts()
	v.Generations[1].Path = "/srv/\"a\\b\"\n\xff"
	var out bytes.Buffer
	if err := writeMetrics(&out, v, someState().Tally, f); err != nil {
		t.Fatal(err)
	}
	e, err := parseExposition(out.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, &out)
	}
	for series, want := range map[string]float64{
		`hotwrap_info{version="0.4.0",name="web"}`:                              1,
		`hotwrap_build_info{build="b4",path="/srv/\"a\\b\"\n` + "\ufffd" + `"}`: 1,
		`hotwrap_start_time_seconds`:                                            1795433050.123,
		`hotwrap_generation`:                                                    4,
		`hotwrap_serving`:                                                       1,
		`hotwrap_restart_in_progress`:                                           1,
		`hotwrap_restarts_total{verdict="promoted"}`:                            3,
		`hotwrap_restarts_total{verdict="superseded"}`:                          0,
		`hotwrap_restart_duration_seconds_bucket{le="0.25"}`:                    1,
		`hotwrap_restart_duration_seconds_bucket{le="300"}`:                     3,
		`hotwrap_restart_duration_seconds_bucket{le="+Inf"}`:                    3,
		`hotwrap_restart_duration_seconds_sum`:                                  3.5,
		`hotwrap_restart_duration_seconds_count`:                                3,
		`hotwrap_crashes_total`:                                                 2,
		`hotwrap_workers{state="ready"}`:                                        2,
		`hotwrap_workers{state="stopping"}`:                                     1,
		`hotwrap_workers{state="killing"}`:                                      0,
		`hotwrap_draining_generations`:                                          1,
		`hotwrap_open_connections{state="draining"}`:                            2,
		`hotwrap_open_connections{state="serving"}`:                             0,
		`hotwrap_listener_queue{listener="8080"}`:                               0,
		`hotwrap_listener_queue_limit{listener="8080"}`:                         4096,
		`hotwrap_dropped_lines_total{to="log"}`:                                 2,
	} {
		if got, ok := e.series[series]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", series, got, ok, want)
		}
	}
	last := 0.0
	for _, series := range e.order {
		if strings.Contains(series, "_bucket") {
			if e.series[series] < last {
				t.Errorf("%s is %v after %v", series, e.series[series], last)
			}
			last = e.series[series]
		}
	}
	if strings.Contains(out.String(), `listener="b"`) {
		t.Error("a queue that nobody saw")
	}
}

// TestMetricsEmpty: before anything has happened the page is complete, and its counters are 0.
func TestMetricsEmpty(t *testing.T) {
	var out bytes.Buffer
	if err := writeMetrics(&out, makeStatus(&state{}, statusNow, streamStart, facts{}), tally{}, facts{}); err != nil {
		t.Fatal(err)
	}
	e, err := parseExposition(out.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, &out)
	}
	if len(e.series) < 30 || e.series["hotwrap_serving"] != 0 || strings.Contains(out.String(), "open_connections") {
		t.Errorf("%d series:\n%s", len(e.series), &out)
	}
}

// TestMetricsManual: the manual has every metric, with its labels, and nothing else.
func TestMetricsManual(t *testing.T) {
	var out bytes.Buffer
	if err := writeMetrics(&out, someStatus(t), tally{}, someFacts()); err != nil {
		t.Fatal(err)
	}
	e, err := parseExposition(out.String())
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, series := range e.order {
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		var keys []string
		for _, found := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(labels, -1) {
			keys = append(keys, found[1])
		}
		written[name] = strings.Join(keys, ",")
	}
	listed := manualMetrics(t)
	for name, labels := range listed {
		if written[name] != labels && e.kinds[name] != "histogram" || e.kinds[name] == "" {
			t.Errorf("the manual has %s{%s}, hotwrap {%s}", name, labels, written[name])
		}
	}
	for name := range e.kinds {
		if _, ok := listed[name]; !ok {
			t.Errorf("the manual has no %s", name)
		}
	}
}

// manualMetrics are the rows of the manual's table, and the labels in them.
func manualMetrics(t *testing.T) map[string]string {
	t.Helper()
	listed := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(hotwrap_\\w+)(?:\\{(.*?)\\})?`").FindAllStringSubmatch(eventsManual(t), -1) {
		listed[row[1]] = row[2]
	}
	return listed
}
