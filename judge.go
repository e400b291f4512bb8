package main

// This file says what a trial has shown: how much was lost, when, why, and what to do about it.
//
// Its rules: a pure function from what was observed to words; each loss has one cause; what only may be is not said.

import (
	"cmp"
	"debug/buildinfo"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	endQuick   = 250 * time.Millisecond // a predecessor that is gone by then did not wait for anything
	endBlur    = 150 * time.Millisecond // by which a client may learn later of an end than hotwrap does, on a busy machine
	tellBlur   = 100 * time.Millisecond // by which hotwrap's log may be later than the signal
	slowAnswer = 250 * time.Millisecond // worth a line
)

// lossKind is how a client lost a request; a user sees these words.
type lossKind string

const (
	lossNone       lossKind = ""
	lossRefused    lossKind = "refused"
	lossReset      lossKind = "reset"
	lossUnanswered lossKind = "no answer" // the connection ended before the first byte
	lossCut        lossKind = "cut short"
	lossLate       lossKind = "timeout"
)

// lossKinds is the order in which they are told.
var lossKinds = []lossKind{lossRefused, lossReset, lossUnanswered, lossCut, lossLate}

// outcome is one request of a client.
type outcome struct {
	began, ended time.Time
	kept         bool // on a connection that had been used before
	status       int  // of the answer; 0 where HTTP is not spoken
	loss         lossKind
	own          error // the client itself could not; nothing was tried then
}

// turn is one restart of a trial. A time that is zero did not come.
type turn struct {
	from, to   int       // generations
	asked      time.Time // by us
	ready      time.Time // the successor was
	by         string
	after      time.Duration // its start to ready
	told, gone time.Time     // the predecessor: told to stop, and gone
	status     string        // how it ended: "0", "SIGTERM"
	killed     time.Time     // at the limit
	failure    string        // the restart failed
	memory     [2]uint64     // of predecessor and successor beside each other; 0 not seen
	slowest    time.Duration // answer to a request that began between ready and told
}

// observed is a whole trial.
type observed struct {
	Requests, Kept int
	losses         []outcome
	turns          []turn
	statuses       map[int]int // of answers before the first restart
	errorsBefore   int         // answers of 500 and above, before the first restart
	errorsDuring   int
	calmSlowest    time.Duration // answer before the first restart
	slowest        time.Duration
	spoilt         bool   // a listener was, by shutdown(2)
	signal         string // the stop signal: "TERM"
	manual         string // the part of docs/programs.md for this program
	overlap        bool
}

// cause is why requests were lost; the order is that in which they are told.
type cause int

const (
	causeSelf    cause = iota // without any restart
	causeRefused              // nobody listened
	causeStart                // both generations served
	causeGap                  // nobody served
	causeDrain                // while the predecessor finished
	causeEnd                  // at its end
	causeKill                 // at its end by KILL
)

// moment is when a request was lost: a client that waited too long was lost when it began.
func (l outcome) moment() time.Time {
	if l.loss == lossLate {
		return l.began
	}
	return l.ended
}

// causeOf says why a request was lost, and in which restart (-1: in none).
func (o *observed) causeOf(l outcome) (cause, int) {
	when, at := l.moment(), -1
	for i, t := range o.turns {
		if !when.Before(t.asked) {
			at = i
		}
	}
	if l.loss == lossRefused && at >= 0 {
		return causeRefused, at
	}
	if at < 0 {
		return causeSelf, at
	}
	t := o.turns[at]
	over := !t.gone.IsZero() && when.After(t.gone.Add(endBlur))
	switch {
	case t.told.IsZero() || when.Before(t.told.Add(-tellBlur)):
		return causeStart, at
	case over && !l.began.Before(t.gone) && (o.overlap || l.began.After(t.ready)):
		return causeSelf, at
	case over && !o.overlap:
		return causeGap, at
	case !t.killed.IsZero() && !when.Before(t.killed.Add(-tellBlur)):
		return causeKill, at
	case !t.killed.IsZero(), t.gone.IsZero():
		return causeDrain, at
	case t.end() < endQuick || o.unhandledIn(t) || !when.Before(t.gone.Add(-endBlur)):
		return causeEnd, at
	}
	return causeDrain, at
}

