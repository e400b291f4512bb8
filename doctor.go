package main

// This file is `hotwrap doctor`: what this machine, this user and this container permit.
//
// Its rules:
//   - What can be tried is tried; nothing is guessed from a version. What was tried leaves nothing behind.
//   - Only what hotwrap uses is looked at, and each finding says what it means for the user, and the remedy.
//   - A finding is no failure: only what no hotwrap can do without is one.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	doctorName  = "doctor"    // of an instance that is only tried
	doctorLimit = time.Second // for an answer from this machine itself
)

// fitness is how much of something is permitted here; a user sees these words.
type fitness string

const (
	fitOK      fitness = "ok"
	fitLimited fitness = "limited"
	fitNo      fitness = "no"
)

// finding is one line of what doctor found.
type finding struct {
	Result fitness `json:"result"`
	What   string  `json:"what"`
	Text   string  `json:"text"`
	Remedy string  `json:"remedy,omitempty"`
	vital  bool    // without it no hotwrap works
}

// examination is one run of `hotwrap doctor`.
type examination struct {
	environ []string
	group   string      // --control-group
	user    *credential // --user
	found   []finding
}

func (x *examination) add(result fitness, what, remedy, format string, args ...any) {
	x.found = append(x.found, finding{Result: result, What: what, Remedy: remedy, Text: fmt.Sprintf(format, args...)})
}

// vital adds that something is missing without which no hotwrap works.
func (x *examination) vital(what, remedy string, err error) {
	x.found = append(x.found, finding{Result: fitNo, What: what, Remedy: remedy, Text: err.Error(), vital: true})
}

// lacking adds what a missing permit means, and why it is missing.
func (x *examination) lacking(what, lost string, err error) {
	remedy, cause := "", err.Error()
	var m *missing
	if errors.As(err, &m) {
		remedy, cause = m.remedy, m.what
	}
	x.add(fitLimited, what, remedy, "%s: %s", lost, cause)
}

const doctorHelp = `Usage: hotwrap doctor [OPTION]... [--json]
       hotwrap doctor [OPTION]... [--json] -- PROGRAM [ARG]...

Without PROGRAM: what this machine, user and container permit.
With it: run it on spare ports, restart it three times under load, and say
what was lost, and why. Options are those of hotwrap; -l :0 gives it a socket.

Exit status: 0 nothing lost; 1 something was, or a restart failed;
124, 125, 126, 127 it could not be tried.
`

// doctorMain is `hotwrap doctor`.
func doctorMain(args, environ []string, stdout, stderr io.Writer) int {
	cfg, asJSON, err := parseDoctor(args, environ)
	switch {
	case err != nil:
		return report(stderr, err)
	case cfg.mode == modeHelp:
		_, _ = io.WriteString(stdout, doctorHelp)
		return 0
	case cfg.mode == modeVersion:
		_, _ = fmt.Fprintln(stdout, "hotwrap "+versionText())
		return 0
	case len(cfg.program) > 0:
		return tryMain(cfg, environ, asJSON, stdout, stderr)
	}
	x := &examination{environ: environ, group: cfg.controlGroup}
	if cfg.user != "" {
		if x.user, err = lookUpUser(cfg.user); err != nil {
			return report(stderr, usage("--user %q: %v", cfg.user, err))
		}
	}
	x.examine()
	writeFindings(stdout, x.found, asJSON)
	if slices.ContainsFunc(x.found, func(f finding) bool { return f.vital }) {
		return 1
	}
	return 0
}

// parseDoctor reads hotwrap's own options, for a program or for none, and --json.
func parseDoctor(args, environ []string) (cfg *config, asJSON bool, err error) {
	left, program := args, []string(nil)
	if cut := slices.Index(args, "--"); cut >= 0 {
		left, program = args[:cut], args[cut:]
	}
	asJSON = slices.Contains(left, "--json")
	left = slices.DeleteFunc(slices.Clone(left), func(arg string) bool { return arg == "--json" })
	if program != nil {
		cfg, err = parseArgs(append(left, program...), environ)
		return cfg, asJSON, err
	}
	if err := foreignOption(left); err != nil {
		return nil, false, err
	}
	cfg = &config{}
	rest, err := cfg.parseOptions(left, environ)
	if err == nil && len(rest) > 0 {
		err = &usageError{
			fmt.Sprintf("hotwrap doctor: %q is no option", rest[0]),
			"a program comes after --: hotwrap doctor -l :0 -- " + strings.Join(rest, " "),
		}
	}
	return cfg, asJSON, err
}

// writeFindings prints the findings, one on a line.
func writeFindings(out io.Writer, found []finding, asJSON bool) {
	if asJSON {
		writeJSON(out, struct {
			Version  string    `json:"version"`
			System   string    `json:"system"`
			Findings []finding `json:"findings"`
		}{versionText(), runtime.GOOS + "/" + runtime.GOARCH, found})
		return
	}
	width := 0
	for _, f := range found {
		width = max(width, len(f.What))
	}
	for _, f := range found {
		text := f.Text
		if f.Remedy != "" {
			text += "; " + f.Remedy
		}
		_, _ = fmt.Fprintf(out, "%-8s %-*s  %s\n", f.Result, width, f.What, plainASCII(text))
	}
}

func writeJSON(out io.Writer, v any) {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}

// plainASCII makes one line of plain ASCII.
func plainASCII(text string) string {
	text = strings.NewReplacer("µs", "us", "…", "...").Replace(text)
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}

// examine looks at everything.
func (x *examination) examine() {
	x.system()
	x.here()
	x.place()
	x.workersSockets()
	x.manager()
	x.unit()
}

