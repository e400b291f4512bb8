package main

// This file runs servers as they are, unmodified, by the very command lines and files of docs/programs.md.
//
// Its rules:
//   - A section of the page is a test: its first `sh` block is typed in, its named blocks are its files; only the port is
//     another, and --bake is 0.
//   - What the page's table says is held to: how the program is seen to be ready, and what may be lost.
//   - Nothing waits for time. A port belongs to one test from its first moment to its last.

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	programPage     = "docs/programs.md"
	programHeading  = "Programs as they are"
	programPort     = "8080" // on the page
	programRestarts = 10
	programCalm     = 100 // requests before the first restart,
	programBetween  = 200 // and after each
	programLines    = 60  // of the log, shown after a failure
)

// programNeeds are shell commands that must succeed where more is needed than the programs that a section types in.
var programNeeds = map[string]string{
	"nginx":      `test "$(id -u)" = 0`,                       // its directories are root's
	"Express":    "npm view express version",                  // from the registry
	"go-systemd": "cd testapps/activation && go mod download", // from the proxy
	"WEBrick":    "ruby -rwebrick -e ''",
}

// documented is one program of the page.
type documented struct {
	name    string
	by      string            // what it is ready by, of the first generation and of the others
	most    map[bool]float64  // share of the requests that may be lost, of new connections and of kept ones
	setup   []string          // commands before hotwrap's
	command string            // hotwrap's
	files   map[string]string // by name
}

// TestPrograms restarts every program of the page under load. With -v it prints the rows of the page's table.
func TestPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many servers")
	}
	for _, d := range documentedPrograms(t, programHeading) {
		t.Run(d.name, func(t *testing.T) {
			d.skipMissing(t)
			newProgramRun(t, d, programRestarts).run()
		})
	}
}

// skipMissing skips a program that is not here; where .ci/run has installed all of them, that is a failure.
func (d *documented) skipMissing(t *testing.T) {
	t.Helper()
	_, program, _ := strings.Cut(d.command, " -- ")
	absent := ""
	for _, command := range append(slices.Clone(d.setup), program) {
		if name := strings.Fields(command)[0]; absent == "" {
			if _, err := exec.LookPath(name); err != nil && !strings.Contains(name, "/") {
				absent = name
			}
		}
	}
	if needs := programNeeds[d.name]; absent == "" && needs != "" && exec.Command("sh", "-c", needs).Run() != nil {
		absent = needs
	}
	switch {
	case absent == "":
	case os.Getenv("HOTWRAP_TEST_ALL") != "":
		t.Fatalf("missing: %s", absent)
	default:
		t.Skipf("missing: %s", absent)
	}
}

// --- the page

var (
	programName  = regexp.MustCompile(`^\[(.+?)\]`)
	programLost  = regexp.MustCompile(`^([\d,]+) of [\d,]+(?:, under (\d+) %)?$`)
	programPath  = regexp.MustCompile(`-l unix:([^ ,]+)`)
	programFile  = regexp.MustCompile("^`([^`]+)`:$")
	programLink  = regexp.MustCompile("(?m)^\\* `([^`]+)`: .*\\[(.+)\\]\\((#|\\.\\./).*\\)$")
	programStart = regexp.MustCompile(`(?m)^hotwrap (?:.*\\\n)*.* -- (?:.*\\\n)*.*$`)
)

// documentedPrograms reads the table of a part of the page, and the section of each of its rows.
func documentedPrograms(t *testing.T, heading string) (all []*documented) {
	t.Helper()
	text, err := os.ReadFile(programPage)
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(text), "\n## "+heading+"\n")
	part, _, _ = strings.Cut(part, "\n## ")
	sections := strings.Split(part, "\n### ")[1:]
	rows := tableIn(t, programPage, heading)
	if len(rows) != len(sections) {
		t.Fatalf("%d rows, %d sections", len(rows), len(sections))
	}
	for i, row := range rows {
		d := &documented{by: row[1], most: map[bool]float64{}, files: map[string]string{}}
		title, section, _ := strings.Cut(sections[i], "\n")
		if found := programName.FindStringSubmatch(row[0]); found == nil || found[1] != title {
			t.Fatalf("row %q, section %q", row[0], title)
		}
		d.name = title
		for kept, cell := range map[bool]string{false: row[2], true: row[3]} {
			found := programLost.FindStringSubmatch(cell)
			if found == nil || found[1] != "0" && found[2] == "" {
				t.Fatalf("%s: %q is not of the form \"0 of N\" or \"N of N, under N %%\"", d.name, cell)
			}
			percent, _ := strconv.Atoi(found[2])
			d.most[kept] = float64(percent) / 100
		}
		d.read(t, section)
		for _, link := range programLink.FindAllStringSubmatch(section, -1) {
			d.files[link[1]] = fileBehind(t, string(text), link[2], link[3] == "#")
		}
		all = append(all, d)
	}
	return all
}

