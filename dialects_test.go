package main

// This file holds what hotwrap knows of other tools to what it has itself, and to the pages on them.

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestForeign: what another tool's option is called here is an option, and none of ours is refused as another's.
func TestForeign(t *testing.T) {
	for theirs, ours := range foreign {
		name := strings.TrimLeft(theirs, "-")
		if longName(name) != name || longOption(name) {
			t.Errorf("%s is hotwrap's own", theirs)
		}
		if strings.Contains(ours, "hotwrap status") { // with options of its own
			continue
		}
		for _, option := range optionsIn(ours) {
			if flagOf(option) == nil {
				t.Errorf("%s is said to be %s, which there is not", theirs, option)
			}
		}
		if err := foreignOption([]string{theirs + "=1"}); err == nil || remedyFor(err) != inOurWords(ours) {
			t.Errorf("%s: %v", theirs, err)
		}
	}
	for arg, name := range map[string]string{"-m10": "-m", "-bx": "-b", "-start=9": "-start", "-start": "-start", "--port=1": "--port"} {
		if err := foreignOption([]string{"-q", arg}); err == nil || err.Error() != "no such option "+name {
			t.Errorf("%s: %v", arg, err)
		}
	}
	for _, arg := range []string{"-qv", "-l8080", "-listen=8080", "-5", "-", "x", "-ux", "-stop-delay=3", "--listen=1"} {
		if err := foreignOption([]string{arg}); err != nil {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// standIn tells what a program finds in its place: its environment, its arguments, and which descriptors are sockets.
const standIn = `#!/bin/sh
env
echo "argument $*"
for n in 0 3 4 7 9; do
	test -S /dev/fd/$n && echo "descriptor $n is a socket"
done
exit 1
`

// writeProgram writes a file that can be run. No fork may carry it away while it is open for writing (ETXTBSY):
// golang.org/issue/22315.
func writeProgram(t *testing.T, name, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// runAt is a command of a page, run as it stands there but for the ports: they are whatever is free.
func runAt(t *testing.T, dir, command string) string {
	t.Helper()
	run := exec.Command("sh", "-c", portText.ReplaceAllString(command, "127.0.0.1:0"))
	run.Dir = dir
	run.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOTWRAP_RUNTIME_DIR="+dir)
	out, err := run.Output()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

var (
	portText    = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	programText = regexp.MustCompile(` -- (?:sh -c ')?(\S+)`)
)

// TestRecipes: each command in docs/dialects.md gives its program what the page says.
func TestRecipes(t *testing.T) {
	for _, row := range tableIn(t, "docs/dialects.md", "Recipes") {
		t.Run(row[0], func(t *testing.T) {
			t.Parallel()
			command, dir := strings.Trim(row[1], "`"), t.TempDir()
			program := programText.FindStringSubmatch(command)[1]
			writeProgram(t, filepath.Join(dir, program), standIn)
			found := runAt(t, dir, command)
			wants := strings.ReplaceAll(strings.ReplaceAll(row[2], "`", ""), "the socket", "a socket")
			for want := range strings.SplitSeq(wants, " and ") {
				line := "(?m)^" + strings.ReplaceAll(regexp.QuoteMeta(portText.ReplaceAllString(want, "PORT")), "PORT", `127\.0\.0\.1:[1-9]\d*`) + "$"
				if !regexp.MustCompile(line).MatchString(found) {
					t.Errorf("%s: nothing is %q in\n%s", command, want, found)
				}
			}
		})
	}
}
