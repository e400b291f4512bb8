package main

// This file says a verdict in words, for people and for the logs of those who deploy.
//
// Its rules: plain lines on standard error; the last but for the program's own says what serves now. What came from
// elsewhere is printed without its control characters. Nothing is run that the other end could have chosen.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	wordsShown   = 20              // of the program's last lines that are shown
	wordLength   = 500             // runes of each
	textMost     = 4000            // runes of any other line
	journalLimit = 2 * time.Second // for journalctl to have said them
)

// status is the exit status for a verdict.
func (v verdictView) status() int {
	switch {
	case v.Ask == askStop && v.Result == stopped && v.Exit == 0, v.Ask != askStop && v.Result == promoted, v.Result == signalled, v.Result == reexeced:
		return exitDone
	case v.Ask == askStop, v.Result == failed:
		return exitFailed
	case v.Result == superseded, v.Result == stopped:
		return exitOther
	}
	return exitUnknown
}

// words is a verdict in one line.
func (v verdictView) words() string {
	after := ""
	if took := shortTime(v.Took); took != "" {
		after = " after " + took
	}
	switch v.Result {
	case promoted:
		return fmt.Sprintf("generation %d serves%s%s", v.Generation, inParentheses("build ", v.Build), after) + because(v.Reason)
	case failed:
		if v.Ask == askReexec {
			return "cannot re-exec" + because(v.Reason) + "; the old hotwrap goes on, and the program was not touched"
		}
		return v.failure() + v.serves()
	case superseded:
		return "superseded" + because(v.Reason) + v.serves()
	case stopped:
		if v.Ask == askStop {
			return "stopped" + after + because(v.Reason)
		}
		if v.Ask == askReexec {
			return "not re-executed" + because(v.Reason)
		}
		return "no " + string(v.Ask) + because(v.Reason)
	case reexeced:
		return "re-executed; the program was not restarted"
	case signalled:
	}
	return string(v.Result) + because(v.Reason)
}

// failure says what failed, how far it had come, and why.
func (v verdictView) failure() string {
	if v.Generation == 0 {
		return string(v.Ask) + " failed" + because(v.Reason)
	}
	reason, when := v.Reason, ""
	for stage, words := range map[string]string{", before ready": " while starting", ", while baking": " while baking", ", during the canary": " during the canary"} {
		if short, ok := strings.CutSuffix(reason, stage); ok {
			reason, when = short, words
		}
	}
	return fmt.Sprintf("generation %d failed%s%s", v.Generation, when, because(reason))
}

// serves says who serves after a failure.
func (v verdictView) serves() string {
	switch {
	case v.Serving == 0 && v.Again != 0:
		return fmt.Sprintf("; generation %d is started again", v.Again)
	case v.Serving == 0:
		return "; nothing serves"
	}
	return fmt.Sprintf("; generation %d serves on%s", v.Serving, inParentheses("build ", v.ServingBuild))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func inParentheses(what, value string) string {
	if value == "" {
		return ""
	}
	return " (" + what + value + ")"
}

// tell prints a verdict, and returns it as it was understood.
func (a *asker) tell(raw json.RawMessage) verdictView {
	var v verdictView
	_ = json.Unmarshal(raw, &v) // what an older hotwrap does not say is empty
	v.Ask = ask(a.verb.name())
	if a.json {
		var line bytes.Buffer
		if json.Compact(&line, raw) == nil {
			_, err := a.stdout.Write(append(line.Bytes(), '\n'))
			a.unwritten(err)
		}
		return v
	}
	switch v.status() {
	case exitDone:
		a.say("", "%s", v.words())
	default:
		a.say("error", "%s", v.words())
	}
	if v.Result == failed {
		a.lastWords(v)
	}
	return v
}

// lastWords prints the program's last lines, or how to find them.
func (a *asker) lastWords(v verdictView) {
	switch {
	case len(v.Output) > 0:
		a.indented("the program's last lines"+inParentheses("", sourceOf(v.OutputFrom)), v.Output)
	case v.OutputHint != "":
		if argv := journalCommand(v.OutputHint); argv != nil {
			if lines := runJournal(argv); len(lines) > 0 {
				a.indented(v.OutputHint, lines)
				return
			}
		}
		a.say("hint", "the program's last lines: %s", v.OutputHint)
	}
}

// sourceOf words where lines are from.
func sourceOf(from string) string {
	if from == "capture" {
		return "captured"
	}
	return from
}

func (a *asker) indented(head string, lines []string) {
	a.say("", "  %s:", head)
	for _, line := range lines[max(0, len(lines)-wordsShown):] {
		_, _ = io.WriteString(a.stderr, "    "+tamed(line, wordLength)+"\n")
	}
}

// journalQuery is the one command that hotwrap hints at: what runs here is chosen by nobody else.
var journalQuery = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^journalctl _PID=([0-9]{1,10})\b`) })

// journalCommand is how to ask the journal for a process's last lines; nil if the hint says nothing of it.
func journalCommand(hint string) []string {
	found := journalQuery().FindStringSubmatch(hint)
	if found == nil {
		return nil
	}
	return []string{"journalctl", "_PID=" + found[1], "-n", fmt.Sprint(wordsShown), "--no-pager", "-q", "-o", "cat"}
}

// runJournal returns what journalctl says, if it is there and says it soon.
func runJournal(argv []string) []string {
	path, err := (&program{}).find(argv[0], os.Environ())
	if err != nil {
		return nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil
	}
	defer func() { _ = read.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = write.Close()
		return nil
	}
	p, err := os.StartProcess(path, argv, &os.ProcAttr{Files: []*os.File{null, write, null}})
	_, _ = write.Close(), null.Close()
	if err != nil {
		return nil
	}
	_ = read.SetReadDeadline(time.Now().Add(journalLimit))
	text, _ := io.ReadAll(io.LimitReader(read, streamLineMost))
	_ = p.Kill()
	_, _ = p.Wait()
	var lines []string
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	return lines
}

// say prints one line; level is "", hint, warning or error.
func (a *asker) say(level, format string, args ...any) {
	line := tamed(fmt.Sprintf(format, args...), textMost) + "\n"
	if level != "" {
		line = "hotwrap: " + level + ": " + line
	}
	_, _ = io.WriteString(a.stderr, line)
}

func (a *asker) printJSON(v any) {
	text, err := json.Marshal(v)
	if err == nil {
		_, err = a.stdout.Write(append(text, '\n'))
	}
	a.unwritten(err)
}

// unwritten tells of an answer that could not be written. The exit status is about hotwrap, not about that, and who
// stops reading wants no more.
func (a *asker) unwritten(err error) {
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		a.say("error", "cannot write to standard output: %v", causeOf(err))
	}
}