// trialReport is what a trial has shown. It is the JSON of `hotwrap doctor --json -- PROGRAM`.
type trialReport struct {
	Requests int            `json:"requests"`
	Kept     int            `json:"kept"` // of them, on connections that had been used before
	Restarts int            `json:"restarts"`
	Failed   int            `json:"failed_restarts"`
	Lost     int            `json:"lost"`
	New      map[string]int `json:"lost_new,omitempty"`        // by kind, on new connections
	Alive    map[string]int `json:"lost_keep_alive,omitempty"` // on kept ones
	Errors   int            `json:"answers_5xx,omitempty"`     // during restarts, none before
	Why      []string       `json:"why,omitempty"`
	Facts    []fact         `json:"facts,omitempty"`
}

// fact is one more thing that was seen.
type fact struct {
	What string `json:"what"`
	Text string `json:"text"`
}

func (r *trialReport) fact(what, format string, args ...any) {
	r.Facts = append(r.Facts, fact{what, fmt.Sprintf(format, args...)})
}

// judge makes the report.
func judge(o *observed) *trialReport {
	r := &trialReport{Requests: o.Requests, Kept: o.Kept, Restarts: len(o.turns), Lost: len(o.losses)}
	r.New, r.Alive = kindsOf(o.losses, false), kindsOf(o.losses, true)
	for _, t := range o.turns {
		if t.failure != "" {
			r.Failed++
			r.Why = append(r.Why, fmt.Sprintf("generation %d failed: %s", t.to, t.failure))
		}
	}
	r.Why = append(r.Why, o.why()...)
	if o.errorsDuring > 0 && o.errorsBefore == 0 {
		r.Errors = o.errorsDuring
		r.Why = append(r.Why, count(r.Errors, "answer")+" of 500 and above during the restarts, none before them")
	}
	return r
}

// kindsOf counts losses.
func kindsOf(losses []outcome, kept bool) map[string]int {
	kinds := map[string]int{}
	for _, l := range losses {
		if l.kept == kept {
			kinds[string(l.loss)]++
		}
	}
	return kinds
}

// why words each cause of losses, with where to read on.
func (o *observed) why() (texts []string) {
	byCause := map[cause]map[int]int{}
	for _, l := range o.losses {
		c, at := o.causeOf(l)
		if byCause[c] == nil {
			byCause[c] = map[int]int{}
		}
		byCause[c][at]++
	}
	for c := causeSelf; c <= causeKill; c++ {
		if at := byCause[c]; len(at) > 0 {
			texts = append(texts, o.wordCause(c, at))
		}
	}
	return texts
}

// wordCause words one cause; at has the number of losses of each restart.
func (o *observed) wordCause(c cause, at map[int]int) string {
	sum := 0
	var turns []turn
	for i, n := range at {
		sum += n
		if i >= 0 {
			turns = append(turns, o.turns[i])
		}
	}
	requests := count(sum, "request")
	switch c {
	case causeSelf:
		return fmt.Sprintf("loses requests by itself, also without a restart: %d", sum)
	case causeRefused:
		text := "connections are refused when it stops: " + strconv.Itoa(sum)
		if o.spoilt {
			text += "; it calls shutdown(2) on the listener, which ends it for its successor too"
		}
		return text + o.readOn("how-to-drain")
	case causeStart:
		return fmt.Sprintf("lost %s while predecessor and successor served side by side%s; ready %s", requests, o.slowStart(turns), readyHow(turns))
	case causeGap:
		return fmt.Sprintf("%s waited too long: nobody serves between the end of one and the start of the next (--no-overlap)", requests)
	case causeDrain:
		return fmt.Sprintf("drops what it has accepted after %s: %s, before it has ended%s", o.signal, requests, o.readOn(""))
	case causeEnd:
		return fmt.Sprintf("ends %s after %s with %s open%s%s", span(turns, turn.end), o.signal, requests, o.unhandled(turns), o.readOn(""))
	case causeKill:
		return fmt.Sprintf("does not end within %s of %s and is killed with %s open: it waits for something, or has no handler%s",
			span(turns, func(t turn) time.Duration { return t.killed.Sub(t.told) }), o.signal, requests, o.readOn(""))
	}
	return requests + " lost"
}

func (t turn) end() time.Duration { return t.gone.Sub(t.told) }

// unhandledIn tells whether the predecessor died of the stop signal.
func (o *observed) unhandledIn(t turn) bool { return t.status == "SIG"+o.signal }

