package main

// This file holds the documentation to the code: the option, signal and exit status tables of README.md,
// the help, and the page on the examples.

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// manOnly are options that the help leaves to the man page.
var manOnly = []string{"surge", "die-with-parent", "capture", "log-stamp"}

var optionText = regexp.MustCompile(`(?:^|[ ,\x60])(--?[A-Za-z][a-z-]*)`)

// docTable reads the first table below a heading of README.md: its rows without the head, each a list of cells.
func docTable(t *testing.T, heading string) (rows [][]string) {
	t.Helper()
	return tableIn(t, "README.md", heading)
}

// tableIn reads the first table below a heading of any page.
func tableIn(t *testing.T, page, heading string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut("\n"+string(text), "# "+heading+"\n")
	if !ok {
		t.Fatalf("no section %q", heading)
	}
	for line := range strings.Lines(section) {
		switch {
		case strings.HasPrefix(line, "|"):
			var cells []string
			for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
				cells = append(cells, strings.TrimSpace(cell))
			}
			rows = append(rows, cells)
		case len(rows) > 0 || strings.HasPrefix(line, "## "):
			if len(rows) < 3 {
				t.Fatalf("no table below %q", heading)
			}
			return rows[2:]
		}
	}
	return nil
}

// dashed is an option's name as it is typed.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// optionsIn lists the options that a text names.
func optionsIn(text string) (names []string) {
	for _, found := range optionText.FindAllStringSubmatch(text, -1) {
		names = append(names, found[1])
	}
	return names
}

// flagOf finds an option by any of its names.
func flagOf(name string) cli.Flag {
	for _, f := range (&config{}).options() {
		if slices.ContainsFunc(f.Names(), func(n string) bool { return dashed(n) == name }) {
			return f
		}
	}
	return nil
}

// TestOptionTable: README.md has every option, with its letter, and nothing else.
func TestOptionTable(t *testing.T) {
	var listed []string
	for _, row := range docTable(t, "Options") {
		names := optionsIn(row[0])
		listed = append(listed, names...)
		for _, name := range names {
			if flagOf(name) == nil && name != "--version" {
				t.Errorf("README.md has %s, hotwrap has not", name)
			}
		}
	}
	for _, f := range (&config{}).options() {
		if !slices.ContainsFunc(f.Names(), func(n string) bool { return slices.Contains(listed, dashed(n)) }) {
			t.Errorf("README.md has no --%s", f.Names()[0])
		}
		for _, letter := range f.Names()[1:] {
			if !slices.Contains(listed, dashed(letter)) {
				t.Errorf("README.md has no -%s for --%s", letter, f.Names()[0])
			}
		}
	}
}

