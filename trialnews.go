package main

// This file is what a trial hears: hotwrap's own log, the clients, looks at processes; and the report of it.
//
// Its rule: it belongs to the goroutine of wait; what is heard after the trial is over counts no more.

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// trialNews is what was heard so far.
type trialNews struct {
	serving    int          // generation
	pids       map[int]int  // first worker of each generation
	gone       map[int]bool // generations
	listens    []loadTarget // as hotwrap names them
	targets    []loadTarget // of them, those that are asked
	leftOut    []string     // the others, with the reason
	complaints []string     // warnings and hints of hotwrap's, each once
	words      []string     // the last lines of the program
	fault      string       // what hotwrap ended with
	first      turn         // of which only the successor was there
	forked     int          // processes of a generation, at most
	own        int          // requests that the clients themselves could not make
	answer     *restartAnswer
	broke      bool // hotwrap ended in the middle
	over       bool
}

// restartAnswer is what the control socket said.
type restartAnswer struct {
	done   bool
	reason string
}

// measure is a look at two generations beside each other.
type measure struct {
	turn    int // -1: the first generation alone
	memory  [2]uint64
	forked  int
	running string // the file that runs in the successor
}

// --- hotwrap's log

// logLine is one line of a log in JSON; one without a message is the program's.
type logLine struct {
	Time   time.Time `json:"time"`
	Level  string    `json:"level"`
	Msg    string    `json:"msg"`
	Hint   bool      `json:"hint"`
	PID    int       `json:"pid"`
	After  float64   `json:"after"`
	By     string    `json:"by"`
	Status string    `json:"status"`
	output string
}

// readLog reads lines until nobody writes any more.
func readLog(r *os.File) <-chan logLine {
	lines := make(chan logLine)
	go func() {
		defer close(lines)
		defer func() { _ = r.Close() }()
		in := bufio.NewReaderSize(r, 64<<10)
		for {
			text, err := in.ReadSlice('\n')
			if len(text) > 0 {
				lines <- parseLogLine(text)
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return
			}
		}
	}()
	return lines
}

// parseLogLine reads one line. Before hotwrap's own may stand a line of the program that has no end.
func parseLogLine(text []byte) (l logLine) {
	if at := bytes.Index(text, []byte(`{"time":"`)); at >= 0 && json.Unmarshal(text[at:], &l) == nil && l.Msg != "" {
		return l
	}
	if fault, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte("hotwrap: error: ")); ok {
		return logLine{Level: "ERROR", Msg: string(fault)}
	}
	return logLine{output: string(text)}
}

var (
	listeningLine  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^listening on (\S+) (.+) as (".*")$`) })
	generationLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^generation (\d+) (.*)$`) })
	drainingLine   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`generation (\d+) draining`) })
)

// heard takes a line of the log.
func (t *tryout) heard(l logLine) {
	switch {
	case l.Msg == "":
		t.word(l.output)
	case l.Level == "ERROR":
		t.fault = l.Msg
	case t.over:
	case strings.Contains(l.Msg, " did not end within "): // the report has it
	case l.Level == "WARN", l.Hint:
		text := generationLine().ReplaceAllString(l.Msg, "the program $2")
		if !slices.Contains(t.complaints, text) {
			t.complaints = append(t.complaints, text)
		}
		t.seen.spoilt = t.seen.spoilt || strings.Contains(l.Msg, " was spoilt: ")
	}
	if t.over {
		return
	}
	if found := listeningLine().FindStringSubmatch(l.Msg); found != nil {
		name, _ := strconv.Unquote(found[3])
		t.listens = append(t.listens, loadTarget{name: name, network: found[1], addr: found[2]})
	}
	if found := drainingLine().FindStringSubmatch(l.Msg); found != nil {
		if r := t.turnFrom(found[1]); r != nil && r.told.IsZero() {
			r.told = l.Time
		}
	}
	if found := generationLine().FindStringSubmatch(l.Msg); found != nil {
		t.generation(found[1], found[2], l)
	}
}

// word keeps a line of the program.
func (t *tryout) word(line string) {
	t.words = append(t.words, oneLine(strings.TrimSpace(line), trialLine))
	t.words = t.words[max(len(t.words)-trialWords, 0):]
}

// turnFrom is the restart whose predecessor has that number.
func (t *tryout) turnFrom(number string) *turn {
	for i := range t.seen.turns {
		if r := &t.seen.turns[i]; strconv.Itoa(r.from) == number {
			return r
		}
	}
	return nil
}

// generation takes a line on one generation.
func (t *tryout) generation(number, what string, l logLine) {
	n, _ := strconv.Atoi(number)
	word, _, _ := strings.Cut(strings.ReplaceAll(what, ";", " "), " ")
	switch {
	case strings.HasPrefix(what, "ready again"):
	case word == "starting":
		if last := len(t.seen.turns) - 1; last >= 0 && t.seen.turns[last].to == 0 {
			t.seen.turns[last].to = n
		}
	case word == "ready":
		t.ready(n, l)
	case word == "serving":
		t.serving = n
	case word == "gone":
		t.gone[n] = true
		if r := t.turnFrom(number); r != nil {
			r.gone, r.status = l.Time, l.Status
		}
	case strings.HasPrefix(what, "did not end within"):
		if r := t.turnFrom(number); r != nil {
			r.killed = l.Time
		}
	}
}