// unhandled says so if the program died of the signal itself. Some do that on purpose when they are done (Puma), and whether
// there is a handler cannot be seen: the runtimes of Go, Node and Java have one for every program.
func (o *observed) unhandled(turns []turn) string {
	if len(turns) > 0 && !slices.ContainsFunc(turns, func(t turn) bool { return !o.unhandledIn(t) }) {
		return ": it dies of it, as without a handler"
	}
	return ""
}

// readOn points to the part of the documentation on this kind of program.
func (o *observed) readOn(part string) string {
	return "; see docs/programs.md#" + cmp.Or(part, o.manual)
}

// slowStart says how much later than it was ready the successor answered.
func (o *observed) slowStart(turns []turn) string {
	var most time.Duration
	for _, t := range turns {
		most = max(most, t.slowest)
	}
	if most < slowAnswer || most < 3*o.calmSlowest {
		return ""
	}
	return "; answers " + brief(most) + " after it was seen to be ready"
}

// readyHow names how successors became ready.
func readyHow(turns []turn) string {
	var hows []string
	for _, t := range turns {
		if how := "by=" + cmp.Or(t.by, "?"); !slices.Contains(hows, how) {
			hows = append(hows, how)
		}
	}
	slices.Sort(hows)
	return strings.Join(hows, ", ")
}

// span words the least and the largest of some times.
func span(turns []turn, of func(turn) time.Duration) string {
	var all []time.Duration
	for _, t := range turns {
		all = append(all, of(t))
	}
	if len(all) == 0 {
		return "some time"
	}
	least, largest := whole(slices.Min(all)), whole(slices.Max(all))
	if least == largest {
		return least
	}
	return least + " to " + largest
}

// whole writes a duration with a blank: "20 ms", "1.4 s".
func whole(d time.Duration) string {
	switch {
	case d < 0:
		return "0 ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
}

// headline is the truth in one line: "14,210 requests, 3 restarts, 0 lost".
func (r *trialReport) headline() string {
	restarts := count(r.Restarts, "restart")
	if r.Failed > 0 {
		restarts = fmt.Sprintf("%d of %s failed", r.Failed, restarts)
	}
	return fmt.Sprintf("%s %s, %s, %s lost", thousands(r.Requests), noun(r.Requests, "request"), restarts, thousands(r.Lost))
}

// thousands writes 14210 as 14,210.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// lines are the report for people: the truth first, then why, then the rest.
func (r *trialReport) lines() []string {
	all := []string{r.headline()}
	width := len("keep-alive")
	for _, f := range r.Facts {
		width = max(width, len(f.What))
	}
	add := func(what, text string) { all = append(all, fmt.Sprintf("  %-*s  %s", width, what, text)) }
	for _, kinds := range []struct {
		what string
		lost map[string]int
	}{{"new", r.New}, {"keep-alive", r.Alive}} {
		if text := wordKinds(kinds.lost); text != "" {
			add(kinds.what, text)
		}
	}
	for _, text := range r.Why {
		add("why", text)
	}
	for _, f := range r.Facts {
		add(f.What, f.Text)
	}
	return all
}

// wordKinds words losses by kind: "3 refused, 9 reset".
func wordKinds(lost map[string]int) string {
	var words []string
	for _, kind := range lossKinds {
		if n := lost[string(kind)]; n > 0 {
			words = append(words, thousands(n)+" "+string(kind))
		}
	}
	return strings.Join(words, ", ")
}

// manuals are the parts of docs/programs.md, by program or interpreter.
var manuals = map[string]string{
	"node": "node", "nodejs": "node", "deno": "node", "bun": "node", "tsx": "node",
	"python": "python-asyncio", "pypy": "python-asyncio", "ruby": "ruby", "go": "go",
	"gunicorn": "gunicorn", "uvicorn": "uvicorn", "nginx": "nginx", "haproxy": "haproxy", "lighttpd": "lighttpd",
	"uwsgi": "uwsgi", "uwsgi-core": "uwsgi", "uwsgi_python": "uwsgi", "php-fpm": "php-fpm", "puma": "puma",
}

const manualForAll = "how-to-drain"

// manualFor finds the part for the first of some executables that is known.
func manualFor(paths ...string) string {
	for _, path := range paths {
		for _, name := range []string{path, shebang(path)} {
			if part, ok := manuals[strings.TrimRight(filepath.Base(name), "0123456789.-")]; ok {
				return part
			}
		}
		if _, err := buildinfo.ReadFile(path); err == nil {
			return "go"
		}
	}
	return manualForAll
}