// defaultsOf is the value of options that are not given.
func defaultsOf(t *testing.T, terminal bool) map[string]any {
	t.Helper()
	cfg := &config{terminal: terminal, program: []string{"true"}}
	if _, err := cfg.parseOptions(nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	return map[string]any{
		"ready-timeout": cfg.readyTimeout.d, "bake": cfg.bake.d, "drain-timeout": cfg.drainTimeout.d,
		"stop-delay": cfg.stopDelay.d, "stop-timeout": cfg.stopTimeout.d, "debounce": cfg.debounce.d,
		"ready": cfg.ready.String(), "respawn": cfg.respawn.String(), "log-format": cfg.logFormat, "adopt": cfg.adopt.String(),
		"no-overlap": cfg.noOverlap, "stdin": cfg.stdin, "die-with-parent": cfg.die, "clear": cfg.clear,
		"capture": cfg.capture, "log-stamp": cfg.logStamp,
	}
}

// docValue reads a default as README.md writes it.
func docValue(t *testing.T, text string, like any, all map[string]any) any {
	t.Helper()
	if name, ok := strings.CutPrefix(text, "--"); ok {
		return all[name]
	}
	switch like.(type) {
	case bool:
		return text == "on"
	case time.Duration:
		var d duration
		if err := d.Set(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		return d.d
	}
	return text
}

// TestOptionDefaults: README.md and the help have the defaults that hotwrap has, with and without a terminal.
func TestOptionDefaults(t *testing.T) {
	plain, terminal := defaultsOf(t, false), defaultsOf(t, true)
	for _, row := range docTable(t, "Options") {
		f := flagOf(slices.MaxFunc(optionsIn(row[0]), func(a, b string) int { return len(a) - len(b) }))
		if f == nil {
			continue
		}
		name := f.Names()[0]
		cell := strings.ReplaceAll(row[1], "`", "")
		if want, known := plain[name]; known && row[0] != "`-q`, `-v`" {
			texts := strings.Split(strings.Split(cell, ";")[0], ", ")
			last := texts[len(texts)-1]
			if got := docValue(t, texts[0], want, plain); got != want {
				t.Errorf("README.md: --%s is %q, hotwrap has %v", name, texts[0], want)
			}
			if got := docValue(t, last, want, terminal); got != terminal[name] {
				t.Errorf("README.md: --%s at a terminal is %q, hotwrap has %v", name, last, terminal[name])
			}
		}
		if _, known := plain[name]; known {
			helpDefault(t, name, cell)
		}
	}
}

// helpDefault compares the default in the help with that of README.md.
func helpDefault(t *testing.T, name, cell string) {
	t.Helper()
	found := regexp.MustCompile(` --` + name + `\b(?:[^-\n]|-[^-\n])* \[([^\]]+)\]\n`).FindStringSubmatch(helpText)
	if found != nil && found[1] != cell && found[1] != strings.Replace(cell, ", ", "; terminal: ", 1) {
		t.Errorf("the help has %q for --%s, README.md %q", found[1], name, cell)
	}
}

// TestOptionVariables: every option is read from its variable, which the program does not inherit.
func TestOptionVariables(t *testing.T) {
	for _, f := range (&config{}).options() {
		name := f.Names()[0]
		want := "HOTWRAP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		plain, cfg := &config{}, &config{}
		_, _ = plain.parseOptions(nil, nil)
		_, err := cfg.parseOptions(nil, []string{want + "=x,y"})
		if err == nil && reflect.DeepEqual(plain, cfg) {
			t.Errorf("%s does nothing", want)
		}
		if err != nil && !strings.HasPrefix(err.Error(), want+"=") {
			t.Errorf("%s: %v", want, err)
		}
		if kept := inherited([]string{want + "=1", want + "_X=1"}); len(kept) != 1 {
			t.Errorf("of %s the program inherits %v", want, kept)
		}
	}
}

// TestHelp: the help has every option but those of the man page, with its letter, and nothing else.
func TestHelp(t *testing.T) {
	_, options, _ := strings.Cut(helpText, "Sockets:")
	options = regexp.MustCompile(`'\w+ -\w'`).ReplaceAllString(options, "") // examples
	named := optionsIn(strings.ReplaceAll(options, "\n", " "))
	for _, name := range named {
		if flagOf(name) == nil && name != "--version" && name != "--some-option" {
			t.Errorf("the help has %s, hotwrap has not", name)
		}
	}
	for _, f := range (&config{}).options() {
		for _, n := range f.Names() {
			if slices.Contains(named, dashed(n)) == slices.Contains(manOnly, n) {
				t.Errorf("--%s: in the help %v, for the man page only %v", n, slices.Contains(named, dashed(n)), slices.Contains(manOnly, n))
			}
		}
	}
}

// TestStatusTable: README.md has hotwrap's exit statuses.
func TestStatusTable(t *testing.T) {
	var got []string
	for _, row := range docTable(t, "Exit status") {
		got = append(got, row[0])
	}
	want := []string{
		"the program's own", "0", "1", fmt.Sprint(statusNotReady), fmt.Sprint(statusFailed),
		fmt.Sprintf("%d, %d", statusNoExec, statusNotFound), "128+N",
	}
	if !slices.Equal(got, want) {
		t.Errorf("README.md has %q, want %q", got, want)
	}
}

// TestSignalTable: what README.md says that a signal does is what it asks for.
func TestSignalTable(t *testing.T) {
	words := map[signalEvent]string{
		signalRestart: "restart", signalStop: "stop", signalReopen: "reopen", signalReexec: "re-exec",
		signalMore: "more", signalFewer: "fewer",
	}
	named := map[signalEvent]int{}
	for _, row := range docTable(t, "Signals") {
		if row[0] == "others" {
			continue
		}
		for _, name := range strings.FieldsFunc(row[0], func(r rune) bool { return strings.ContainsRune(", /", r) }) {
			sig, err := parseSignal(name)
			if err != nil {
				t.Errorf("README.md: %v", err)
				continue
			}
			ev := eventOf(sig)
			named[ev]++
			if word := words[ev]; word == "" || !strings.Contains(row[1], word) {
				t.Errorf("README.md: %s does %q, hotwrap takes it for %q", name, row[1], ev)
			}
		}
	}
	for _, ev := range []signalEvent{signalRestart, signalStop} {
		want := 0
		for _, e := range signalEvents {
			if e == ev {
				want++
			}
		}
		if named[ev] != want {
			t.Errorf("README.md names %d signals for %s, hotwrap has %d", named[ev], ev, want)
		}
	}
}

// TestDeployStatuses: docs/deploy.md says for every status of hotwrap restart what to do.
func TestDeployStatuses(t *testing.T) {
	var got []string
	for _, row := range tableIn(t, "docs/deploy.md", "What to do on which status") {
		got = append(got, row[0])
	}
	var want []string
	for _, status := range []int{exitDone, exitFailed, exitUsage, exitNobody, exitUnknown, exitOther} {
		want = append(want, fmt.Sprint(status))
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/deploy.md has the statuses %q, want %q", got, want)
	}
}

// TestExamples: every example is named in docs/deploy.md, nothing else is, and a script runs it.
func TestExamples(t *testing.T) {
	var scripts strings.Builder
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		scripts.Write(text)
	}
	var named, there []string
	for _, row := range tableIn(t, "docs/deploy.md", "Deploying") {
		named = append(named, regexp.MustCompile(`\(\.\./(examples/.*?)\)`).FindStringSubmatch(row[0])[1])
	}
	err = filepath.WalkDir("examples", func(file string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && slices.Contains(containerExamples, file) {
			return fs.SkipDir
		}
		if err == nil && !entry.IsDir() {
			there = append(there, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(named)
	if !slices.Equal(named, there) {
		t.Errorf("docs/deploy.md names %q, there are %q", named, there)
	}
	for _, file := range there {
		if !strings.Contains(scripts.String(), "$EXAMPLES"+strings.TrimPrefix(file, "examples")) {
			t.Errorf("no script runs %s", file)
		}
	}
}

// TestDocLinks: what a page links to is there, and docs/README.md names every page.
func TestDocLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#: ]+)(?:#[^)]*)?\)`)
	indexed := map[string]bool{"README.md": true}
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), found[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
			if page == "docs/README.md" {
				indexed[found[1]] = true
			}
		}
	}
	for _, page := range pages {
		if !indexed[filepath.Base(page)] {
			t.Errorf("docs/README.md does not name %s", page)
		}
	}
}

// TestArchitecture: docs/architecture.md names every file of hotwrap but those for other systems, and no other.
func TestArchitecture(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	var named, there []string
	for _, found := range regexp.MustCompile("`([a-z]\\w*\\.go)`").FindAllStringSubmatch(string(text), -1) {
		if !strings.HasSuffix(found[1], "_test.go") {
			named = append(named, found[1])
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") && !strings.HasSuffix(file, "_other.go") {
			there = append(there, file)
		}
	}
	slices.Sort(named)
	if !slices.Equal(named, there) {
		t.Errorf("docs/architecture.md names\n%q, there are\n%q", named, there)
	}
}