// ready takes that a generation is, and has a look at it beside its predecessor.
func (t *tryout) ready(n int, l logLine) {
	t.pids[n] = l.PID
	r, at := &t.first, -1
	for i := range t.seen.turns {
		if t.seen.turns[i].to == n {
			r, at = &t.seen.turns[i], i
		}
	}
	r.ready, r.by, r.after = l.Time, l.By, time.Duration(l.After*float64(time.Second))
	pids := [2]int{t.pids[r.from], l.PID}
	go func() {
		m := measure{turn: at, running: runningAs(l.PID)}
		for i, pid := range pids {
			all := tree(pid)
			m.memory[i], m.forked = memoryUse(all), max(m.forked, len(all))
		}
		t.measures <- m
	}()
}

// measured takes such a look.
func (t *tryout) measured(m measure) {
	t.forked = max(t.forked, m.forked)
	if m.turn >= 0 {
		t.seen.turns[m.turn].memory = m.memory
	}
	if t.seen.manual == manualForAll && m.running != "" {
		t.seen.manual = manualFor(m.running)
	}
}

// came takes one request of a client.
func (t *tryout) came(o outcome) {
	switch {
	case t.over:
		return
	case o.own != nil:
		t.own++
		return
	}
	s := &t.seen
	took := o.ended.Sub(o.began)
	s.Requests++
	if o.kept {
		s.Kept++
	}
	failed := 0
	if o.status >= 500 {
		failed = 1
	}
	if len(s.turns) == 0 {
		s.statuses[o.status]++
		s.errorsBefore += failed
	} else {
		s.errorsDuring += failed
	}
	if o.loss != lossNone {
		s.losses = append(s.losses, o)
		return
	}
	s.slowest = max(s.slowest, took)
	if len(s.turns) == 0 {
		s.calmSlowest = max(s.calmSlowest, took)
	} else if r := &s.turns[len(s.turns)-1]; !r.ready.IsZero() && o.began.After(r.ready) && (r.told.IsZero() || o.began.Before(r.told)) {
		r.slowest = max(r.slowest, took)
	}
}

// --- the report

// report says what was seen.
func (t *tryout) report() *trialReport {
	if last := len(t.seen.turns) - 1; t.broke && last >= 0 && t.seen.turns[last].failure == "" {
		t.seen.turns[last].failure = "hotwrap ended: " + t.fault
	}
	r := judge(&t.seen)
	t.reportLoad(r)
	t.reportStart(r)
	switch t.image.Pinned {
	case "file":
		r.fact("pinned", "the file: a crashed worker starts again from its own build")
	case "directory":
		r.fact("pinned", "the directory: a crashed worker starts again from what lies in it then")
	default:
		r.fact("pinned", "no: a crashed worker starts again from what lies on disk then")
	}
	if t.forked > 1 {
		r.fact("forks", "%d processes in a generation", t.forked)
	}
	for _, s := range t.seen.turns {
		switch {
		case !s.killed.IsZero():
			r.fact("drain", "generation %d had not ended %s after %s, and was killed", s.from, whole(t.drain()), t.seen.signal)
		case !s.told.IsZero() && s.gone.IsZero():
			r.fact("drain", "generation %d had not ended %s after %s", s.from, whole(t.drain()), t.seen.signal)
		}
	}
	for _, text := range t.complaints {
		r.fact("note", "%s", text)
	}
	return r
}

// reportLoad says what was asked, and what was not.
func (t *tryout) reportLoad(r *trialReport) {
	for _, l := range t.targets {
		switch l.speaks {
		case spokenHTTP:
		case spokenHead:
			r.fact("load", "%q: its answers have no end; only their heads were waited for", l.name)
		case spokenNothing:
			r.fact("load", "%q speaks no HTTP: only connecting was tried, not what becomes of a connection", l.name)
		}
	}
	if len(t.targets) == 0 {
		r.fact("load", "no listener was asked: only the restarts were tried")
	}
	for _, text := range t.leftOut {
		r.fact("load", "%s", text)
	}
	if t.own > 0 {
		r.fact("load", "%s could not be made by the clients themselves", count(t.own, "request"))
	}
	asked := 0
	for _, n := range t.seen.statuses {
		asked += n
	}
	for status, n := range t.seen.statuses {
		if status >= 400 && 2*n > asked {
			r.fact("answers", "GET / is answered with %d", status)
		}
	}
	if t.cfg.watch.on || t.cfg.build != "" {
		r.fact("left out", "--watch and --build")
	}
}

// reportStart says how long a start takes, and what two generations need.
func (t *tryout) reportStart(r *trialReport) {
	text := fmt.Sprintf("ready after %s by=%s", brief(t.first.after), t.first.by)
	var ready []turn
	var most turn
	for _, s := range t.seen.turns {
		if !s.ready.IsZero() {
			ready = append(ready, s)
		}
		if s.memory[0]+s.memory[1] > most.memory[0]+most.memory[1] {
			most = s
		}
	}
	if len(ready) > 0 {
		text += fmt.Sprintf("; successors after %s %s", span(ready, func(s turn) time.Duration { return s.after }), readyHow(ready))
	}
	r.fact("start", "%s", text)
	if most.memory[1] > 0 && t.seen.overlap {
		r.fact("memory", "%s beside %s while both generations run", megabytes(most.memory[1]), megabytes(most.memory[0]))
	}
	if t.seen.slowest > 0 {
		r.fact("slowest", "an answer took %s; %s before the restarts", brief(t.seen.slowest), brief(t.seen.calmSlowest))
	}
}
