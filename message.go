package main

// This file is hotwrap's voice: how a message is made, its two forms, and where it goes.
//
// Its rules:
//   - Everything goes to standard error, one line for each change of state, lower case, no full stop.
//   - A warning: we go on, and say with what. An error: we stop or refuse. A hint: the remedy.
//   - key=value pairs come after the words, the consequence after a semicolon.
//   - Whatever cannot be written at once is dropped and counted: a stuck reader must not stop hotwrap.
//   - The same line goes upward as STATUS=, so a service manager shows what the log shows.

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	logQueue = 256         // lines that may wait for a slow standard error
	logLimit = time.Second // how long the last of them may take at the end
)

// level is how serious a message is.
type level string

const (
	levelVerbose level = "verbose" // a decision; shown with -v
	levelInfo    level = "info"
	levelHint    level = "hint"
	levelWarning level = "warning"
	levelError   level = "error"
)

// upKind is what a message means to hotwrap's own service manager.
type upKind int

const (
	upStatus upKind = iota
	upReady
	upReloading
	upStopping
)

// field is one key=value pair.
type field struct {
	key   string
	value any
}

// message is one line.
type message struct {
	level  level
	head   string
	fields []field
	tail   string
	up     upKind
	event  happening // what it means to those who listen to events
	number int       // the generation it is about; 0 none
}

// happening is what a message is about, for those who act on it: /events, hooks.
type happening string

const (
	hapLog      happening = "log" // anything else
	hapStarting happening = "starting"
	hapChecking happening = "checking"
	hapBatch    happening = "batch" // some workers of a successor are ready, to replace as many
	hapReady    happening = "ready"
	hapCanary   happening = "canary"   // a successor gets a share of the new connections
	hapSwitch   happening = "switch"   // a generation serves from now on
	hapHandover happening = "handover" // and is alone: no predecessor holds a listener any more
	hapDrained  happening = "drained"  // a predecessor is gone
	hapFailed   happening = "failed"
	hapCrashed  happening = "crashed"
	hapReexec   happening = "reexec"   // hotwrap was replaced by another
	hapStopping happening = "stopping" // hotwrap begins to stop
	hapVerdict  happening = "verdict"
)

func info(format string, args ...any) message    { return newMessage(levelInfo, format, args) }
func verbose(format string, args ...any) message { return newMessage(levelVerbose, format, args) }
func warning(format string, args ...any) message { return newMessage(levelWarning, format, args) }
func failure(format string, args ...any) message { return newMessage(levelError, format, args) }
func hint(format string, args ...any) message    { return newMessage(levelHint, format, args) }

func newMessage(l level, format string, args []any) message {
	return message{level: l, head: fmt.Sprintf(format, args...)}
}

// with adds a pair; durations are shown short.
func (m message) with(key string, value any) message {
	m.fields = append(m.fields, field{key, value})
	return m
}

// end adds what follows from it.
func (m message) end(format string, args ...any) message {
	m.tail = fmt.Sprintf(format, args...)
	return m
}

// about tells what the message means, and which generation it is about.
func (m message) about(what happening, generation int) message {
	m.event, m.number = what, generation
	return m
}

func (m message) tell(up upKind) message {
	m.up = up
	return m
}

// String is the line without hotwrap's name and the level.
func (m message) String() string {
	var b strings.Builder
	b.WriteString(inert(m.head))
	for _, f := range m.fields {
		b.WriteString(" " + f.key + "=")
		text := fmt.Sprint(f.value)
		if d, ok := f.value.(time.Duration); ok {
			text = brief(d)
		}
		if text == "" || strings.ContainsAny(text, ` "=`) || strings.ContainsFunc(text, acted) {
			text = strconv.Quote(text)
		}
		b.WriteString(text)
	}
	if m.tail != "" {
		b.WriteString("; " + inert(m.tail))
	}
	return b.String()
}

// inert writes text so that it stays on its line: the name of a file may hold anything.
func inert(text string) string {
	if !strings.ContainsFunc(text, acted) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !acted(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// acted tells whether a terminal, or who reads lines, would act on a character instead of showing it.
func acted(r rune) bool {
	return r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}

// oneLine makes text fit for a log line and a terminal: valid UTF-8, at most that many bytes, nothing that is acted on
// but what is kept.
func oneLine(text string, most int, keep ...rune) string {
	var b strings.Builder
	for _, r := range text {
		if acted(r) && r != utf8.RuneError && !slices.Contains(keep, r) {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > most {
			break
		}
		b.WriteRune(r) // a bad byte has become U+FFFD
	}
	return b.String()
}

// tamed is text on one line, without what a terminal would act on.
func tamed(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case acted(r):
			return '?'
		}
		return r
	}, text)
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most]) + "…"
}

// brief writes a duration for people: 120ms, 1.4s, 2m4s, 3h12m.
func brief(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d.Round(100*time.Millisecond) < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		d = d.Round(time.Second)
	default:
		d = d.Round(time.Minute)
	}
	text := d.String()
	if whole, ok := strings.CutSuffix(text, "m0s"); ok {
		text = whole + "m"
	}
	if whole, ok := strings.CutSuffix(text, "h0m"); ok {
		text = whole + "h"
	}
	return text
}