// system says which one it is.
func (x *examination) system() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		x.add(fitLimited, "system", "", "cannot be named: %v", err)
		return
	}
	text := unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	if runtime.GOOS == "linux" {
		x.add(fitOK, "system", "", "%s", text)
		return
	}
	x.add(fitLimited, "system", "use --ready notify, or a program that says READY=1",
		"%s: a program cannot be seen to wait for connections, one second alive is enough", text)
}

// place tries where the control socket can be: the first that will do is used, and the better ones have a reason.
func (x *examination) place() {
	var reasons []string
	for i, base := range runtimeDirs(x.environ) {
		path, err := x.tryPlace(base)
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("not %s: %v", base, err))
			continue
		}
		result, remedy := fitOK, ""
		if i > 0 && x.namedDir() {
			result, remedy = fitLimited, "give us a directory of our own, closed to others"
		}
		x.add(result, "control", remedy, "%s", strings.Join(append([]string{"commands find it in " + filepath.Dir(path)}, reasons...), "; "))
		return
	}
	x.add(fitNo, "control", "HOTWRAP_RUNTIME_DIR=DIR, a directory of yours that is closed to others",
		"no command reaches a hotwrap, only HUP and TERM do; %s", strings.Join(reasons, "; "))
}

// namedDir tells whether the best directory is one that somebody chose for us.
func (x *examination) namedDir() bool {
	return getenv(x.environ, "HOTWRAP_RUNTIME_DIR") != "" || getenv(x.environ, "RUNTIME_DIRECTORY") != ""
}

// tryPlace opens a control socket in base and connects to it. The directory of the workers' sockets is made first: it
// keeps an empty base that was there before from being removed with the rest.
func (x *examination) tryPlace(base string) (string, error) {
	keep, err := tryNotifyDir(base, -1, -1)
	if err != nil {
		return "", err
	}
	defer keep.close()
	gid := -1
	if x.group != "" {
		if gid = accountGroup(x.group); gid < 0 {
			return "", fmt.Errorf("there is no group %q", x.group)
		}
	}
	i := &instance{name: doctorName, group: gid}
	if err := i.openIn(base, x.group, true); err != nil {
		return "", err
	}
	defer i.release()
	conn, err := net.DialTimeout("unix", i.path, doctorLimit)
	if err != nil {
		return "", causeOf(err)
	}
	_ = conn.Close()
	return i.path, nil
}

// workersSockets tries how a worker says that it is ready.
func (x *examination) workersSockets() {
	switch n, err := x.hearReady(); {
	case err != nil:
		x.add(fitLimited, "notify", "HOTWRAP_RUNTIME_DIR=DIR, a short path; until then --ready fd=N or alive=DUR",
			"a program cannot say READY=1: %v", err)
	case n.pid != os.Getpid():
		x.add(fitLimited, "notify", "", "a program can say READY=1, but this system does not tell who said it")
	default:
		x.add(fitOK, "notify", "", "a program can say READY=1, and only its own word counts")
	}
}

// hearReady opens a worker's socket, says READY=1 to it, and hears that.
func (x *examination) hearReady() (n notice, err error) {
	uid, gid := (&program{user: x.user}).owner()
	d, err := openNotifyDir(x.environ, uid, gid)
	if err != nil {
		return n, err
	}
	defer d.close()
	heard := make(chan notice, 1)
	s, err := d.listen(func(n notice, _ <-chan struct{}) bool {
		select {
		case heard <- n:
		default:
		}
		return true
	})
	if err != nil {
		return n, err
	}
	defer func() { _ = s.stop() }()
	if err := sayReady(s.path); err != nil {
		return n, err
	}
	limit := time.NewTimer(doctorLimit)
	defer limit.Stop()
	select {
	case n = <-heard:
		return n, nil
	case <-limit.C:
		return n, errors.New("what is sent does not arrive")
	}
}

// sayReady sends READY=1 as a program would.
func sayReady(path string) error {
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return causeOf(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "READY=1")
	return causeOf(err)
}

// manager says what hotwrap's own service manager wants.
func (x *examination) manager() {
	const what = "manager"
	path := getenv(x.environ, "NOTIFY_SOCKET")
	if path == "" {
		x.add(fitOK, what, "", "none (NOTIFY_SOCKET is not set): under systemd use Type=notify-reload")
		return
	}
	u, err := openUpward(x.environ)
	if err != nil {
		x.add(fitLimited, what, "NotifyAccess=main or all; the socket must be visible in here", "it does not learn when we are ready: %v", err)
		return
	}
	_ = u.close()
	text := "it learns when we are ready, restart and stop"
	if d := watchdogInterval(x.environ); d > 0 {
		text += "; it wants to hear from us every " + brief(d)
	}
	if n, err := inheritedCount(x.environ); err == nil && n > 0 {
		text += "; it hands over " + count(n, "socket")
	}
	x.add(fitOK, what, "", "%s", text)
}

// unit says what the systemd unit lacks that we are run in.
func (x *examination) unit() {
	u := readUnit(x.environ)
	if u == nil {
		return
	}
	needs := unitNeeds{told: getenv(x.environ, "NOTIFY_SOCKET") != "", sockets: 1, room: u.room(x.environ)}
	for _, base := range runtimeDirs(x.environ) {
		if path, err := x.tryPlace(base); err == nil {
			needs.place = path
			break
		}
	}
	if lacks := u.lacks(needs); len(lacks) > 0 {
		x.add(fitLimited, "unit", "docs/systemd.md has them all", "%s lacks %s", u.name, strings.Join(lacks, ", "))
		return
	}
	x.add(fitOK, "unit", "", "%s has what hotwrap needs", u.name)
}

// basics tries what every hotwrap does first.
func basics() error {
	for _, path := range []string{selfPath, os.DevNull} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("cannot use %q: %w", path, causeOf(err))
		}
	}
	return nil
}
