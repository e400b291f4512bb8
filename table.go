package main

// This file draws GET /status for a person: hotwrap status.
//
// Its rules: it reads what any version of hotwrap wrote, and leaves out what is not there; all that it prints is
// cleaned, since part of it is a program's or a client's own words; a column with nothing in it is not drawn.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	verdictsShown = 5
	holdersListed = 5   // connections that a drain waits for
	cellMost      = 200 // bytes of one cell
)

// writeStatus draws the text of GET /status for people. If width is not 0, sentences are wrapped there, and rows cut.
func writeStatus(out io.Writer, text []byte, width int) error {
	var v statusView
	var mistyped *json.UnmarshalTypeError // of another version; all the rest was read
	if err := json.Unmarshal(text, &v); err != nil && !errors.As(err, &mistyped) {
		return fmt.Errorf("cannot read the status: %v", err)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return errors.New("cannot read the status: it is no JSON object")
	}
	var lines []string
	for _, part := range [][]string{
		wrapWords(v.headline(), width), drawTable(v.generationRows()), drawTable(v.listenerRows()), wrapWords(v.happenings(), width), drawTable(v.verdictRows()),
	} {
		if len(lines) > 0 && len(part) > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, part...)
	}
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(cut(line, width) + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// cut shortens a line to width columns.
func cut(line string, width int) string {
	const dots = "..."
	if width <= len(dots) || utf8.RuneCountInString(line) <= width {
		return line
	}
	return strings.TrimRight(string([]rune(line)[:width-len(dots)]), " ") + dots
}

// wrapWords breaks sentences between words.
func wrapWords(lines []string, width int) (wrapped []string) {
	for _, line := range lines {
		broken := ""
		for word := range strings.FieldsSeq(line) {
			switch {
			case broken == "":
				broken = word
			case width > 0 && utf8.RuneCountInString(broken+" "+word) > width:
				wrapped = append(wrapped, broken)
				broken = "  " + word
			default:
				broken += " " + word
			}
		}
		wrapped = append(wrapped, broken)
	}
	return wrapped
}

// drawTable aligns rows, the first of which is the head; a table with a head only is none.
func drawTable(rows [][]string) (lines []string) {
	if len(rows) < 2 {
		return nil
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows[1:] {
		for i, cell := range row {
			if cell != "" {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell), len(rows[0][i]))
			}
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			if widths[i] > 0 {
				line += cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
			}
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

// tidy makes a cell of what somebody else wrote.
func tidy[T ~string](text T) string { return strings.TrimSpace(oneLine(string(text), cellMost)) }

// timeOf is a duration from JSON, which may hold any number.
func timeOf(seconds float64) time.Duration {
	const most = 100 * 365 * 24 * 60 * 60
	return time.Duration(min(max(seconds, 0), most)*1000) * time.Millisecond
}

// shortTime is that for people; 0 is nothing.
func shortTime(seconds float64) string {
	if timeOf(seconds) == 0 {
		return ""
	}
	return brief(timeOf(seconds))
}

// number is a cell; 0 is nothing.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func (v statusView) headline() []string {
	line := tidy(v.Name)
	if line == "" {
		line = "hotwrap"
	}
	line += strings.TrimRight(": "+tidy(v.State), " ")
	since, err := time.Parse(time.RFC3339, v.Since)
	if err == nil {
		line += ", up since " + since.UTC().Format("2006-01-02 15:04:05 UTC")
		if at, err := time.Parse(time.RFC3339, v.Time); err == nil {
			line += " (" + brief(max(at.Sub(since).Round(time.Millisecond), 0)) + ")"
		}
	}
	if v.PID != 0 {
		line += fmt.Sprintf(", pid %d", v.PID)
	}
	if v.Version != "" {
		line += ", hotwrap " + tidy(v.Version)
	}
	lines := []string{line}
	if len(v.Program) > 0 {
		lines = append(lines, "program: "+tidy(strings.Join(v.Program, " ")))
	}
	if v.Dir != "" {
		lines = append(lines, "directory: "+tidy(v.Dir))
	}
	return lines
}

func (v statusView) generationRows() [][]string {
	rows := [][]string{{"GENERATION", "STATE", "BUILD", "SHARE", "CONNECTIONS", "CRASHES", "SLOT", "PID", "WORKER", "AGE", "MEMORY", "SAYS"}}
	for _, g := range v.Generations {
		row := []string{number(g.Generation), tidy(g.State), tidy(g.Build), "", "", number(g.Crashes)}
		if g.Share != nil && *g.Share > 0 && *g.Share < 1 {
			row[3] = percent(int(math.Round(*g.Share * canaryWhole)))
		}
		if g.Connections != nil {
			row[4] = strconv.Itoa(*g.Connections)
		}
		if len(g.Workers) == 0 {
			rows = append(rows, append(row, "", "", "", shortTime(g.Age), "", ""))
		}
		for _, w := range g.Workers {
			memory := ""
			if w.Memory > 0 {
				memory = megabytes(w.Memory)
			}
			slot := ""
			if v.Wanted > 1 || len(g.Workers) > 1 {
				slot = strconv.Itoa(w.Slot)
			}
			rows = append(rows, append(row, slot, number(w.PID), tidy(w.State), shortTime(w.Age), memory, tidy(w.Says)))
			row = make([]string, len(row)) // of the next only what is its own
		}
	}
	return rows
}

func (v statusView) listenerRows() [][]string {
	rows := [][]string{{"LISTENER", "ADDRESS", "FD", "QUEUE"}}
	for _, l := range v.Listeners {
		queue := ""
		if l.Queue != nil {
			queue = strconv.Itoa(*l.Queue)
			if l.Limit != nil {
				queue += fmt.Sprintf(" of %d", *l.Limit)
			}
		}
		rows = append(rows, []string{tidy(l.Name), tidy(l.Network + " " + l.Address), number(l.FD), queue})
	}
	return rows
}

// happenings are sentences on what is going on.
func (v statusView) happenings() (lines []string) {
	if s := v.Stop; s != nil {
		line := "stopping"
		if s.Delay > 0 {
			line += " in " + brief(timeOf(s.Delay))
		}
		lines = append(lines, line+", asked "+brief(timeOf(s.For))+" ago by "+tidy(s.By))
	}
	if v.Building > 0 {
		lines = append(lines, "--build runs for "+brief(timeOf(v.Building)))
	}
	if v.Restart != nil {
		lines = append(lines, v.Restart.String())
	}
	if n := len(v.Pending); n > 0 {
		last := v.Pending[n-1]
		lines = append(lines, fmt.Sprintf("%s for the restart after this one, the last %s ago by %s",
			count(n, "request"), brief(timeOf(last.Waits)), last.by()))
	}
	for _, g := range v.Generations {
		if g.Drain != nil {
			lines = append(lines, fmt.Sprintf("generation %d %s", g.Generation, g.waits()))
		}
		for _, sl := range g.Slots {
			lines = append(lines, fmt.Sprintf("generation %d %s", g.Generation, sl))
		}
	}
	if v.Newer != "" {
		lines = append(lines, fmt.Sprintf("another hotwrap lies at %s: hotwrap reexec", tidy(v.Newer)))
	}
	if r := v.Rollback; r != nil {
		lines = append(lines, fmt.Sprintf("a rollback would start build %s (generation %d)", tidy(r.Build), r.Generation))
	}
	return lines
}

// String is a restart under way in a sentence.
func (r restartView) String() string {
	text := fmt.Sprintf("generation %d starts for %s", r.Generation, brief(timeOf(r.For)))
	if r.Stage != "" {
		text += ", stage " + tidy(r.Stage)
	}
	if r.Left > 0 {
		text += ", for " + brief(timeOf(r.Left)) + " more at most"
	}
	if n := len(r.Requests); n > 0 {
		text += ", by " + r.Requests[n-1].by()
	}
	return text
}

// by names who asked, and what for.
func (r requestView) by() string {
	text := tidy(request{Cause: r.By, Who: r.Who}.by())
	if r.Message != "" {
		text += ": " + tidy(r.Message)
	}
	return text
}

// waits says what a draining generation waits for, and for how long it may.
func (g generationView) waits() string {
	text := "drains for " + brief(timeOf(g.Drain.For))
	if g.Drain.Left > 0 {
		text += ", is killed in " + brief(timeOf(g.Drain.Left))
	} else {
		text += ", is being killed"
	}
	if g.Connections == nil {
		return text
	}
	text += ", waits for " + count(*g.Connections, "connection")
	var named []string
	for _, h := range g.Drain.Holders {
		if len(named) == holdersListed {
			named = append(named, "...")
			break
		}
		if h.Peer != "unix" {
			named = append(named, tidy(h.Peer)+" idle "+brief(timeOf(h.Idle)))
		}
	}
	if len(named) > 0 {
		text += ": " + strings.Join(named, ", ")
	}
	return text
}

// String is a failing worker's place in a sentence.
func (sl slotView) String() string {
	text := fmt.Sprintf("worker %d failed %s in a row", sl.Slot, count(sl.Failures, "time"))
	switch {
	case sl.Over:
		text += ", is not started again"
	case sl.Next > 0:
		text += ", is started again in " + brief(timeOf(sl.Next))
	}
	return text
}

func (v statusView) verdictRows() [][]string {
	rows := [][]string{{"VERDICT", "ON", "GENERATION", "BUILD", "AGO", "TOOK", "BY", "WHY"}}
	now, unknown := time.Parse(time.RFC3339, v.Time)
	for _, d := range v.Verdicts[:min(len(v.Verdicts), verdictsShown)] {
		ago := ""
		if at, err := time.Parse(time.RFC3339, d.At); err == nil && unknown == nil {
			ago = brief(max(now.Sub(at).Round(time.Millisecond), 0))
		}
		why := slices.DeleteFunc([]string{tidy(d.Message), tidy(d.Reason)}, func(text string) bool { return text == "" })
		rows = append(rows, []string{
			tidy(d.Result), tidy(d.Ask), number(d.Generation), tidy(d.Build), ago, shortTime(d.Took),
			tidy(request{Cause: d.By, Who: d.Who}.by()), strings.Join(why, "; "),
		})
	}
	return rows
}