// linked is the first block of another section of the page, or else a file.
func fileBehind(t *testing.T, page, name string, section bool) string {
	t.Helper()
	if !section {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, rest, _ := strings.Cut(page, "\n## "+name+"\n")
	blocks := strings.SplitN(rest, "```", 3)
	if len(blocks) < 3 {
		t.Fatalf("no program under %q", name)
	}
	_, block, _ := strings.Cut(blocks[1], "\n")
	return block
}

// read takes the blocks of a section: the first of `sh`, and those that the line before names.
func (d *documented) read(t *testing.T, section string) {
	t.Helper()
	named, blocks := "", strings.Split(section, "```")
	for i := 0; i+1 < len(blocks); i += 2 {
		before := strings.Split(strings.TrimSpace(blocks[i]), "\n")
		if named = ""; programFile.MatchString(before[len(before)-1]) {
			named = programFile.FindStringSubmatch(before[len(before)-1])[1]
		}
		language, block, _ := strings.Cut(blocks[i+1], "\n")
		switch {
		case named != "":
			d.files[named] = block
		case language == "sh" && d.command == "":
			d.command = programStart.FindString(block)
			setup, _, _ := strings.Cut(block, d.command)
			d.setup = strings.FieldsFunc(setup, func(r rune) bool { return r == '\n' })
		}
	}
	if d.command == "" {
		t.Fatalf("%s: no line \"hotwrap … -- PROGRAM\" in a block of sh", d.name)
	}
}

// --- the run

// programRun is a hotwrap with such a program, and what the trial of `hotwrap doctor` makes of what is seen of it.
type programRun struct {
	*documented
	*tryout
	t       *testing.T
	home    string // where it is started, with its files
	port    string
	network string // what the clients connect to,
	addr    string // and where
	environ []string
	between int                                          // requests after each restart
	rounds  int                                          // restarts
	beside  func(ctx context.Context, target loadTarget) // starts clients of another kind, beside the load; nil none
	said    []string                                     // by hotwrap; whoever reads the log owns it until that has ended
}

// newProgramRun makes the surroundings: a directory with the files, a port.
func newProgramRun(t *testing.T, d *documented, rounds int) *programRun {
	dir := t.TempDir()
	p := &programRun{documented: d, t: t, home: filepath.Join(dir, "home"), port: holdPort(t), network: "tcp", rounds: rounds, between: programBetween}
	p.addr = net.JoinHostPort("127.0.0.1", p.port)
	if found := programPath.FindStringSubmatch(d.command); found != nil {
		p.network, p.addr = "unix", filepath.Join(p.home, found[1])
	}
	p.environ = append(os.Environ(), "HOTWRAP_RUNTIME_DIR="+filepath.Join(dir, "run"), "TMPDIR="+filepath.Join(dir, "tmp"),
		"HOTWRAP_LOG_FORMAT=json", "HOTWRAP_VERBOSE=true", "HOTWRAP_BAKE=0s", "HOTWRAP_NAME="+doctorName, "PYTHONDONTWRITEBYTECODE=1")
	p.tryout = newTryout(&config{}, p.environ)
	_, program, _ := strings.Cut(d.command, " -- ")
	p.seen.overlap, p.seen.signal = true, strings.TrimPrefix(signalName(stopSignalFor(strings.Fields(program))), "SIG")
	for _, open := range []string{filepath.Dir(dir), dir} { // workers of another user get here
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{p.home, filepath.Join(dir, "tmp")} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range d.files {
		if err := os.WriteFile(filepath.Join(p.home, name), []byte(p.local(text)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range d.setup {
		if out, err := p.shell(command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	return p
}

// holdPort returns a port on loopback that nobody else gets while the test runs: the port is bound here, too, but
// not listened on, and so SO_REUSEADDR lets another do that (socket(7)).
func holdPort(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(name.(*unix.SockaddrInet4).Port)
}

// local is a text of the page with the port of this run.
func (p *programRun) local(text string) string {
	return strings.ReplaceAll(text, programPort, p.port)
}

func (p *programRun) shell(command string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", p.local(command))
	cmd.Dir, cmd.Env = p.home, p.environ
	return cmd
}

// run is the whole course.
func (p *programRun) run() {
	before := p.files()
	p.start()
	p.await("generation 1", func() bool { return p.serving == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p.outcomes = p.load(ctx)
	p.requests(programCalm)
	for n := range p.rounds {
		p.restart(n)
		p.requests(p.between)
	}
	p.await("the end of the predecessors", func() bool { return len(p.gone) == p.rounds })
	cancel()
	p.await("the clients", func() bool { return p.outcomes == nil })
	p.over = true
	p.stop()
	p.await("the end of the log", func() bool { return p.lines == nil })
	if after := p.files(); !slices.Equal(before, after) {
		p.t.Errorf("files %q became %q", before, after)
	}
	if conn, err := net.Dial(p.network, p.addr); err == nil {
		conn.Close()
		p.t.Errorf("somebody still listens on %s", p.addr)
	}
	p.judge()
}

// load starts the clients, half of which keep their connections.
func (p *programRun) load(ctx context.Context) <-chan outcome {
	at := loadTarget{network: p.network, addr: p.addr, speaks: spokenHTTP}
	if strings.Contains(p.command, " php-fpm") {
		at.talk = cgi(filepath.Join(p.home, "index.php"))
	}
	if p.beside != nil {
		p.beside(ctx, at)
	}
	return startLoad(ctx, []loadTarget{at}, loadPatience)
}

// start types the command in. Its session is its own, by which all that it starts is known.
func (p *programRun) start() {
	r, w, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	defer w.Close()
	cmd := p.shell("exec " + p.command)
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	lines := make(chan logLine)
	p.lines, p.ended = lines, await(p.pid)
	go func() {
		defer close(lines)
		for l := range readLog(r) {
			p.said = append(p.said, l.Time.Format("05.000 ")+l.Msg+strings.TrimSpace(l.output))
			lines <- l
		}
	}()
	p.t.Cleanup(func() { // whatever happened
		for _, pid := range p.processes() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		for range lines {
			continue
		}
		if p.t.Failed() {
			p.t.Logf("the last lines:\n%s", strings.Join(p.said[max(len(p.said)-programLines, 0):], "\n"))
		}
	})
}

// await waits until done.
func (p *programRun) await(what string, done func() bool) {
	p.t.Helper()
	if err := p.wait(patience, done); err != nil {
		p.t.Fatalf("waiting for %s: %v", what, err)
	}
}

// requests lets the clients make so many more.
func (p *programRun) requests(n int) {
	p.t.Helper()
	enough := p.seen.Requests + n
	p.await("requests", func() bool { return p.seen.Requests >= enough })
}

// restart is one `hotwrap restart`. Predecessors may still be there.
func (p *programRun) restart(n int) {
	p.t.Helper()
	from := p.serving
	p.seen.turns = append(p.seen.turns, turn{from: from, asked: time.Now()})
	p.answer = nil
	go func() {
		cmd := p.shell("exec hotwrap restart")
		out, err := cmd.CombinedOutput()
		p.answers <- restartAnswer{done: err == nil, reason: fmt.Sprintf("%v\n%s", err, out)}
	}()
	p.await("hotwrap restart", func() bool { return p.answer != nil })
	if !p.answer.done {
		p.t.Fatalf("restart %d: %s", n+1, p.answer.reason)
	}
	p.await("the next generation", func() bool { return p.serving > from })
}

// stop is TERM; nobody is left after it.
func (p *programRun) stop() {
	p.t.Helper()
	syscall.Kill(p.pid, syscall.SIGTERM)
	err := p.wait(patience, p.never)
	if p.status == nil {
		p.t.Fatalf("after TERM: %v", err)
	}
	if p.status.shell() != 0 {
		p.t.Errorf("exit status %d", p.status.shell())
	}
	for _, pid := range p.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		p.t.Errorf("process %d was left: %q", pid, line)
	}
}

// processes are those of hotwrap's session, and any other that works in its directory.
func (p *programRun) processes() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, _ := os.ReadFile(file)
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest) // state, parent, group, session: proc_pid_stat(5)
		if len(fields) < 4 || fields[0] == "Z" {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join(filepath.Dir(file), "cwd"))
		if fields[3] == strconv.Itoa(p.pid) || cwd == p.home {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// files are all files of the run: the program's own, temporary ones, and hotwrap's.
func (p *programRun) files() (names []string) {
	_ = filepath.WalkDir(filepath.Dir(p.home), func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, path)
		}
		return nil
	})
	return names
}

// judge holds what was seen to what the page says.
func (p *programRun) judge() {
	hows, drain := []string{p.first.by}, time.Duration(0)
	for _, s := range p.seen.turns {
		drain = max(drain, s.end())
		if s.by != hows[len(hows)-1] {
			hows = append(hows, s.by)
		}
		if !s.killed.IsZero() {
			p.t.Errorf("generation %d did not end, and was killed", s.from)
		}
	}
	if how := strings.Join(hows, ", then "); how != p.by {
		p.t.Errorf("ready by %q, the page says %q", how, p.by)
	}
	cells := ""
	for _, kept := range []bool{false, true} {
		kinds, all := kindsOf(p.seen.losses, kept), p.seen.Requests-p.seen.Kept
		if kept {
			all = p.seen.Kept
		}
		lost := 0
		for _, n := range kinds {
			lost += n
		}
		if lost > 0 && float64(lost) >= p.most[kept]*float64(all) {
			p.t.Errorf("lost, kept %v: %d of %d %v; the page says less than %v", kept, lost, all, kinds, p.most[kept])
		}
		cells += fmt.Sprintf(" | %s of %s", thousands(lost), thousands(all))
	}
	p.t.Logf("| %s | %s%s | an answer took %s, a drain %s", p.name, strings.Join(hows, ", then "), cells, brief(p.seen.slowest), brief(drain))
	if p.seen.errorsDuring+p.seen.errorsBefore > 0 {
		p.t.Errorf("%d answers of 500 and above", p.seen.errorsDuring+p.seen.errorsBefore)
	}
	for status := range p.seen.statuses {
		if status != 200 && status != 0 {
			p.t.Errorf("answers with %d", status)
		}
	}
	for _, text := range p.complaints {
		p.t.Errorf("hotwrap said: %s", text)
	}
	if p.own > 0 {
		p.t.Errorf("%d requests that the clients could not make", p.own)
	}
}