// count writes "1 connection", "3 connections".
func count(n int, word string) string { return strconv.Itoa(n) + " " + noun(n, word) }

// noun is a word as it follows that number.
func noun(n int, word string) string {
	switch {
	case n == 1:
		return word
	case strings.HasSuffix(word, "s"):
		return word + "es"
	}
	return word + "s"
}

// nameConnections names the first few connections that a drain waits for, the busiest first.
func nameConnections(open []connection) string {
	const shown = 3
	text := count(len(open), "connection")
	var some []string
	for i, c := range open {
		if i == shown {
			some = append(some, "…")
			break
		}
		some = append(some, c.peer+" idle "+brief(c.idle))
	}
	if len(some) > 0 {
		text += " (" + strings.Join(some, ", ") + ")"
	}
	return text
}

// printer writes messages, in order, from its own goroutine.
type printer struct {
	out      io.Writer
	json     *slog.Logger // nil: text
	priority bool         // prefix lines with <N>: the journal reads them (sd-daemon(3))
	least    level        // levelInfo; levelVerbose with -v; levelWarning with -q
	queue    chan message
	done     chan struct{}
	closed   bool
	dropped  int   // since the last line; say's caller's goroutine only, as the next
	lost     int   // in all
	last     level // that was shown: the remedy of an error is shown with it
}

func newPrinter(out io.Writer, asJSON bool, least level, environ []string) *printer {
	p := &printer{out: out, least: least, queue: make(chan message, logQueue), done: make(chan struct{})}
	p.priority = !asJSON && isJournal(getenv(environ, "JOURNAL_STREAM"))
	if asJSON {
		p.json = slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: utc}))
	}
	go p.drain()
	return p
}

// say queues a message; it never blocks. Only one goroutine may call it.
func (p *printer) say(m message) {
	if !p.shows(m.level) && (m.level != levelHint || p.last != levelError) {
		return
	}
	p.last = m.level
	if p.dropped > 0 {
		select {
		case p.queue <- warning("%s of this log lost: standard error was not read", count(p.dropped, "line")):
			p.dropped = 0
		default:
		}
	}
	select {
	case p.queue <- m:
	default:
		p.dropped++
		p.lost++
	}
}

// begin queues the lines of the start, one for each listener: there may be more than the queue holds. Nothing runs
// yet, so it waits for the reader, but not for one that never reads.
func (p *printer) begin(ms []message) {
	limit, cancel := context.WithTimeout(context.Background(), logLimit)
	defer cancel()
	for _, m := range ms {
		if !p.shows(m.level) {
			continue
		}
		select {
		case p.queue <- m:
		case <-limit.Done():
			p.say(m)
		}
	}
}

func (p *printer) shows(l level) bool {
	switch l {
	case levelVerbose:
		return p.least == levelVerbose
	case levelInfo, levelHint:
		return p.least != levelWarning
	case levelWarning, levelError:
	}
	return true
}

// close waits until everything is written, but not for a reader that never reads.
func (p *printer) close() {
	if p.closed {
		return
	}
	p.closed = true
	close(p.queue)
	limit := time.NewTimer(logLimit)
	defer limit.Stop()
	select {
	case <-p.done:
	case <-limit.C:
	}
}

func (p *printer) drain() {
	defer close(p.done)
	for m := range p.queue {
		p.write(m)
	}
}

func (p *printer) write(m message) {
	if p.json != nil {
		p.writeJSON(m)
		return
	}
	prefix := "hotwrap: "
	switch m.level {
	case levelVerbose, levelInfo:
	case levelHint, levelWarning, levelError:
		prefix += string(m.level) + ": "
	}
	if p.priority {
		prefix = "<" + strconv.Itoa(priority(m.level)) + ">" + prefix
	}
	_, _ = io.WriteString(p.out, prefix+m.String()+"\n")
}

// priority is the level as syslog(3) numbers it.
func priority(l level) int {
	switch l {
	case levelVerbose:
		return 7
	case levelInfo, levelHint:
		return 6
	case levelWarning:
		return 4
	case levelError:
	}
	return 3
}

func (p *printer) writeJSON(m message) {
	to := slog.LevelInfo
	switch m.level {
	case levelVerbose:
		to = slog.LevelDebug
	case levelInfo, levelHint:
	case levelWarning:
		to = slog.LevelWarn
	case levelError:
		to = slog.LevelError
	}
	text := m.head
	if m.tail != "" {
		text += "; " + m.tail
	}
	var attrs []slog.Attr
	for _, f := range m.fields {
		if d, ok := f.value.(time.Duration); ok {
			f.value = d.Seconds()
		}
		attrs = append(attrs, slog.Any(f.key, f.value))
	}
	if m.level == levelHint {
		attrs = append(attrs, slog.Bool("hint", true))
	}
	p.json.LogAttrs(context.Background(), to, text, attrs...)
}

// utc writes the time of a JSON line in UTC.
func utc(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Time(a.Key, a.Value.Time().UTC())
	}
	return a
}

// isJournal tells whether standard error is the journal's stream that JOURNAL_STREAM names by device
// and inode (systemd.exec(5)).
func isJournal(stream string) bool {
	var st unix.Stat_t
	if stream == "" || unix.Fstat(2, &st) != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
